"""One writer at a time, by kernel locks (flock): a killed process leaves no lock behind.

Of the processes of one launch only the first writes, so the others lock nothing but what belongs to their machine.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from augkd.errors import WorkspaceError
from augkd.workspace.disk import writing
from augkd.workspace.files import sweep
from augkd.workspace.launch import launch
from augkd.workspace.storage import refuse_url


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Locks `folder` for this process, and sweeps what killed processes left in it.

    Raises WorkspaceError at once when another process has locked it, and when it cannot be written.
    """
    refuse_url(folder)
    if not launch().writes:
        yield
        return
    with contextlib.ExitStack() as stack:
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            stream = stack.enter_context((folder / ".lock").open("w"))
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise WorkspaceError(f"another augkd is working in {folder}; wait for it or choose another --out") from None
        sweep(folder)
        yield


@contextlib.contextmanager
def locked_unless_read_only(folder: Path) -> Iterator[None]:
    """`locked` for a command that reads `folder` and may write in it; nobody writes where nobody can."""
    if os.access(folder, os.W_OK):
        with locked(folder):
            yield
    else:
        yield


@contextlib.contextmanager
def claimed(folder: Path, *, of_machine: bool = False) -> Iterator[None]:
    """Waits until no other process builds the artefact in `folder`, and makes others wait meanwhile.

    For artefacts that several runs share: the second one finds it finished. The lock file lies beside the folder
    and is removed on release. `of_machine`: a copy for the processes of this machine, not a part of the run.
    """
    if not of_machine and not launch().writes:
        yield
        return
    path = folder.parent / f".{folder.name}.lock"
    while True:
        with contextlib.ExitStack() as stack:
            with writing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                stream = stack.enter_context(path.open("w"))
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
