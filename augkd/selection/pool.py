"""Candidate texts as tensors: a flat pool in which each row knows its owner.

A retrieved neighbour and a generated text are the same thing here. Rows are not padded, because padding belongs to the
group that a row is forwarded in.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from augkd.models.tokens import Tokens


@dataclass(frozen=True)
class Pool:
    """The candidates of one batch of originals, in one flat sequence."""

    tokens: Tokens
    owner: Tensor  # (n,) row of the original that each belongs to, ascending
    score: Tensor  # (n,) as its source gives it (a neighbour: cosine similarity; higher is closer)
    teacher: Tensor  # (n, outputs) teacher logits
    row: Tensor  # (n,) position among all candidates of the transfer set

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
    """Originals with their labels and teacher logits, and their candidates."""

    tokens: Tokens
    labels: Tensor  # (n,) class index (-100: none) or float target (nan: none)
    teacher: Tensor  # (n, outputs) teacher logits
    pool: Pool
    rows: Tensor  # (n,) position of each original in the transfer set
