"""What the commands share: options, results on stdout, progress on stderr."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

RecipeName = Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped recipe.")]
Out = Annotated[Path, typer.Option("--out", help="The folder to write; the same command continues an unfinished one.")]
Sets = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one key of the recipe (repeatable).")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def show(value: Any, as_json: bool, lines: list[str]) -> None:
    """Prints a result: its lines, or the value as JSON."""
    if as_json:
        typer.echo(json.dumps(value, indent=2, ensure_ascii=False))
        return
    for line in lines:
        typer.echo(line)


def quiet_libraries() -> None:
    """One owner of the terminal: the libraries' own bars and load reports are switched off."""
    import datasets
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()


class Bars:
    """One line a stage: a bar on a terminal, a line every 15 seconds elsewhere."""

    def __init__(self) -> None:
        self.prefix = ""
        self._progress: Any = None
        self._tasks: dict[str, Any] = {}
        self._last = 0.0

    def __enter__(self) -> Bars:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            SpinnerColumn,
            TextColumn,
            TimeRemainingColumn,
        )

        console = Console(stderr=True)
        if console.is_terminal:
            columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
            rate = TextColumn("{task.fields[rate]}")
            self._progress = Progress(*columns, rate, TimeRemainingColumn(), console=console)
            self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._progress:
            self._progress.stop()

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        import time

        name, now = self.prefix + stage, time.monotonic()
        if name not in self._tasks:
            task = self._progress.add_task(name, total=total, rate="") if self._progress else None
            self._tasks[name] = (task, now, done)
        task, started, first = self._tasks[name]
        rate = (done - first) / max(now - started, 1e-9)
        if self._progress:
            self._progress.update(task, completed=done, total=total, rate=f"{rate:,.1f}/s")
        elif now - self._last > 15 or done == total:
            self._last = now
            left = f", {(total - done) / rate:.0f} s left" if total and rate > 0 else ""
            typer.echo(f"{name}: {done}{f' of {total}' if total else ''}, {rate:,.1f}/s{left}", err=True)
