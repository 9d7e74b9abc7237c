"""A transfer set as the trainer eats it: tokenised once, batched by length, candidates beside their originals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from augkd.data.transfer_set import Candidates, TransferSet
from augkd.models.classifier import Classifier
from augkd.selection.pool import Batch, Pool


class DistillationDataset(Dataset[int]):
    """A tokenised transfer set; each text is tokenised once, here."""

    def __init__(self, student: Classifier, transfer_set: TransferSet):
        pairs = list(zip(transfer_set.column("text"), transfer_set.column("text_pair"), strict=True))
        found: Candidates = transfer_set.candidates()
        self.tokens = student.tokens(pairs)
        self.labels = _labels(transfer_set.column("label"), transfer_set.labels)
        self.teacher = torch.from_numpy(transfer_set.teacher())
        self.candidate_tokens = student.tokens(list(zip(found.text, found.text_pair, strict=True)))
        self.candidate_teacher = torch.from_numpy(found.teacher)
        self.score = torch.from_numpy(found.score)
        self.start = torch.from_numpy(np.searchsorted(found.owner, np.arange(len(pairs) + 1)))
        self.source_names = sorted(set(found.source))
        numbers = {name: number for number, name in enumerate(self.source_names)}
        self.source = torch.tensor([numbers[name] for name in found.source], dtype=torch.long)  # (m,)

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, row: int) -> int:
        return row

    @property
    def most(self) -> int:
        """The largest number of candidates an original has."""
        return int(self.start.diff().max()) if len(self) else 0

    def collate(self, rows: Sequence[int]) -> dict[str, Batch]:
        """The batch of the given originals, with all their candidates."""
        picked = torch.tensor(list(rows))
        counts = self.start[picked + 1] - self.start[picked]
        owner = torch.repeat_interleave(torch.arange(len(picked)), counts)
        first = torch.cat([torch.zeros(1, dtype=torch.long), counts.cumsum(0)[:-1]])
        places = torch.arange(len(owner)) - first[owner]
        row = self.start[picked][owner] + places
        pool = Pool(self.candidate_tokens.take(row), owner, self.score[row], self.candidate_teacher[row], row)
        return {"batch": Batch(self.tokens.take(picked), self.labels[picked], self.teacher[picked], pool, picked)}


def _labels(values: Sequence[Any], names: Sequence[str]) -> Tensor:
    if not names:
        return torch.tensor([math.nan if value is None else value for value in values], dtype=torch.float32)
    places = {name: place for place, name in enumerate(names)}
    return torch.tensor([-100 if value is None else places[value] for value in values], dtype=torch.long)
