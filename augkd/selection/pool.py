"""Candidate texts as tensors: ragged tokens, and a pool in which each row knows its owner.

A retrieved neighbour and a generated text are the same thing here. Rows are kept unpadded, because padding belongs to a
batch: whoever forwards rows decides which of them share one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from augkd.models.tokens import Tokens


@dataclass(frozen=True)
class Pool:
    """Candidates of one batch of originals, flat."""

    tokens: Tokens
    owner: Tensor  # (n,) row of the original each belongs to, ascending
    score: Tensor  # (n,) what its source thinks of it (a neighbour: cosine similarity)
    teacher: Tensor  # (n, outputs) teacher logits
    row: Tensor  # (n,) its place among all candidates of the transfer set

    def __len__(self) -> int:
        return len(self.owner)

    def take(self, positions: Tensor) -> Pool:
        """The candidates at `positions`."""
        return Pool(
            self.tokens.take(positions),
            self.owner[positions],
            self.score[positions],
            self.teacher[positions],
            self.row[positions],
        )

    def join(self, other: Pool) -> Pool:
        """Both pools' candidates, regrouped so that owners ascend; within an owner these come first."""
        owner = torch.cat([self.owner, other.owner])
        joined = Pool(
            self.tokens.join(other.tokens),
            owner,
            torch.cat([self.score, other.score]),
            torch.cat([self.teacher, other.teacher]),
            torch.cat([self.row, other.row]),
        )
        return joined.take(owner.argsort(stable=True))


@dataclass(frozen=True)
class Batch:
    """Originals with what the teacher said of them, and their candidates."""

    tokens: Tokens
    labels: Tensor  # (n,) class index (-100: none) or float target (nan: none)
    teacher: Tensor  # (n, outputs) teacher logits
    pool: Pool
    rows: Tensor  # (n,) place of each original in the transfer set
