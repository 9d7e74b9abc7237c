"""Random numbers that depend on where they are drawn, not on earlier draws, so a resumed run draws the same ones.

What is drawn for an original depends on that original alone, not on the batch it is in: processes that share a batch
then draw what one process would.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor


def seed_of(*numbers: int) -> int:
    """One seed of 63 bits from several non-negative numbers, e.g. (seed, epoch, row)."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def rng_of(*numbers: int) -> torch.Generator:
    """A CPU generator seeded with several non-negative numbers, e.g. (seed, epoch, row)."""
    return torch.Generator().manual_seed(seed_of(*numbers))


class RowRandom:
    """A stream of random numbers for each row of a batch (Philox; Salmon et al. 2011)."""

    def __init__(self, numbers: Iterable[int], rows: Iterable[int]):
        """`numbers` are non-negative, e.g. (seed, epoch); `rows` are what the rows are called outside the batch."""
        key = seed_of(*numbers)
        keys = [np.array([key, row], dtype=np.uint64) for row in rows]
        self._streams = [np.random.Generator(np.random.Philox(key=key)) for key in keys]

    def uniform(
        self,
        row: Tensor,  # (n,) the row of the batch that each number is for
        width: int | None = None,
    ) -> Tensor:  # (n,) float32 in [0, 1), or (n, width)
        """The next numbers of each row's stream, in order."""
        counts = torch.bincount(row, minlength=len(self._streams)).tolist()
        shape = () if width is None else (width,)
        drawn = np.empty((len(row), *shape), dtype=np.float32)
        start = 0
        for stream, count in zip(self._streams, counts, strict=True):
            stream.random(out=drawn[start : start + count], dtype=np.float32)
            start += count
        values = torch.from_numpy(drawn)
        if bool((row.diff() >= 0).all()):
            return values
        return torch.empty_like(values).index_copy_(0, row.argsort(stable=True), values)
