"""Random numbers that depend on where they are drawn, not on earlier draws, so a resumed run draws the same ones."""

from __future__ import annotations

import numpy as np
import torch


def rng_of(*numbers: int) -> torch.Generator:
    """A CPU generator seeded with several non-negative numbers, e.g. (seed, epoch, row)."""
    seed = int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)  # 63 bits
    return torch.Generator().manual_seed(seed)
