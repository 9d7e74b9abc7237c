"""A student as ONNX and INT8, in the Hub's file names, compared with PyTorch before any file is kept.

The float32 graph must reproduce PyTorch's logits to `TOLERANCE`, or to ten times PyTorch's own rounding in this model,
or nothing is written. The loss due to INT8 is measured on the run's validation texts and recorded in
`onnx/export.json`. With `trimmed`, the vocabulary is first cut to the tokens that the run's texts use.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from augkd.data.tables import data_files
from augkd.data.tables import read_texts as read_column
from augkd.data.task import Task
from augkd.errors import DataError, ModelError, WorkspaceError
from augkd.models.classifier import Classifier, Pair
from augkd.models.locate import weight_files
from augkd.models.onnx_graph import check_extra
from augkd.ship.export_record import (
    FLOAT32,
    INT8,
    RECORD,
    ExportedFile,
    ExportRecord,
    LogitCheck,
    PyTorchFigures,
    TrimmedSizes,
)
from augkd.ship.onnx_check import OnnxCheck
from augkd.ship.onnx_classifier import export_graph
from augkd.ship.onnx_int8 import quantise
from augkd.ship.student_folder import StudentFolder, find_student, index_texts, weights_fingerprint
from augkd.ship.trim import trim
from augkd.workspace.files import replacing, write_json
from augkd.workspace.locks import locked, locked_unless_read_only
from augkd.workspace.manifests import MANIFEST, read_any, versions, write_manifest

TOLERANCE = 1e-3  # allowed difference of a logit; a correct export is within 1e-5 of PyTorch
_ROUNDINGS = 10  # and as many times the error of PyTorch's float32: T5's attention is not scaled, so its logits vary
_COMPARED = 64  # texts whose logits are compared before and after trimming


@dataclass(frozen=True)
class Export:
    """An exported student: its folder, and what `onnx/export.json` in it records."""

    folder: Path
    record: ExportRecord


@dataclass(frozen=True)
class _OnnxFiles:
    """What is known of the ONNX files once they are written."""

    files: dict[str, ExportedFile]
    pytorch: PyTorchFigures
    checks: dict[str, LogitCheck]
    opset: int
    inputs: list[str]


def export_student(
    folder: Path,
    out: Path | None = None,
    *,
    int8: bool = True,
    trimmed: bool = False,
    corpora: Sequence[Path] = (),
    index: bool = True,
    characters: bool = True,
) -> Export:
    """Exports the student of a run's folder, or of a student's own.

    Without `out`, ONNX files go to `onnx/` in the student's folder, and a trimmed student to `<student>-trimmed` beside
    it. A trimmed vocabulary covers the task's texts, with `index` those of the run's index, and `corpora`: files,
    folders or indexes. Raises ModelError, DataError or WorkspaceError.
    """
    check_extra("augkd export")
    student = find_student(folder)
    target = out or (trimmed_folder(student.folder) if trimmed else student.folder)
    separate = target.resolve() != student.folder.resolve()
    _check_out(target, separate, trimmed)
    with contextlib.ExitStack() as locks:
        if student.run is not None:
            locks.enter_context(locked_unless_read_only(student.run))
        if separate or student.run is None:
            locks.enter_context(locked(target))
        task = student.task()
        classifier = student.load(task)
        notes: list[str] = []
        texts = _texts_to_cover(student, task, corpora, index, notes) if trimmed else None
        if separate:
            _begin(target)
        sizes = None
        if texts is not None:
            classifier, sizes = _trim(student, task, classifier, target, texts, characters)
        elif separate:
            classifier.save(target)
        onnx = _write_onnx(classifier, task, target, int8)
        record = _record(student, target, classifier, onnx, sizes, notes)
        _finish(target, separate, record)
    return Export(target, record)


def _begin(target: Path) -> None:
    """Takes back what vouches for an earlier export in a folder of its own, and marks it: a killed export goes on."""
    (target / MANIFEST).unlink(missing_ok=True)
    write_json(target / RECORD, {"student": None})


def _finish(target: Path, separate: bool, record: ExportRecord) -> None:
    """Writes the record, then the manifests: of the ONNX files, and of the other files of a folder of its own."""
    write_json(target / RECORD, record)
    write_manifest((target / RECORD).parent, "onnx", {"student": record["student"]})
    if separate:
        write_manifest(target, "export", {"student": record["student"]})


def _record(
    student: StudentFolder,
    target: Path,
    classifier: Classifier,
    onnx: _OnnxFiles,
    sizes: TrimmedSizes | None,
    notes: list[str],
) -> ExportRecord:
    """The content of onnx/export.json."""
    return {
        "student": weights_fingerprint(student.folder),
        "weights": weights_fingerprint(target),
        "max_length": classifier.max_length,
        "trimmed": sizes,
        "files": onnx.files,
        "pytorch": onnx.pytorch,
        "checks": onnx.checks,
        "opset": onnx.opset,
        "inputs": onnx.inputs,
        "versions": versions() | {name: importlib.metadata.version(name) for name in ("onnx", "onnxruntime")},
        "notes": notes + _int8_notes(onnx),
    }


def trimmed_folder(student: Path) -> Path:
    """Where a trimmed student is written by default: beside the whole one."""
    return student.with_name(f"{student.name}-trimmed")


def _check_out(target: Path, separate: bool, trimmed: bool) -> None:
    if trimmed and not separate:
        raise WorkspaceError(f"--out {target} is the student itself, which trimming would replace; give another --out")
    if target.is_file():
        raise WorkspaceError(f"--out {target} is a file; give a folder")
    if not separate or not target.exists() or all(path.name == ".lock" for path in target.iterdir()):
        return
    if not (target / RECORD).is_file() or ((target / MANIFEST).exists() and read_any(target).get("kind") != "export"):
        raise WorkspaceError(f"{target} holds files that augkd export did not write; give another --out")


# ---- ONNX ----


def _write_onnx(classifier: Classifier, task: Task | None, folder: Path, int8: bool) -> _OnnxFiles:
    graph = export_graph(classifier)
    opset = next(entry.version for entry in graph.opset_import if not entry.domain)
    inputs = [entry.name for entry in graph.graph.input]
    check = OnnxCheck(classifier, task)
    contents = {FLOAT32: graph.SerializeToString()}
    checks = {"float32": check.compare(contents[FLOAT32])}
    _check_tolerance(checks["float32"], check, classifier)
    if int8:
        contents[INT8] = quantise(graph).SerializeToString()
        checks["int8"] = check.compare(contents[INT8])

    (folder / RECORD).with_name(MANIFEST).unlink(missing_ok=True)  # from here on, the earlier export is gone
    for name in (FLOAT32, INT8):
        (folder / name).unlink(missing_ok=True)  # an earlier export may have written INT8 where this one does not
    for name, content in contents.items():
        with replacing(folder / name, len(content)) as temporary:
            temporary.write_bytes(content)
    files = {name: _file_facts(content) for name, content in contents.items()}
    return _OnnxFiles(files, check.pytorch(_weight_bytes(folder)), checks, opset, inputs)


def _check_tolerance(result: LogitCheck, check: OnnxCheck, classifier: Classifier) -> None:
    largest = result["logit_difference"]["max"]
    if largest <= TOLERANCE:
        return
    allowed = max(TOLERANCE, _ROUNDINGS * check.rounding())
    if not largest <= allowed:  # written so that nan fails too
        raise ModelError(
            f"{type(classifier.model).__name__} as ONNX differs from PyTorch by {largest:.2g} in a logit "
            f"(allowed: {allowed:.2g}); no ONNX was written, serve it with PyTorch"
        )


def _file_facts(content: bytes) -> ExportedFile:
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _weight_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in weight_files(folder))


def _int8_notes(onnx: _OnnxFiles) -> list[str]:
    before = onnx.pytorch["score"]
    after = onnx.checks["int8"]["score"] if "int8" in onnx.checks else None
    if after is None or before is None or before - after <= 0.005:
        return []
    return [f"INT8 loses {100 * (before - after):.1f} points on validation; if that is too much, ship {FLOAT32}"]


# ---- trimming ----


def _trim(
    student: StudentFolder,
    task: Task | None,
    whole: Classifier,
    target: Path,
    texts: Callable[[], Iterable[str]],
    characters: bool,
) -> tuple[Classifier, TrimmedSizes]:
    """Trims a copy of the student into `target`. Raises ModelError unless it gives the same logits, bit for bit."""
    vocabulary = trim(student.load(task), texts, target, characters=characters)
    trimmed = student.load(task, target, whole.target)
    sample: list[Pair] = [(text, None) for text, _ in zip(texts(), range(_COMPARED), strict=False)]
    if not torch.equal(whole.predict(sample), trimmed.predict(sample)):
        raise ModelError(
            f"{type(whole.model).__name__} gives other logits with its trimmed vocabulary; export without --trim"
        )
    return trimmed, {
        "tokens": {"before": vocabulary.before, "after": len(vocabulary.kept)},
        "parameters": {"before": whole.parameters, "after": trimmed.parameters},
        "bytes": {"before": _weight_bytes(student.folder), "after": _weight_bytes(target)},
        "texts": sum(1 for _ in texts()),
    }


def _texts_to_cover(
    student: StudentFolder, task: Task | None, corpora: Sequence[Path], index: bool, notes: list[str]
) -> Callable[[], Iterable[str]]:
    """The texts that a trimmed vocabulary has to cover, read again at each call."""
    if task is None and not corpora:
        raise ModelError(
            f"{student.folder} belongs to no known run, so its texts are unknown; name texts to cover with --corpus"
        )
    own = student.index() if index else None
    if own is not None and not (own / MANIFEST).exists():
        if not corpora:
            raise ModelError(
                f"the run's index {own} does not exist any more; name its texts with --corpus, or add --no-index"
            )
        notes.append(f"the run's index {own} does not exist any more; its texts were not covered")
        own = None
    for path in corpora:
        _ = (path / MANIFEST).exists() or data_files(path)  # raises for a wrong path before work begins
    folders = [*([own] if own else []), *corpora]

    def texts() -> Iterator[str]:
        for example in (*task.train, *task.validation, *task.test) if task else ():
            yield example.text
            if example.text_pair is not None:
                yield example.text_pair
        for path in folders:
            yield from index_texts(path) if (path / MANIFEST).exists() else _file_texts(path)

    return texts


def _file_texts(path: Path) -> Iterator[str]:
    for file in data_files(path):
        for value in read_column(file, "text"):
            if not isinstance(value, str):
                raise DataError(f"{file} has a row whose 'text' is missing or unreadable; correct or remove the row")
            yield value
