"""One writer at a time: the kernel's locks (flock), so a killed process leaves none behind."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from augkd.errors import WorkspaceError


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds `folder` for this process; a second augkd in the same folder is refused at once.

    The lock is the kernel's (flock), so a killed process leaves none behind.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise WorkspaceError(f"another augkd is working in {folder}; wait for it or choose another --out") from None
        yield


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Waits until no other process makes what lies in `folder`, and keeps others waiting meanwhile.

    For what several runs share: who comes second finds it finished. The lock is the kernel's; its file, beside the
    folder, goes with it.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    path = folder.parent / f".{folder.name}.lock"
    while True:
        with path.open("w") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            if not _is_file_of(path, stream.fileno()):
                continue  # who had it removed it: another may hold the file that is there now
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def _is_file_of(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
