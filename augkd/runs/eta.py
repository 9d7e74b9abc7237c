"""How many of a comparison's runs are done, and how long the others will take.

A run under way is expected to go on at its own pace, one to come to take what others of its recipe took or will take.
Only the students' time is counted: index, teacher and transfer sets are shared, so that a first run says nothing about
the next. What is finished when the command starts counts at once.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from augkd.recipe import Recipe, dumped
from augkd.recipe.units import show_seconds
from augkd.workspace.files import read_json
from augkd.workspace.manifests import MANIFEST, read_manifest

Headline = Callable[[str, int, int], None]  # a text, runs done, runs in all
_EVERY = 5.0  # seconds between two headlines of one run
_TELLING = 0.02  # share of a student's steps that says how fast the others will be


def unseen(text: str, done: int, total: int) -> None:
    """The headline of someone who does not look."""


@dataclass
class _Pace:
    """A student in training."""

    stage: int  # 0 for its first
    began: float  # this stage, by the clock, with `first` steps done
    first: int
    now: float
    done: int
    total: int
    later: float  # steps of the stages to come, if an epoch has as many there
    spent: float  # seconds of the stages before

    @property
    def telling(self) -> bool:
        return self.done - self.first >= max(1.0, _TELLING * self.total)

    @property
    def seconds_a_step(self) -> float:
        return (self.now - self.began) / (self.done - self.first)

    def left(self, clock: float) -> float:
        """Seconds until its last step."""
        return max(0.0, self.seconds_a_step * (self.total - self.done + self.later) - (clock - self.now))

    def whole(self) -> float:
        """Seconds of all its steps."""
        return self.spent + self.seconds_a_step * (self.total + self.later)


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
        self._epochs = {folder: [stage.epochs for stage in recipe.phases] for folder, (_, recipe) in runs.items()}
        self._headline, self._clock, self._jobs = headline, clock, jobs
        self._seconds: dict[str, list[float]] = defaultdict(list)
        self._done: set[Path] = set()
        self._current: dict[Path, float] = {}  # when each began
        self._paces: dict[Path, _Pace] = {}
        self._told = 0.0
        for folder, (_, recipe) in runs.items():
            if is_finished(folder, recipe):
                self.end(folder, read_json(folder / "results.json"))
        self._tell()

    def begin(self, folder: Path) -> None:
        """A run starts, or is looked at again."""
        self._current[folder] = self._clock()
        self._tell()

    def tick(self, folder: Path, stage: str, done: int, total: int | None) -> None:
        """Progress of a run, in the terms it tells it in."""
        if stage == "student" and total is not None:
            now, pace = self._clock(), self._paces.get(folder)
            if pace is None or done < pace.done or total != pace.total:
                self._paces[folder] = self._stage(folder, pace, now, done, total)
            else:
                pace.now, pace.done = now, done
        if self._clock() - self._told >= _EVERY:
            self._tell()

    def _stage(self, folder: Path, before: _Pace | None, now: float, done: int, total: int) -> _Pace:
        """The pace of a student at the start of a stage of training, its first if there is none `before`."""
        epochs = self._epochs[folder]
        stage = 0 if before is None else min(before.stage + 1, len(epochs) - 1)
        later = total * sum(epochs[stage + 1 :]) / epochs[stage] if epochs[stage] else 0.0
        spent = 0.0 if before is None else before.spent + now - before.began
        return _Pace(stage, now, done, now, done, total, later, spent)

    def end(self, folder: Path, results: Mapping[str, Any]) -> None:
        """A run is done; its results tell what its student took."""
        if folder not in self._done:
            seconds = results["cost"]["seconds"]
            self._seconds[self._names[folder]].append(seconds["student"] + seconds.get("assistants", 0.0))
            self._done.add(folder)
        self._current.pop(folder, None)
        self._paces.pop(folder, None)
        if self._jobs > 1:
            self._tell()

    def left(self) -> float | None:
        """Seconds that the runs which are not done will take; None while nothing tells."""
        pending = [folder for folder in self._names if folder not in self._done]
        if not pending:
            return 0.0
        expected = self._expected()
        if not expected:
            return None
        others = statistics.mean(expected.values())
        left = [self._left(folder, expected.get(self._names[folder], others)) for folder in pending]
        return max(sum(left) / min(self._jobs, len(left)), max(left))

    def _expected(self) -> dict[str, float]:
        """Seconds a run takes, of each recipe that one was done of or is going on of."""
        seconds = {name: list(known) for name, known in self._seconds.items()}
        for folder, pace in self._paces.items():
            if pace.telling and not self._seconds.get(self._names[folder]):
                seconds.setdefault(self._names[folder], []).append(pace.whole())
        return {name: statistics.mean(known) for name, known in seconds.items() if known}

    def _left(self, folder: Path, expected: float) -> float:
        """Seconds of a run that is not done, from its own pace if it has one."""
        if folder not in self._current:
            return expected
        pace, now = self._paces.get(folder), self._clock()
        if pace is not None and pace.telling:
            return pace.left(now)
        return max(0.0, expected - (now - self._current[folder]))

    def _tell(self) -> None:
        left, self._told = self.left(), self._clock()
        when = "time left: not known yet" if left is None else f"about {show_seconds(left)} left"
        self._headline(when, len(self._done), len(self._names))


def is_finished(folder: Path, recipe: Recipe) -> bool:
    """Whether the folder holds the results of exactly this recipe."""
    if not (folder / MANIFEST).exists() or not (folder / "results.json").exists():
        return False
    manifest = read_manifest(folder, "run")
    return bool(manifest["recipe"] == dumped(recipe))
