"""How long work tells how far it is. Two views of one thing: a run has many stages, a loop knows only its own steps.

A loop takes `Steps`; whoever calls it on behalf of a run gives `partial(progress, "name of the stage")`.
"""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int | None], None]  # stage, done, total (None: not known)
Steps = Callable[[int, int | None], None]  # done, total


def silent(stage: str, done: int, total: int | None) -> None:
    """Progress that nobody watches."""
