"""What a report shows, read from a finished run's folder: results, logs, texts, selection trace, predictions.

Nothing is computed again and no model is loaded. What a run did not record is None, so that the page can say so.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from augkd.data.target import Target
from augkd.data.transfer_set import Candidates, TransferSet
from augkd.distill.trace import Trace
from augkd.errors import WorkspaceError
from augkd.evaluation.calibration import Calibration, Form, read_calibrations
from augkd.evaluation.compare.schema import ComparisonSummary
from augkd.evaluation.figures_read import BenchFigures, ExportFigures, Log, read_figures
from augkd.evaluation.predictions import Predictions, read_predictions
from augkd.evaluation.results import RunResults
from augkd.workspace.files import read_json
from augkd.workspace.fingerprints import file_fingerprint
from augkd.workspace.manifest_kinds import RunManifest, StudentManifest
from augkd.workspace.manifests import MANIFEST, check_if_ours, read_manifest
from augkd.workspace.run_folder import RunFolder

Record = dict[str, Any]  # an entry of a log, or a file of figures


@dataclass(frozen=True)
class RunData:
    """Everything a finished run recorded."""

    folder: Path
    results: RunResults
    manifest: RunManifest
    student: StudentManifest
    log: Log  # of the student's training
    teacher_log: Log  # [] where the teacher was not fine-tuned
    transfer: TransferSet | None
    trace: Trace | None
    predictions: Predictions | None  # on test, or on validation where test has no labels
    target: Target
    sizes: dict[str, int]  # bytes of weights of student and teacher
    exports: dict[str, ExportFigures]  # export.json of each exported student
    bench: BenchFigures | None  # bench.json: what `augkd bench-student --json` printed, where it was saved
    baseline: RunResults | None  # the comparison's baseline with the same seed
    calibrations: dict[Form, Calibration]  # by form of the student; {} where it was not calibrated

    @property
    def recipe(self) -> Record:
        """The resolved recipe."""
        return dict(self.manifest.recipe)

    @cached_property
    def candidates(self) -> Candidates:
        """The transfer set's candidates, read once: a column of texts takes a quarter of a second to leave Arrow."""
        assert self.transfer is not None
        return self.transfer.candidates()


def read_run(folder: Path) -> RunData:
    """Reads a finished run; raises WorkspaceError when the folder is not one or one of its files is damaged."""
    run = RunFolder.open(folder)
    for place in (folder, folder / "student", run.stage("teacher")):
        if place is not None:
            check_if_ours(place)
    student = read_manifest(folder / "student", StudentManifest)
    transfer = _transfer_set(run, student.made_from.transfer_set)
    teacher = run.stage("teacher")
    results = read_figures(folder / "results.json", RunResults)
    return RunData(
        folder=folder,
        results=results,
        manifest=run.manifest,
        student=student,
        log=_log(folder / "student"),
        teacher_log=_log(teacher) if teacher else [],
        transfer=transfer,
        trace=_trace(folder / "student" / "trace.safetensors", transfer),
        predictions=read_predictions(folder / "student", "test") or read_predictions(folder / "student", "validation"),
        target=transfer.target if transfer else _target(folder / "student" / "config.json"),
        sizes=_sizes(folder / "student", teacher),
        exports=_exports(folder),
        bench=read_figures(folder / "bench.json", BenchFigures) if (folder / "bench.json").exists() else None,
        baseline=_baseline(run.comparison, results),
        calibrations=read_calibrations(folder / "student"),
    )


def _transfer_set(run: RunFolder, fingerprint: str) -> TransferSet | None:
    """The transfer set that the student was trained on; None where it was removed or replaced."""
    folder = run.stage("transfer_set")
    if folder is None or not (folder / MANIFEST).exists():
        return None
    check_if_ours(folder)  # damaged is not replaced
    if file_fingerprint(folder / "data") != fingerprint:
        return None
    return TransferSet.open(folder)


def _log(folder: Path) -> Log:
    path = folder / "log.json"
    return read_figures(path, Log) if path.exists() else []


def _exports(folder: Path) -> dict[str, ExportFigures]:
    students = {"student": "student", "trimmed student": "student-trimmed"}
    files = {name: folder / place / "onnx" / "export.json" for name, place in students.items()}
    return {name: read_figures(path, ExportFigures) for name, path in files.items() if path.exists()}


def _trace(path: Path, transfer: TransferSet | None) -> Trace | None:
    if not path.exists() or transfer is None:
        return None
    trace = Trace.read(path)
    total = len(transfer.candidates().owner)
    if trace.total != total:
        raise WorkspaceError(
            f"{path} traces {trace.total} candidates, but the transfer set has {total}; run `augkd run` again"
        )
    return trace


def _target(config: Path) -> Target:
    return Target.of_config(read_json(config))


def _sizes(student: Path, teacher: Path | None) -> dict[str, int]:
    folders = {"student": student} | ({"teacher": teacher} if teacher else {})
    files = {name: folder / "model.safetensors" for name, folder in folders.items()}
    return {name: path.stat().st_size for name, path in files.items() if path.exists()}


def _baseline(comparison: Path | None, results: RunResults) -> RunResults | None:
    """The comparison's baseline with this run's seed; None for the baseline itself."""
    if comparison is None:
        return None
    summary = read_figures(comparison / "compare.json", ComparisonSummary)
    name = summary["baseline"]
    same_seed = [run for run in summary["runs"].get(name, []) if run["seed"] == results["seed"]]
    return same_seed[0] if same_seed and results["recipe"] != name else None
