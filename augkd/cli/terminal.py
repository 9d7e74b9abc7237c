"""What the commands share: options, results on stdout, progress on stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from augkd.cli.printing import neutral, say, say_json
from augkd.recipe.units import format_seconds
from augkd.workspace.storage import refuse_url


def recipe_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """What a shell offers for a recipe: shipped names (of `index build`: of index recipes) and YAML files that fit."""
    from augkd.recipe import shipped_recipes  # no model library

    names = sorted(shipped_recipes("indexes" if ctx.info_name == "build" else "pipelines"))
    folder = Path(incomplete) if incomplete.endswith("/") else Path(incomplete).parent
    files = sorted(str(file) for file in folder.glob("*") if file.suffix == ".yaml" or file.is_dir())
    return [name for name in (*names, *files) if name.startswith(incomplete)]


RecipeName = Annotated[
    str, typer.Argument(help="A recipe file, or the name of a shipped recipe.", autocompletion=recipe_names)
]
Out = Annotated[
    Path,
    typer.Option(
        "--out", callback=refuse_url, help="The folder to write; the same command continues an unfinished one."
    ),
]
Sets = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one key of the recipe (repeatable).")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def finite(least: float, most: float) -> Callable[[float], float]:
    """A check of an option: a number from `least` to `most`. Click's own range lets nan pass."""

    def check(value: float) -> float:
        if not least <= value <= most:
            raise typer.BadParameter(f"{value:g} is not in the range {least:g}<=x<={most:g}.")
        return value

    return check


def show(value: Any, as_json: bool, lines: list[str]) -> None:
    """Prints a result: its lines, or the value as JSON."""
    if as_json:
        say_json(value)
        return
    for line in lines:
        say(line)


def warn(notes: Iterable[str]) -> None:
    """Prints what a reader must know on stderr, where it stands beside JSON too."""
    for note in notes:
        say(f"warning: {note}", err=True)


class Bars:
    """One line a stage: a bar on a terminal, a line every 15 seconds elsewhere."""

    def __init__(self) -> None:
        self.prefix = ""
        self._progress: Any = None
        self._tasks: dict[str, Any] = {}
        self._last = 0.0
        self._headline: tuple[Any, int] | None = None  # its line on a terminal, and how many runs it said are done

    def __enter__(self) -> Bars:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

        console = Console(stderr=True)
        if console.is_terminal:
            name, note = (TextColumn(text, markup=False) for text in ("{task.description}", "{task.fields[note]}"))
            columns = (SpinnerColumn(), name, BarColumn(), MofNCompleteColumn(), note)
            self._progress = Progress(*columns, console=console)
            self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._progress:
            self._progress.stop()

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        import time

        name, now = self.prefix + stage, time.monotonic()
        if name not in self._tasks:
            task = self._progress.add_task(neutral(name), total=total, note="") if self._progress else None
            self._tasks[name] = (task, now, done, done)
        task, started, first, last = self._tasks[name]
        if done < last:  # another stage of training under the same name: its steps are counted anew
            started, first = now, done
        self._tasks[name] = (task, started, first, done)
        rate = (done - first) / max(now - started, 1e-9)
        left = f", {format_seconds((total - done) / rate)} left" if total and rate > 0 else ""
        if self._progress:
            self._progress.update(task, completed=done, total=total, note=f"{rate:,.1f}/s{left}")
        elif now - self._last > 15 or done == total:
            self._last = now
            say(f"{name}: {done}{f' of {total}' if total else ''}, {rate:,.1f}/s{left}", err=True)

    def headline(self, text: str, done: int, total: int) -> None:
        """A first line about many runs together; the lines of their stages go when another run is done."""
        line, before = self._headline or (None, None)
        if self._progress:
            line = self._progress.add_task("all runs", total=total, note="") if self._headline is None else line
            self._progress.update(line, completed=done, note=neutral(text))
        elif done != before:
            say(f"all runs: {done} of {total} done, {text}", err=True)
        if done != before:
            for task, *_ in self._tasks.values() if self._progress else ():
                self._progress.remove_task(task)
            self._tasks.clear()
        self._headline = (line, done)
