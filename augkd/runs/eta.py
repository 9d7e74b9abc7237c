"""How many of a comparison's runs are done, and how long the others will take.

A run in progress is expected to keep its own pace; one that has not started, to take what others of its recipe took or
will take. Only the students' time is counted: index, teacher and transfer sets are shared, so a first run says nothing
about the next. What is finished when the command starts counts at once.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from augkd.evaluation.figures_read import read_figures
from augkd.evaluation.results import RunResults
from augkd.recipe import Recipe, dump
from augkd.recipe.units import format_seconds
from augkd.workspace.manifest_kinds import RunManifest
from augkd.workspace.manifests import MANIFEST, read_manifest

Headline = Callable[[str, int, int], None]  # a text, runs done, runs in all
_INTERVAL = 5.0  # seconds between two headlines
_RELIABLE = 0.02  # share of a student's steps after which its pace can be trusted


def no_headline(text: str, done: int, total: int) -> None:
    """A headline that nobody reads."""


@dataclass
class _Pace:
    """A student in training."""

    stage: int  # from 0
    started: float  # this stage, by the clock, with `first` steps done
    first: int
    now: float
    done: int
    total: int
    later: float  # steps of the stages to come, if an epoch has as many there
    spent: float  # seconds of the stages before

    @property
    def reliable(self) -> bool:
        return self.done - self.first >= max(1.0, _RELIABLE * self.total)

    @property
    def seconds_per_step(self) -> float:
        return (self.now - self.started) / (self.done - self.first)

    def left(self, clock: float) -> float:
        """Seconds until its last step."""
        return max(0.0, self.seconds_per_step * (self.total - self.done + self.later) - (clock - self.now))

    def whole(self) -> float:
        """Seconds of all its steps."""
        return self.spent + self.seconds_per_step * (self.total + self.later)


class TimeLeft:
    """The runs of a comparison, by folder; each has the name of its recipe."""

    def __init__(
        self,
        runs: Mapping[Path, tuple[str, Recipe]],
        headline: Headline = no_headline,
        clock: Callable[[], float] = time.monotonic,
        jobs: int = 1,
    ):
        """Runs that are finished already are done; `clock` gives seconds from any origin; `jobs` runs go on at once."""
        self._names = {folder: name for folder, (name, _) in runs.items()}
        self._epochs = {
            folder: [stage.epochs for stage in recipe.training_stages] for folder, (_, recipe) in runs.items()
        }
        self._headline, self._clock, self._jobs = headline, clock, jobs
        self._seconds: dict[str, list[float]] = defaultdict(list)
        self._done: set[Path] = set()
        self._started: dict[Path, float] = {}  # runs in progress
        self._paces: dict[Path, _Pace] = {}
        self._last_headline = 0.0
        for folder, (_, recipe) in runs.items():
            if is_finished(folder, recipe):
                self.end(folder, read_figures(folder / "results.json", RunResults))
        self._announce()

    def begin(self, folder: Path) -> None:
        """A run starts, or is looked at again."""
        self._started[folder] = self._clock()
        self._announce()

    def tick(self, folder: Path, stage: str, done: int, total: int | None) -> None:
        """Progress of a run, as the run reports it."""
        if stage == "student" and total is not None:
            now, pace = self._clock(), self._paces.get(folder)
            if pace is None or done < pace.done or total != pace.total:
                self._paces[folder] = self._next_stage(folder, pace, now, done, total)
            else:
                pace.now, pace.done = now, done
        if self._clock() - self._last_headline >= _INTERVAL:
            self._announce()

    def _next_stage(self, folder: Path, before: _Pace | None, now: float, done: int, total: int) -> _Pace:
        """The pace of a student at the start of a stage of training, its first if there is none `before`."""
        epochs = self._epochs[folder]
        stage = 0 if before is None else min(before.stage + 1, len(epochs) - 1)
        later = total * sum(epochs[stage + 1 :]) / epochs[stage] if epochs[stage] else 0.0
        spent = 0.0 if before is None else before.spent + now - before.started
        return _Pace(stage, now, done, now, done, total, later, spent)

    def end(self, folder: Path, results: RunResults) -> None:
        """A run is done; its results say how long its student took."""
        if folder not in self._done:
            seconds = results["cost"]["seconds"]
            self._seconds[self._names[folder]].append(seconds["student"] + seconds.get("assistants", 0.0))
            self._done.add(folder)
        self._started.pop(folder, None)
        self._paces.pop(folder, None)
        if self._jobs > 1:
            self._announce()

    def seconds(self) -> float | None:
        """Seconds that the runs which are not done will take; None while nothing is known."""
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
        """Seconds per run of each recipe of which a run was finished or is in progress."""
        seconds = {name: list(finished) for name, finished in self._seconds.items()}
        for folder, pace in self._paces.items():
            if pace.reliable and not self._seconds.get(self._names[folder]):
                seconds.setdefault(self._names[folder], []).append(pace.whole())
        return {name: statistics.mean(finished) for name, finished in seconds.items() if finished}

    def _left(self, folder: Path, expected: float) -> float:
        """Seconds of a run that is not done, from its own pace if it has one."""
        if folder not in self._started:
            return expected
        pace, now = self._paces.get(folder), self._clock()
        if pace is not None and pace.reliable:
            return pace.left(now)
        return max(0.0, expected - (now - self._started[folder]))

    def _announce(self) -> None:
        left, self._last_headline = self.seconds(), self._clock()
        when = "time left: not known yet" if left is None else f"about {format_seconds(left)} left"
        self._headline(when, len(self._done), len(self._names))


def is_finished(folder: Path, recipe: Recipe) -> bool:
    """Whether the folder holds the results of exactly this recipe."""
    if not (folder / MANIFEST).exists() or not (folder / "results.json").exists():
        return False
    return bool(read_manifest(folder, RunManifest).recipe == dump(recipe))
