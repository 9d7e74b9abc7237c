"""What this process may use of the machine: the cores and the memory that its control group allows."""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import sys
from functools import cache
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
# of glibc's mallopt
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST_MMAP_THRESHOLD, _KEPT = 32 << 20, 512 << 20


def usable_cores() -> int:
    """Cores this process may run on: its affinity, limited by the quota of its control group."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _CGROUP / "cpu.max"
    share, _, period = (quota.read_text().strip() if quota.exists() else "max").partition(" ")
    return allowed if share == "max" else min(allowed, max(1, int(share) // int(period or 100_000)))


def resident_bytes() -> int:
    """Memory of this process that is in RAM now; its peak so far where the system does not tell."""
    pages = Path("/proc/self/statm")
    if pages.exists():
        return int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def release_memory() -> None:
    """Gives freed memory back to the system, where the C library keeps it for later (glibc): often 100 MB and more."""
    gc.collect()
    _glibc("malloc_trim", 0)


@cache
def keep_freed_memory() -> None:
    """Lets glibc keep up to 512 MB of freed memory instead of giving it back and asking for it again in each step.

    A new page costs about a microsecond: 12,000 of them were 12 % of a step of 160 texts of 12 tokens (two layers).
    """
    _glibc("mallopt", _MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
    _glibc("mallopt", _TRIM_THRESHOLD, _KEPT)


def _glibc(name: str, *arguments: int) -> None:
    """Calls a function that only glibc has: nothing happens with musl or on another system."""
    function = getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
    if function is not None:
        function(*arguments)


def memory_limit() -> int:
    """Bytes of memory left in the control group; `sys.maxsize` without a limit."""
    limit, used = _CGROUP / "memory.max", _CGROUP / "memory.current"
    if not (limit.exists() and used.exists()) or limit.read_text().strip() == "max":
        return sys.maxsize
    return max(0, int(limit.read_text()) - int(used.read_text()))
