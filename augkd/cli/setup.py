"""The commands before a run: what this machine can do, and a first recipe for your own data."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from augkd.cli.terminal import AsJson, show


def doctor(
    online: Annotated[bool, typer.Option("--online", help="Also check whether the Hub is reachable.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what this machine can do, what is installed and what is broken; status 1 when something is.

    Example: augkd doctor --online
    """
    from augkd.setup.doctor import diagnosis_lines, examine

    diagnosis = examine(online)
    show(asdict(diagnosis), as_json, list(diagnosis_lines(diagnosis)))
    if diagnosis.problems:
        raise typer.Exit(1)


def init(
    data: Annotated[str, typer.Argument(help="Labelled texts: a file, a folder, or a Hub name.")],
    corpus: Annotated[str | None, typer.Option("--corpus", help="Unlabelled texts of the same kind.")] = None,
    out: Annotated[Path, typer.Option("--out", help="The recipe to write (default: recipe.yaml).")] = Path(
        "recipe.yaml"
    ),
    text: Annotated[
        str | None, typer.Option("--text", help="The column of the texts, where the guess is wrong.")
    ] = None,
    text_pair: Annotated[str | None, typer.Option("--text-pair", help="The column of second texts.")] = None,
    label: Annotated[
        str | None, typer.Option("--label", help="The column of the labels; with commas, a column of 0 and 1 for each.")
    ] = None,
    separator: Annotated[
        str | None, typer.Option("--separator", help="What separates the labels of a text, such as '|'.")
    ] = None,
    encoding: Annotated[
        str | None, typer.Option("--encoding", help="The encoding of the files, such as cp1252 (default: sniffed).")
    ] = None,
    delimiter: Annotated[
        str | None, typer.Option("--delimiter", help="What separates the columns of CSV files (default: sniffed).")
    ] = None,
    sheet: Annotated[str | None, typer.Option("--sheet", help="The sheet of a workbook with several.")] = None,
    splits: Annotated[
        str | None, typer.Option("--splits", metavar="SPLIT=FILE,…", help="The file of each split in a folder.")
    ] = None,
    merge_labels: Annotated[
        bool | None,
        typer.Option("--merge-labels/--keep-labels", help="Whether labels that only look the same are one."),
    ] = None,
    corpus_encoding: Annotated[
        str | None, typer.Option("--corpus-encoding", help="The encoding of the corpus (default: sniffed).")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing recipe.")] = False,
    as_json: AsJson = False,
) -> None:
    """Look at your data and write a recipe for it. Example: augkd init my.csv --corpus my.txt --out my.yaml"""
    from augkd.setup.first_recipe import write_recipe
    from augkd.setup.sniffing import Given, parse_splits
    from augkd.setup.summary import next_commands, summary, summary_json
    from augkd.setup.survey import survey_corpus, survey_task

    given = Given(encoding, delimiter, sheet, parse_splits(splits) if splits else None, merge_labels)
    task = survey_task(data, text, text_pair, label, separator, given)
    unlabelled = survey_corpus(corpus, task, encoding=corpus_encoding) if corpus else None
    recipe = write_recipe(out, task, unlabelled, data, force)
    lines = [*summary(task, unlabelled), "", f"written: {out}", "next:"]
    lines += [f"  {command}" for command in next_commands(out)]
    show(summary_json(task, unlabelled, recipe), as_json, lines)
