"""Random numbers that depend on where they are drawn, not on earlier draws, so a resumed run draws the same ones."""

from __future__ import annotations

import numpy as np
import torch


def mixed(*numbers: int) -> int:
    """One 63-bit seed from several non-negative numbers, e.g. (seed, epoch, row)."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def rng_of(*numbers: int) -> torch.Generator:
    """A CPU generator seeded with `mixed(*numbers)`."""
    return torch.Generator().manual_seed(mixed(*numbers))
