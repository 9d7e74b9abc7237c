"""How fast teacher and student answer: PyTorch, ONNX and INT8 side by side, on validation texts of the run's task.

Every batch goes through all of them in turn, so that whatever else the machine does slows all alike; the ratio to the
teacher is the median over batches of two times taken one after the other. All get the same texts in the same batches,
sorted by length and padded to the longest of the batch; making tokens of them is timed apart, as it is the same work.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from augkd.data.task import Task, texts_of
from augkd.errors import ModelError
from augkd.models.classifier import Classifier, Pair, takes_token_types
from augkd.models.devices import uses_bf16
from augkd.models.locate import weight_files
from augkd.models.onnx_graph import check_extra, session
from augkd.ship.export import FLOAT, INT8, exported, probes, trimmed_beside
from augkd.ship.onnx_classifier import OnnxClassifier
from augkd.ship.student_folder import StudentFolder, find_student
from augkd.workspace.manifests import versions

_TEXTS = 1024  # of the validation split at the most: a round is short, so the budget holds many
Inputs = dict[str, Tensor]


@dataclass(frozen=True)
class Contender:
    """One way to answer."""

    name: str
    precision: str
    source: Classifier  # whose tokenizer it reads with
    forward: Callable[[Inputs], Any]
    bytes: int  # of its weights on disk
    score: float | None  # on validation, where it was measured before


@dataclass
class Times:
    """Seconds of one contender's batches, in the order they were run."""

    seconds: list[float] = field(default_factory=list)
    texts: int = 0


def bench(
    given: Path,
    *,
    batch_sizes: Sequence[int] = (1, 32),
    seconds: float = 20.0,
    threads: int | None = None,
    teacher: Path | None = None,
) -> dict[str, Any]:
    """Times the teacher and every form of the student of a run that there is, `seconds` for each batch size.

    `threads` of a forward pass (None: as many as torch takes); `teacher` is a classifier's folder where the run's own
    is not found. At least one batch is run whatever `seconds` is. Raises ModelError.
    """
    student = find_student(given)
    task = student.task()
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        contenders, notes = _contenders(student, task, teacher)
        texts = _texts(task, contenders[0].source)
        rows = {size: _measured(contenders, texts, size, seconds) for size in batch_sizes}
        return {
            "task": task.name if task else None,
            "metric": task.metric if task else None,
            "texts": len(texts),
            "threads": torch.get_num_threads(),
            "tokenizing_ms_per_text": _tokenizing(contenders[-1].source, texts),
            "batch_sizes": {str(size): found for size, found in rows.items()},
            "notes": notes,
            "versions": versions(),
        }
    finally:
        torch.set_num_threads(before)


def _texts(task: Task | None, classifier: Classifier) -> list[Pair]:
    texts = texts_of(task.validation) if task else probes(classifier)
    if len(texts) <= _TEXTS:
        return texts
    return [texts[place] for place in np.random.default_rng(0).choice(len(texts), _TEXTS, replace=False)]


# ---- who takes part ----


def _contenders(student: StudentFolder, task: Task | None, teacher: Path | None) -> tuple[list[Contender], list[str]]:
    found, notes = [], []
    classifier = student.load(task)
    scores = _scores(student)
    folder = teacher or student.teacher()
    if folder is None:
        notes.append("no teacher to compare with; name its folder with --teacher")
    else:
        model = student.load(task, folder, classifier.labels)
        found.append(_pytorch("teacher", model, folder, False, scores.get("teacher") if teacher is None else None))
    found.append(_pytorch("student", classifier, student.folder, False, scores.get("student")))
    if uses_bf16("auto", torch.device("cpu")):
        found.append(_pytorch("student", classifier, student.folder, True, None))
    for name, place in (("student", student.folder), ("trimmed", trimmed_beside(student.folder))):
        facts = exported(place, student.folder)
        if facts is not None:
            found += _onnx(name, student.load(task, place, classifier.labels), place, facts)
    if found[-1].precision not in ("onnx", "int8"):
        notes.append(f"no ONNX to time; make it with: augkd export {student.run or student.folder}")
    return found, notes


def _pytorch(name: str, classifier: Classifier, folder: Path, bf16: bool, score: float | None) -> Contender:
    types = takes_token_types(classifier.model)

    def forward(inputs: Inputs) -> Tensor:
        told = {key: value for key, value in inputs.items() if types or key != "token_type_ids"}
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits: Tensor = classifier.model(**told).logits
            return logits

    size = sum(path.stat().st_size for path in weight_files(folder))
    return Contender(name, "bfloat16" if bf16 else "float32", classifier, forward, size, score)


