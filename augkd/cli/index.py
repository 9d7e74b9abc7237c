"""The commands of `augkd index`: build it, whole or in shards, change it, search it, plan and score it."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from augkd.cli.engine import Address, Cpus, Engine, Gpus, Workers, connected
from augkd.cli.index_plan import plan
from augkd.cli.printing import say
from augkd.cli.terminal import AsJson, Bars, Out, RecipeName, Sets, show
from augkd.cli.views import index_lines, takedown_lines
from augkd.errors import RecipeError, short_repr
from augkd.models.libraries import quiet_libraries
from augkd.workspace.storage import refuse_url, url_of

if TYPE_CHECKING:
    from augkd.retrieval.dense.takedown import Takedown
    from augkd.retrieval.retriever import Retriever

index_app = typer.Typer(no_args_is_help=True, help="Build, search and describe an index of unlabelled text.")
index_app.command("plan")(plan)

Index = Annotated[Path, typer.Argument(help="An index folder, or its URL in object storage (s3://, gs://, hf://).")]
Changed = Annotated[Path, typer.Argument(callback=refuse_url, help="The folder of an index.")]
Depth = Annotated[int, typer.Option("-k", min=1, max=10_000, help="How many neighbours (default: 5).")]


@index_app.command("build")
def build(
    recipe: RecipeName,
    out: Out,
    set_: Sets = None,
    shard: Annotated[
        str | None, typer.Option("--shard", metavar="I/N", help="Encode part I of N only; see `augkd index merge`.")
    ] = None,
    encoder: Annotated[
        Path | None,
        typer.Option("--encoder", metavar="FOLDER", help="Take this shard's or index's static encoder; none: fit it."),
    ] = None,
    engine: Engine = "local",
    address: Address = None,
    workers: Workers = None,
    cpus: Cpus = None,
    gpus: Gpus = None,
    as_json: AsJson = False,
) -> None:
    """Build an index, on this machine or with a Ray cluster. Examples:

    augkd index build questions --out runs/questions --set corpus=my.txt  ·
    augkd index build questions --out runs/questions --engine ray --address auto
    """
    from augkd.recipe import load_index_recipe

    parsed = load_index_recipe(recipe, set_ or [])
    part = _shard(shard)
    connection = connected(engine, address, workers, cpus, gpus)
    if part is not None and engine != "local":
        raise RecipeError(f"--shard {shard} is for machines without Ray; leave out --shard or --engine {engine}")
    quiet_libraries()
    from augkd.retrieval.build import build_index, build_shard
    from augkd.workspace.locks import locked

    with Bars() as bars, locked(out), connection as cluster:
        if part is not None:
            manifest = build_shard(parsed, out, part, bars, _here(encoder, bars)).on_disk()
        else:
            manifest = build_index(parsed, out, bars, _here(encoder, bars), cluster).manifest.on_disk()
    show(manifest, as_json, index_lines(out, manifest))


@index_app.command("merge")
def merge(
    shards: Annotated[list[Path], typer.Argument(help="The folders or URLs of all N shards, in any order.")],
    out: Out,
    as_json: AsJson = False,
) -> None:
    """Make one index of its shards. Example: augkd index merge runs/shard-1 runs/shard-2 --out runs/index"""
    quiet_libraries()
    from augkd.retrieval.build import merge_shards
    from augkd.workspace.cache import artefact_here
    from augkd.workspace.locks import locked

    with Bars() as bars, locked(out):
        here = [artefact_here(shard, "index-shard", bars) for shard in shards]
        manifest = merge_shards(here, out).manifest.on_disk()
    show(manifest, as_json, index_lines(out, manifest))


@index_app.command("add")
def add(
    folder: Changed,
    corpus: Annotated[str, typer.Argument(help="A file, folder, URL or Hub name with the new texts.")],
    text: Annotated[str, typer.Option("--text", help="The column of the texts (default: text).")] = "text",
    as_json: AsJson = False,
) -> None:
    """Add new texts to an index. Example: augkd index add runs/questions new.txt"""
    quiet_libraries()
    from augkd.retrieval.build import add_to_index
    from augkd.retrieval.manifest import read_index_manifest
    from augkd.workspace.locks import locked

    with Bars() as bars, locked(folder):
        counts = asdict(add_to_index(folder, corpus, text, bars))
    show(counts | {"count": read_index_manifest(folder).count}, as_json, [f"{k}: {v}" for k, v in counts.items()])


@index_app.command("remove")
def remove(
    folder: Changed,
    texts: Annotated[Path, typer.Argument(help="A file with the texts to remove, one per line (a takedown list).")],
    exact: Annotated[
        bool, typer.Option("--exact", help="Remove only texts that agree in every character, case and punctuation too.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be removed, and remove nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before removing (asked only on a terminal).")] = False,
    as_json: AsJson = False,
) -> None:
    """List the texts that a takedown list means, then remove them from an index permanently.

    Example: augkd index remove runs/questions takedown.txt --dry-run
    """
    quiet_libraries()
    from augkd.retrieval.build import remove_from_index
    from augkd.retrieval.manifest import read_index_manifest
    from augkd.workspace.locks import locked

    def confirm(takedown: Takedown) -> bool:
        for line in takedown_lines(takedown):
            say(line, err=as_json)
        if dry_run or not len(takedown.texts):
            return not dry_run
        return yes or not sys.stdin.isatty() or typer.confirm("Remove these texts for good?", err=as_json)

    with locked(folder):
        result = asdict(remove_from_index(folder, texts, exact=exact, confirm=confirm))
    result |= {"count": read_index_manifest(folder).count}
    show(result, as_json, [f"{key}: {result[key]}" for key in ("asked", "removed", "count")])


@index_app.command("search")
def search(
    folder: Index,
    text: Annotated[str | None, typer.Argument(help="The query; without it, queries are read line by line.")] = None,
    k: Depth = 5,
    as_json: AsJson = False,
) -> None:
    """Show the nearest texts. Example: augkd index search runs/questions "who wrote Faust ?" -k 5"""
    quiet_libraries()
    from augkd.retrieval.open import open_index

    with Bars() as bars:
        index = open_index(folder, bars)
    if text is not None:
        _show_nearest(index, text, k, as_json)
        return
    say(f"{len(index)} texts; one query per line, an empty line ends", err=True)
    while (line := _ask()) != "":
        _show_nearest(index, line, k, as_json)


@index_app.command("info")
def info(
    folder: Index,
    verify: Annotated[bool, typer.Option("--verify", help="Check every file against its checksum.")] = False,
    as_json: AsJson = False,
) -> None:
    """Describe a built index. Example: augkd index info runs/questions --verify"""
    from augkd.retrieval.manifest import index_manifest

    manifest = index_manifest(folder).on_disk()
    if verify:
        from augkd.retrieval.build import verify_index
        from augkd.workspace.cache import artefact_here

        with Bars() as bars:
            checked = verify_index(artefact_here(folder, "index", bars))
    lines = index_lines(url_of(folder) or folder, manifest)
    show(manifest, as_json, [*lines, *([f"checked: {checked}"] if verify else [])])


@index_app.command("dropped")
def dropped(
    folder: Index,
    rule: Annotated[str | None, typer.Option("--rule", help="Only texts that this rule left out.")] = None,
    n: Annotated[int, typer.Option("-n", min=1, help="Examples per rule (default: 5).")] = 5,
    as_json: AsJson = False,
) -> None:
    """Show texts that were left out of an index, and why. Example: augkd index dropped runs/questions -n 3"""
    from augkd.data.dropped import read_dropped
    from augkd.retrieval.manifest import check_index, read_index_manifest
    from augkd.workspace.cache import artefact_here

    with Bars() as bars:
        folder = artefact_here(folder, "index", bars)
    manifest = read_index_manifest(folder)
    check_index(folder, manifest, {manifest.dropped} & manifest.files.keys())
    counts = manifest.corpus.on_disk()
    texts = [text for text in read_dropped(folder / manifest.dropped) if rule in (None, text.rule)]
    lines = []
    for name in sorted({text.rule for text in texts}):
        lines.append(f"{name}: {counts.get(name, '?')}")
        lines += [f"    {text.file} row {text.row}: {text.text}" for text in texts if text.rule == name][:n]
    show([asdict(text) for text in texts], as_json, lines or ["nothing was left out"])


@index_app.command("score")
def score(
    recipe: RecipeName,
    indexes: Annotated[
        list[Path], typer.Argument(help="Built index folders, or their URLs, to rank for the recipe's task.")
    ],
    out: Out,
    set_: Sets = None,
    as_json: AsJson = False,
) -> None:
    """Rank indexes for a task by the teacher's outputs on their neighbours; no student is trained.

    Example: augkd index score minimax-knn runs/questions runs/reviews --out runs/score
    """
    from augkd.recipe import load_recipe

    parsed = load_recipe(recipe, set_ or [])
    quiet_libraries()
    from augkd.runs.index_scores import score_indexes, table
    from augkd.workspace.locks import locked

    with Bars() as bars, locked(out):
        ranking = score_indexes(parsed, indexes, out, bars)
    show(ranking, as_json, table(ranking["scores"]))


def _show_nearest(index: Retriever, text: str, k: int, as_json: bool) -> None:
    hits = index.search([text], min(k, len(index)))
    present = hits.ids[0] >= 0  # an inverted file may find fewer than k
    ids, scores = hits.ids[0][present], hits.scores[0][present]
    rows = list(zip(ids.tolist(), scores.tolist(), index.texts(ids), strict=True))
    values = [{"id": number, "score": round(score, 4), "text": neighbour} for number, score, neighbour in rows]
    show(values, as_json, [f"{score:.3f}  {neighbour}" for _, score, neighbour in rows])


def _here(encoder: Path | None, bars: Bars) -> Path | None:
    from augkd.workspace.cache import artefact_here

    return None if encoder is None else artefact_here(encoder, None, bars)


def _ask() -> str:
    try:
        return input("> ").strip()
    except EOFError:
        return ""


def _shard(given: str | None) -> tuple[int, int] | None:
    if given is None:
        return None
    part, _, of = given.partition("/")
    if not (part.isdigit() and of.isdigit() and 1 <= int(part) <= int(of)):
        raise RecipeError(f"--shard is {short_repr(given)}; write it like 2/8: part 2 of 8")
    return int(part), int(of)
