"""What this process may use of the machine: the cores and the memory that its control group leaves it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """Cores this process may run on: its affinity, cut by the quota of its control group."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _CGROUP / "cpu.max"
    given, _, period = (quota.read_text().strip() if quota.exists() else "max").partition(" ")
    return allowed if given == "max" else min(allowed, max(1, int(given) // int(period or 100_000)))


def memory_limit() -> int:
    """Bytes the control group leaves; no limit is a very large one."""
    limit, used = _CGROUP / "memory.max", _CGROUP / "memory.current"
    if not (limit.exists() and used.exists()) or limit.read_text().strip() == "max":
        return sys.maxsize
    return max(0, int(limit.read_text()) - int(used.read_text()))
