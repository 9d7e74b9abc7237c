"""How fast a teacher and its student are: PyTorch, ONNX and INT8 side by side, on validation texts of the run's task.

Each batch goes through all models in turn, so that other load on the machine slows all of them alike; the speedup over
the teacher is the median over batches of the ratio of two consecutive times. All models get the same texts in the same
batches, sorted by length and padded to the longest text of the batch. Tokenizing is timed separately.
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
from augkd.models.classifier import Classifier, Pair
from augkd.models.devices import uses_bf16
from augkd.models.locate import weight_files
from augkd.models.onnx_graph import check_extra, session
from augkd.models.tokens import takes_token_types
from augkd.ship.export import trimmed_folder
from augkd.ship.export_record import FLOAT32, INT8, ExportRecord, read_record
from augkd.ship.onnx_check import random_texts
from augkd.ship.onnx_classifier import OnnxClassifier
from augkd.ship.student_folder import StudentFolder, find_student
from augkd.workspace.files import read_json
from augkd.workspace.manifests import versions

_MAX_TEXTS = 1024  # validation texts: a pass over them is short, so several fit into the time budget
Inputs = dict[str, Tensor]


@dataclass(frozen=True)
class Timing:
    """The times of one model at one batch size."""

    name: str  # teacher, student or trimmed
    precision: str  # float32, bfloat16, onnx or int8
    bytes: int  # size of its weights on disk
    score: float | None  # on validation, as recorded by the run or the export
    batches: int  # number of batches timed
    median_ms: float  # for one batch
    p95_ms: float
    texts_per_second: float
    speedup: float  # over the first model: the teacher, or the student where there is no teacher


@dataclass(frozen=True)
class Benchmark:
    """The times of a teacher and every form of its student."""

    task: str | None
    metric: str | None
    texts: int
    threads: int  # for one forward pass
    tokenizing_ms_per_text: float
    batch_sizes: dict[int, list[Timing]]
    notes: list[str]
    versions: dict[str, str]


@dataclass(frozen=True)
class Contender:
    """One model in one precision."""

    name: str
    precision: str
    source: Classifier  # provides the tokenizer
    forward: Callable[[Inputs], Any]
    bytes: int
    score: float | None


@dataclass
class BatchTimes:
    """Seconds for each batch of one contender, in the order they were run."""

    seconds: list[float] = field(default_factory=list)
    texts: int = 0


def bench_student(
    folder: Path,
    *,
    batch_sizes: Sequence[int] = (1, 32),
    seconds: float = 20.0,
    threads: int | None = None,
    teacher: Path | None = None,
) -> Benchmark:
    """Times the teacher and every form of the student of a run, for `seconds` at each batch size.

    `threads` are used for one forward pass (None: as many as torch uses). `teacher` is the folder of a classifier to
    compare with in place of the run's own. At least one batch is timed, whatever `seconds` is. Raises ModelError.
    """
    student = find_student(folder)
    task = student.task()
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        contenders, notes = _contenders(student, task, teacher)
        texts = _texts(task, contenders[0].source)
        return Benchmark(
            task=task.name if task else None,
            metric=task.metric if task else None,
            texts=len(texts),
            threads=torch.get_num_threads(),
            tokenizing_ms_per_text=_tokenizing(contenders[-1].source, texts),
            batch_sizes={size: _timings(contenders, texts, size, seconds) for size in batch_sizes},
            notes=notes,
            versions=versions(),
        )
    finally:
        torch.set_num_threads(before)


def _texts(task: Task | None, classifier: Classifier) -> list[Pair]:
    texts = texts_of(task.validation) if task else random_texts(classifier)
    if len(texts) <= _MAX_TEXTS:
        return texts
    return [texts[row] for row in np.random.default_rng(0).choice(len(texts), _MAX_TEXTS, replace=False)]


# ---- the contenders ----


def _contenders(student: StudentFolder, task: Task | None, teacher: Path | None) -> tuple[list[Contender], list[str]]:
    contenders, notes = [], []
    classifier = student.load(task)
    scores = _scores(student)
    folder = teacher or student.teacher()
    if folder is None:
        notes.append("no teacher to compare with; name its folder with --teacher")
    else:
        model = student.load(task, folder, classifier.target)
        score = scores.get("teacher") if teacher is None else None
        contenders.append(_pytorch("teacher", model, folder, False, score))
    contenders.append(_pytorch("student", classifier, student.folder, False, scores.get("student")))
    if uses_bf16("auto", torch.device("cpu")):
        contenders.append(_pytorch("student", classifier, student.folder, True, None))
    for name, place in (("student", student.folder), ("trimmed", trimmed_folder(student.folder))):
        record = read_record(place, student.folder)
        if record is not None:
            contenders += _onnx(name, student.load(task, place, classifier.target), place, record)
    if contenders[-1].precision not in ("onnx", "int8"):
        notes.append(f"no ONNX files to time; write them with: augkd export {student.run or student.folder}")
    return contenders, notes


def _pytorch(name: str, classifier: Classifier, folder: Path, bf16: bool, score: float | None) -> Contender:
    types = takes_token_types(classifier.model)

    def forward(inputs: Inputs) -> Tensor:
        taken = {key: value for key, value in inputs.items() if types or key != "token_type_ids"}
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits: Tensor = classifier.model(**taken).logits
            return logits

    size = sum(path.stat().st_size for path in weight_files(folder))
    return Contender(name, "bfloat16" if bf16 else "float32", classifier, forward, size, score)


def _onnx(name: str, source: Classifier, folder: Path, record: ExportRecord) -> list[Contender]:
    check_extra("an exported student")
    contenders = []
    for file, precision, check in ((FLOAT32, "onnx", "float32"), (INT8, "int8", "int8")):
        if file not in record["files"]:
            continue
        path = folder / file
        if not path.is_file():
            raise ModelError(f"{path} is missing; run augkd export again")
        forward = OnnxClassifier(session(path.read_bytes(), torch.get_num_threads()), source).forward
        score = record["checks"][check]["score"]
        contenders.append(Contender(name, precision, source, forward, path.stat().st_size, score))
    return contenders


def _scores(student: StudentFolder) -> dict[str, float | None]:
    """Validation scores from the run's results."""
    path = (student.run or student.folder) / "results.json"
    results = read_json(path) if path.is_file() else {}
    return {name: results.get(name, {}).get("validation") for name in ("teacher", "student")}


