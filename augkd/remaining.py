"""How many of a comparison's runs are done, and how long the others will take, from those of the same recipe.

Only the students' time is counted: index, teacher and transfer sets are shared, so that a first run says nothing about
the next. What is finished when the command starts counts at once.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from augkd.durations import show_seconds
from augkd.recipe import Recipe, dumped
from augkd.workspace import MANIFEST, read_json, read_manifest

Headline = Callable[[str, int, int], None]  # a text, runs done, runs in all
_EVERY = 5.0  # seconds between two headlines of one run


def unseen(text: str, done: int, total: int) -> None:
    """The headline of someone who does not look."""


class Remaining:
    """The runs of a comparison, by folder; each has the name of its recipe."""

    def __init__(
        self,
        runs: Mapping[Path, tuple[str, Recipe]],
        headline: Headline = unseen,
        clock: Callable[[], float] = time.monotonic,
        jobs: int = 1,
    ):
        """Runs that lie there finished are done; `clock` gives seconds from any origin; `jobs` runs go on at once."""
        self._names = {folder: name for folder, (name, _) in runs.items()}
        self._headline, self._clock, self._jobs = headline, clock, jobs
        self._seconds: dict[str, list[float]] = defaultdict(list)
        self._done: set[Path] = set()
        self._current: dict[Path, float] = {}  # when each began
        self._told = 0.0
        for folder, (_, recipe) in runs.items():
            if is_finished(folder, recipe):
                self.end(folder, read_json(folder / "results.json"))
        self._tell()

    def begin(self, folder: Path) -> None:
        """A run starts, or is looked at again."""
        self._current[folder] = self._clock()
        self._tell()

    def tick(self) -> None:
        """Time has passed within a run."""
        if self._clock() - self._told >= _EVERY:
            self._tell()

    def end(self, folder: Path, results: Mapping[str, Any]) -> None:
        """A run is done; its results tell what its student took."""
        if folder not in self._done:
            seconds = results["cost"]["seconds"]
            self._seconds[self._names[folder]].append(seconds["student"] + seconds.get("assistants", 0.0))
            self._done.add(folder)
        self._current.pop(folder, None)
        if self._jobs > 1:
            self._tell()

    def left(self) -> float | None:
        """Seconds that the runs which are not done will take; None until one is done."""
        pending = [name for folder, name in self._names.items() if folder not in self._done]
        if not pending:
            return 0.0
        if not self._seconds:
            return None
        others = statistics.mean(seconds for known in self._seconds.values() for seconds in known)
        expected = sum(statistics.mean(self._seconds[name]) if name in self._seconds else others for name in pending)
        passed = sum(self._elapsed(folder) for folder in self._current if folder not in self._done)
        return max(0.0, expected - passed) / min(self._jobs, len(pending))

    def _elapsed(self, folder: Path) -> float:
        """Of a run under way, no more than it is expected to take in all is taken off."""
        known = self._seconds.get(self._names[folder])
        passed = self._clock() - self._current[folder]
        return min(passed, statistics.mean(known)) if known else passed

    def _tell(self) -> None:
        left, self._told = self.left(), self._clock()
        when = "time left: after the first run" if left is None else f"about {show_seconds(left)} left"
        self._headline(when, len(self._done), len(self._names))


def is_finished(folder: Path, recipe: Recipe) -> bool:
    """Whether the folder holds the results of exactly this recipe."""
    if not (folder / MANIFEST).exists() or not (folder / "results.json").exists():
        return False
    manifest = read_manifest(folder, "run")
    return bool(manifest["recipe"] == dumped(recipe))
