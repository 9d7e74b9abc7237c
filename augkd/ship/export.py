"""A student as it is shipped: ONNX and INT8 in the Hub's file names, checked against PyTorch before it is kept.

The float32 graph must give PyTorch's logits to 1e-3, or nothing is written; what INT8 costs is measured on the run's
validation texts and stands in `onnx/export.json`. With `trim`, the vocabulary is cut to the run's texts first.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from augkd.data.tables import data_files
from augkd.data.tables import read_texts as read_column
from augkd.data.task import Task, texts_of
from augkd.errors import DataError, ModelError, WorkspaceError
from augkd.evaluation.metrics import score
from augkd.models.classifier import Classifier, Pair
from augkd.models.locate import weight_files
from augkd.models.onnx_graph import check_extra, session
from augkd.ship.onnx_classifier import OnnxClassifier, graph_of
from augkd.ship.onnx_int8 import quantised
from augkd.ship.student_folder import StudentFolder, find_student, texts_of_index, weights_of
from augkd.ship.trim import Trimming, trim
from augkd.workspace.files import read_json, replacing, write_json
from augkd.workspace.manifests import MANIFEST, versions

FLOAT, INT8, FACTS = "onnx/model.onnx", "onnx/model_quantized.onnx", "onnx/export.json"
TOLERANCE = 1e-3  # of a logit; a right export is within 1e-5 of PyTorch
_PROBES = 64  # texts made of random tokens, for a student whose task is not known


def export(
    given: Path,
    out: Path | None = None,
    *,
    int8: bool = True,
    trimmed: bool = False,
    corpora: Sequence[Path] = (),
    index: bool = True,
    characters: bool = True,
) -> dict[str, Any]:
    """Exports the student of a run (or a student folder) and returns what `onnx/export.json` in its folder gets.

    Without `out`, ONNX files go to `onnx/` in the student's folder, a trimmed student to `<student>-trimmed` beside it.
    `corpora` are files, folders or indexes whose texts a trimmed vocabulary is to cover besides the task's and, with
    `index`, those of the run's index. Raises ModelError, DataError or WorkspaceError.
    """
    check_extra("augkd export")
    student = find_student(given)
    folder = out or (trimmed_beside(student.folder) if trimmed else student.folder)
    beside = folder.resolve() != student.folder.resolve()
    _check_target(folder, beside, trimmed)
    task = student.task()
    classifier = student.load(task)
    facts: dict[str, Any] = {"student": weights_of(student.folder), "max_length": classifier.max_length}
    notes: list[str] = []

    texts = _texts_to_cover(student, task, corpora, index, notes) if trimmed else None
    if beside:
        write_json(folder / FACTS, {"student": None})  # of no student yet: after a kill, the same command may go on
    if texts is not None:
        before = student.load(task)
        cut = trim(classifier, texts, folder, characters=characters)
        classifier = student.load(task, folder, classifier.labels)
        facts["trimmed"] = _compared(before, classifier, cut, texts, student.folder, folder)
    elif beside:
        classifier.save(folder)

    facts["weights"] = weights_of(folder)  # the trimmed ones, where they are
    facts |= _write(classifier, task, folder, int8)
    facts["notes"] = notes + _loss(facts)
    facts["folder"] = str(folder)
    write_json(folder / FACTS, {name: value for name, value in facts.items() if name != "folder"})
    return facts


def trimmed_beside(student: Path) -> Path:
    """Where a trimmed student goes unless told otherwise."""
    return student.with_name(f"{student.name}-trimmed")


def _check_target(folder: Path, beside: bool, trimmed: bool) -> None:
    if trimmed and not beside:
        raise WorkspaceError(f"--out {folder} is the student itself, which trimming would replace; give another --out")
    if not beside or not folder.exists() or not any(folder.iterdir()):
        return
    if not (folder / FACTS).is_file() or (folder / MANIFEST).exists():
        raise WorkspaceError(f"{folder} holds files that augkd export did not write; give another --out")


# ---- ONNX ----


def _write(classifier: Classifier, task: Task | None, folder: Path, int8: bool) -> dict[str, Any]:
    graph = graph_of(classifier)
    opset = next(entry.version for entry in graph.opset_import if not entry.domain)
    inputs = [entry.name for entry in graph.graph.input]
    check = _Check(classifier, task)
    files = {FLOAT: graph.SerializeToString()}
    exact = check.of(files[FLOAT])
    if not exact["logit_difference"]["max"] <= TOLERANCE:  # not: a nan is refused too
        raise ModelError(
            f"{type(classifier.model).__name__} as ONNX differs from PyTorch by {exact['logit_difference']['max']:.2g} "
            f"in a logit (allowed: {TOLERANCE}); no ONNX was written, serve it with PyTorch"
        )
    checks = {"float32": exact}
    if int8:
        files[INT8] = quantised(graph).SerializeToString()
        checks["int8"] = check.of(files[INT8])
    for name in (FLOAT, INT8):
        (folder / name).unlink(missing_ok=True)  # of an earlier export
    for name, content in files.items():
        with replacing(folder / name) as temporary:
            temporary.write_bytes(content)
    return {
        "files": {name: _file(content) for name, content in files.items()},
        "pytorch": check.pytorch | {"bytes": sum(p.stat().st_size for p in weight_files(folder))},
        "checks": checks,
        "opset": opset,
        "inputs": inputs,
        "versions": versions() | {name: importlib.metadata.version(name) for name in ("onnx", "onnxruntime")},
    }


def _file(content: bytes) -> dict[str, Any]:
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


class _Check:
    """PyTorch's logits of the validation texts, and how far others are from them."""

    def __init__(self, classifier: Classifier, task: Task | None) -> None:
        self._classifier = classifier
        self._texts = texts_of(task.validation) if task else probes(classifier)
        self._labels = [example.label for example in task.validation] if task else []
        self._metric = task.metric if task and (task.labels or not classifier.labels) else "accuracy"
        self._logits = classifier.predict(self._texts)
        self.pytorch = {
            "texts": len(self._texts),
            "of": "validation" if task else "probes",
            **self._scored(self._logits),
        }

    def of(self, model: bytes) -> dict[str, Any]:
        """How far the logits of a graph are from PyTorch's, how many predictions are the same, and its metric."""
        logits = OnnxClassifier(session(model, torch.get_num_threads()), self._classifier).predict(self._texts)
        difference = (logits - self._logits).abs()
        facts: dict[str, Any] = {"logit_difference": {"max": float(difference.max()), "mean": float(difference.mean())}}
        if self._classifier.labels:
            facts["same_class"] = float((logits.argmax(1) == self._logits.argmax(1)).float().mean())
        return facts | self._scored(logits)

    def _scored(self, logits: Tensor) -> dict[str, Any]:
        if not self._labels or None in self._labels:
            return {}
        return {"metric": self._metric, "score": score(self._metric, logits.numpy(), self._labels)}


