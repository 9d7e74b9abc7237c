"""What is in a user's own files, said with reasons: which columns, which classes, how long, what is doubtful.

A guess is made from names first and from values second, and always says why, since the user knows better. Everything
is read by the readers a run uses, so that what is found here is what a run will see. Imports no torch.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from augkd.data.cleaning import clean, normalised
from augkd.data.corpus import CorpusCounts, CorpusSource, stream_corpus
from augkd.data.sources import RawTask, read_task
from augkd.data.tables import column_names, data_files, local_path, read_texts
from augkd.data.task import Example, Task, load_task
from augkd.errors import DataError

LOOKED = 1000  # rows that a guess about columns looks at
CORPUS_LOOKED = 100_000  # texts of a corpus that are read; the rest is reckoned from the size of the files
_TEXTS = ("text", "sentence", "review", "question", "utterance", "content", "body", "message", "comment", "document")
_PAIRS = (
    *(("text", "text_pair"), ("text_a", "text_b"), ("sentence1", "sentence2"), ("premise", "hypothesis")),
    *(("question1", "question2"), ("question", "sentence"), ("question", "answer"), ("query", "passage")),
)
_LABELS = ("label", "labels", "class", "category", "target", "topic", "intent", "sentiment", "score", "rating", "y")
_BESIDE = {"split", "fold", "set", "source", "lang", "language"}  # have few values and are no labels
_PIECE = re.compile(r"[A-Za-z]{1,7}|\d{1,3}|[^\sA-Za-z\d]")  # about what a WordPiece tokenizer makes a token of


@dataclass(frozen=True)
class Columns:
    """Which columns are meant, and why."""

    text: str
    text_pair: str | None
    label: str
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Lengths:
    """Lengths of texts, pairs counted together; `pieces` are estimated tokens."""

    median_words: int
    most_words: int
    words_99: int  # 99 % are no longer
    pieces_99: int


@dataclass(frozen=True)
class TaskSurvey:
    """A labelled task as found."""

    columns: Columns
    task: Task
    classes: dict[str, int]  # training texts of each class, most first; {} for regression
    span: tuple[float, float] | None  # least and largest label of a regression
    lengths: Lengths
    repeated: int  # training texts equal to an earlier one, by letters and digits
    contradicting: int  # of these, with another label
    leaked: int  # validation and test texts that are training texts too


@dataclass(frozen=True)
class CorpusSurvey:
    """An unlabelled corpus as found; counts are of the texts looked at."""

    dataset: str
    column: str
    looked: int
    counts: CorpusCounts
    texts: int  # in all, about, unless everything was looked at
    whole: bool  # whether everything was
    lengths: Lengths
    evaluation: int  # texts equal to a validation or test text of the task
    documents: bool  # so much longer than the task's texts that sentences of them would serve better


# ---- columns ----


def guess_columns(
    raw: RawTask, text: str | None = None, text_pair: str | None = None, label: str | None = None
) -> Columns:
    """The columns of a task, those given taken as given; raises DataError where none looks like a label or a text."""
    rows = raw.rows["train"][:LOOKED]
    values = {name: [row.get(name) for row in rows] for name in raw.columns}
    label, why_label = (label, "as you said") if label else _guess_label(raw, values, {text, text_pair})
    text, why_text = (text, "as you said") if text else _guess_text(raw, values, {label, text_pair})
    reasons = [f"text is {text!r}: {why_text}", f"label is {label!r}: {why_label}"]
    if text_pair:
        reasons.insert(1, f"text_pair is {text_pair!r}: as you said")
    else:
        text_pair = next((two for one, two in _PAIRS if one == text and two in values and two != label), None)
        if text_pair:
            reasons.insert(1, f"text_pair is {text_pair!r}: {text!r} and {text_pair!r} are a pair by name")
    return Columns(text, text_pair, label, tuple(reasons))


def _guess_label(raw: RawTask, values: dict[str, list[Any]], taken: set[str | None]) -> tuple[str, str]:
    named = {name.lower(): name for name in values if name not in taken}
    for known in _LABELS:
        if known in named:
            return named[known], "by its name"
    left = {name: some for name, some in values.items() if name not in taken and name.lower() not in _BESIDE}
    few = {name: len({str(v) for v in some}) for name, some in left.items() if _short(some)}
    fit = {name: count for name, count in few.items() if 2 <= count <= max(20, len(raw.rows["train"][:LOOKED]) // 10)}
    if not fit:
        raise DataError(
            f"{raw.where['train']}: no column looks like a label (columns: {', '.join(raw.columns)}); "
            "name it with --label"
        )
    name = min(fit, key=lambda name: (fit[name], name))
    return name, f"it has the fewest values, {fit[name]} in the first {min(LOOKED, len(raw.rows['train']))} rows"


def _guess_text(raw: RawTask, values: dict[str, list[Any]], taken: set[str | None]) -> tuple[str, str]:
    left = {name: some for name, some in values.items() if name not in taken and any(isinstance(v, str) for v in some)}
    if not left:
        raise DataError(
            f"{raw.where['train']}: no column looks like a text (columns: {', '.join(raw.columns)}); "
            "name it with --text"
        )
    named = {name.lower(): name for name in left}
    firsts = [one for one, two in _PAIRS if one in named and two in named]
    for known in (*_TEXTS, *firsts):
        if known in named:
            return named[known], "by its name"
    words = {name: sum(len(str(v or "").split()) for v in some) / max(1, len(some)) for name, some in left.items()}
    name = max(words, key=lambda name: (words[name], name))
    return name, f"it has the longest texts, {words[name]:.0f} words on average"


def _short(values: Sequence[Any]) -> bool:
    """Whether a column could hold labels: scalars, of a few words at most."""
    return all(value is None or (not isinstance(value, list | dict) and len(str(value)) <= 60) for value in values)


# ---- the task ----


def survey_task(
    dataset: str, text: str | None = None, text_pair: str | None = None, label: str | None = None
) -> TaskSurvey:
    """Reads a labelled file, folder or Hub data set as a run would; raises what a run would raise, and DataError."""
    raw = read_task(dataset, None, None, label or "label")
    columns = guess_columns(raw, text, text_pair, label)
    task = load_task(dataset=dataset, text=columns.text, text_pair=columns.text_pair, label=columns.label)
    counts = Counter(example.label for example in task.train if example.label is not None)
    numbers = [float(example.label) for example in task.train if example.label is not None]
    repeated, contradicting, leaked = _repeats(task)
    return TaskSurvey(
        columns=columns,
        task=task,
        classes={task.labels[int(label)]: count for label, count in counts.most_common()} if task.labels else {},
        span=(min(numbers), max(numbers)) if task.regression and numbers else None,
        lengths=lengths_of(_whole(example) for example in (*task.train, *task.validation, *task.test)),
        repeated=repeated,
        contradicting=contradicting,
        leaked=leaked,
    )


def _whole(example: Example) -> str:
    return example.text if example.text_pair is None else f"{example.text} {example.text_pair}"


def _repeats(task: Task) -> tuple[int, int, int]:
    first: dict[str, Any] = {}
    repeated = contradicting = 0
    for example in task.train:
        key = normalised(example.text) + "\0" + normalised(example.text_pair or "")
        repeated += key in first
        contradicting += key in first and first[key] != example.label
        first.setdefault(key, example.label)
    evaluation = (*task.validation, *task.test)
    leaked = sum(normalised(e.text) + "\0" + normalised(e.text_pair or "") in first for e in evaluation)
    return repeated, contradicting, leaked


def lengths_of(texts: Iterable[str]) -> Lengths:
    """Words as white space parts them; pieces as a tokenizer for English would, about."""
    words, pieces = [], []
    for text in texts:
        words.append(len(text.split()))
        pieces.append(sum(1 for _ in _PIECE.finditer(text)))
    words.sort()
    pieces.sort()
    return Lengths(_quantile(words, 0.5), words[-1], _quantile(words, 0.99), _quantile(pieces, 0.99))


def _quantile(ordered: Sequence[int], share: float) -> int:
    """The least of `ordered` that `share` of them do not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


