"""One writer at a time, by kernel locks (flock): a killed process leaves no lock behind."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from augkd.errors import WorkspaceError


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Locks `folder` for this process; raises WorkspaceError at once when another process has locked it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise WorkspaceError(f"another augkd is working in {folder}; wait for it or choose another --out") from None
        yield


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Waits until no other process builds the artefact in `folder`, and makes others wait meanwhile.

    For artefacts that several runs share: the second one finds it finished. The lock file lies beside the folder
    and is removed on release.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    path = folder.parent / f".{folder.name}.lock"
    while True:
        with path.open("w") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            if not _is_same_file(path, stream.fileno()):
                continue  # its last holder removed it, and another process may hold the file that replaced it
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def _is_same_file(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
