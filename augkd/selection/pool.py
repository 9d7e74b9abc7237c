"""Candidate texts as tensors: ragged tokens, and a pool in which each row knows its owner.

A retrieved neighbour and a generated text are the same thing here. Rows are kept unpadded, because padding belongs to a
batch: whoever forwards rows decides which of them share one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Tokens:
    """`len(self)` token sequences, one after another."""

    ids: Tensor  # (total,) token ids
    types: Tensor  # (total,) token types: 1 in the second text of a pair
    offsets: Tensor  # (n + 1,) where each row starts; the last one is `total`

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]], types: Sequence[Sequence[int]] | None = None) -> Tokens:
        """From lists of ids (and token types; all 0 when not given)."""
        offsets = torch.zeros(len(rows) + 1, dtype=torch.long)
        offsets[1:] = torch.tensor([len(row) for row in rows], dtype=torch.long).cumsum(0)
        ids = torch.tensor([token for row in rows for token in row], dtype=torch.long)
        if types is None:
            return cls(ids, torch.zeros_like(ids), offsets)
        return cls(ids, torch.tensor([kind for row in types for kind in row], dtype=torch.long), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Tensor:  # (n,)
        """Tokens in each row."""
        return self.offsets.diff()

    def take(self, rows: Tensor) -> Tokens:  # rows: (m,) positions
        """The given rows, in the given order."""
        lengths = self.lengths[rows]
        offsets = torch.zeros(len(rows) + 1, dtype=torch.long)
        offsets[1:] = lengths.cumsum(0)
        # position of every wanted token: start of its row + its place in the row
        places = torch.arange(int(offsets[-1])) - torch.repeat_interleave(offsets[:-1], lengths)
        positions = torch.repeat_interleave(self.offsets[:-1][rows], lengths) + places
        return Tokens(self.ids[positions], self.types[positions], offsets)

    def join(self, other: Tokens) -> Tokens:
        """These rows, then `other`'s."""
        return Tokens(
            torch.cat([self.ids, other.ids]),
            torch.cat([self.types, other.types]),
            torch.cat([self.offsets, other.offsets[1:] + self.offsets[-1]]),
        )

    def padded(self, pad_id: int) -> dict[str, Tensor]:
        """Model inputs, padded to the longest: `input_ids`, `attention_mask`, `token_type_ids`, each (n, length)."""
        lengths = self.lengths
        mask = torch.arange(int(lengths.max()))[None, :] < lengths[:, None]
        ids = torch.full(mask.shape, pad_id, dtype=torch.long)
        types = torch.zeros(mask.shape, dtype=torch.long)
        ids[mask], types[mask] = self.ids, self.types
        return {"input_ids": ids, "attention_mask": mask.long(), "token_type_ids": types}

    def batches(self, budget: int, mixed: bool = True) -> Iterator[Tensor]:
        """Row positions in groups of similar length, each at most `budget` padded tokens (and at least one row).

        Unless `mixed`, rows of different lengths share no group: nothing is padded.
        """
        order = self.lengths.argsort(stable=True)
        sizes = self.lengths[order].tolist()
        start = 0
        for end in range(1, len(order) + 1):
            full = end == len(order) or (end + 1 - start) * sizes[end] > budget
            if full or (not mixed and sizes[end] != sizes[start]):
                yield order[start:end]
                start = end


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
