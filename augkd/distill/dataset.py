"""A transfer set as the trainer reads it: tokenised once, batched by length, candidates beside their originals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from augkd.data.transfer_set import TransferSet
from augkd.models.classifier import Classifier
from augkd.selection.pool import Batch, Pool


class DistillationDataset(Dataset[int]):
    """A tokenised transfer set. Item i is the number i; `collate` makes a batch of several such numbers.

    Tokenises every text once, at construction. `tokens`, `labels` (n,) and `teacher` (n, outputs) are of the originals;
    `candidate_tokens`, `candidate_teacher` (m, outputs), `score` (m,) and `source` (m,), a position in `source_names`,
    are of all candidates, those of original i at positions `start[i]` to `start[i + 1]`.
    """

    def __init__(self, student: Classifier, transfer_set: TransferSet):
        originals = list(zip(transfer_set.column("text"), transfer_set.column("text_pair"), strict=True))
        candidates = transfer_set.candidates()
        self.target = transfer_set.target
        self.tokens = student.tokens(originals)
        self.labels = torch.from_numpy(self.target.encode(transfer_set.column("label")))
        self.teacher = torch.from_numpy(transfer_set.teacher())
        self.candidate_tokens = student.tokens(list(zip(candidates.text, candidates.text_pair, strict=True)))
        self.candidate_teacher = torch.from_numpy(candidates.teacher)
        self.score = torch.from_numpy(candidates.score)
        self.start = torch.from_numpy(np.searchsorted(candidates.owner, np.arange(len(originals) + 1)))
        self.source_names = sorted(set(candidates.source))
        numbers = {name: number for number, name in enumerate(self.source_names)}
        self.source = torch.tensor([numbers[name] for name in candidates.source], dtype=torch.long)

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, row: int) -> int:
        return row

    @property
    def most(self) -> int:
        """The largest number of candidates of an original."""
        return int(self.start.diff().max()) if len(self) else 0

    def collate(self, rows: Sequence[int]) -> dict[str, Any]:
        """The `batch` of the given originals, with all their candidates; and how many `originals` there are."""
        originals = torch.tensor(list(rows), dtype=torch.long)
        counts = self.start[originals + 1] - self.start[originals]
        owner = torch.repeat_interleave(torch.arange(len(originals)), counts)
        first = counts.cumsum(0) - counts
        position = torch.arange(len(owner)) - first[owner]  # within its owner's candidates
        row = self.start[originals][owner] + position
        pool = Pool(self.candidate_tokens.take(row), owner, self.score[row], self.candidate_teacher[row], row)
        batch = Batch(self.tokens.take(originals), self.labels[originals], self.teacher[originals], pool, originals)
        return {"batch": batch, "originals": len(batch.rows)}
