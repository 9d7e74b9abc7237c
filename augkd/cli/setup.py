"""The commands around a run: what this machine can do, a first recipe for one's own data, an upload to the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from augkd.cli.terminal import AsJson, show


def doctor(
    online: Annotated[bool, typer.Option("--online", help="Also ask whether the Hub is reachable.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what this machine can do, what is installed and what is broken; status 1 when something is.

    Example: augkd doctor --online
    """
    from augkd.setup.doctor import examine, lines

    facts = examine(online)
    show(facts, as_json, list(lines(facts)))
    if facts["problems"]:
        raise typer.Exit(1)


def init(
    data: Annotated[str, typer.Argument(help="Labelled texts: a file, a folder, or a Hub name.")],
    corpus: Annotated[str | None, typer.Option("--corpus", help="Unlabelled texts of the same kind.")] = None,
    out: Annotated[Path, typer.Option("--out", help="The recipe to write.")] = Path("recipe.yaml"),
    text: Annotated[str | None, typer.Option("--text", help="The column of the texts, if the guess is wrong.")] = None,
    text_pair: Annotated[str | None, typer.Option("--text-pair", help="The column of second texts.")] = None,
    label: Annotated[str | None, typer.Option("--label", help="The column of the labels.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a recipe that is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Look at your data and write a recipe for it. Example: augkd init my.csv --corpus my.txt --out my.yaml"""
    from augkd.setup.first_recipe import next_commands, summary, values, write_recipe
    from augkd.setup.survey import survey_corpus, survey_task

    task = survey_task(data, text, text_pair, label)
    found = survey_corpus(corpus, task.task, task.lengths.median_words) if corpus else None
    written = write_recipe(out, task, found, data, force)
    lines = [*summary(task, found), "", f"written: {out}", "next:", *(f"  {line}" for line in next_commands(out))]
    show(values(task, found, written), as_json, lines)


def push(
    folder: Annotated[Path, typer.Argument(help="A run (its student goes), a student, a transfer set or an index.")],
    repo: Annotated[str, typer.Argument(help="The repository, owner/name; made when it is not there.")],
    what: Annotated[str | None, typer.Option("--what", help="Of a run: student, transfer-set or index.")] = None,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list the files that would go.")] = False,
    as_json: AsJson = False,
) -> None:
    """Upload a student, transfer set or index to the Hugging Face Hub, with its card and without local paths.

    Example: augkd push runs/trec my-name/trec-small --private --dry-run
    """
    from augkd.ship.push import outgoing, told
    from augkd.ship.push import push as upload

    kind, files = outgoing(folder, what)
    value = {"repo": repo, "kind": kind, "files": {file.name: file.size for file in files}}
    if dry_run:
        show(value, as_json, [*told(kind, files), f"nothing was sent; without --dry-run these go to {repo}"])
        return
    address = upload(folder, repo, what, private)
    show(value | {"address": address}, as_json, [f"{kind} {folder}: {address}"])
