"""Rows of tokens, and how they are grouped: for a forward pass (`RowGroups`) and for an epoch (`LengthGrouped`).

Rows are stored without padding, because padding belongs to a batch: only the group that rows are forwarded in decides
how long they become. Groups have few different shapes: for each new one, oneDNN generates code for every product of a
pass, which took a third of a training on texts of 13 tokens (two layers, bf16 with AMX).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

_WIDTHS = 4  # padded lengths are multiples of it,
_ROWS = 16  # and so are the rows of a group, where they can


@dataclass(frozen=True)
class Tokens:
    """Token sequences, one after another."""

    ids: Tensor  # (total,) token ids
    types: Tensor  # (total,) token types: 1 in the second text of a pair
    offsets: Tensor  # (n + 1,) where each row starts; the last one is `total`
    limit: int = 0  # no row is padded to more tokens, unless another row has more; 0: only as far as that

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]], types: Sequence[Sequence[int]] | None = None, limit: int = 0) -> Tokens:
        """From one list of ids per row (and one of token types; all 0 by default)."""
        offsets = torch.zeros(len(rows) + 1, dtype=torch.long)
        offsets[1:] = torch.tensor([len(row) for row in rows], dtype=torch.long).cumsum(0)
        ids = torch.tensor([token for row in rows for token in row], dtype=torch.long)
        if types is None:
            return cls(ids, torch.zeros_like(ids), offsets, limit)
        return cls(ids, torch.tensor([kind for row in types for kind in row], dtype=torch.long), offsets, limit)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Tensor:  # (n,)
        """Tokens in each row."""
        return self.offsets.diff()

    @property
    def widths(self) -> Tensor:  # (n,)
        """The padded length of each row on its own: of the multiples of 4, the next that the limit allows."""
        lengths = self.lengths
        return torch.maximum(lengths, (-(-lengths // _WIDTHS) * _WIDTHS).clamp(max=self.limit))

    def mask(self, rows: Tensor) -> Tensor:  # rows: (m,) → (m, padded length) bool
        """Which places of the given rows are tokens when these rows are padded together."""
        return torch.arange(int(self.widths[rows].max())) < self.lengths[rows][:, None]

    def take(self, rows: Tensor) -> Tokens:  # rows: (m,) positions
        """The given rows, in the given order."""
        positions = self.positions(rows)
        offsets = torch.zeros(len(rows) + 1, dtype=torch.long)
        offsets[1:] = self.lengths[rows].cumsum(0)
        return Tokens(self.ids[positions], self.types[positions], offsets, self.limit)

    def positions(self, rows: Tensor) -> Tensor:  # rows: (m,) → (tokens of these rows,)
        """Positions in `ids` of every token of the given rows, row after row."""
        lengths = self.lengths[rows]
        first = torch.repeat_interleave(self.offsets[:-1][rows], lengths)
        start = torch.repeat_interleave(lengths.cumsum(0) - lengths, lengths)
        return first + torch.arange(int(lengths.sum())) - start

    def join(self, other: Tokens) -> Tokens:
        """These rows, then `other`'s."""
        return Tokens(
            torch.cat([self.ids, other.ids]),
            torch.cat([self.types, other.types]),
            torch.cat([self.offsets, other.offsets[1:] + self.offsets[-1]]),
            min(self.limit, other.limit),
        )

    def padded(self, pad_id: int) -> dict[str, Tensor]:
        """Inputs padded together: `input_ids`, `attention_mask`, `token_type_ids`, each (n, padded length)."""
        mask = self.mask(torch.arange(len(self)))
        ids = torch.full(mask.shape, pad_id, dtype=torch.long)
        types = torch.zeros(mask.shape, dtype=torch.long)
        ids[mask], types[mask] = self.ids, self.types
        return {"input_ids": ids, "attention_mask": mask.long(), "token_type_ids": types}


@dataclass(frozen=True)
class RowGroups:
    """How the rows of one forward pass are grouped, and the way back to their order.

    Made once per pass and shared by everything that watches it (intermediate-layer losses, FreeLB, the generator's
    ascent), so that the i-th group is the same rows for all of them.
    """

    groups: tuple[Tensor, ...]  # row positions in the order they are forwarded; together each row once

    @classmethod
    def of(cls, tokens: Tokens, token_budget: int, mixed: bool = True) -> RowGroups:
        """Groups of similar length, each of at most `token_budget` padded tokens (and at least one row).

        Unless `mixed`, rows of different widths share no group: each is padded as it would be on its own.
        """
        order = tokens.lengths.argsort(stable=True)
        widths = tokens.widths[order].tolist()
        groups, start = [], 0
        while start < len(order):
            end = start + 1
            while end < len(order) and (end + 1 - start) * widths[end] <= token_budget:
                if not mixed and widths[end] != widths[start]:
                    break
                end += 1
            else:
                if end < len(order) and end - start > _ROWS:
                    end -= (end - start) % _ROWS
            groups.append(order[start:end])
            start = end
        return cls(tuple(groups))

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.groups)

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, number: int) -> Tensor:
        return self.groups[number]

    def restore(self, pieces: Sequence[Tensor]) -> Tensor:  # one (rows, …) piece per group → (n, …)
        """The pieces as one tensor in row order, on their device. There must be at least one group."""
        joined = torch.cat(list(pieces))
        order = torch.cat(self.groups).argsort()
        return joined[order.to(joined.device)]


class LengthGrouped(Sampler[list[int]]):
    """Batches of originals of similar length, in an order drawn from (seed, epoch)."""

    def __init__(self, lengths: Tensor, batch_size: int, seed: int):
        self._lengths, self._size, self._seed = lengths, batch_size, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch whose order the next iteration gives."""
        self.epoch = epoch

    def __len__(self) -> int:
        return math.ceil(len(self._lengths) / self._size)

    def __iter__(self) -> Iterator[list[int]]:
        rng = np.random.default_rng([self._seed, self.epoch])
        order = rng.permutation(len(self._lengths))
        lengths = self._lengths.numpy()
        window = self._size * 32  # sorted within windows only, so that batches differ between epochs
        batches: list[list[int]] = []
        for start in range(0, len(order), window):
            rows = order[start : start + window]
            rows = rows[np.argsort(lengths[rows], kind="stable")]
            batches += [rows[i : i + self._size].tolist() for i in range(0, len(rows), self._size)]
        for place in rng.permutation(len(batches)):
            yield batches[place]


def takes_token_types(model: Any) -> bool:
    """Whether the model has token types (BERT has, DistilBERT and RoBERTa have none or only one)."""
    config = getattr(getattr(model, "module", model), "config", None)
    return getattr(config, "type_vocab_size", 0) > 1
