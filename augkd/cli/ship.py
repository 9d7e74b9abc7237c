"""The commands after a run: its report, its student as ONNX, timed, and uploaded to the Hub."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from augkd.cli.printing import say
from augkd.cli.terminal import AsJson, finite, show
from augkd.cli.views import calibration_lines, export_lines
from augkd.models.libraries import quiet_libraries

Folder = Annotated[Path, typer.Argument(help="A run's folder, or the folder of a student.")]


def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The --out folder of a run or of a comparison.")],
    out: Annotated[Path | None, typer.Option("--out", help="The file to write (default: DIR/report.html).")] = None,
    open_: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
) -> None:
    """Write one HTML file about a run or a comparison; it needs no network. Example: augkd report runs/trec --open"""
    from augkd.evaluation.report.report import write_report

    page = write_report(folder, out)
    say(f"report: {page}")
    if open_:
        typer.launch(page.resolve().as_uri())


def export(
    folder: Folder,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="The folder to write (default: <student>/onnx; with --trim: <student>-trimmed)."),
    ] = None,
    no_int8: Annotated[bool, typer.Option("--no-int8", help="Write float32 only.")] = False,
    trim: Annotated[
        bool, typer.Option("--trim", help="Keep only tokens that occur in the texts of the task and its index.")
    ] = False,
    corpus: Annotated[
        list[Path] | None,
        typer.Option("--corpus", help="With --trim: more texts to cover: a file, folder or index (repeatable)."),
    ] = None,
    no_index: Annotated[bool, typer.Option("--no-index", help="With --trim: leave the run's index out.")] = False,
    no_characters: Annotated[
        bool, typer.Option("--no-characters", help="With --trim: also drop single characters that do not occur.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write the student as ONNX and INT8, checked against PyTorch on the validation texts. Examples:

    augkd export runs/trec  ·  augkd export runs/trec --trim --out shipped
    """
    if not trim and (corpus or no_index or no_characters):
        raise typer.BadParameter("--corpus, --no-index and --no-characters need --trim")
    quiet_libraries()
    from augkd.ship.export import export_student

    exported = export_student(
        folder,
        out,
        int8=not no_int8,
        trimmed=trim,
        corpora=corpus or (),
        index=not no_index,
        characters=not no_characters,
    )
    show({"folder": str(exported.folder), **exported.record}, as_json, list(export_lines(exported)))


def calibrate(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="The --out folder of a finished run.")],
    agreement: Annotated[
        float, typer.Option("--agreement", callback=finite(0, 1), help="Share of the answers that must agree.")
    ] = 0.97,
    confidence: Annotated[
        float, typer.Option("--confidence", callback=finite(0, 1), help="Confidence of that promise.")
    ] = 0.95,
    against: Annotated[
        Literal["teacher", "labels"], typer.Option("--against", help="What the student's answers are compared with.")
    ] = "teacher",
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Other texts, in the task's columns (default: the run's validation split)."),
    ] = None,
    form: Annotated[
        Literal["pytorch", "int8"],
        typer.Option("--form", help="The form that will answer: pytorch (also float32 ONNX) or int8."),
    ] = "pytorch",
    as_json: AsJson = False,
) -> None:
    """Find the confidence from which the student may answer for its teacher, and store it with the student.

    Example: augkd calibrate runs/trec --agreement 0.97 --confidence 0.95 --data logs.jsonl
    """
    quiet_libraries()
    from augkd.ship.calibrate import calibrate_student

    value = calibrate_student(folder, agreement=agreement, confidence=confidence, against=against, data=data, form=form)
    show(asdict(value), as_json, list(calibration_lines(value)))


def bench_student(
    folder: Folder,
    batch: Annotated[
        list[int] | None, typer.Option("--batch", min=1, max=2**20, help="Batch size, repeatable (default: 1 and 32).")
    ] = None,
    seconds: Annotated[
        float, typer.Option("--seconds", callback=finite(0, 86_400), help="Seconds per batch size (default: 20).")
    ] = 20.0,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, max=1024, help="Threads per forward pass (default: torch's own).")
    ] = None,
    teacher: Annotated[
        Path | None, typer.Option("--teacher", help="The teacher to compare with (default: the run's).")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Time teacher and student in PyTorch, ONNX and INT8, batch by batch in turn.

    Example: augkd bench-student runs/trec --batch 1 --batch 32 --threads 1
    """
    quiet_libraries()
    from augkd.ship.bench import bench_student as bench
    from augkd.ship.bench import benchmark_lines

    benchmark = bench(folder, batch_sizes=batch or (1, 32), seconds=seconds, threads=threads, teacher=teacher)
    show(asdict(benchmark), as_json, list(benchmark_lines(benchmark)))


def push(
    folder: Annotated[Path, typer.Argument(help="A run, a student, a transfer set or an index.")],
    repo: Annotated[str, typer.Argument(help="The repository, owner/name; created if it does not exist.")],
    what: Annotated[
        str | None,
        typer.Option("--what", help="Which part of a run: student, transfer-set or index (default: student)."),
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the files that would be uploaded, and upload nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Upload a student, transfer set or index to the Hugging Face Hub, with its card and without local paths.

    Example: augkd push runs/trec my-name/trec-small --private --dry-run
    """
    from augkd.ship.push import plan_upload, upload_lines
    from augkd.ship.push import push as upload

    planned = plan_upload(folder, what)
    value = {"repo": repo, "kind": planned.kind, "files": {file.name: file.size for file in planned.files}}
    if dry_run:
        lines = [*upload_lines(planned), f"nothing was uploaded; without --dry-run these files go to {repo}"]
        show(value, as_json, lines)
        return
    address = upload(folder, repo, what, private)
    show(value | {"address": address}, as_json, [f"{planned.kind} {folder}: {address}"])
