"""Names that become paths: one component of a stranger's naming through `path_name`, a user's path through `user_path`.

A task's name becomes a folder of a comparison, and the names in a manifest become files that are read, copied and
deleted. A stranger may have written either, so a name must be one plain component of a path.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Collection
from pathlib import Path

from augkd.errors import WorkspaceError, short_repr

LONGEST = 200  # bytes of UTF-8: file systems allow 255, and a temporary name adds a process id and a suffix
_COMPONENT, _WHOLE = 255, 4000  # bytes of a part of a path, and of a whole one, that Linux and macOS accept
# Names that are devices on some systems, with any extension: a folder that is copied there must not lose a file.
_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(1, 10))}
_CONTROL = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # control, invisible and direction characters, surrogates, line separators


def path_name(name: object, what: str, reserved: Collection[str] = ()) -> str:
    """`name` if it can be one component of a path; `what` says in the message where it comes from.

    Raises WorkspaceError for a name that is empty, too long, hidden, absolute or relative to another folder, or that is
    one of `reserved`, which the folder needs for something else.
    """
    if problem := name_problem(name, reserved):
        raise WorkspaceError(f"{what} is {short_repr(name)}, which cannot be the name of a file or folder: {problem}")
    return str(name)


def name_problem(name: object, reserved: Collection[str] = ()) -> str | None:
    """Why `name` cannot be one component of a path; None when it can."""
    if not isinstance(name, str):
        return "it is no text"
    if not name.strip(" ."):
        return "it is empty"
    if "/" in name or "\\" in name or ":" in name:
        return "it contains /, \\ or :"
    if any(unicodedata.category(character) in _CONTROL for character in name):
        return "it contains a control or invisible character"
    if len(name.encode()) > LONGEST:
        return f"it is longer than {LONGEST} bytes"
    if name[0] in ".~ " or name[-1] in ". ":
        return "it begins with a dot, ~ or space, or ends with a dot or space"
    if name in reserved or name.lower().split(".")[0] in _DEVICES:
        return "it is reserved"
    return None


def user_path(name: str) -> Path:
    """The path that a user or a recipe names, with ~ expanded; raises WorkspaceError for one that can be no path."""
    try:
        path = Path(name).expanduser()
        encoded = [os.fsencode(part) for part in path.parts]
    except RuntimeError as exc:
        raise WorkspaceError(f"path {short_repr(name)} begins with an unknown user; write its folder in full") from exc
    except UnicodeEncodeError as exc:
        raise WorkspaceError(f"path {short_repr(name)} contains half a character; correct it") from exc
    if b"\0" in b"".join(encoded):
        raise WorkspaceError(f"path {short_repr(name)} contains a null character; correct it")
    if max(map(len, encoded), default=0) > _COMPONENT or sum(map(len, encoded)) + len(encoded) > _WHOLE:
        raise WorkspaceError(
            f"path {short_repr(name)} is longer than a path can be ({_COMPONENT} bytes a part, {_WHOLE} in all)"
        )
    return path
