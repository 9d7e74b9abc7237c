"""The commands: parse, call, print. No logic lives here, and nothing heavy is imported before a command needs it.

Exit status: 0; 1 with one line for a mistake the user can mend; 2 for wrong usage; 130 after Ctrl-C.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from augkd.cli import report as cli_report
from augkd.cli import setup as cli_setup
from augkd.cli import ship as cli_ship
from augkd.cli.index import index_app
from augkd.cli.terminal import AsJson, Bars, Out, RecipeName, Sets, recipe_names, show
from augkd.errors import AugkdError
from augkd.models.libraries import quiet_libraries

if TYPE_CHECKING:
    from augkd.recipe import Recipe

app = typer.Typer(no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False, rich_markup_mode=None)
app.add_typer(index_app, name="index")
for command in (
    cli_setup.doctor,
    cli_setup.init,
    cli_setup.push,
    cli_report.report,
    cli_ship.export,
    cli_ship.bench_student,
):
    app.command()(command)

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@app.callback()
def _root(debug: Debug = False) -> None:
    """Data augmentation for knowledge distillation: index, transfer set, student."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")


@app.command("augment")
def augment(
    recipe: Annotated[
        str,
        typer.Argument(
            help="A recipe; or `show` to print examples; or `jsonl` to convert.", autocompletion=recipe_names
        ),
    ],
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
    from augkd.workspace.locks import locked
    from augkd.workspace.manifests import read_manifest

    with bars, locked(run.out):
        transfer = run.transfer_set()
    facts = read_manifest(transfer.folder, "transfer_set")["data"]
    show(facts, as_json, [f"{name.replace('_', ' ')}: {value}" for name, value in facts.items()])
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
    recipes: Annotated[list[str], typer.Argument(help="Recipe files or shipped names.", autocompletion=recipe_names)],
    out: Out,
    seeds: Annotated[
        int | None, typer.Option("--seeds", min=1, help="Students per recipe, seeds 0 to n-1 (1, or the recipe's).")
    ] = None,
    controls: Annotated[
        str, typer.Option("--controls", help="Of the last recipe: no-kd,kd,random; auto: all it can have; or none.")
    ] = "auto",
    baseline: Annotated[
        str | None, typer.Option("--baseline", help="The recipe differences are taken to (kd, else the first).")
    ] = None,
    budget: Annotated[
        str | None, typer.Option("--budget", metavar="TIME", help="Train every student for 30m, not for its epochs.")
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Runs at once, each in a process of its own.")] = 1,
    set_: Sets = None,
    as_json: AsJson = False,
) -> None:
    """Run recipes and their controls over seeds; index, teacher and teacher logits are shared.

    A recipe that lists recipes and tasks (all-in-one) is run as it says, without controls. Examples:

    augkd compare vanilla-knn minimax-knn --controls kd,random --seeds 3 --out runs/compare  ·
    augkd compare all-in-one --out runs/all --set tasks=[my-task]
    """
    from augkd.evaluation.compare.table import average_table, table
    from augkd.recipe import by_name, is_comparison, load_comparison
    from augkd.recipe.units import parse_seconds
    from augkd.runs.controls import with_controls

    seconds = None if budget is None else parse_seconds(budget, "--budget")
    if len(recipes) == 1 and is_comparison(recipes[0]):
        comparison, listed = load_comparison(recipes[0], set_ or [])
        quiet_libraries()
        from augkd.runs.comparison import compare_tasks
        from augkd.workspace.locks import locked

        with Bars() as bars, locked(out):
            values, average = compare_tasks(comparison, listed, seeds, out, bars, seconds, bars.headline, jobs)
        lines = [line for value in values for line in (*_left_out(value), table(value), "")]
        lines += [] if average is None else ["all tasks", "", average_table(average), ""]
        show(values, as_json, [*lines, f"written: {out}/<task>/compare.json and compare.md"])
        return
    wanted = [name for name in controls.split(",") if name not in ("", "none")]
    plan = with_controls(by_name(recipes, set_ or []), wanted)
    quiet_libraries()
    from augkd.runs.comparison import compare_recipes
    from augkd.workspace.locks import locked

    with Bars() as bars, locked(out):
        value = compare_recipes(plan, seeds or 1, out, bars, baseline, seconds, bars.headline, jobs)
    show(value, as_json, [table(value), f"written: {out / 'compare.json'}, {out / 'compare.md'}"])


@app.command()
def check(recipe: RecipeName, out: Annotated[Path | None, typer.Option("--out")] = None, set_: Sets = None) -> None:
    """Validate a recipe and print its plan; nothing is written. Example: augkd check minimax-knn"""
    from augkd.recipe import is_comparison, load_comparison, load_recipe
    from augkd.runs.plan import plan, plan_comparison

    if is_comparison(recipe):
        lines = plan_comparison(*load_comparison(recipe, set_ or []), out)
    else:
        lines = plan(load_recipe(recipe, set_ or []), out)
    for line in lines:
        typer.echo(line)


@app.command("list")
def list_(
    kind: Annotated[
        str | None, typer.Argument(help="losses, layers, selectors, sources, pipelines or indexes; all when left out.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show losses, layer losses, selectors, sources and their options, and the shipped recipes.

    Example: augkd list losses
    """
    from augkd.recipe.catalogue import catalogue, lines

    found = catalogue(kind)
    show(found, as_json, list(lines(found)))


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
    show(results, as_json, lines)


def _run(name: str, out: Path, set_: list[str] | None) -> tuple[Any, Bars]:
    from augkd.recipe import load_recipe

    recipe: Recipe = load_recipe(name, set_ or [])
    quiet_libraries()
    from augkd.runs.run import Run

    bars = Bars()
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
    show(rows, as_json, [line for row in rows for line in described(row, transfer.labels)])


def _needed(out: Path | None) -> Path:
    if out is None:
        raise typer.BadParameter("missing option '--out'")
    return out


def _left_out(value: dict[str, Any]) -> list[str]:
    without = f" (needs classes, left out: {', '.join(value['left_out'])})" if value["left_out"] else ""
    return [f"{value['task']}{without}", ""]


def _figure(value: float | None) -> str:
    return f"{'–' if value is None else f'{value:.4f}':>12}"


class _Interrupt(BaseException):
    """Ctrl-C, under a name that the command-line library does not turn into an exit of its own."""


def _interrupted(*_: object) -> None:
    raise _Interrupt


def main() -> None:
    """Runs the command line; user mistakes end in one line and status 1, Ctrl-C in one line and status 130."""
    signal.signal(signal.SIGINT, _interrupted)
    debug = "--debug" in sys.argv
    try:
        app(args=[argument for argument in sys.argv[1:] if argument != "--debug"], prog_name="augkd")
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
