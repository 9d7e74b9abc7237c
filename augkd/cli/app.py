"""The commands: parse, call, print. No logic lives here, and nothing heavy is imported before a command needs it.

Exit status: 0; 1 with one line for a mistake the user can correct; 2 for wrong usage; 130 after Ctrl-C. Of several
processes that torchrun launched together, one prints.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from augkd.cli import setup, ship
from augkd.cli.engine import Address, Cpus, Engine, Gpus, Workers, connected
from augkd.cli.index import index_app
from augkd.cli.label import label_app
from augkd.cli.launched import check_command, process_name, wait_to_be_ended
from augkd.cli.printing import say
from augkd.cli.terminal import AsJson, Bars, Out, RecipeName, Sets, recipe_names, show, warn
from augkd.cli.transfer import transfer_app
from augkd.cli.verify import verify
from augkd.cli.views import comparison_lines, comparison_notes, run_lines
from augkd.errors import AugkdError, RecipeError
from augkd.models.libraries import quiet_libraries, set_environment
from augkd.workspace.disk import system_problem
from augkd.workspace.launch import launch

if TYPE_CHECKING:
    from augkd.recipe import Recipe

app = typer.Typer(no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False, rich_markup_mode=None)
app.add_typer(index_app, name="index")
app.add_typer(transfer_app, name="transfer")
app.add_typer(label_app, name="label")
for command in (
    setup.doctor,
    setup.init,
    verify,
    ship.report,
    ship.export,
    ship.calibrate,
    ship.bench_student,
    ship.push,
):
    app.command()(command)

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@app.callback()
def _root(context: typer.Context, debug: Debug = False) -> None:
    """Data augmentation for knowledge distillation: index, transfer set, student."""
    set_environment()
    check_command(context.invoked_subcommand)


@app.command()
def augment(
    recipe: RecipeName,
    out: Out,
    set_: Sets = None,
    engine: Engine = "local",
    address: Address = None,
    workers: Workers = None,
    cpus: Cpus = None,
    gpus: Gpus = None,
    as_json: AsJson = False,
) -> None:
    """Write a transfer set: labelled texts, their candidates, the teacher's logits of both. Examples:

    augkd augment minimax-knn --out runs/trec  ·  augkd augment minimax-knn --out runs/trec --engine ray --address auto
    """
    from augkd.recipe import load_recipe

    parsed = load_recipe(recipe, set_ or [])
    connection = connected(engine, address, workers, cpus, gpus)
    quiet_libraries()
    from augkd.runs.run import Run
    from augkd.workspace.locks import locked
    from augkd.workspace.manifest_kinds import TransferSetManifest
    from augkd.workspace.manifests import read_manifest

    with Bars() as bars, locked(out), connection as cluster:
        run = Run(parsed, out, progress=bars, name=Path(recipe).stem, cluster=cluster)
        folder, notes = run.transfer_set().folder, run.notes()
    counts = read_manifest(folder, TransferSetManifest).data.on_disk()
    lines = [f"{name.replace('_', ' ')}: {value}" for name, value in counts.items()]
    show(counts, as_json, [*lines, f"transfer set: {folder}"])
    warn(notes)


@app.command()
def distill(
    out: Out,
    recipe: Annotated[
        str | None, typer.Argument(help="A recipe file, or the name of a shipped recipe.", autocompletion=recipe_names)
    ] = None,
    transfer_set: Annotated[
        str | None,
        typer.Option(
            "--transfer-set",
            metavar="DIR_OR_HUB",
            help="Train from this transfer set: a folder, a URL in object storage, or a Hub name; needs no teacher.",
        ),
    ] = None,
    student: Annotated[
        str | None, typer.Option("--student", metavar="MODEL", help="With --transfer-set: the model to train.")
    ] = None,
    set_: Sets = None,
    as_json: AsJson = False,
) -> None:
    """Train a student: by a recipe, whose earlier stages are made when missing, or from a given transfer set.

    Examples: augkd distill minimax-knn --out runs/trec --set training.epochs=8  ·
    augkd distill --transfer-set runs/trec/transfer_set --student my-small-model --out runs/student
    """
    from augkd.recipe import load_recipe, load_transfer_set_recipe

    if transfer_set is None and (recipe is None or student is not None):
        raise typer.BadParameter("give a recipe, or --transfer-set with --student")
    if transfer_set is None:
        assert recipe is not None
        _run(load_recipe(recipe, set_ or []), Path(recipe).stem, out, as_json)
    else:
        parsed = load_transfer_set_recipe(transfer_set, student, recipe, set_ or [])
        _run(parsed, Path(recipe).stem if recipe else "transfer-set", out, as_json)


@app.command()
def run(recipe: RecipeName, out: Out, set_: Sets = None, as_json: AsJson = False) -> None:
    """Run all stages, from texts to a distilled student. Example: augkd run minimax-knn --out runs/trec"""
    from augkd.recipe import load_recipe

    _run(load_recipe(recipe, set_ or []), Path(recipe).stem, out, as_json)


@app.command()
def compare(
    recipes: Annotated[list[str], typer.Argument(help="Recipe files or shipped names.", autocompletion=recipe_names)],
    out: Out,
    seeds: Annotated[
        int | None,
        typer.Option(
            "--seeds", min=1, max=10_000, help="Students per recipe, with seeds 0 to n-1 (default: 1, or the recipe's)."
        ),
    ] = None,
    controls: Annotated[
        str,
        typer.Option("--controls", help="Controls of the last recipe: no-kd,kd,random; auto: all it can have; none."),
    ] = "auto",
    baseline: Annotated[
        str | None,
        typer.Option("--baseline", help="The recipe that differences are taken from (default: kd, else the first)."),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option("--budget", metavar="TIME", help="Train every student for a time, like 30m, not for its epochs."),
    ] = None,
    split: Annotated[
        Literal["validation", "test"] | None,
        typer.Option("--split", help="What is compared: validation, to choose, or test (default: test if labelled)."),
    ] = None,
    jobs: Annotated[
        int,
        typer.Option("--jobs", min=1, max=1024, help="Runs at once, each in a process with its share of the cores."),
    ] = 1,
    engine: Engine = "local",
    address: Address = None,
    workers: Workers = None,
    cpus: Cpus = None,
    gpus: Gpus = None,
    set_: Sets = None,
    as_json: AsJson = False,
) -> None:
    """Run recipes and their controls over seeds; index, teacher and teacher logits are shared.

    A recipe that lists recipes and tasks (all-in-one) is run as it is, without controls. Examples:

    augkd compare vanilla-knn minimax-knn --controls kd,random --seeds 3 --out runs/compare  ·
    augkd compare all-in-one --out runs/all --set tasks=[my-task]  ·
    augkd compare all-in-one --out runs/all --engine ray --address auto --cpus-per-worker 4
    """
    from augkd.evaluation.compare.table import comparison_table
    from augkd.recipe import is_comparison, load_comparison, recipes_by_name
    from augkd.recipe.units import parse_seconds
    from augkd.runs.controls import with_controls
    from augkd.workspace.locks import locked

    seconds = None if budget is None else parse_seconds(budget, "--budget")
    connection = connected(engine, address, workers, cpus, gpus)
    if jobs > 1 and engine != "local":
        raise RecipeError(f"--jobs {jobs} is for this machine alone; with --engine {engine} give --workers {jobs}")
    if len(recipes) == 1 and is_comparison(recipes[0]):
        comparison, listed = load_comparison(recipes[0], set_ or [])
        quiet_libraries()
        from augkd.runs.comparison import compare_tasks

        with Bars() as bars, locked(out), connection as cluster:
            summaries, average = compare_tasks(
                comparison, listed, seeds, out, bars, seconds, bars.headline, jobs, split, cluster
            )
        show(summaries, as_json, [*comparison_lines(summaries, average), f"written: {out}/<task>/compare.{{json,md}}"])
        warn(comparison_notes(summaries))
        return
    chosen = [name for name in controls.split(",") if name not in ("", "none")]
    compared = with_controls(recipes_by_name(recipes, set_ or []), chosen)
    quiet_libraries()
    from augkd.runs.comparison import compare_recipes

    with Bars() as bars, locked(out), connection as cluster:
        summary = compare_recipes(
            compared, seeds or 1, out, bars, baseline, seconds, bars.headline, jobs, split, cluster
        )
    written = f"written: {out / 'compare.json'}, {out / 'compare.md'}"
    show(summary, as_json, [*comparison_table(summary).split("\n"), written])
    warn(comparison_notes([summary]))


@app.command()
def check(
    recipe: RecipeName,
    out: Annotated[Path | None, typer.Option("--out", help="A run's folder: say which stages it has already.")] = None,
    set_: Sets = None,
) -> None:
    """Validate a recipe and print its plan; nothing is written. Example: augkd check minimax-knn"""
    from augkd.recipe import is_comparison, load_comparison, load_recipe
    from augkd.runs.plan import plan, plan_comparison

    if is_comparison(recipe):
        lines = plan_comparison(*load_comparison(recipe, set_ or []), out)
    else:
        lines = plan(load_recipe(recipe, set_ or []), out)
    for line in lines:
        say(line)


@app.command("list")
def list_(
    kind: Annotated[
        str | None, typer.Argument(help="losses, layers, selectors, label-selectors, sources, pipelines or indexes.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show losses, intermediate-layer losses, selectors and sources with their options, and the shipped recipes.

    Example: augkd list losses
    """
    from augkd.recipe.catalogue import as_json as listing_as_json
    from augkd.recipe.catalogue import catalogue, lines

    listing = catalogue(kind)
    show(listing_as_json(listing), as_json, list(lines(listing)))


