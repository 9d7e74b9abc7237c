"""What this process may use of the machine: the cores and the memory that its control group allows."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """Cores this process may run on: its affinity, limited by the quota of its control group."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _CGROUP / "cpu.max"
    share, _, period = (quota.read_text().strip() if quota.exists() else "max").partition(" ")
    return allowed if share == "max" else min(allowed, max(1, int(share) // int(period or 100_000)))


def memory_limit() -> int:
    """Bytes of memory left in the control group; `sys.maxsize` without a limit."""
    limit, used = _CGROUP / "memory.max", _CGROUP / "memory.current"
    if not (limit.exists() and used.exists()) or limit.read_text().strip() == "max":
        return sys.maxsize
    return max(0, int(limit.read_text()) - int(used.read_text()))
