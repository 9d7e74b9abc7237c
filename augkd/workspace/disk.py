"""When the machine says no: a full disk, a read-only folder, a file where a folder should be, each as one line.

Libraries report a full disk in many ways: with the system's number, with its words in an exception of their own, or by
nothing but a short write. Whoever writes a file does so within `writing`, which makes one message of all of them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from augkd.errors import AugkdError, WorkspaceError, first_line

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FULL_WORDS = ("No space left", "os error 28", "Disk quota", "File too large", "os error 27", "os error 122")
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
_NOT_A_FOLDER = {errno.ENOTDIR, errno.EEXIST}
_NEARLY_FULL = 1 << 16  # bytes free below which a write that failed without a reason failed for want of room


@contextlib.contextmanager
def writing(path: Path, needed: int | None = None, temporary: Path | None = None) -> Iterator[None]:
    """Raises WorkspaceError where what is written to `path`, a file or a folder, fails because of the disk.

    `needed` is how many bytes it takes, and `temporary` the file that takes them until it is complete.
    """
    try:
        yield
    except AugkdError:
        raise
    except Exception as exc:  # safetensors, FAISS, Arrow and torch have exceptions of their own
        if problem := disk_problem(exc, path, needed, temporary):
            raise WorkspaceError(problem) from exc
        raise


def disk_problem(
    exc: BaseException, path: Path, needed: int | None = None, temporary: Path | None = None
) -> str | None:
    """What to tell the user about an error while `path` was written; None when the disk is not the reason."""
    number = exc.errno if isinstance(exc, OSError) else None
    if number in _FULL or any(words in str(exc) for words in _FULL_WORDS) or _no_room_left(exc, path):
        return f"{path} cannot be written: the disk is full; {_room(path, needed, temporary)}"
    if number is None or not _concerns(exc, path):
        return None
    if number in _FORBIDDEN:
        return f"{path} cannot be written ({os.strerror(number).lower()}); give a folder that you may write to"
    if number in _NOT_A_FOLDER:
        place = next((above for above in (path, *path.parents) if above.exists() and not above.is_dir()), path)
        return f"{path} cannot be written: {place} is a file; give another folder"
    if number == errno.EISDIR:
        return f"{path} is a folder; give the name of a file"
    if number == errno.ENOENT:
        return f"{path} cannot be written: {path.parent} was removed meanwhile; run the same command"
    return None


def free_bytes(path: Path) -> int:
    """Bytes that are free where `path` is, or would be created."""
    return shutil.disk_usage(next(place for place in (path, *path.absolute().parents) if place.is_dir())).free


def check_room(path: Path, needed: int, what: str) -> None:
    """Raises WorkspaceError, before any work, when the disk of `path` has less than `needed` bytes for `what`."""
    if needed > free_bytes(path):
        raise WorkspaceError(f"{path} has too little room for {what}: {_room(path, needed)}")


def system_problem(exc: OSError) -> str:
    """A message for an error of the system that nothing else explained."""
    if exc.filename is None:
        return exc.strerror or first_line(exc)
    path = Path(str(exc.filename))
    if exc.errno in _FULL | {errno.EROFS}:
        return disk_problem(exc, path) or str(exc)
    return f"{path}: {(exc.strerror or first_line(exc)).lower()}; check that it is there and that you may use it"


def size_text(size: int) -> str:
    """Bytes as text, in MB or GB."""
    return f"{size / 1e6:,.1f} MB" if size < 1e9 else f"{size / 1e9:,.1f} GB"


def _concerns(exc: BaseException, path: Path) -> bool:
    """Whether an error names `path`, or something in its folder or above it, or nothing; and no other file."""
    name = getattr(exc, "filename", None)
    if not isinstance(name, str | bytes | os.PathLike):
        return True
    named, target = Path(os.fsdecode(name)).absolute(), path.absolute()
    return named.is_relative_to(target.parent) or target.is_relative_to(named)


def _no_room_left(exc: BaseException, path: Path) -> bool:
    """Whether a write failed for no stated reason on a disk without room: a short write, or one within a library."""
    if isinstance(exc, OSError) and exc.errno is not None:
        return False
    with contextlib.suppress(OSError, StopIteration):
        return free_bytes(path) < _NEARLY_FULL
    return False


def _room(path: Path, needed: int | None, temporary: Path | None = None) -> str:
    written = temporary.stat().st_size if temporary is not None and temporary.exists() else 0
    free = size_text(free_bytes(path) + written)  # what was written of it is removed
    unknown = f"more than {size_text(written)}" if written else "more"
    required = unknown if needed is None else size_text(needed)
    return f"{required} needed, {free} free; free some space and run the same command, or choose another folder"