def probes(classifier: Classifier) -> list[Pair]:
    """Texts of random tokens, the same ones each time."""
    rng = np.random.default_rng(0)
    size = len(classifier.tokenizer)
    lengths = rng.integers(1, min(classifier.max_length, 64), size=_PROBES)
    drawn = [rng.integers(0, size, size=length).tolist() for length in lengths]
    return [(classifier.tokenizer.decode(ids, skip_special_tokens=True), None) for ids in drawn]


def _loss(facts: dict[str, Any]) -> list[str]:
    after, before = facts["checks"].get("int8", {}).get("score"), facts["pytorch"].get("score")
    if after is None or before is None or before - after <= 0.005:
        return []
    return [f"INT8 loses {100 * (before - after):.1f} points on validation; ship onnx/model.onnx if that is too much"]


# ---- trimming ----


def _texts_to_cover(
    student: StudentFolder, task: Task | None, corpora: Sequence[Path], index: bool, notes: list[str]
) -> Callable[[], Iterable[str]]:
    """The texts that a trimmed vocabulary is exact on, read anew at each call."""
    own = student.index() if index else None
    if task is None and not corpora:
        raise ModelError(f"{student.folder} is of no known run, so its texts are not known; name them with --corpus")
    if own is not None and not (own / MANIFEST).exists():
        if not corpora:
            raise ModelError(
                f"the run's index {own} is gone; name its texts with --corpus, or leave it out: --no-index"
            )
        notes.append(f"the run's index {own} is gone; its texts were not looked at")
        own = None
    folders = [*([own] if own else []), *corpora]
    for path in corpora:
        _ = (path / MANIFEST).exists() or data_files(path)  # a wrong path is said before work begins

    def texts() -> Iterator[str]:
        for example in (*task.train, *task.validation, *task.test) if task else ():
            yield example.text
            yield from () if example.text_pair is None else (example.text_pair,)
        for path in folders:
            yield from texts_of_index(path) if (path / MANIFEST).exists() else _texts_of_files(path)

    return texts


def _texts_of_files(path: Path) -> Iterator[str]:
    for file in data_files(path):
        for value in read_column(file, "text"):
            if not isinstance(value, str):
                raise DataError(f"{file} has a row whose text is no text or cannot be read; mend or remove it")
            yield value


def _compared(
    before: Classifier,
    after: Classifier,
    cut: Trimming,
    texts: Callable[[], Iterable[str]],
    was: Path,
    now: Path,
) -> dict[str, Any]:
    """Sizes before and after; raises ModelError unless some of the texts get the same logits, bit for bit."""
    some: list[Pair] = [(text, None) for text, _ in zip(texts(), range(_PROBES), strict=False)]
    if not torch.equal(before.predict(some), after.predict(some)):
        raise ModelError(
            f"{type(after.model).__name__} does not give the same logits with its trimmed vocabulary; "
            "export without --trim"
        )
    return {
        "tokens": {"before": cut.before, "after": len(cut.kept)},
        "parameters": {"before": before.parameters, "after": after.parameters},
        "bytes": {
            side: sum(p.stat().st_size for p in weight_files(folder))
            for side, folder in (("before", was), ("after", now))
        },
        "texts": sum(1 for _ in texts()),
    }


def exported(folder: Path, student: Path) -> dict[str, Any] | None:
    """What `export` wrote of a folder; None when nothing is there. Raises ModelError when the student has changed."""
    path = folder / FACTS
    if not path.is_file():
        return None
    facts = read_json(path)
    if weights_of(student) not in (facts["student"], facts.get("weights")):
        raise ModelError(f"{folder} was exported from other weights than {student} holds; run augkd export again")
    return dict(facts)
