"""The loss of one training step: a function of the student that forwards the step's rows and weighs their losses.

Calling it again is another forward pass over the same rows in the same groups, which is all that FreeLB needs to know.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from augkd.distill.objective.layer_objective import LayerObjective
from augkd.distill.objective.matching import Matched, MatchedMeans, matching
from augkd.distill.objective.objective import Objective
from augkd.models.classifier import Classifier
from augkd.models.tokens import RowGroups, Tokens
from augkd.selection.pool import Batch, Pool


@dataclass(frozen=True)
class StepRows:
    """The rows of one step: the originals of a batch, then the chosen candidates."""

    tokens: Tokens  # n rows
    groups: RowGroups  # of `tokens`, for every pass of the step
    teacher: Tensor  # (n, outputs) logits
    labels: Tensor  # (n,), missing for candidates
    weights: Tensor  # (n,) 1 for an original
    owner: Tensor  # (n,) the original that each row belongs to, by its place in the batch

    @classmethod
    def of(cls, batch: Batch, chosen: Pool, *, missing: float, candidate_weight: float, token_budget: int) -> StepRows:
        """`missing` is the label of a candidate, `candidate_weight` the weight of one candidate."""
        tokens = batch.tokens.join(chosen.tokens)
        weights = torch.ones(len(tokens))
        weights[len(batch.tokens) :] = candidate_weight
        return cls(
            tokens,
            RowGroups.of(tokens, token_budget),
            torch.cat([batch.teacher, chosen.teacher]),
            torch.cat([batch.labels, batch.labels.new_full((len(chosen), *batch.labels.shape[1:]), missing)]),
            weights,
            torch.cat([torch.arange(len(batch.tokens)), chosen.owner]),
        )


@dataclass(frozen=True)
class LayerTargets:
    """What the layers of a step's rows are compared with, and where the metrics of the comparison go."""

    objective: LayerObjective
    teacher: Tensor | Classifier  # stored vectors of the rows, (n, needed layers, d), or the live teacher
    epoch: int
    means: MatchedMeans


@dataclass(frozen=True)
class StepLoss:
    """Forwards the rows of a step and adds up their weighted losses; `loss()` is one pass."""

    student: Classifier
    rows: StepRows
    objective: Objective
    layers: LayerTargets | None
    originals: int  # of the whole accumulated step, in all processes: what the sum is divided by
    progress: float  # share of the training that is done, in [0, 1]

    def __call__(self) -> Tensor:  # ()
        """One forward pass, weighed."""
        assert self.student.model.training, "a training step in eval mode: dropout would be off"
        with self._matching() as matched:
            logits = self.student.logits(
                self.rows.tokens, "training", groups=self.rows.groups, without_padding=self._packs
            )
        losses = self.objective(logits, self.rows.teacher, self.rows.labels, self.progress)
        if self.layers is not None:
            assert matched is not None
            losses = losses + matched.losses
            self.layers.means.add(matched)
        return (self.rows.weights.to(losses.device) * losses).sum() / self.originals

    @property
    def _packs(self) -> bool:
        """Whether padding can be left out: a watcher of attention scores reads them of padded texts."""
        return self.layers is None or not self.layers.objective.student_needs().attention

    @contextmanager
    def _matching(self) -> Iterator[Matched | None]:
        """Watches the student's layers during the pass, where the stage matches any."""
        if self.layers is None:
            yield None
            return
        rows, layers = self.rows, self.layers
        watching = matching(
            layers.objective, self.student.model, rows.tokens, rows.groups, layers.teacher, self.progress, layers.epoch
        )
        with watching as matched:
            yield matched