def _run(recipe: Recipe, name: str, out: Path, as_json: bool) -> None:
    quiet_libraries()
    from augkd.distill.parallel import disconnect
    from augkd.runs.run import Run

    bars = Bars()
    run = Run(recipe, out, progress=bars, name=name)
    if not as_json and launch().writes:
        for note in run.task.notes:
            say(f"note: {note}", err=True)
    with bars:
        results = run.results()
    disconnect()
    if launch().writes:
        show(results, as_json, run_lines(results, out))
        warn(results.get("notes", []))


_LONGEST = 2000  # characters of a message


class _Interrupt(BaseException):
    """Ctrl-C, under a name that the command-line library does not turn into an exit of its own."""


def _shortened(message: str) -> str:
    return message if len(message) <= _LONGEST else f"{message[:_LONGEST]}…"


def _interrupted(*_: object) -> None:
    raise _Interrupt


def main() -> None:
    """Runs the command line; user mistakes end in one line and status 1, Ctrl-C in one line and status 130."""
    signal.signal(signal.SIGINT, _interrupted)
    debug = "--debug" in sys.argv
    try:
        app(args=[argument for argument in sys.argv[1:] if argument != "--debug"], prog_name="augkd")
    except (AugkdError, OSError) as exc:
        if debug:
            raise
        wait_to_be_ended(exc)
        message = system_problem(exc) if isinstance(exc, OSError) else str(exc)
        say(f"error: {process_name()}{_shortened(message)}", err=True)
        raise SystemExit(1) from None
    except _Interrupt:
        if launch().writes:
            say("interrupted; the same command continues", err=True)
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
