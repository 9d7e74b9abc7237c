"""The commands of `augkd label`: what labels would cost, which texts to have labelled next, and the labels back."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from augkd.cli.terminal import AsJson, Bars, RecipeName, Sets, show

label_app = typer.Typer(no_args_is_help=True, help="Plan a label budget; have people or batch jobs label texts.")

_SHOWN = 5  # missing texts that are printed


def _numbers(value: str) -> list[int]:
    """Comma-separated numbers of texts."""
    try:
        numbers = [int(part.strip().replace("_", "")) for part in value.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise typer.BadParameter("give numbers of texts, like 250,500,1000")
    return numbers


@label_app.command()
def plan(
    recipe: RecipeName,
    texts: Annotated[
        str | None,
        typer.Option("--texts", metavar="N,N", help="Numbers of unlabelled texts (default: the recipe's, usual ones)."),
    ] = None,
    price: Annotated[
        float | None, typer.Option("--price", min=0, help="Price of a million tokens read, in any currency.")
    ] = None,
    price_written: Annotated[
        float | None,
        typer.Option("--price-written", min=0, help="Price of a million tokens written (default: as read)."),
    ] = None,
    set_: Sets = None,
    as_json: AsJson = False,
) -> None:
    """Show how many texts, tokens and how much money label budgets would cost; contacts nothing.

    Example: augkd label plan llm --price 0.15 --price-written 0.60
    """
    from augkd.recipe import load_recipe
    from augkd.runs.label_plan import plan_labels, plan_lines

    parsed = load_recipe(recipe, set_ or [])
    found = plan_labels(parsed, None if texts is None else _numbers(texts), price, price_written)
    show(dataclasses.asdict(found), as_json, list(plan_lines(parsed, found)))


@label_app.command("next")
def next_(
    recipe: RecipeName,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The JSONL file to write.")],
    run: Annotated[
        Path | None,
        typer.Option("--run", help="The run's folder, for its index and students (default: run in teacher.answers)."),
    ] = None,
    labelled: Annotated[
        bool, typer.Option("--labelled", help="Also texts that have a label, to calibrate the answers on.")
    ] = False,
    set_: Sets = None,
    as_json: AsJson = False,
) -> None:
    """Write the texts that the recipe needs labels for next, with an id and an empty label each.

    Example: augkd label next people.yaml --out texts.jsonl
    """
    from augkd.models.libraries import quiet_libraries
    from augkd.recipe import load_recipe

    parsed = load_recipe(recipe, set_ or [])
    quiet_libraries()
    from augkd.runs.labelling import texts_to_label

    with Bars() as bars:
        found = texts_to_label(parsed, out, run, labelled, bars)
    lines = [f"{len(found)} texts to label: {out}", f"then: augkd label import {recipe} FILE"]
    show({"texts": len(found), "file": str(out)}, as_json, lines if found else ["no text waits for a label"])


@label_app.command("import")
def import_(
    recipe: RecipeName,
    answers: Annotated[Path, typer.Argument(metavar="FILE", help="JSONL: id or text, and label, probabilities, …")],
    set_: Sets = None,
    as_json: AsJson = False,
) -> None:
    """Read labels, probabilities or logits from a JSONL file; lists texts that still have none.

    Example: augkd label import people.yaml answers.jsonl
    """
    from augkd.recipe import load_recipe
    from augkd.runs.labelling import import_labels

    found = import_labels(load_recipe(recipe, set_ or []), answers)
    counts, missing = found.counts, found.missing
    lines = [f"answers: {counts.answers}, left out: {counts.left_out}, replaced: {counts.replaced}"]
    if counts.empty:
        lines.append(f"rows without an answer: {len(counts.empty)}")
    lines.append(f"texts that were handed out and have no answer: {len(missing)}")
    lines += [f"  {key}  {text[:80]}" for key, (text, _) in list(missing.items())[:_SHOWN]]
    lines += [f"  … {len(missing) - _SHOWN} more (--json lists all)"] if len(missing) > _SHOWN else []
    value = dataclasses.asdict(counts) | {"missing": [{"id": key, "text": text[0]} for key, text in missing.items()]}
    show(value, as_json, lines)
