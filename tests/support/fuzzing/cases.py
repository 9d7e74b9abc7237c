"""Runs cases and keeps what no user should see: an exception that is none of ours, a message of pages, a hang."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import UnsatisfiedAssumption

from augkd.cli import app as command_line
from augkd.errors import AugkdError

LONGEST = 20  # seconds of one case
Case = Callable[[st.DataObject], None]  # draws from hypothesis and calls an entry point


class Hang(Exception):
    """A case took longer than LONGEST."""


@dataclasses.dataclass
class Tally:
    """How many cases ran, and the failures by place."""

    cases: Counter[str] = dataclasses.field(default_factory=Counter)
    refused: Counter[str] = dataclasses.field(default_factory=Counter)
    failures: dict[str, list[str]] = dataclasses.field(default_factory=dict)

    def fail(self, target: str, place: str, detail: str) -> None:
        self.failures.setdefault(f"{target}: {place}", []).append(detail)

    def report(self) -> Iterator[str]:
        total = sum(self.cases.values())
        yield f"{total:,} cases, {sum(self.refused.values()):,} refused in one line, {len(self.failures)} failures"
        for target, count in sorted(self.cases.items()):
            yield f"  {target:20}{count:>8,} cases{self.refused[target]:>8,} refused"
        for place, details in sorted(self.failures.items(), key=lambda item: -len(item[1])):
            yield f"FAILED {len(details)} × {place}\n{details[0]}"


def run(target: str, case: Case, count: int, tally: Tally, number: int = 0) -> None:
    """Runs `count` cases of a target; `number` is the seed."""

    @seed(number)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def cases(data: st.DataObject) -> None:
        tally.cases[target] += 1
        try:
            with _at_most(LONGEST):
                case(data)
        except AugkdError:
            tally.refused[target] += 1
        except UnsatisfiedAssumption:
            raise
        except (Exception, SystemExit, RecursionError, MemoryError) as exc:
            if type(exc).__module__.startswith("hypothesis"):
                raise
            tally.fail(target, _place(exc), "".join(traceback.format_exception(exc))[-3000:])

    cases()


def _place(exc: BaseException) -> str:
    """The innermost line of ours."""
    frames = traceback.extract_tb(exc.__traceback__)
    ours = [frame for frame in frames if "/augkd/" in frame.filename] or frames
    return f"{type(exc).__name__} at {Path(ours[-1].filename).name}:{ours[-1].lineno} in {ours[-1].name}"


@contextlib.contextmanager
def _at_most(seconds: int) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise Hang(f"no end after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def command(*arguments: str) -> None:
    """Runs a command as a user would; raises what would be a traceback, and AugkdError for a refusal."""
    before, out, err = sys.argv, io.StringIO(), io.StringIO()
    interrupt = signal.getsignal(signal.SIGINT)
    sys.argv = ["augkd", *arguments]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            command_line.main()
    except SystemExit as exc:
        if exc.code in (0, None):
            return
        message = err.getvalue().strip().split("\n")[-1]
        if exc.code == 1 and not message.startswith("error: ") and not out.getvalue():
            raise AssertionError(f"status 1 without a line: {err.getvalue()[-300:]!r}") from exc
        if exc.code not in (1, 2):
            raise AssertionError(f"status {exc.code}: {err.getvalue()[-300:]!r}") from exc
        if exc.code == 1 and len(message) > 2100:
            raise AssertionError(f"a message of {len(message)} characters: {message[:300]!r}") from exc
        raise AugkdError("wrong usage" if exc.code == 2 else message) from exc
    finally:
        sys.argv = before
        signal.signal(signal.SIGINT, interrupt)


def timed(function: Callable[[], Any]) -> float:
    """Seconds that a call takes."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started
