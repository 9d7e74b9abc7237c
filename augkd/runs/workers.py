"""Runs of a comparison side by side: each in a process of its own, as many at once as asked for.

A worker makes the shared stages that nobody has made yet, one process a stage (`claimed`), and trains. Nothing but
finished results comes back, so a comparison that is stopped here continues like any other.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

from augkd.errors import AugkdError
from augkd.evaluation.results import RunResults
from augkd.models.machine import usable_cores
from augkd.recipe import Recipe

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")
_PATIENCE = 0.5  # seconds between two looks at the workers


@dataclass(frozen=True)
class Job:
    """One run of a comparison."""

    name: str  # of the recipe
    recipe: Recipe
    folder: Path
    shared: Path
    prefix: str = ""  # of its progress


@dataclass(frozen=True)
class Watcher:
    """What is called as jobs proceed."""

    progress: Callable[[Job, str, int, int | None], None]  # a job, its stage, steps done, steps in all
    began: Callable[[Job], None]
    ended: Callable[[Job, RunResults], None]


def run_jobs(jobs: Sequence[Job], workers: int, watcher: Watcher) -> None:
    """Runs all jobs, `workers` at once, in order; `watcher` is called for each as it happens.

    The machine's cores are shared out evenly. The first error ends all workers and is raised here: a user's mistake as
    it was, a bug of ours as a RuntimeError with its traceback, a worker that was killed as an AugkdError.
    """
    context = multiprocessing.get_context("spawn")  # a forked torch may hang in its thread pools
    waiting, messages = context.Queue(), context.Queue()
    for number in range(len(jobs)):
        waiting.put(number)
    workers = min(workers, len(jobs))
    processes = [context.Process(target=_work, args=(list(jobs), waiting, messages)) for _ in range(workers)]
    for _ in processes:
        waiting.put(None)
    try:
        with _threads(max(1, usable_cores() // max(1, workers))):
            for process in processes:
                process.start()
        _follow(jobs, processes, messages, watcher)
    finally:
        started = [process for process in processes if process.pid is not None]
        for process in started:
            process.terminate()
        for process in started:
            process.join()


def _follow(jobs: Sequence[Job], processes: Sequence[Any], messages: Queue[Any], watcher: Watcher) -> None:
    """Passes the workers' messages on until every job has ended."""
    left = len(jobs)
    while left:
        try:
            kind, number, value = messages.get(timeout=_PATIENCE)
        except queue.Empty:
            _check_alive(processes)
            continue
        if kind == "progress":
            watcher.progress(jobs[number], *value)
        elif kind == "began":
            watcher.began(jobs[number])
        elif kind == "ended":
            watcher.ended(jobs[number], value)
            left -= 1
        else:
            raise value


def _check_alive(processes: Sequence[Any]) -> None:
    dead = [process.exitcode for process in processes if process.exitcode is not None]
    if any(dead) or len(dead) == len(processes):
        raise AugkdError(f"a worker died (exit {dead}), perhaps out of memory; try fewer --jobs")


# ---- in the worker ----


def _work(jobs: Sequence[Job], waiting: Queue[int | None], messages: Queue[Any]) -> None:
    """A worker: takes jobs until there is none left."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which then ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from augkd.models.libraries import quiet_libraries

    quiet_libraries()
    while (number := waiting.get()) is not None:
        messages.put(("began", number, None))
        try:
            results = run_job(jobs[number], partial(_send_progress, messages, number))
        except AugkdError as exc:
            messages.put(("failed", number, exc))
            return
        except Exception:  # the parent raises it, with where it happened
            where = f"{jobs[number].folder.name} failed:\n{traceback.format_exc()}"
            messages.put(("failed", number, RuntimeError(where)))
            return
        messages.put(("ended", number, results))


def run_job(job: Job, progress: Callable[[str, int, int | None], None]) -> RunResults:
    """A run from beginning to end, in the process that calls this."""
    from augkd.runs.run import Run, forget_peak

    forget_peak()
    return Run(job.recipe, job.folder, job.shared, progress, job.name).results()


def _send_progress(messages: Queue[Any], number: int, stage: str, done: int, total: int | None) -> None:
    messages.put(("progress", number, (stage, done, total)))


def _end_with_parent() -> None:
    """A worker whose parent was killed would go on alone, and hold its folder."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Processes started within it use `count` threads, unless the environment already says how many."""
    new = {name: str(count) for name in _THREADS if name not in os.environ}
    os.environ.update(new)
    try:
        yield
    finally:
        for name in new:
            del os.environ[name]
