"""Which candidates a step trains on: the pool, the student's divergence from the teacher on it, the selector's choice.

Divergences of stored candidates are kept between epochs (`refresh`), so a checkpoint holds them; texts generated for
one step are scored in that step. In several processes each chooses for its own originals, whose random numbers are
theirs alone; what was scored is exchanged once an epoch, and only where a later epoch uses it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from augkd.distill.adversary.ascent import Adversary
from augkd.distill.arguments import DistillationArguments
from augkd.distill.dataset import DistillationDataset
from augkd.distill.parallel import Ranks
from augkd.distill.statistics import SelectionStatistics
from augkd.distill.trace import SelectionTrace
from augkd.models.classifier import Classifier
from augkd.models.norms import rounded_norms
from augkd.models.seeds import RowRandom
from augkd.models.tokens import Tokens
from augkd.selection.divergence import divergence
from augkd.selection.pool import Batch, Pool
from augkd.selection.selectors import SCORED, SELECTORS, in_turn


@dataclass(frozen=True)
class Scorer:
    """Asks the student about candidates: in eval mode, so that dropout adds no noise, rounding as in train mode."""

    student: Classifier
    token_budget: int | None = None  # padded tokens per forward pass; None: what suits the device

    @torch.no_grad()
    def logits(self, tokens: Tokens) -> Tensor:  # (n, outputs), on the CPU
        """The student's logits, without gradients; the previous mode is restored."""
        training = self.student.model.training
        self.student.model.eval()
        with rounded_norms(self.student.model, evaluating=True):
            logits = self.student.logits(tokens, "scoring", self.token_budget, without_padding=True).cpu()
        self.student.model.train(training)
        return logits


class Choice:
    """The selection of one stage of training, with the divergences it remembers."""

    def __init__(
        self,
        args: DistillationArguments,
        data: DistillationDataset,
        adversary: Adversary | None,
        trace: SelectionTrace | None,
        ranks: Ranks,
    ):
        """`adversary` adds candidates to every pool; `trace` records the choice among the stored ones."""
        ((self._selector, self._options),) = args.selector.items()
        self._args, self._adversary, self._activation = args, adversary, data.target.activation
        self._most = data.most + (adversary.samples if adversary else 0)
        # of each stored candidate, as last scored; nan: never
        self._divergences = torch.full((len(data.candidate_tokens),), torch.nan)
        self._own = torch.zeros(len(data.candidate_tokens), dtype=torch.bool)  # scored here since the last exchange
        self._ranks = ranks
        self.trace = trace
        self.statistics = SelectionStatistics(data.source_names, data.source, adversary is not None)

    @property
    def kept(self) -> int:
        """The most candidates of an original in a step: each of them weighs as one share of that many."""
        return max(1, min(int(self._options.get("keep", self._most)), self._most))

    def candidates(self, batch: Batch, epoch: int, scorer: Scorer) -> Pool:
        """The chosen candidates of a batch."""
        seed, rows = self._args.seed, batch.rows.tolist()
        pool = batch.pool
        if self._adversary is not None:
            pool = pool.join(self._adversary.pool(batch, RowRandom((seed, epoch, 2), rows), self._args.token_budget))
        if scored := self._options.get("of", 0):
            pool = pool.take(in_turn(pool, RowRandom((seed, 6), rows), epoch, scored))
        if len(pool) == 0:
            return pool
        values = self._divergence(pool, epoch, scorer) if self._selector in SCORED else None
        key = torch.zeros(len(pool)) if values is None else values
        rng = RowRandom((seed, 5), rows)
        chosen = SELECTORS[self._selector](key, pool, rng, epoch, **self._options)
        self.statistics.add(values, pool, chosen)
        if self.trace is not None:
            self.trace.record(epoch, pool.row, values, pool.row[chosen])
        return pool.take(chosen)

    def _divergence(self, pool: Pool, epoch: int, scorer: Scorer) -> Tensor:  # (n,)
        """The divergence of every candidate: new every `refresh` epochs, else as last scored; of new texts always."""
        stored = pool.row >= 0
        values = torch.full((len(pool),), torch.nan)
        if epoch % self._args.refresh != 0:
            values[stored] = self._divergences[pool.row[stored]]
        rows = values.isnan().nonzero().flatten()
        if len(rows):
            logits = scorer.logits(pool.tokens.take(rows))
            values[rows] = divergence(logits, pool.teacher[rows], self._args.selection_temperature, self._activation)
            self._divergences[pool.row[stored]] = values[stored]
            self._own[pool.row[stored]] = True
        return values

    def begin_epoch(self, epoch: int) -> None:
        """Exchanges what was scored, where this epoch uses it: its originals may be another process's now."""
        if epoch % self._args.refresh != 0:
            self._exchange()

    def _exchange(self) -> None:
        if self._ranks.count == 1:
            return
        scored = self._ranks.sum(self._own.float())  # 1: by one process, and no candidate by two
        values = self._ranks.sum(torch.where(self._own, self._divergences, 0.0))
        self._divergences = torch.where(scored > 0, values / scored.clamp_min(1), self._divergences)
        self._own.fill_(False)

    def state(self) -> dict[str, Tensor]:
        """For a checkpoint: the divergences, and the trace where there is one."""
        self._exchange()
        return {"divergence": self._divergences} | (self.trace.state(self._ranks) if self.trace is not None else {})

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continues from a checkpoint."""
        self._divergences = state["divergence"]
        if self.trace is not None:
            self.trace.load_state(state)