# ---- the clock ----


def _timings(contenders: Sequence[Contender], texts: Sequence[Pair], size: int, seconds: float) -> list[Timing]:
    """One timing for each contender. Batches come in a shuffled order, so that a short run sees short and long ones."""
    batches = [_batches(contender.source, texts, size) for contender in contenders]
    order = np.random.default_rng(0).permutation(len(batches[0])).tolist()
    for contender, own in zip(contenders, batches, strict=True):
        for place in order[:3]:  # warm-up: the first calls allocate memory
            contender.forward(own[place])
    times = [BatchTimes() for _ in contenders]
    started = time.perf_counter()
    for place in _endless(order):
        for contender, own, measured in zip(contenders, batches, times, strict=True):
            begun = time.perf_counter()
            contender.forward(own[place])
            measured.seconds.append(time.perf_counter() - begun)
            measured.texts += len(own[place]["input_ids"])
        if time.perf_counter() - started > seconds:
            break
    return [_timing(contender, own, times[0]) for contender, own in zip(contenders, times, strict=True)]


def _endless(order: list[int]) -> Iterator[int]:
    while True:
        yield from order


def _batches(source: Classifier, texts: Sequence[Pair], size: int) -> list[Inputs]:
    """Batches of `size` texts of similar length in characters, so that they are the same for every tokenizer."""
    order = sorted(range(len(texts)), key=lambda row: sum(len(text or "") for text in texts[row]))
    groups = [order[start : start + size] for start in range(0, len(order), size)]
    return [source.tokens([texts[row] for row in group]).padded(source.pad_id) for group in groups]


def _timing(contender: Contender, own: BatchTimes, first: BatchTimes) -> Timing:
    return Timing(
        name=contender.name,
        precision=contender.precision,
        bytes=contender.bytes,
        score=contender.score,
        batches=len(own.seconds),
        median_ms=1000 * float(np.median(own.seconds)),
        p95_ms=1000 * float(np.percentile(own.seconds, 95)),
        texts_per_second=own.texts / sum(own.seconds),
        speedup=float(np.median(np.array(first.seconds) / np.array(own.seconds))),
    )


def _tokenizing(source: Classifier, texts: Sequence[Pair]) -> float:
    """Milliseconds per text: the median of five passes over all texts at once."""
    passes = []
    for _ in range(5):
        begun = time.perf_counter()
        source.tokens(texts)
        passes.append(time.perf_counter() - begun)
    return 1000 * float(np.median(passes)) / len(texts)


def benchmark_lines(benchmark: Benchmark) -> Iterator[str]:
    """A benchmark to read: one table for each batch size."""
    yield f"{benchmark.texts} texts sorted by length, {benchmark.threads} threads; times do not include tokenizing"
    yield f"tokenizing: {benchmark.tokenizing_ms_per_text:.3f} ms per text"
    for size, timings in benchmark.batch_sizes.items():
        yield ""
        yield (
            f"batch {size:<6}{'':12}{'MB':>9}{'median ms':>11}{'p95 ms':>9}{'texts/s':>10}"
            f"{f'× {timings[0].name}':>11}{'validation':>12}"
        )
        for timing in timings:
            score = "–" if timing.score is None else f"{timing.score:.4f}"
            yield (
                f"{timing.name:12}{timing.precision:12}{timing.bytes / 1e6:9.1f}{timing.median_ms:11.2f}"
                f"{timing.p95_ms:9.2f}{timing.texts_per_second:10.1f}{timing.speedup:11.2f}{score:>12}"
            )
    for note in benchmark.notes:
        yield f"note: {note}"
