"""The content of onnx/export.json: the exported weights, the files written, how far they are from PyTorch.

The types are the file's own structure, so what a caller gets is what a reader finds on disk. A value that was not
measured is null: without labelled validation texts there is no score, for a regression no class to agree on.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

from augkd.errors import ModelError
from augkd.ship.student_folder import weights_fingerprint
from augkd.workspace.files import read_json
from augkd.workspace.manifests import MANIFEST, check_if_ours

# The Hub's file names: transformers.js and Optimum look for these.
FLOAT32, INT8 = "onnx/model.onnx", "onnx/model_quantized.onnx"
RECORD = "onnx/export.json"


class ExportedFile(TypedDict):
    """One ONNX file."""

    bytes: int
    sha256: str


class PyTorchFigures(TypedDict):
    """The student in PyTorch, on the texts that all forms are compared on."""

    texts: int  # number of texts
    source: str  # where they are from: `validation`, or `random tokens` for a student whose task is unknown
    metric: str | None
    score: float | None
    bytes: int  # size of its weight files


class LogitDifference(TypedDict):
    """Absolute difference to PyTorch's logits, over all texts and outputs."""

    max: float
    mean: float


class LogitCheck(TypedDict):
    """One ONNX file compared with PyTorch."""

    logit_difference: LogitDifference
    same_class: float | None  # share of texts with PyTorch's prediction; None for a regression
    score: float | None


class Sizes(TypedDict):
    """A size before trimming and after it."""

    before: int
    after: int


class TrimmedSizes(TypedDict):
    """What trimming the vocabulary saved."""

    tokens: Sizes
    parameters: Sizes
    bytes: Sizes
    texts: int  # number of texts on which the trimmed student is exact


class ExportRecord(TypedDict):
    """The whole file."""

    student: str  # fingerprint of the student's weights
    weights: str  # fingerprint of the exported weights; differs where the vocabulary was trimmed
    max_length: int  # tokens that texts were truncated to in training
    trimmed: TrimmedSizes | None
    files: dict[str, ExportedFile]  # path in the folder → file
    pytorch: PyTorchFigures
    checks: dict[str, LogitCheck]  # `float32` and `int8`
    opset: int
    inputs: list[str]
    versions: dict[str, str]
    notes: list[str]


def read_record(
    folder: Path,  # the exported student
    student: Path,  # the folder that it should have been exported from
) -> ExportRecord | None:
    """The record in `folder`, None where there is none.

    Raises ModelError when the export is unfinished or the student's weights have changed, and WorkspaceError, which
    names it, for a damaged file.
    """
    path = folder / RECORD
    if not path.is_file():
        return None
    if not (path.parent / MANIFEST).is_file():
        raise ModelError(f"the export in {path.parent} is unfinished; run augkd export again")
    check_if_ours(path.parent)
    record: ExportRecord = read_json(path)
    if weights_fingerprint(student) not in (record["student"], record.get("weights")):
        raise ModelError(f"{folder} was exported from other weights than those in {student}; run augkd export again")
    return record
