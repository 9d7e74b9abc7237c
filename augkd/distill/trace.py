"""The trace of the selection: the divergence of each candidate in each epoch, and whether it was picked.

The trainer records a batch at a time in a `SelectionTrace`; the frozen `Trace` it ends in is saved beside the student,
and the report shows it. The course of a candidate over the epochs is what the report shows, so above the bound whole
originals are left out, drawn by a seed, never epochs. Texts generated for a step are not in the transfer set and leave
no trace.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from augkd.errors import WorkspaceError
from augkd.workspace.files import replacing

if TYPE_CHECKING:
    from torch import Tensor

    from augkd.distill.parallel import Ranks

CELLS = 16_000_000  # epochs × candidates kept, 3 bytes each: 48 MB. 5,000 originals × 8 fit for 400 epochs
_LARGEST = float(np.finfo(np.float16).max)  # 65504: a squared error of logits may be larger, a KL is not
_STATE = ("trace.divergence", "trace.picked")
_TENSORS = ("divergence", "picked", "candidates", "stages", "total")


@dataclass(frozen=True)
class Trace:
    """A finished trace; its epochs are those of all stages, one stage after another."""

    divergence: NDArray[np.float16]  # (epochs, kept), nan: not scored
    picked: NDArray[np.uint8]  # (epochs, kept), 1: the student was trained on it
    candidates: NDArray[np.int64]  # (kept,) positions among all candidates of the transfer set, ascending
    stages: NDArray[np.int64]  # (stages,) epochs of each stage
    total: int  # number of candidates of the transfer set

    @classmethod
    def join(cls, traces: Sequence[Trace]) -> Trace:
        """The stages of one training as one trace."""
        first = traces[0]
        same = all(np.array_equal(first.candidates, trace.candidates) for trace in traces)
        assert same, "traces of different transfer sets"
        return cls(
            np.concatenate([trace.divergence for trace in traces]),
            np.concatenate([trace.picked for trace in traces]),
            first.candidates,
            np.concatenate([trace.stages for trace in traces]),
            first.total,
        )

    def write(self, path: Path) -> None:
        """Writes safetensors, whole or not at all; the same trace gives the same bytes."""
        tensors: dict[str, NDArray[Any]] = {name: getattr(self, name) for name in _TENSORS[:-1]}
        tensors = {name: np.ascontiguousarray(values) for name, values in tensors.items()}
        with replacing(path) as temporary:
            # the total as a tensor, because the order of metadata entries in a safetensors file is not fixed
            save_file(tensors | {"total": np.array([self.total])}, temporary)

    @classmethod
    def read(cls, path: Path) -> Trace:
        """Raises WorkspaceError when the file is missing or not a trace."""
        try:
            tensors = load_file(path)
            values = [tensors[name] for name in _TENSORS]
        except (OSError, SafetensorError, KeyError, ValueError) as exc:
            raise WorkspaceError(
                f"{path} is not a selection trace ({exc}); remove the student folder and run again"
            ) from exc
        divergence, picked, candidates, stages, total = values
        count = int(total.reshape(-1)[0]) if total.size and total.dtype == np.int64 else -1
        trace = cls(divergence, picked, candidates, stages, count)
        if not trace.consistent:
            raise WorkspaceError(f"{path} is not a selection trace; remove the student folder and run again")
        return trace

    @property
    def consistent(self) -> bool:
        """Whether shapes, types and positions fit each other, as in every trace that augkd writes."""
        kinds = [array.dtype for array in (self.divergence, self.picked, self.candidates, self.stages)]
        if kinds != [np.float16, np.uint8, np.int64, np.int64] or self.candidates.ndim != 1 or self.stages.ndim != 1:
            return False
        cells = (int(self.stages.sum()), len(self.candidates))
        ascending = bool((np.diff(self.candidates, prepend=-1) > 0).all()) and min(self.total, *self.stages, 0) == 0
        inside = not len(self.candidates) or int(self.candidates[-1]) < self.total
        return self.divergence.shape == self.picked.shape == cells and ascending and inside


class SelectionTrace:
    """The trace of a stage in training. Takes 3 bytes for each of at most `cells` cells, and 4 bytes per candidate."""

    def __init__(
        self,
        start: Tensor,  # (originals + 1,) position of each original's first candidate; the last one is the total
        epochs: int,  # of this stage
        *,
        planned: int | None = None,  # epochs of all stages, which the bound is for; None: `epochs`
        seed: int = 0,
        cells: int = CELLS,
    ):
        starts = start.cpu().numpy()
        self._total = int(starts[-1])
        self._kept = _kept(starts, max(1, planned or epochs), seed, cells)
        self._column = np.full(self._total, -1, dtype=np.int32)
        self._column[self._kept] = np.arange(len(self._kept), dtype=np.int32)
        self._divergence = np.full((epochs, len(self._kept)), np.nan, dtype=np.float16)
        self._picked = np.zeros((epochs, len(self._kept)), dtype=np.uint8)

    def record(self, epoch: int, rows: Tensor, divergence: Tensor | None, picked_rows: Tensor) -> None:
        """Records the candidates `rows` (n,) of `epoch` (from 0), their divergences (n,) if scored, and those picked.

        Rows are positions among all candidates of the transfer set; negative ones (texts generated for this step) and
        those outside the sample are skipped. An earlier record of a candidate in the same epoch is overwritten.
        """
        assert epoch < len(self._picked), f"epoch {epoch} of a trace of {len(self._picked)}"
        columns, kept = self._columns(rows)
        self._picked[epoch, columns] = 0
        self._picked[epoch, self._columns(picked_rows)[0]] = 1
        if divergence is not None:
            values = divergence.detach().float().cpu().numpy()[kept]
            self._divergence[epoch, columns] = np.minimum(values, _LARGEST)

    def result(self, ranks: Ranks | None = None) -> Trace:
        """The trace up to the last recorded epoch, of all `ranks`: a training may stop early."""
        divergence, picked = (values.numpy() for values in self.state(ranks).values())
        recorded = picked.any(axis=1) | ~np.isnan(divergence).all(axis=1)
        epochs = int(np.flatnonzero(recorded).max()) + 1 if recorded.any() else 0
        return Trace(divergence[:epochs].copy(), picked[:epochs].copy(), self._kept, np.array([epochs]), self._total)

    def state(self, ranks: Ranks | None = None) -> dict[str, Tensor]:
        """For a checkpoint: copies, with names that start with `trace.`; of all `ranks`, each of which recorded a part.

        What one recorded is nan and 0 in the others, or the same where an earlier checkpoint held it.
        """
        import torch

        divergence, picked = torch.tensor(self._divergence), torch.tensor(self._picked)
        if ranks is not None and ranks.count > 1:
            divergence = ranks.largest(divergence.nan_to_num(nan=-torch.inf, posinf=torch.inf))
            divergence = torch.where(divergence == -torch.inf, torch.nan, divergence)
            picked = ranks.largest(picked)
        return dict(zip(_STATE, (divergence, picked), strict=True))

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continues from a checkpoint; raises WorkspaceError when its trace has other epochs or candidates."""
        if not set(_STATE) <= set(state) or any(tuple(state[name].shape) != self._picked.shape for name in _STATE):
            raise WorkspaceError(
                f"the checkpoint holds no selection trace of {self._picked.shape[0]} epochs and "
                f"{self._picked.shape[1]} candidates; remove the student folder and run again"
            )
        self._divergence, self._picked = (state[name].cpu().numpy().copy() for name in _STATE)

    def _columns(self, rows: Tensor) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        """The columns of the rows that are kept, and which of the rows those are."""
        positions = rows.cpu().numpy()
        columns = np.where(positions < 0, -1, self._column[np.maximum(positions, 0)]) if self._total else np.full(0, -1)
        kept = columns >= 0
        return columns[kept], kept


def _kept(starts: NDArray[np.int64], epochs: int, seed: int, cells: int) -> NDArray[np.int64]:
    """The candidates of all originals, or of as many drawn originals as `cells` can hold, ascending."""
    if epochs * int(starts[-1]) <= cells:
        return np.arange(int(starts[-1]))
    drawn = np.random.default_rng(seed).permutation(len(starts) - 1)
    counts = np.diff(starts)
    fit = np.cumsum(counts[drawn]) * epochs <= cells
    chosen = np.zeros(len(counts), dtype=bool)
    chosen[drawn[fit]] = True
    return np.flatnonzero(np.repeat(chosen, counts))
