"""The errors a user can fix: a wrong key, file, folder or model.

Each message is one line that says what is wrong, where, the value, and what to do about it. The command line prints it
and exits with status 1. `assert` is for our own bugs and never reaches a user.

Exception hierarchy:

* AugkdError
  + ClusterError: a Ray cluster cannot be reached, or its workers are lost
  + RecipeError: a recipe or an option has an unknown key or a value out of range
  + DataError: a task, a corpus or one of their files is not usable
    - DamagedFileError: the rest of a file cannot be read
  + IndexFolderError: an index folder is missing, damaged or built from something else
  + ModelError: a teacher, student or encoder is missing, or its labels or vocabulary do not match
  + StorageError: an object in storage cannot be reached, or is not what its manifest says
  + TrainingError: a training has diverged, or a model's outputs are not finite
  + ProcessLostError: another process of the same training has ended
  + WorkspaceError: an output folder is foreign, locked or written by a newer augkd
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AugkdError(Exception):
    """The root of the tree: a mistake the user can fix, described in one line."""


class ClusterError(AugkdError):
    """A Ray cluster cannot be reached, has no room, or its workers are lost."""


class RecipeError(AugkdError):
    """A recipe or an option has an unknown key or a value out of range."""


class DataError(AugkdError):
    """A task, a corpus or one of their files is not usable."""


class DamagedFileError(DataError):
    """The rest of a file cannot be read: it is truncated, empty or not in the format its name says."""


class IndexFolderError(AugkdError):
    """An index folder is missing, damaged or built from something else."""


class ModelError(AugkdError):
    """A teacher, student or encoder cannot be loaded, or its labels or vocabulary do not match."""


class StorageError(AugkdError):
    """An object in storage cannot be reached or written, or is not what its manifest says."""


class TrainingError(AugkdError):
    """A training has diverged, or a model's outputs are not finite."""


class ProcessLostError(AugkdError):
    """Another process of the same training has ended."""


class WorkspaceError(AugkdError):
    """An output folder is foreign, locked or written by a newer augkd."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a message: `; did you mean 'x'?` for the closest known name, else the list of known names."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; known: {', '.join(names)}" if names else ""


def short_repr(value: object, width: int = 60) -> str:
    """The repr of `value`, cut to `width` characters so that it fits into a one-line message."""
    try:
        text = repr(value)
    except ValueError:  # Python writes out no number of more than 4,300 digits
        return f"a {type(value).__name__} too long to show"
    return text if len(text) <= width else text[: width - 1] + "…"


def first_line(exc: BaseException) -> str:
    """The first line of another library's message, for one of ours; the name of the exception where it has none."""
    text = str(exc).strip()
    return text.splitlines()[0][:200] if text else type(exc).__name__
