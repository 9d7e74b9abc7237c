"""The commands that take a student out of its run: `export` and `bench-student`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from augkd.cli.terminal import AsJson, show
from augkd.models.libraries import quiet_libraries

Folder = Annotated[Path, typer.Argument(help="A run's folder, or the folder of a student.")]


def export(
    folder: Folder,
    out: Annotated[
        Path | None, typer.Option("--out", help="The folder to write (<student>/onnx, trimmed: <student>-trimmed).")
    ] = None,
    no_int8: Annotated[bool, typer.Option("--no-int8", help="Float32 alone.")] = False,
    trim: Annotated[
        bool, typer.Option("--trim", help="Keep only the tokens of the task's and its index's texts.")
    ] = False,
    corpus: Annotated[
        list[Path] | None,
        typer.Option("--corpus", help="With --trim: texts to cover too, a file, folder or index (repeatable)."),
    ] = None,
    no_index: Annotated[bool, typer.Option("--no-index", help="With --trim: leave the run's index out.")] = False,
    no_characters: Annotated[
        bool, typer.Option("--no-characters", help="With --trim: drop single characters that do not occur, too.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write the student as ONNX and INT8, checked against PyTorch on the validation texts. Examples:

    augkd export runs/trec  ·  augkd export runs/trec --trim --out shipped
    """
    if not trim and (corpus or no_index or no_characters):
        raise typer.BadParameter("--corpus, --no-index and --no-characters go with --trim")
    quiet_libraries()
    from augkd.ship.export import export as ship

    facts = ship(
        folder,
        out,
        int8=not no_int8,
        trimmed=trim,
        corpora=corpus or (),
        index=not no_index,
        characters=not no_characters,
    )
    show(facts, as_json, _lines(facts))


def bench_student(
    folder: Folder,
    batch: Annotated[
        list[int] | None, typer.Option("--batch", min=1, help="Texts at once (repeatable; 1, 32).")
    ] = None,
    seconds: Annotated[float, typer.Option("--seconds", min=0, help="For each batch size.")] = 20.0,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="Of a forward pass (torch's own).")] = None,
    teacher: Annotated[Path | None, typer.Option("--teacher", help="A classifier to compare with.")] = None,
    as_json: AsJson = False,
) -> None:
    """Time teacher and student in PyTorch, ONNX and INT8, batch by batch in turn.

    Example: augkd bench-student runs/trec --batch 1 --batch 32 --threads 1
    """
    quiet_libraries()
    from augkd.ship.bench import bench, table

    found = bench(folder, batch_sizes=batch or (1, 32), seconds=seconds, threads=threads, teacher=teacher)
    show(found, as_json, list(table(found)))


def _lines(facts: dict[str, Any]) -> list[str]:
    pytorch = facts["pytorch"]
    of = (
        "validation texts"
        if pytorch["of"] == "validation"
        else "texts of random tokens (the student's run is not known)"
    )
    lines = [f"student: {facts['folder']}, checked on {pytorch['texts']} {of}"]
    if "trimmed" in facts:
        cut = facts["trimmed"]
        tokens, size = cut["tokens"], cut["bytes"]
        lines.append(
            f"trimmed: {tokens['before']:,} to {tokens['after']:,} tokens, {size['before'] / 1e6:.1f} to "
            f"{size['after'] / 1e6:.1f} MB, exact on {cut['texts']:,} texts"
        )
    lines += [
        f"{'':12}{'bytes':>14}{'largest':>10}{'mean':>10}{'same class':>12}  {pytorch.get('metric', '')}",
        f"{'PyTorch':12}{pytorch['bytes']:>14,}{'':32}  {_figure(pytorch)}",
    ]
    for (file, made), (name, check) in zip(facts["files"].items(), facts["checks"].items(), strict=True):
        off, same = check["logit_difference"], check.get("same_class")
        same_class = "–" if same is None else f"{100 * same:.2f} %"
        figures = f"{made['bytes']:>14,}{off['max']:>10.2g}{off['mean']:>10.2g}{same_class:>12}  {_figure(check)}"
        lines.append(f"{name:12}{figures}  {file}")
    return [*lines, *(f"note: {note}" for note in facts["notes"])]


def _figure(check: dict[str, Any]) -> str:
    return f"{check['score']:.4f}" if "score" in check else "–"
