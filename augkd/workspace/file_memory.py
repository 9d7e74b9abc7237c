"""A digest of a file, remembered while the system shows the file unchanged.

A path holds one digest: a file that is replaced every few minutes for days takes no more memory than one that stays.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

_MOST = 1 << 12  # files: 2 MB


class FileMemory:
    """The digests of files that this process has read; of the least recently asked one, only so many are kept."""

    def __init__(self, digest: Callable[[Path], str], most: int = _MOST):
        """`digest` reads a file; `most` is how many files are remembered."""
        self._digest, self._most = digest, most
        self._known: dict[str, tuple[tuple[int, ...], str]] = {}  # by absolute path, the latest last
        self._lock = threading.Lock()

    def of(self, path: Path, state: os.stat_result) -> str:
        """The digest of a file in this state; computed where path, size, times or inode are new."""
        name = str(path.absolute())
        facts = (state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino)
        with self._lock:
            known = self._known.pop(name, None)
            if known is not None and known[0] == facts:
                self._known[name] = known
                return known[1]
        value = self._digest(path)
        with self._lock:
            self._known[name] = (facts, value)
            if len(self._known) > self._most:
                del self._known[next(iter(self._known))]
        return value

    def clear(self) -> None:
        """Forgets all."""
        self._known.clear()

    def __len__(self) -> int:
        return len(self._known)
