"""What a process uses of the machine."""

from __future__ import annotations

import numpy as np

from augkd.models.machine import release_memory, resident_bytes


def test_memory_in_use_grows_by_what_is_filled_and_is_given_back() -> None:
    release_memory()
    before = resident_bytes()
    blocks = [np.ones(16 * 1024, dtype=np.float64) for _ in range(1024)]  # 128 KB each, below malloc's mmap threshold
    filled = resident_bytes()
    assert 100e6 < filled - before < 160e6
    del blocks
    release_memory()
    assert resident_bytes() - before < 30e6
