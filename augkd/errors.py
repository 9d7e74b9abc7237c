"""Everything that can go wrong because of what the user gave us.

Each message is one line that says what, where, which value, and how to mend it; the command line prints it and exits 1.
`assert` is for our own bugs and never reaches a user.

    AugkdError
    ├── RecipeError      a recipe or an option: unknown key, value out of range
    ├── DataError        a task, a corpus or one of their files
    ├── IndexFolderError an index folder: missing, damaged, built by something else
    ├── ModelError       a teacher or student: not found, labels or vocabulary that do not match
    └── WorkspaceError   a run's folder: foreign, locked, written by a newer augkd
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AugkdError(Exception):
    """A mistake the person at the keyboard can mend; the message is one line."""


class RecipeError(AugkdError):
    """A recipe or an option is not usable."""


class DataError(AugkdError):
    """A task or corpus, or a file of theirs, is not usable."""


class IndexFolderError(AugkdError):
    """An index folder is missing, damaged or foreign."""


class ModelError(AugkdError):
    """A teacher, student or encoder cannot be loaded or does not match."""


class WorkspaceError(AugkdError):
    """A run's folder is foreign, locked or of a newer format."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the closest known name, or the known names when none is close."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; known: {', '.join(names)}" if names else ""


def shown(value: object, width: int = 60) -> str:
    """`value` as it may stand in a one-line message: repr, cut to `width` characters."""
    text = repr(value)
    return text if len(text) <= width else text[: width - 1] + "…"
