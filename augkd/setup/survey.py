"""What is in a user's own files: columns, classes, lengths, and what deserves a second look.

Everything is read by the same readers as in a run, so that a run sees what is reported here. Imports no torch.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from augkd.data.cleaning import clean, identity, normalised
from augkd.data.corpus import CorpusCounts, CorpusSource, stream_corpus
from augkd.data.formats import describe
from augkd.data.reading import Reading
from augkd.data.sources import read_task
from augkd.data.tables import column_names, data_files, local_path, read_texts
from augkd.data.task import Example, Task, load_task
from augkd.errors import DataError
from augkd.setup.columns import Columns, guess_columns
from augkd.setup.sniffing import NOTHING_DECIDED, NOTHING_GIVEN, Decided, Given, labelled_splits, sniff_encoding

MODEL_MAX_LENGTH = 512  # tokens that MiniLM reads
SAMPLE_TEXTS = 100_000  # texts that are read of a corpus; its size is then estimated from the size of its files
_PIECE = re.compile(r"[A-Za-z]{1,7}|\d{1,3}|[^\sA-Za-z\d]")  # roughly one token of a WordPiece tokenizer


@dataclass(frozen=True)
class Lengths:
    """Lengths of texts; the two texts of a pair are counted together, and tokens are estimated."""

    median_words: int
    max_words: int
    words_p99: int  # 99th percentile
    tokens_p99: int


@dataclass(frozen=True)
class TaskSurvey:
    """A labelled task."""

    columns: Columns
    task: Task
    class_counts: dict[str, int]  # training texts of each class, largest first; {} for regression
    label_range: tuple[float, float] | None  # smallest and largest label of a regression
    lengths: Lengths
    repeated: int  # training texts equal to an earlier one, once normalised
    conflicting: int  # repeated texts with another label than the first
    leaked: int  # validation and test texts that are also training texts
    decided: Decided = NOTHING_DECIDED  # further options of the recipe's `task`


@dataclass(frozen=True)
class CorpusSurvey:
    """An unlabelled corpus; everything but `texts` describes its first SAMPLE_TEXTS texts."""

    dataset: str
    column: str
    sampled: int
    counts: CorpusCounts
    texts: int  # in the whole corpus; an estimate unless `complete`
    complete: bool  # whether all of it was read
    lengths: Lengths
    evaluation_texts: int  # texts equal to a validation or test text of the task
    encoding: str | None  # where the files do not show it
    read_as: tuple[str, ...]  # how, where not as UTF-8 with commas; one for each kind of file
    documents: bool  # whether texts are so much longer than the task's that they should be split into sentences


# ---- the task ----


def survey_task(
    dataset: str,
    text: str | None = None,
    text_pair: str | None = None,
    label: str | None = None,
    separator: str | None = None,
    given: Given = NOTHING_GIVEN,
) -> TaskSurvey:
    """Reads a labelled file, folder or Hub data set as a run would. Raises what a run would raise, and DataError."""
    options, reasons = given.options(), dict.fromkeys(given.options(), "given")
    if "encoding" not in options and (found := sniff_encoding(dataset, "--encoding")):
        options["encoding"], reasons["encoding"] = found
    reading = replace(given.reading, encoding=options.get("encoding"))
    raw = read_task(dataset, given.splits, None, label or "label", reading)
    columns = guess_columns(raw, text, text_pair, label, separator)
    if given.splits is None and (labelled := labelled_splits(raw, columns.label)):
        options["splits"], reasons["splits"] = labelled
    task = load_task(
        dataset=dataset,
        text=columns.text,
        text_pair=columns.text_pair,
        label=columns.label,
        separator=columns.separator,
        **options,
    )
    target = task.target
    labels = [example.label for example in task.train if example.label is not None]
    if not labels:
        raise DataError(f"{raw.where['train']}: column {columns.label!r} has no label; name another with --label")
    repeated, conflicting, leaked = _repeats(task)
    return TaskSurvey(
        columns=columns,
        task=task,
        class_counts=target.counts(labels),
        label_range=_range(labels) if target.regression and labels else None,
        lengths=lengths_of(_whole_text(example) for example in (*task.train, *task.validation, *task.test)),
        repeated=repeated,
        conflicting=conflicting,
        leaked=leaked,
        decided=Decided(options, reasons),
    )


def _range(labels: Sequence[Any]) -> tuple[float, float]:
    return float(min(labels)), float(max(labels))


def _whole_text(example: Example) -> str:
    return example.text if example.text_pair is None else f"{example.text} {example.text_pair}"


def _repeats(task: Task) -> tuple[int, int, int]:
    """(repeated, conflicting, leaked) of `TaskSurvey`."""
    first_label: dict[str, Any] = {}
    repeated = conflicting = 0
    for example in task.train:
        key = _key(example)
        repeated += key in first_label
        conflicting += key in first_label and first_label[key] != example.label
        first_label.setdefault(key, example.label)
    return repeated, conflicting, sum(_key(example) in first_label for example in (*task.validation, *task.test))


def _key(example: Example) -> str:
    return identity(example.text) + "\0" + identity(example.text_pair or "")


def lengths_of(texts: Iterable[str]) -> Lengths:
    """Words are separated by white space; tokens are estimated for an English WordPiece tokenizer."""
    words, tokens = [], []
    for text in texts:
        words.append(len(text.split()))
        tokens.append(sum(1 for _ in _PIECE.finditer(text)))
    words.sort()
    tokens.sort()
    return Lengths(_quantile(words, 0.5), words[-1], _quantile(words, 0.99), _quantile(tokens, 0.99))


def _quantile(ordered: Sequence[int], share: float) -> int:
    """The smallest value that at least `share` of the values do not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


