"""The commands: parse, call, print. No logic lives here, and nothing heavy is imported before a command needs it.

Exit status: 0; 1 with one line for a mistake the user can mend; 2 for wrong usage; 130 after Ctrl-C.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from augkd.errors import AugkdError

if TYPE_CHECKING:
    from augkd.recipe import Recipe

app = typer.Typer(no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False, rich_markup_mode=None)
index_app = typer.Typer(no_args_is_help=True, help="Build, search and describe an index of unlabelled text.")
app.add_typer(index_app, name="index")

RecipeName = Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped recipe.")]
Out = Annotated[Path, typer.Option("--out", help="The folder to write; the same command continues an unfinished one.")]
Sets = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one key of the recipe (repeatable).")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@app.callback()
def _root(debug: Debug = False) -> None:
    """Data augmentation for knowledge distillation: index, transfer set, student."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")


@index_app.command("build")
def index_build(recipe: RecipeName, out: Out, set_: Sets = None, as_json: AsJson = False) -> None:
    """Build an index. Example: augkd index build questions --out runs/questions --set corpus=my.txt"""
    from augkd.recipe import load_index_recipe

    parsed = load_index_recipe(recipe, set_ or [])
    _quiet_libraries()
    from augkd.augment import make_index
    from augkd.workspace import locked

    with _Bars() as bars, locked(out):
        index = make_index(parsed, out, lambda done, total: bars("index", done, total))
    _print(index.manifest, as_json, _index_lines(out, index.manifest))


@index_app.command("search")
def index_search(
    folder: Path,
    text: str,
    k: Annotated[int, typer.Option("-k", min=1, help="How many neighbours.")] = 5,
    as_json: AsJson = False,
) -> None:
    """Show the nearest texts. Example: augkd index search runs/questions "who wrote Faust ?" -k 5"""
    _quiet_libraries()
    from augkd.augment import encoder_of
    from augkd.retrieval.index import Index

    index = Index.open(folder)
    scores, ids = index.search(encoder_of(index).encode([text]), min(k, len(index)))
    known = ids[0] >= 0  # an inverted file may find fewer than k
    found = [
        {"id": int(i), "score": round(float(s), 4), "text": t}
        for i, s, t in zip(ids[0][known], scores[0][known], index.texts(ids[0][known]), strict=True)
    ]
    _print(found, as_json, [f"{row['score']:.3f}  {row['text']}" for row in found])


@index_app.command("info")
def index_info(folder: Path, as_json: AsJson = False) -> None:
    """Describe a built index. Example: augkd index info runs/questions"""
    from augkd.workspace import read_manifest

    manifest = read_manifest(folder, "index")
    _print(manifest, as_json, _index_lines(folder, manifest))


