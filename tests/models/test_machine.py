"""What a process uses of the machine."""

from __future__ import annotations

import resource
import subprocess
import sys

import numpy as np
import pytest

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


_FAULTS = """
import resource
from augkd.models.machine import keep_freed_memory
{setting}
size = 24_000_000
bytes([1]) * size  # freed at once
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
bytes([1]) * size
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(
    sys.platform != "linux", reason="mallopt is a function of glibc; elsewhere keep_freed_memory does nothing"
)
def test_freed_memory_is_kept_for_the_next_block() -> None:
    def faults(setting: str) -> int:
        script = _FAULTS.format(setting=setting)
        return int(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout)

    pages = 24_000_000 // resource.getpagesize()
    assert faults("") > 0.9 * pages
    assert faults("keep_freed_memory()") < 0.1 * pages
