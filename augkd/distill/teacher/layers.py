"""The teacher of a stage's layer losses: stored vectors where they are enough, a live model where tokens are compared.

Originals and candidates alike follow the teacher's layers. Rows are found in the store once, when this is made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from augkd.data.transfer_set import TransferSet
from augkd.distill.objective.hidden import check_same_tokens, token_layer_vectors
from augkd.distill.objective.layer_objective import LayerObjective, Pooling, Shape
from augkd.distill.teacher.layer_store import Announce, LayerStore
from augkd.models.classifier import Classifier
from augkd.selection.pool import Batch, Pool
from augkd.workspace.progress import Steps


@dataclass(frozen=True)
class LayerTeacher:
    """What a stage's layer losses compare the student with; make one with `LayerTeacher.of`."""

    objective: LayerObjective
    teacher: Classifier
    store: LayerStore | None  # None: the teacher is asked live
    originals: Tensor  # (n,) row in the store of each original
    candidates: Tensor  # (m,) row in the store of each candidate

    @classmethod
    def of(
        cls,
        losses: Mapping[str, Mapping[str, Any]],
        pooling: Pooling,
        student: Classifier,
        teacher: Classifier,
        transfer: TransferSet,
        folder: Path,
        weights: str,
        seed: int,
        announce: Announce | None = None,
        progress: Steps | None = None,
    ) -> LayerTeacher:
        """`folder` is where stores lie and `weights` the teacher's fingerprint; `announce(texts, bytes)` comes before
        a store is written. Raises ModelError where the losses do not fit the two models.
        """
        shape = Shape.of(teacher.model)
        objective = LayerObjective(losses, Shape.of(student.model), shape, pooling=pooling, seed=seed)
        none = torch.zeros(0, dtype=torch.long)
        if objective.needs().live:
            check_same_tokens(student, teacher)
            teacher.model.eval().requires_grad_(False)
            return cls(objective, teacher, None, none, none)
        store = LayerStore(lambda: teacher, objective.needs(), shape.width, folder, weights, student.max_length)
        found = transfer.candidates()
        texts = list(zip(transfer.column("text"), transfer.column("text_pair"), strict=True))
        positions = store.positions([*texts, *zip(found.text, found.text_pair, strict=True)], announce, progress)
        return cls(objective, teacher, store, positions[: len(texts)], positions[len(texts) :])

    def of_rows(self, batch: Batch, chosen: Pool) -> Tensor | Classifier:
        """The teacher's vectors of a batch's originals and chosen candidates, in that order; or the live teacher.

        Generated texts are in no store: the teacher looks at them here.
        """
        if self.store is None:
            return self.teacher
        stored = chosen.row >= 0
        vectors = self.store.read(torch.cat([self.originals[batch.rows], self.candidates[chosen.row[stored]]]))
        if bool(stored.all()):
            return vectors
        new = token_layer_vectors(
            self.teacher, chosen.tokens.take((~stored).nonzero().flatten()), self.objective.needs()
        )
        every = torch.empty(len(batch.rows) + len(chosen), *vectors.shape[1:], dtype=torch.float32)
        known = torch.cat([torch.ones(len(batch.rows), dtype=torch.bool), stored])
        every[known], every[~known] = vectors.float().cpu(), new
        return every


LayersOf = Callable[[int, Classifier], "LayerTeacher | None"]  # (stage from 1, student) → its layer teacher
