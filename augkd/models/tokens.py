"""Rows of tokens: ragged, so that padding belongs to a batch, and the length groups a forward pass or an epoch uses."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler


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
class RowGroups:
    """How the rows of one forward pass are grouped, and the way back to their order.

    Made once per pass and handed to everyone who watches it (layer losses, FreeLB, the generator's ascent), so that
    the i-th group means the same rows to all of them.
    """

    groups: tuple[Tensor, ...]  # row positions in the order they are forwarded; together each row once

    @classmethod
    def of(cls, tokens: Tokens, budget: int, mixed: bool = True) -> RowGroups:
        """Groups of similar length, each at most `budget` padded tokens; of one length unless `mixed`."""
        return cls(tuple(tokens.batches(budget, mixed)))

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.groups)

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, number: int) -> Tensor:
        return self.groups[number]

    def restore(self, pieces: Sequence[Tensor]) -> Tensor:  # one (rows, …) piece per group → (n, …)
        """The pieces that the groups gave, as one tensor in row order, on their device. At least one group is needed."""
        joined = torch.cat(list(pieces))
        order = torch.cat(self.groups).argsort()
        return joined[order.to(joined.device)]


class LengthGrouped(Sampler[list[int]]):
    """Batches of originals of similar length, in an order drawn from (seed, epoch)."""

    def __init__(self, lengths: Tensor, batch_size: int, seed: int):
        self._lengths, self._size, self._seed = lengths, batch_size, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch whose order the next iteration gives."""
        self.epoch = epoch

    def __len__(self) -> int:
        return math.ceil(len(self._lengths) / self._size)

    def __iter__(self) -> Iterator[list[int]]:
        rng = np.random.default_rng([self._seed, self.epoch])
        order = rng.permutation(len(self._lengths))
        lengths = self._lengths.numpy()
        window = self._size * 32  # sorted within windows only, so that batches differ between epochs
        batches: list[list[int]] = []
        for begin in range(0, len(order), window):
            part = order[begin : begin + window]
            part = part[np.argsort(lengths[part], kind="stable")]
            batches += [part[i : i + self._size].tolist() for i in range(0, len(part), self._size)]
        for place in rng.permutation(len(batches)):
            yield batches[place]
