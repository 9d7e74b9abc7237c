"""Runs of a comparison on the workers of a Ray cluster: the plan of `workers`, on more machines than one.

A run writes its folder itself, and takes from the folder that all runs share what was made before: every machine has to
see both under the same path. A run whose worker is lost goes on with another worker from where its folder is.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from augkd.errors import ClusterError
from augkd.models.cluster import Cluster
from augkd.models.ray_calls import import_ray, interruptible
from augkd.runs.workers import Job, Watcher, run_job

if TYPE_CHECKING:
    from collections.abc import Iterator

    from augkd.evaluation.results import RunResults

_INTERVAL = 0.5  # seconds between two messages of a stage in progress


class Mailbox:
    """An actor on the machine of the command: what the runs report waits here until it is shown."""

    def __init__(self) -> None:
        self._messages: list[tuple[int, Any]] = []

    def put(self, number: int, message: Any) -> None:
        """Takes a message about a job: None when it began, else its progress."""
        self._messages.append((number, message))

    def take(self) -> list[tuple[int, Any]]:
        """All messages since the last call."""
        taken, self._messages = self._messages, []
        return taken


def run_jobs_on(cluster: Cluster, jobs: Sequence[Job], watcher: Watcher) -> None:
    """Runs all jobs in order, one at each worker; `watcher` is called for each as it happens.

    The first error ends all workers and is raised here. Raises ClusterError for a worker that does not see the folders.
    """
    if not jobs:
        return
    with _mailbox(cluster) as mailbox, _token(jobs[0].shared.resolve()) as token:
        pool = cluster.pool(make_run, tuple(jobs), mailbox, Path.cwd(), token, concurrent=1)
        numbers = ((number, number) for number in range(len(jobs)))
        for number, results in pool.map(numbers, partial(_pass_on, mailbox, jobs, watcher)):
            _pass_on(mailbox, jobs, watcher)
            watcher.ended(jobs[number], results)


def _pass_on(mailbox: Any, jobs: Sequence[Job], watcher: Watcher) -> None:
    with interruptible():
        messages = import_ray().get(mailbox.take.remote())
    for number, message in messages:
        if message is None:
            watcher.began(jobs[number])
        else:
            watcher.progress(jobs[number], *message)


@contextmanager
def _mailbox(cluster: Cluster) -> Iterator[Any]:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ray, here = import_ray(), NodeAffinitySchedulingStrategy(cluster.node, soft=False)
    mailbox = ray.remote(Mailbox).options(num_cpus=0, scheduling_strategy=here).remote()
    try:
        yield mailbox
    finally:
        ray.kill(mailbox)


@contextmanager
def _token(shared: Path) -> Iterator[Path]:
    """A file by which workers recognise the folder that all runs share."""
    shared.mkdir(parents=True, exist_ok=True)
    token = shared / f".cluster.{os.getpid()}.tmp"
    token.touch()
    try:
        yield token
    finally:
        token.unlink(missing_ok=True)


# ---- in the worker ----


def make_run(jobs: Sequence[Job], mailbox: Any, here: Path, token: Path) -> Callable[[int], RunResults]:
    """On a worker: a function from the number of a job to the results of its run."""
    if not token.exists() or not here.is_dir():
        missing = here if token.exists() else token.parent
        raise ClusterError(
            f"a worker on {os.uname().nodename} does not see {missing}; runs are written where they are trained: give "
            "--out, and start the command, in a folder that all machines of the cluster share"
        )
    os.chdir(here)  # paths in recipes are relative to it

    def run(number: int) -> RunResults:
        mailbox.put.remote(number, None)
        return run_job(jobs[number], Reporter(mailbox, number))

    return run


class Reporter:
    """Progress of one run, sent on: the first and the last step of a stage, and one in between now and then."""

    def __init__(self, mailbox: Any, number: int) -> None:
        self._mailbox, self._number = mailbox, number
        self._stage, self._sent = "", 0.0

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        """Reports a step of a stage."""
        now = time.monotonic()
        if stage != self._stage or done == total or now - self._sent >= _INTERVAL:
            self._stage, self._sent = stage, now
            self._mailbox.put.remote(self._number, (stage, done, total))
