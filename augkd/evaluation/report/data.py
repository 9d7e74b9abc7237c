"""What a report is made of, read from a finished run's folder: figures, logs, texts, selection, predictions.

Nothing is computed again: no model is loaded, and what a run did not record is None, so that the page can say so.
A run inside a comparison has its transfer set and teacher in the comparison's shared folder; they are found by their
fingerprints, never by being the only ones there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from augkd.data.transfer_set import Candidates, TransferSet
from augkd.distill.trace import Trace
from augkd.errors import WorkspaceError
from augkd.workspace.files import read_json
from augkd.workspace.fingerprints import file_fingerprint
from augkd.workspace.manifests import MANIFEST, read_manifest

Facts = dict[str, Any]
_SPLITS = ("test", "validation")  # the first that has labels is the one whose errors are shown


@dataclass(frozen=True)
class Predictions:
    """Outputs of student and teacher on the labelled texts of one split."""

    split: str
    labels: NDArray[Any]  # (n,) class index, or target for regression
    student: NDArray[np.float32]  # (n, outputs)
    teacher: NDArray[np.float32] | None  # (n, outputs); None where the teacher does not know every text


@dataclass(frozen=True)
class RunData:
    """One run, as its folder tells it."""

    folder: Path
    results: Facts
    manifest: Facts  # the run's
    student: Facts  # the student's manifest
    log: list[Facts]  # the student's
    teacher_log: list[Facts]  # [] where the teacher was not fine-tuned
    transfer: TransferSet | None
    trace: Trace | None
    predictions: Predictions | None
    names: tuple[str, ...]  # of the classes, in the order of the outputs; () for regression
    sizes: dict[str, int]  # file → bytes of weights
    exports: dict[str, Facts]  # what `augkd export` wrote, by the student it is of
    bench: Facts | None  # what `augkd bench-student --json` said, where it was kept as bench.json
    baseline: Facts | None  # results of the comparison's baseline of the same seed

    @property
    def recipe(self) -> Facts:
        """The resolved recipe."""
        return dict(self.manifest["recipe"])

    @cached_property
    def candidates(self) -> Candidates:
        """Of the transfer set; made once, for a column of texts takes a quarter of a second to leave Arrow."""
        assert self.transfer is not None
        return self.transfer.candidates()


def read_run(folder: Path) -> RunData:
    """Raises WorkspaceError when the folder is no finished run or one of its files is damaged."""
    manifest = read_manifest(folder, "run")
    student = read_manifest(folder / "student", "student")
    comparison = _comparison(folder)
    transfer = _transfer_set(folder, comparison, str(student["made_from"]["transfer_set"]))
    teacher = _teacher(folder, comparison, manifest["recipe"]["teacher"])
    results = read_json(folder / "results.json")
    return RunData(
        folder=folder,
        results=results,
        manifest=manifest,
        student=student,
        log=_log(folder / "student" / "log.json"),
        teacher_log=_log(teacher / "log.json") if teacher else [],
        transfer=transfer,
        trace=_trace(folder / "student" / "trace.safetensors", transfer),
        predictions=_predictions(folder / "student" / "predictions.safetensors"),
        names=transfer.labels if transfer else _names(folder / "student" / "config.json"),
        sizes=_sizes(folder / "student", teacher),
        exports=_exports(folder),
        bench=dict(read_json(folder / "bench.json")) if (folder / "bench.json").exists() else None,
        baseline=_baseline(comparison, results),
    )


def belief(logits: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:  # (n, classes) → (n,), (n,)
    """The class a model believes in, and with what probability."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return logits.argmax(axis=1), (shifted.max(axis=1) / shifted.sum(axis=1)).astype(np.float32)


def _comparison(folder: Path) -> Path | None:
    """The folder of the comparison that this run is part of."""
    above = folder.resolve().parent.parent
    return above if folder.resolve().parent.name == "runs" and (above / "compare.json").exists() else None


def _shared(folder: Path, comparison: Path | None, stage: str) -> list[Path]:
    """Where a stage of this run may lie: in the run, or shared by the comparison."""
    above = folder.resolve().parent.parent / "shared"
    found = [folder / stage, *(sorted(above.glob(f"{stage}-*")) if comparison or above.is_dir() else [])]
    return [path for path in found if (path / MANIFEST).exists()]


def _transfer_set(folder: Path, comparison: Path | None, wanted: str) -> TransferSet | None:
    for path in _shared(folder, comparison, "transfer_set"):
        if file_fingerprint(path / "data") == wanted:
            return TransferSet.open(path)
    return None


def _teacher(folder: Path, comparison: Path | None, options: Mapping[str, Any]) -> Path | None:
    """The fine-tuned teacher that was made with these options."""
    for path in _shared(folder, comparison, "teacher"):
        made = read_manifest(path, "teacher")["made_from"]["teacher"]
        if {**made, "model": None} == {**options, "model": None}:
            return path
    return None


def _log(path: Path) -> list[Facts]:
    return list(read_json(path)) if path.exists() else []


def _exports(folder: Path) -> dict[str, Facts]:
    named = {"student": "student", "trimmed student": "student-trimmed"}
    files = {name: folder / place / "onnx" / "export.json" for name, place in named.items()}
    return {name: dict(read_json(path)) for name, path in files.items() if path.exists()}


def _trace(path: Path, transfer: TransferSet | None) -> Trace | None:
    if not path.exists() or transfer is None:
        return None
    trace = Trace.read(path)
    total = len(transfer.candidates().owner)
    if trace.total != total:
        raise WorkspaceError(
            f"{path} is of {trace.total} candidates, the transfer set has {total}; run the command again"
        )
    return trace


def _predictions(path: Path) -> Predictions | None:
    if not path.exists():
        return None
    try:
        tensors = load_file(path)
        for split in _SPLITS:
            labels = tensors[f"{split}_labels"]
            known = ~np.isnan(labels) if labels.dtype.kind == "f" else labels >= 0
            if known.any():
                teacher = tensors[f"teacher_{split}"][known]
                unknown = np.isnan(teacher).any()
                return Predictions(split, labels[known], tensors[split][known], None if unknown else teacher)
    except (OSError, SafetensorError, KeyError) as exc:
        raise WorkspaceError(f"{path} does not hold predictions ({exc}); run the command again") from exc
    return None


def _names(path: Path) -> tuple[str, ...]:
    """Class names of the student's configuration; () for regression."""
    config = read_json(path)
    if config.get("problem_type") == "regression":
        return ()
    named = config.get("id2label") or {}
    return tuple(named[str(place)] for place in range(len(named)))


def _sizes(student: Path, teacher: Path | None) -> dict[str, int]:
    files = {"student": student / "model.safetensors", "teacher": (teacher or student) / "model.safetensors"}
    if teacher is None:
        del files["teacher"]
    return {name: path.stat().st_size for name, path in files.items() if path.exists()}


def _baseline(comparison: Path | None, results: Mapping[str, Any]) -> Facts | None:
    """The comparison's baseline with this run's seed; None for the baseline itself."""
    if comparison is None:
        return None
    value = read_json(comparison / "compare.json")
    name = value.get("baseline", "kd" if "kd" in value["runs"] else next(iter(value["runs"])))
    same = [run for run in value["runs"].get(name, []) if run["seed"] == results["seed"]]
    return dict(same[0]) if same and results["recipe"] != name else None