# ---- the corpus ----


def survey_corpus(dataset: str, task: Task, words: int, text: str | None = None) -> CorpusSurvey:
    """Looks at the head of a corpus; `words` is the task's median. Raises DataError when it has no usable text."""
    path = local_path(dataset)
    column = text or (_corpus_column(data_files(path)[0]) if path else "text")
    source, counts = CorpusSource(dataset, text=column), CorpusCounts()
    texts = list(itertools.islice(stream_corpus(source, counts), CORPUS_LOOKED))
    if not texts:
        raise DataError(f"corpus {dataset!r} has no usable text in column {column!r} ({counts.read} rows read)")
    whole = len(texts) < CORPUS_LOOKED
    evaluation = {normalised(text) for text in task.evaluation_texts()} - {""}
    lengths = lengths_of(texts)
    return CorpusSurvey(
        dataset=dataset,
        column=column,
        looked=len(texts),
        counts=counts,
        texts=len(texts) if whole else _reckoned(source, path, texts),
        whole=whole,
        lengths=lengths,
        evaluation=sum(normalised(text) in evaluation for text in texts),
        documents=lengths.median_words > max(40, 3 * words) or counts.too_long > counts.read // 20,
    )


def _corpus_column(file: Path) -> str:
    """`text`, else the column whose first 100 values are longest."""
    names = column_names(file)
    if "text" in names or not names:
        return "text"

    def words(name: str) -> int:
        values: Iterator[Any] = itertools.islice(read_texts(file, name), 100)
        return sum(len(value.split()) for value in values if isinstance(value, str))

    return max(names, key=lambda name: (words(name), name))


def _reckoned(source: CorpusSource, path: Path | None, texts: Sequence[str]) -> int:
    """About how many texts a corpus has in all: Parquet says it, of other files the size is divided by a text's."""
    known = source.known_size()
    if known is not None or path is None:
        return known or len(texts)
    size = sum(file.stat().st_size for file in data_files(path))
    return max(len(texts), int(size * len(texts) / sum(len(text.encode()) + 1 for text in texts)))


def shown_name(name: str, width: int = 40) -> str:
    """A name out of the user's data as it may stand in a line or a comment."""
    text = clean(name)
    return text if len(text) <= width else text[: width - 1] + "…"