# ---- the corpus ----


def survey_corpus(dataset: str, task: TaskSurvey, text: str | None = None, encoding: str | None = None) -> CorpusSurvey:
    """Reads the first texts of a corpus and compares them with the task's. Raises DataError without a usable text."""
    path = local_path(dataset)
    encoding, _ = sniff_encoding(dataset, "--corpus-encoding") or (None, "") if encoding is None else (encoding, "")
    reading = Reading(encoding)
    column = text or (_longest_column(data_files(path)[0], reading) if path else "text")
    source, counts = CorpusSource(dataset, text=column, encoding=encoding), CorpusCounts()
    texts = list(itertools.islice(stream_corpus(source, counts), SAMPLE_TEXTS))
    if not texts:
        raise DataError(
            f"corpus {dataset!r} has no usable text in column {column!r} ({counts.read} rows read); give another corpus"
        )
    complete = len(texts) < SAMPLE_TEXTS
    evaluation = {normalised(text) for text in task.task.evaluation_texts()} - {""}
    lengths = lengths_of(texts)
    return CorpusSurvey(
        dataset=dataset,
        column=column,
        sampled=len(texts),
        counts=counts,
        texts=len(texts) if complete else _estimated_size(source, path, texts),
        complete=complete,
        lengths=lengths,
        encoding=encoding,
        read_as=tuple(dict.fromkeys(filter(None, (describe(file, reading) for file in data_files(path)))))
        if path
        else (),
        evaluation_texts=sum(normalised(text) in evaluation for text in texts),
        documents=_are_documents(lengths, counts, task.lengths),
    )


def _longest_column(file: Path, reading: Reading) -> str:
    """`text`, else the column whose first 100 values have most words."""
    names = column_names(file, reading)
    if "text" in names or not names:
        return "text"

    def words(name: str) -> int:
        values: Iterator[Any] = itertools.islice(read_texts(file, name, reading), 100)
        return sum(len(value.split()) for value in values if isinstance(value, str))

    return max(names, key=lambda name: (words(name), name))


def _are_documents(lengths: Lengths, counts: CorpusCounts, task: Lengths) -> bool:
    return lengths.median_words > max(40, 3 * task.median_words) or counts.too_long > counts.read // 20


def _estimated_size(source: CorpusSource, path: Path | None, texts: Sequence[str]) -> int:
    """About how many texts a corpus has: known for Parquet, else the files' size divided by a text's mean size."""
    known = source.known_size()
    if known is not None or path is None:
        return known or len(texts)
    size = sum(file.stat().st_size for file in data_files(path))
    return max(len(texts), int(size * len(texts) / sum(len(text.encode()) + 1 for text in texts)))


def short_name(name: str, width: int = 40) -> str:
    """A name from the user's data, fit to stand in a line or a comment: no line breaks, at most `width` characters."""
    text = clean(name)
    return text if len(text) <= width else text[: width - 1] + "…"
