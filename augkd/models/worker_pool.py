"""Workers of a Ray cluster that all do one thing: tasks in, results out, as they come.

Plain actors, each with a task at work and one waiting, so a slow worker holds nobody up and no more is in memory than
that. A worker that is lost costs the tasks it had: they go to others, and a replacement starts as soon as there is
room. A result is taken once, so nothing is done twice however often a task was begun.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from augkd.errors import AugkdError, ClusterError
from augkd.models.ray_calls import import_ray, interruptible
from augkd.workspace.manifests import versions

TRIES = 3  # workers that may be lost on one task before it is given up
_TICK = 0.2  # seconds between two looks at Ctrl-C and at what the caller watches
_PATIENCE = 300.0  # seconds without any worker; a cluster that grows needs minutes for a new machine


class Worker:
    """What runs on the cluster: it is made ready, then does its tasks one after another."""

    _work: Callable[[Any], Any] | None = None

    def start(
        self, make: Callable[..., Callable[[Any], Any]], args: tuple[Any, ...], expected: Mapping[str, str], gpus: float
    ) -> int:
        """Makes what the tasks need; the process id. Raises ClusterError where other versions are installed."""
        from augkd.models.libraries import quiet_libraries, set_environment

        installed = {**versions(), "python": python_version()}
        differ = sorted(name for name in expected if installed.get(name) != expected[name])
        if differ:
            name = differ[0]
            raise ClusterError(
                f"a worker on {os.uname().nodename} has {name} {installed.get(name, 'not installed')}, this machine "
                f"{expected[name]}; install the same versions on all machines"
            )
        if not gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""  # it got no GPU, though its machine may have one
        set_environment()
        quiet_libraries()
        self._work = None  # before the next model is loaded
        self._work = make(*args)
        return os.getpid()

    def run(self, task: Any) -> Any:
        """Does one task."""
        assert self._work is not None, "tasks come after the start"
        return self._work(task)

    def rest(self) -> None:
        """Gives back the memory of what it was made ready for; it can be made ready for something else."""
        from augkd.models.machine import release_memory

        self._work = None
        release_memory()


def python_version() -> str:
    """Major and minor version of Python."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


@dataclass
class _Task:
    key: Any
    content: Any
    losses: int = 0


@dataclass(eq=False)
class _Member:
    """A worker as seen from here, with its tasks in the order in which it does them."""

    actor: Any
    starting: Any  # the reference of its start; None: it is ready
    tasks: dict[Any, _Task] = field(default_factory=dict)  # by the reference of the result
    process: int | None = None


