"""Unlabelled sentences: streamed, cleaned and counted, from files, the Hub or the built-in docstrings.

Nothing here holds more than one row (or Parquet batch), so a corpus may be of any size. Every text that is left out is
counted with its reason, since an index that is smaller than its file otherwise looks like a mistake.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import re
import sys
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from augkd.data.tables import column_names, data_files, from_hub, kind_of, local_path, parquet_count, read_rows
from augkd.errors import DataError, RecipeError, did_you_mean, shown
from augkd.workspace import file_fingerprint, fingerprint

DOCSTRINGS = "augkd:docstrings"

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_SURROGATE = re.compile("[\ud800-\udfff]")


def clean(text: str) -> str:
    """NFC, control characters (also NUL) to spaces, runs of white space to one, stripped."""
    if not text.isascii():
        text = _SURROGATE.sub("\ufffd", unicodedata.normalize("NFC", text))
    return " ".join(_CONTROL.sub(" ", text).split())


def fold(text: str) -> str:
    """What makes two texts the same: letters and digits alone (NFKC, case folded); '' for a text that has none."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return "".join(filter(str.isalnum, folded))


@dataclass(frozen=True)
class CorpusSource:
    """Where sentences come from and which of them count; `split` and `config` are for Hub names."""

    dataset: str  # file, folder, Hub name or augkd:docstrings
    text: str = "text"
    split: str = "train"
    config: str | None = None
    limit: int | None = None  # kept texts; None: all
    min_chars: int = 1
    max_chars: int = 2000

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise RecipeError(f"corpus limit is {self.limit}; give at least 1, or leave it out for the whole corpus")
        if not 1 <= self.min_chars <= self.max_chars:
            raise RecipeError(
                f"corpus min_chars {self.min_chars}, max_chars {self.max_chars}: need 1 <= min_chars <= max_chars"
            )

    def fingerprint(self) -> str:
        """Names the content: options and bytes of the files, not where they lie."""
        options = dataclasses.asdict(self)
        if self.dataset == DOCSTRINGS:
            return fingerprint({**options, "made_of": [sys.version, _installed()]})
        path = local_path(self.dataset)
        if path is None:
            return fingerprint(options)
        return fingerprint({**options, "dataset": [[f.name, file_fingerprint(f)] for f in data_files(path)]})

    def known_size(self) -> int | None:
        """Rows to come where that costs nothing to know (all files are Parquet), else None."""
        path = None if self.dataset == DOCSTRINGS else local_path(self.dataset)
        files = data_files(path) if path else []
        if not files or any(kind_of(file) != ".parquet" for file in files):
            return None
        rows = sum(parquet_count(file) for file in files)
        return rows if self.limit is None else min(rows, self.limit)


@dataclass
class CorpusCounts:
    """What became of the texts read; `read` is the sum of the others."""

    read: int = 0
    kept: int = 0
    empty: int = 0
    too_short: int = 0
    too_long: int = 0


def stream_corpus(source: CorpusSource, counts: CorpusCounts) -> Iterator[str]:
    """The cleaned texts in file order, up to `source.limit`; `counts` follows along."""
    for raw in _raw_texts(source):
        text = clean(raw)
        counts.read += 1
        if not text:
            counts.empty += 1
        elif len(text) < source.min_chars:
            counts.too_short += 1
        elif len(text) > source.max_chars:
            counts.too_long += 1
        else:
            counts.kept += 1
            yield text
            if counts.kept == source.limit:
                return


def check_not_empty(source: CorpusSource, counts: CorpusCounts) -> None:
    """Raises DataError, with the reasons, when a streamed corpus kept nothing."""
    if counts.kept == 0:
        raise DataError(
            f"corpus {source.dataset!r} has no usable text: {counts.read} read, {counts.empty} empty, "
            f"{counts.too_short} shorter than min_chars {source.min_chars}, "
            f"{counts.too_long} longer than max_chars {source.max_chars}; change these options or the text column"
        )


def _raw_texts(source: CorpusSource) -> Iterator[str]:
    if source.dataset == DOCSTRINGS:
        from augkd.demo import corpus_texts

        yield from corpus_texts()
        return
    path = local_path(source.dataset)
    if path is None:
        yield from _hub_texts(source)
        return
    for file in data_files(path):
        yield from _file_texts(file, source.text)


def _file_texts(file: Path, column: str) -> Iterator[str]:
    names = column_names(file)
    if names:  # an empty .jsonl has no columns and no rows
        _check_column(column, names, str(file))
    for number, row in enumerate(read_rows(file, [column]), 1):
        yield _text(row.get(column), f"{file} row {number}", column)


def _hub_texts(source: CorpusSource) -> Iterator[str]:
    where = f"Hub dataset {source.dataset!r}"
    rows = iter(from_hub(source.dataset, source.config, split=source.split, streaming=True))
    number = 0
    while True:
        try:
            row = next(rows, None)
        except Exception as exc:  # the connection, long after it was opened
            reason = str(exc).strip().splitlines() or [type(exc).__name__]
            raise DataError(f"{where} failed after row {number} ({reason[0]}); run again") from exc
        if row is None:
            return
        number += 1
        if number == 1:
            _check_column(source.text, list(row), where)
        yield _text(row.get(source.text), f"{where} row {number}", source.text)


def _check_column(column: str, names: list[str], where: str) -> None:
    if column not in names:
        raise DataError(f"{where} has no column {column!r} (it has: {', '.join(names)}){_advice(column, names)}")


def _advice(column: str, names: list[str]) -> str:
    close = did_you_mean(column, names)
    return close if close.endswith("?") else "; name the text column with `text`"


def _text(value: Any, where: str, column: str) -> str:
    if isinstance(value, list | dict):
        raise DataError(f"{where}: column {column!r} is {shown(value)}, not a text; name another with `text`")
    return "" if value is None else str(value)


def _installed() -> list[str]:
    """`name==version` of every installed package: the docstrings come from these."""
    return sorted({f"{found.name}=={found.version}" for found in importlib.metadata.distributions()})