@app.command("augment")
def augment(
    recipe: Annotated[str, typer.Argument(help="A recipe; or `show` to print examples; or `jsonl` to convert.")],
    folder: Annotated[Path | None, typer.Argument(help="The transfer set, for `show` and `jsonl`.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="The folder (for `jsonl`: the file) to write.")] = None,
    n: Annotated[int, typer.Option("-n", min=1, help="Examples that `show` prints.")] = 3,
    set_: Sets = None,
    as_json: AsJson = False,
) -> None:
    """Write a transfer set, or look at one. Examples:

    augkd augment minimax-knn --out runs/trec  ·  augkd augment show runs/trec/transfer_set -n 3  ·
    augkd augment jsonl runs/trec/transfer_set --out augmented.jsonl
    """
    if recipe in ("show", "jsonl"):
        _transfer_set_of(folder, recipe, n, out, as_json)
        return
    run, bars = _run(recipe, _needed(out), set_)
    from augkd.workspace import locked, read_manifest

    with bars, locked(run.out):
        transfer = run.transfer_set()
    facts = read_manifest(transfer.folder, "transfer_set")["data"]
    _print(facts, as_json, [f"{name.replace('_', ' ')}: {value}" for name, value in facts.items()])
    if not as_json:
        typer.echo(f"transfer set: {transfer.folder}")


@app.command()
def distill(recipe: RecipeName, out: Out, set_: Sets = None, as_json: AsJson = False) -> None:
    """Train the student on the transfer set in --out (stages before it are made when missing).

    Example: augkd distill minimax-knn --out runs/trec --set training.epochs=8
    """
    _full_run(recipe, out, set_, as_json)


@app.command()
def run(recipe: RecipeName, out: Out, set_: Sets = None, as_json: AsJson = False) -> None:
    """All stages, from texts to a distilled student. Example: augkd run minimax-knn --out runs/trec"""
    _full_run(recipe, out, set_, as_json)


@app.command()
def compare(
    recipes: Annotated[list[str], typer.Argument(help="Recipe files or shipped names.")],
    out: Out,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Students per recipe, seeds 0 to n-1.")] = 1,
    controls: Annotated[
        str, typer.Option("--controls", help="Controls of the last recipe: no-kd,kd,random; or none.")
    ] = "no-kd,kd",
    set_: Sets = None,
    as_json: AsJson = False,
) -> None:
    """Run recipes and their controls over seeds; index, teacher and teacher logits are shared.

    Example: augkd compare vanilla-knn minimax-knn --controls kd,random --seeds 3 --out runs/compare
    """
    from augkd.evaluation.compare import summarise, table, with_controls
    from augkd.recipe import load_recipe

    named = {Path(name).stem: load_recipe(name, set_ or []) for name in recipes}
    wanted = [name for name in controls.split(",") if name and name != "none"]
    plan = with_controls(named, wanted)
    _quiet_libraries()
    from augkd.pipeline import Run
    from augkd.workspace import locked

    results: dict[str, list[dict[str, Any]]] = {name: [] for name in plan}
    with _Bars() as bars, locked(out):
        for seed in range(seeds):
            for name, recipe in plan.items():
                seeded = recipe.model_copy(update={"seed": seed})
                bars.prefix = f"{name} seed {seed}: "
                folder = out / "runs" / f"{name}-s{seed}"
                results[name].append(Run(seeded, folder, out / "shared", bars, name).results())
    value = summarise(results, out)
    _print(value, as_json, [table(value), f"written: {out / 'compare.json'}, {out / 'compare.md'}"])


@app.command()
def check(recipe: RecipeName, out: Annotated[Path | None, typer.Option("--out")] = None, set_: Sets = None) -> None:
    """Validate a recipe and print its plan; nothing is written. Example: augkd check minimax-knn"""
    from augkd.plan import plan
    from augkd.recipe import load_recipe

    for line in plan(load_recipe(recipe, set_ or []), out):
        typer.echo(line)


def _full_run(recipe: str, out: Path, set_: list[str] | None, as_json: bool) -> None:
    run, bars = _run(recipe, out, set_)
    if not as_json:
        for note in run.task.notes:
            typer.echo(f"note: {note}", err=True)
    with bars:
        results = run.results()
    student, teacher, metric = results["student"], results["teacher"], results["metric"]
    lines = [
        f"{'':10}{'validation':>12}{'test':>12}{'parameters':>14}",
        *(
            f"{name:10}{_figure(row['validation'])}{_figure(row['test'])}{row['parameters'] or 0:>14,}"
            for name, row in (("teacher", teacher), ("student", student))
        ),
        f"({metric} on {results['task']}) student: {out / 'student'}  results: {out / 'results.json'}",
    ]
    _print(results, as_json, lines)


def _run(name: str, out: Path, set_: list[str] | None) -> tuple[Any, _Bars]:
    from augkd.recipe import load_recipe

    recipe: Recipe = load_recipe(name, set_ or [])
    _quiet_libraries()
    from augkd.pipeline import Run

    bars = _Bars()
    return Run(recipe, out, progress=bars, name=Path(name).stem), bars


def _transfer_set_of(folder: Path | None, what: str, n: int, out: Path | None, as_json: bool) -> None:
    from augkd.data.transfer_set import TransferSet, described

    if folder is None:
        raise typer.BadParameter(f"augkd augment {what} needs the transfer set's folder")
    transfer = TransferSet.open(folder)
    if what == "jsonl":
        transfer.write_jsonl(_needed(out))
        typer.echo(f"{len(transfer)} rows: {out}")
        return
    rows = transfer.table.slice(0, n).to_pylist()
    _print(rows, as_json, [line for row in rows for line in described(row, transfer.labels)])


def _needed(out: Path | None) -> Path:
    if out is None:
        raise typer.BadParameter("missing option '--out'")
    return out


def _figure(value: float | None) -> str:
    return f"{'–' if value is None else f'{value:.4f}':>12}"


def _index_lines(folder: Path, manifest: dict[str, Any]) -> list[str]:
    names = ("count", "dim", "factory", "nprobe", "recall@10", "bytes_per_vector", "encoder", "corpus")
    return [f"index: {folder}", *(f"{name}: {manifest[name]}" for name in names if name in manifest)]


def _print(value: Any, as_json: bool, lines: list[str]) -> None:
    if as_json:
        typer.echo(json.dumps(value, indent=2, ensure_ascii=False))
        return
    for line in lines:
        typer.echo(line)


def _quiet_libraries() -> None:
    """One owner of the terminal: the libraries' own bars and load reports are switched off."""
    import datasets
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()


class _Bars:
    """One line a stage: a bar on a terminal, a line every 15 seconds elsewhere."""

    def __init__(self) -> None:
        self.prefix = ""
        self._progress: Any = None
        self._tasks: dict[str, Any] = {}
        self._last = 0.0

    def __enter__(self) -> _Bars:
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


class _Interrupt(BaseException):
    """Ctrl-C, under a name that the command-line library does not turn into an exit of its own."""


def _interrupted(*_: object) -> None:
    raise _Interrupt


def main() -> None:
    """Runs the command line; user mistakes end in one line and status 1, Ctrl-C in one line and status 130."""
    signal.signal(signal.SIGINT, _interrupted)
    debug = "--debug" in sys.argv
    try:
        app(args=[argument for argument in sys.argv[1:] if argument != "--debug"])
    except AugkdError as exc:
        if debug:
            raise
        typer.echo(f"error: {exc}", err=True)
        raise SystemExit(1) from None
    except _Interrupt:
        typer.echo("interrupted; the same command continues", err=True)
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