def _onnx(name: str, source: Classifier, folder: Path, facts: dict[str, Any]) -> list[Contender]:
    check_extra("an exported student")
    made = []
    for file, precision, check in ((FLOAT, "onnx", "float32"), (INT8, "int8", "int8")):
        if file not in facts["files"]:
            continue
        path = folder / file
        if not path.is_file():
            raise ModelError(f"{path} is missing; run augkd export again")
        run = OnnxClassifier(session(path.read_bytes(), torch.get_num_threads()), source).forward
        score = facts["checks"][check].get("score")
        made.append(Contender(name, precision, source, run, path.stat().st_size, score))
    return made


def _scores(student: StudentFolder) -> dict[str, float | None]:
    """Validation figures that the run wrote down."""
    from augkd.workspace.files import read_json

    path = (student.run or student.folder) / "results.json"
    values = read_json(path) if path.is_file() else {}
    return {name: values.get(name, {}).get("validation") for name in ("teacher", "student")}


# ---- the clock ----


def _measured(
    contenders: Sequence[Contender], texts: Sequence[Pair], size: int, seconds: float
) -> list[dict[str, Any]]:
    """One row for each contender. Batches come in a shuffled order, so that a short run sees short and long ones."""
    batches = [_batches(contender.source, texts, size) for contender in contenders]
    order = np.random.default_rng(0).permutation(len(batches[0])).tolist()
    for contender, own in zip(contenders, batches, strict=True):
        for place in order[:3]:  # warm-up: first calls allocate
            contender.forward(own[place])
    times = [Times() for _ in contenders]
    started = time.perf_counter()
    for place in _around(order):
        for contender, own, kept in zip(contenders, batches, times, strict=True):
            begun = time.perf_counter()
            contender.forward(own[place])
            kept.seconds.append(time.perf_counter() - begun)
            kept.texts += len(own[place]["input_ids"])
        if time.perf_counter() - started > seconds:
            break
    return [_row(contender, own, times) for contender, own in zip(contenders, times, strict=True)]


def _around(order: list[int]) -> Iterator[int]:
    while True:
        yield from order


def _batches(source: Classifier, texts: Sequence[Pair], size: int) -> list[Inputs]:
    """The texts in batches of `size`, of like length by the characters, the same for every tokenizer."""
    order = sorted(range(len(texts)), key=lambda place: sum(len(text or "") for text in texts[place]))
    groups = [order[start : start + size] for start in range(0, len(order), size)]
    return [source.tokens([texts[place] for place in group]).padded(source.pad_id) for group in groups]


def _row(contender: Contender, own: Times, every: Sequence[Times]) -> dict[str, Any]:
    """Figures of one contender; the ratio is to the first of all, which is the teacher where there is one."""
    ratios = np.array(every[0].seconds) / np.array(own.seconds)
    return {
        "name": contender.name,
        "precision": contender.precision,
        "bytes": contender.bytes,
        "score": contender.score,
        "batches": len(own.seconds),
        "median_ms": 1000 * float(np.median(own.seconds)),
        "p95_ms": 1000 * float(np.percentile(own.seconds, 95)),
        "texts_per_second": own.texts / sum(own.seconds),
        "times_first": float(np.median(ratios)),
    }


def _tokenizing(source: Classifier, texts: Sequence[Pair]) -> float:
    """Milliseconds a text, the median of five passes over all of them at once."""
    passes = []
    for _ in range(5):
        begun = time.perf_counter()
        source.tokens(texts)
        passes.append(time.perf_counter() - begun)
    return 1000 * float(np.median(passes)) / len(texts)


def table(found: dict[str, Any]) -> Iterator[str]:
    """The figures as lines."""
    first = next(iter(found["batch_sizes"].values()))[0]["name"]
    yield f"{found['texts']} texts, {found['threads']} threads, sorted by length; tokenizing is not in the figures"
    yield f"tokenizing: {found['tokenizing_ms_per_text']:.3f} ms a text"
    for size, rows in found["batch_sizes"].items():
        yield ""
        yield (
            f"batch {size:<6}{'':12}{'MB':>9}{'median ms':>11}{'p95 ms':>9}{'texts/s':>10}{f'× {first}':>11}"
            f"{'validation':>12}"
        )
        for row in rows:
            score = "–" if row["score"] is None else f"{row['score']:.4f}"
            yield (
                f"{row['name']:12}{row['precision']:12}{row['bytes'] / 1e6:9.1f}{row['median_ms']:11.2f}"
                f"{row['p95_ms']:9.2f}{row['texts_per_second']:10.1f}{row['times_first']:11.2f}{score:>12}"
            )
    for note in found["notes"]:
        yield f"note: {note}"