class WorkerPool:
    """The workers of one `make`; they start with the first task and stay until `stop` or `retire`."""

    def __init__(
        self,
        make: Callable[..., Callable[[Any], Any]],
        args: tuple[Any, ...],
        *,
        workers: int,
        cpus: float,  # of each
        gpus: float,
        concurrent: int,  # tasks at a worker: one at work, the others waiting
        spare: Sequence[Any] = (),  # actors that another pool has no use for any more
    ) -> None:
        self._ray = import_ray()
        self._make, self._args, self._concurrent = make, args, concurrent
        self._workers, self._cpus, self._gpus = workers, cpus, gpus
        self._expected = {**versions(), "python": python_version()}
        self._spare = list(spare)
        self._members: list[_Member] = []
        self._waiting: deque[_Task] = deque()
        self._failed_starts = 0
        self.lost = 0  # workers

    @property
    def processes(self) -> list[int]:
        """Process ids of the workers that are ready, each on its machine."""
        return [member.process for member in self._members if member.process is not None]

    def map(
        self,
        tasks: Iterable[tuple[Any, Any]],  # a key, which stays here, and what a worker gets
        watch: Callable[[], None] | None = None,
    ) -> Iterator[tuple[Any, Any]]:
        """The key of each task with its result, in the order in which they are done.

        A task is taken from `tasks` when a worker is about to be free, and one ahead of that. `watch` is called several
        times a second. Raises what a worker raised if it is the user's to correct, RuntimeError with the
        traceback for anything else, and ClusterError when workers are lost again and again, or none can be had for 5
        minutes.
        """
        source, seen = iter(tasks), time.monotonic()
        more = True
        try:
            while True:
                if more and not self._waiting:
                    ahead = next(source, None)
                    more = ahead is not None
                    self._waiting.extend([_Task(*ahead)] if ahead is not None else [])
                if not self._waiting and not any(member.tasks for member in self._members):
                    return
                self._assign()
                if more and not self._waiting:
                    continue  # a worker took what was ahead: read the next before waiting
                for task, result in self._done():
                    yield task.key, result
                if any(member.starting is None for member in self._members):
                    seen = time.monotonic()
                elif time.monotonic() - seen > _PATIENCE:
                    raise ClusterError(
                        f"no worker could be had for {_PATIENCE:.0f} seconds; the cluster may be full or its machines "
                        "lost: see `ray status`, then run the same command, which continues"
                    )
                if watch is not None:
                    watch()
        finally:
            self._forget()

    def ordered(self, tasks: Iterable[Any], watch: Callable[[], None] | None = None) -> Iterator[Any]:
        """The results in the order of the tasks; those that come early are kept meanwhile."""
        early: dict[int, Any] = {}
        wanted = 0
        for number, result in self.map(enumerate(tasks), watch):
            early[number] = result
            while wanted in early:
                yield early.pop(wanted)
                wanted += 1

    def begin(self) -> None:
        """Starts the workers before there is a task."""
        self._assign()

    def rest(self) -> None:
        """Has the workers give back their memory; the next task starts them again, without their imports."""
        self._spare = self.retire()
        with interruptible():
            for actor in self._spare:
                actor.rest.remote()

    def retire(self) -> list[Any]:
        """The actors that are free, for another pool; the others are ended. Nothing of this one is left."""
        self._forget()
        actors = self._spare + [member.actor for member in self._members]
        self._spare, self._members = [], []
        return actors

    def stop(self) -> None:
        """Ends the workers."""
        with interruptible():
            for actor in self.retire():
                self._ray.kill(actor)

    # -- the workers -------------------------------------------------------------------------------------------------

    def _assign(self) -> None:
        """Starts workers that are missing, and gives tasks to those with room for one more."""
        with interruptible():
            while len(self._members) < self._workers:
                self._members.append(self._start())
            for member in sorted(self._members, key=lambda member: len(member.tasks)):
                if self._waiting and member.starting is None and len(member.tasks) < self._concurrent:
                    task = self._waiting.popleft()
                    member.tasks[member.actor.run.remote(task.content)] = task

    def _start(self) -> _Member:
        options = {"num_cpus": self._cpus, "num_gpus": self._gpus, "scheduling_strategy": "SPREAD"}
        if self._spare:
            actor = self._spare.pop()
        else:
            actor = self._ray.remote(Worker).options(**options, max_restarts=0, max_task_retries=0).remote()
        return _Member(actor, actor.start.remote(self._make, self._args, self._expected, self._gpus))

    def _done(self) -> Iterator[tuple[_Task, Any]]:
        """Waits a moment; what is done by then."""
        pending = [ref for member in self._members for ref in ([member.starting] if member.starting else member.tasks)]
        with interruptible():
            ready, _ = self._ray.wait(pending, num_returns=len(pending), timeout=0)
            if not ready:
                ready, _ = self._ray.wait(pending, num_returns=1, timeout=_TICK)
        for ref in ready:
            member = next((one for one in self._members if ref == one.starting or ref in one.tasks), None)
            if member is None:  # lost a moment ago, with the tasks it had
                continue
            try:
                with interruptible():
                    result = self._ray.get(ref)
            except self._losses() as exc:
                self._replace(member, exc)
                continue
            except self._ray.exceptions.RayTaskError as exc:
                raise _error_of(exc) from None
            if ref == member.starting:
                member.starting, member.process, self._failed_starts = None, result, 0
            else:
                yield member.tasks.pop(ref), result

    def _losses(self) -> tuple[type[BaseException], ...]:
        """What Ray raises for a worker or a machine that is gone."""
        known = self._ray.exceptions
        return known.RayActorError, known.ObjectLostError, known.OutOfMemoryError, known.NodeDiedError

    def _replace(self, member: _Member, exc: BaseException) -> None:
        """Gives the tasks of a lost worker to others; what it had at work when it was lost counts as a try."""
        self.lost += 1
        self._members.remove(member)
        with interruptible():
            self._ray.kill(member.actor)
        tasks = list(member.tasks.values())
        if tasks:
            tasks[0].losses += 1
        else:
            self._failed_starts += member.starting is not None
        self._waiting.extendleft(reversed(tasks))
        if "No module named 'augkd" in str(exc):
            raise _error_of(exc) from None
        if max(self._failed_starts, *(task.losses for task in tasks), 0) >= TRIES:
            raise ClusterError(
                f"{TRIES} workers were lost on the same work, perhaps out of memory ({_reason(exc)}); give each more, "
                "or start fewer; the same command continues"
            ) from exc

    def _forget(self) -> None:
        """After an error or an end: nothing of these tasks is left. Workers still at one of them are stopped."""
        self._waiting.clear()
        for member in [member for member in self._members if member.tasks]:
            self._members.remove(member)
            with interruptible():
                self._ray.kill(member.actor)


def _error_of(exc: Any) -> BaseException:
    """What a worker raised, as it was if it is a message for the user."""
    if "No module named 'augkd" in str(exc):
        return ClusterError("a worker finds no augkd; install the same version on all machines of the cluster")
    cause: BaseException = exc.cause
    return cause if isinstance(cause, AugkdError) else RuntimeError(f"a worker failed:\n{exc}")


def _reason(exc: BaseException) -> str:
    """The end of what Ray has to say about a lost worker, in one line."""
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    return lines[-1][:160] if lines else type(exc).__name__
