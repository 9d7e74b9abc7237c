"""The selection since the last log entry in numbers: divergence of the pool and of the choice, share of each source."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from augkd.candidates.generator.generator import SOURCE as GENERATED
from augkd.distill.parallel import ALONE, Ranks
from augkd.selection.pool import Pool


class SelectionStatistics:
    """Sums over the chosen candidates, until they are taken."""

    def __init__(self, sources: Sequence[str], source: Tensor, generated: bool):
        """`source` (m,) is the position in `sources` of each candidate of the transfer set; `generated`: a generator
        adds candidates that are not in it.
        """
        self._names = [*sources, GENERATED] if generated else list(sources)
        self._source = torch.cat([source, torch.tensor([len(sources)])])  # a generated text has row -1: the last
        self._counts: Counter[str] = Counter()
        self._sums: dict[str, float] = defaultdict(float)
        self._scored = False

    def add(self, values: Tensor | None, pool: Pool, chosen: Tensor) -> None:
        """Adds a step: the pool's divergences (None: not scored), and the positions chosen from it."""
        self._scored = values is not None
        self._add("similarity", pool.score[chosen])
        self._add("divergence_picked", values[chosen] if values is not None else torch.zeros(len(chosen)))
        self._add("divergence_pool", values if values is not None else torch.zeros(0))
        source = self._source[pool.row[chosen]]
        for number, name in enumerate(self._names):
            picked = chosen[source == number]
            self._add(name, values[picked] if values is not None else torch.zeros(len(picked)))

    def take(self, ranks: Ranks = ALONE) -> dict[str, float]:
        """The means since the last call, as metrics, over all `ranks`; by source where there are several.

        {} when nothing was chosen.
        """
        self.load_state(self.state(ranks))
        if not (picked := self._counts["divergence_picked"]):
            return {}
        metrics = {"selection/similarity": self._mean("similarity")}
        if self._scored:
            metrics |= {f"selection/{name}": self._mean(name) for name in ("divergence_picked", "divergence_pool")}
        for name in self._names if len(self._names) > 1 else ():
            metrics[f"selection/share/{name}"] = self._counts[name] / picked
            if self._scored and self._counts[name]:
                metrics[f"selection/divergence/{name}"] = self._mean(name)
        self._counts.clear()
        self._sums.clear()
        return metrics

    def state(self, ranks: Ranks = ALONE) -> dict[str, Tensor]:
        """For a checkpoint: counts and sums by name, of all `ranks` together."""
        numbers = {f"{name}/sum": value for name, value in self._sums.items()} | {"scored": float(self._scored)}
        total = ranks.total(numbers | self._counts)
        names = [name for name in total if f"{name}/sum" in total]
        pairs = {f"sum/{name}": [total[name], total[f"{name}/sum"]] for name in names}
        sums = {name: torch.tensor(pair, dtype=torch.float64) for name, pair in pairs.items()}
        return {"scored": torch.tensor(total["scored"] > 0), **sums}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continues from `state`."""
        self._scored = bool(state["scored"])
        sums = {name.removeprefix("sum/"): value for name, value in state.items() if name != "scored"}
        self._counts = Counter({name: int(value[0]) for name, value in sums.items()})
        self._sums = defaultdict(float, {name: float(value[1]) for name, value in sums.items()})

    def _add(self, name: str, values: Tensor) -> None:
        self._counts[name] += len(values)
        self._sums[name] += float(values.sum())

    def _mean(self, name: str) -> float:
        return self._sums[name] / self._counts[name]
