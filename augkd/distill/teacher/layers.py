"""The teacher of a stage's intermediate-layer losses: stored vectors, or a live model where tokens are compared.

Originals and candidates alike follow the teacher's layers. Their rows in the store are looked up once, at construction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from augkd.data.transfer_set import TransferSet
from augkd.distill.objective.layer_objective import LayerObjective
from augkd.distill.objective.layer_states import Pooling, Shape, check_pooling, token_layer_vectors
from augkd.distill.objective.matching import check_same_tokens
from augkd.distill.objective.objective import Losses
from augkd.distill.teacher.layer_store import Announce, LayerStore
from augkd.models.classifier import Classifier
from augkd.selection.pool import Batch, Pool
from augkd.workspace.progress import Steps


@dataclass(frozen=True)
class LayerTeacher:
    """What a stage's intermediate-layer losses compare the student with; make one with `LayerTeacher.of`."""

    objective: LayerObjective
    teacher: Classifier
    store: LayerStore | None  # None: the teacher is run live
    originals: Tensor  # (n,) row in the store of each original
    candidates: Tensor  # (m,) row in the store of each candidate

    @classmethod
    def of(
        cls,
        losses: Losses,
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
        """`folder` holds the stores and `weights` is the teacher's fingerprint; `announce(texts, bytes)` is called
        before a store is written. Raises ModelError where the losses do not fit the two models.
        """
        for classifier in (student, teacher):
            check_pooling(classifier.model, pooling)
        shape = Shape.of(teacher.model)
        objective = LayerObjective(losses, Shape.of(student.model), shape, pooling=pooling, seed=seed)
        if objective.needs().live:
            check_same_tokens(student, teacher)
            teacher.model.eval().requires_grad_(False)
            no_rows = torch.zeros(0, dtype=torch.long)
            return cls(objective, teacher, None, no_rows, no_rows)
        store = LayerStore(lambda: teacher, objective.needs(), shape.width, folder, weights, student.max_length)
        originals = list(zip(transfer.column("text"), transfer.column("text_pair"), strict=True))
        candidates = transfer.candidates()
        texts = [*originals, *zip(candidates.text, candidates.text_pair, strict=True)]
        positions = store.positions(texts, announce, progress)
        return cls(objective, teacher, store, positions[: len(originals)], positions[len(originals) :])

    def targets(self, batch: Batch, chosen: Pool) -> Tensor | Classifier:
        """What the layers of a batch's originals and chosen candidates are compared with, in that order.

        Stored vectors, (n, needed layers, d); or the live teacher. Generated texts are in no store: the teacher is run
        on them here.
        """
        if self.store is None:
            return self.teacher
        stored = chosen.row >= 0
        vectors = self.store.read(torch.cat([self.originals[batch.rows], self.candidates[chosen.row[stored]]]))
        if bool(stored.all()):
            return vectors
        generated = chosen.tokens.take((~stored).nonzero().flatten())
        in_store = torch.cat([torch.ones(len(batch.rows), dtype=torch.bool), stored])
        targets = torch.empty(len(in_store), *vectors.shape[1:], dtype=torch.float32)
        targets[in_store] = vectors.float().cpu()
        targets[~in_store] = token_layer_vectors(self.teacher, generated, self.objective.needs())
        return targets

    def state(self) -> dict[str, Tensor]:
        """For a checkpoint: the projections, which train with the student."""
        return dict(self.objective.state_dict())

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continues from a checkpoint's projections."""
        self.objective.load_state_dict(dict(state))
