"""How long work reports its progress. A run has many stages; a loop knows only its own steps.

A loop takes `Steps`; its caller passes `partial(progress, "name of the stage")` on behalf of a run.
"""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int | None], None]  # stage, steps done, total steps (None: unknown)
Steps = Callable[[int, int | None], None]  # steps done, total steps


def silent(stage: str, done: int, total: int | None) -> None:
    """A `Progress` that shows nothing."""


def prefixed(progress: Progress, prefix: str) -> Progress:
    """`progress` under which every stage's name begins with `prefix`."""

    def report(stage: str, done: int, total: int | None) -> None:
        progress(prefix + stage, done, total)

    return report
