"""Unlabelled texts: streamed, cleaned, cut into sentences, deduplicated and counted, from files, the Hub or docstrings.

Texts go through in batches, for speed, but come out one by one, and what is counted at any moment is what came out and
what was left out before it: the size of a batch shows nowhere. Memory is bounded by the largest row and the table of
seen keys. Every text left out is counted with its reason: an index smaller than its file looks like a mistake.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xxhash

from augkd.data.cleaning import clean, damaged, is_language, sentences
from augkd.data.dropped import Dropped
from augkd.data.formats import Damaged, first_line, kind_of
from augkd.data.near_duplicates import NearDuplicates
from augkd.data.seen import MEMORY, SeenKeys
from augkd.data.tables import check_column, data_files, from_hub, local_path, parquet_count, read_texts
from augkd.errors import AugkdError, DataError, RecipeError, did_you_mean, shown
from augkd.workspace.fingerprints import file_fingerprint, fingerprint

if TYPE_CHECKING:
    from numpy.typing import NDArray

DOCSTRINGS = "augkd:docstrings"
DUPLICATES = ("keep", "exact", "near")
NEAR = 0.8

_BATCH = 4096  # texts judged together, once
_FIRST_BATCH = 64  # has doubled often enough: a head of a slow source comes soon
_BATCH_CHARS = 1 << 22  # or fewer, of so many characters
_NAMED = 20  # damaged files told by name


@dataclass(frozen=True)
class CorpusSource:
    """Where texts come from and which of them count; `split` and `config` are for Hub names."""

    dataset: str  # file, folder, Hub name or augkd:docstrings
    text: str = "text"
    split: str = "train"
    config: str | None = None
    limit: int | None = None  # kept texts; None: all
    min_chars: int = 1
    max_chars: int = 2000
    sentences: str | None = None  # language code: each row is a document to be split; None: each row is one text
    duplicates: str = "exact"  # keep: none is left out; exact: copies; near: also texts that overlap by `near` or more
    near: float = NEAR  # Jaccard of character shingles, 0.5 to 1; about, see `augkd.data.near_duplicates`

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise RecipeError(f"corpus limit is {self.limit}; give at least 1, or leave it out for the whole corpus")
        if not 1 <= self.min_chars <= self.max_chars:
            raise RecipeError(
                f"corpus min_chars {self.min_chars}, max_chars {self.max_chars}: need 1 <= min_chars <= max_chars"
            )
        if self.sentences is not None and not is_language(self.sentences):
            raise RecipeError(f"corpus sentences is {self.sentences!r}; give a language code like en, or leave it out")
        if self.duplicates not in DUPLICATES:
            raise RecipeError(f"corpus duplicates is {self.duplicates!r}{did_you_mean(self.duplicates, DUPLICATES)}")
        if not 0.5 <= self.near <= 1:  # below, bands of 64 minima catch too much that is unlike
            raise RecipeError(f"corpus near is {self.near}; give a Jaccard similarity from 0.5 to 1, like {NEAR}")
        if self.near != NEAR and self.duplicates != "near":
            raise RecipeError(f"corpus near {self.near} needs duplicates: near, not {self.duplicates}; set one of them")

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
        """At most so many texts will be kept, where that costs nothing to know (rows of Parquet files), else None."""
        path = None if self.dataset == DOCSTRINGS or self.sentences else local_path(self.dataset)
        files = data_files(path) if path else []
        if not files or any(kind_of(file) != ".parquet" for file in files):
            return None
        rows = sum(parquet_count(file) or 0 for file in files)  # a damaged footer: none of its rows will come
        return rows if self.limit is None else min(rows, self.limit)


@dataclass
class CorpusCounts:
    """What became of the texts read: `read` = `kept` + the fields from `malformed` to `near_duplicates`.

    A text is a row or, with `sentences`, a sentence; a row that is blank or malformed is one text. `rows`,
    `bad_encoding` and `unreadable` count other things and are in no sum.
    """

    read: int = 0
    kept: int = 0
    malformed: int = 0  # rows that do not parse: not JSON, another number of fields than the header
    empty: int = 0
    too_short: int = 0
    too_long: int = 0
    duplicates: int = 0  # equal, once cleaned, to an earlier text that passed the rules above
    near_duplicates: int = 0
    rows: int = 0
    bad_encoding: int = 0  # rows in which bytes that are not UTF-8 became U+FFFD; they go on to the rules
    unreadable: int = 0  # files cut short or damaged: what came before the damage was read
    unreadable_files: list[str] = field(default_factory=list)  # the first 20 of them, with what is wrong


class _Text(NamedTuple):
    """A text and what is to be said of it; `rule` is '' while nothing speaks against it."""

    text: str
    rule: str
    file: str
    row: int
    begins: bool  # whether it is the first text of its row
    repaired: bool  # whether its row had bytes that are not UTF-8


def stream_corpus(
    source: CorpusSource,
    counts: CorpusCounts,
    dropped: Dropped | None = None,
    *,
    scratch: Path | None = None,
    memory: int = MEMORY,
) -> Iterator[str]:
    """The cleaned texts in the order of the files, up to `source.limit`; `counts` and `dropped` follow along.

    Of texts that are alike the first stays. Keys beyond `memory` bytes go to files in `scratch` (None: the system's
    folder) that have no name and are gone when the generator ends or is closed, or the process is killed.
    """
    with ExitStack() as stack:
        tests: dict[str, Callable[[list[str]], NDArray[np.bool_]]] = {}
        if source.duplicates != "keep":
            seen = stack.enter_context(SeenKeys(memory=memory, folder=scratch))
            tests["duplicates"] = partial(_repeated, seen)
        if source.duplicates == "near":
            near = stack.enter_context(NearDuplicates(source.near, memory=memory, folder=scratch))
            tests["near_duplicates"] = near.add
        for batch in _batches(source):
            rules = [text.rule for text in batch]
            for rule, test in tests.items():
                _apply(rule, rules, batch, test)
            for text, rule in zip(batch, rules, strict=True):
                _count(text, rule, counts, dropped)
                if not rule:
                    yield text.text
                if counts.kept == source.limit:
                    return


def check_not_empty(source: CorpusSource, counts: CorpusCounts) -> None:
    """Raises DataError, with the reasons, when a streamed corpus kept nothing."""
    if counts.kept == 0:
        files = f"; {counts.unreadable} damaged, first: {counts.unreadable_files[0]}" if counts.unreadable else ""
        raise DataError(
            f"corpus {source.dataset!r} has no usable text: {counts.read} read, {counts.empty} empty, "
            f"{counts.malformed} malformed, {counts.too_short} shorter than min_chars {source.min_chars}, "
            f"{counts.too_long} longer than max_chars {source.max_chars}; "
            f"change these options or the text column{files}"
        )


# ---- judging ----


def _apply(rule: str, rules: list[str], batch: list[_Text], test: Callable[[list[str]], NDArray[np.bool_]]) -> None:
    """Puts `rule` down for those of the texts not yet left out for which `test` is true."""
    left = [place for place, found in enumerate(rules) if not found]
    for place in np.flatnonzero(test([batch[place].text for place in left])).tolist() if left else ():
        rules[left[place]] = rule


def _repeated(seen: SeenKeys, texts: list[str]) -> NDArray[np.bool_]:  # (n,)
    keys = (xxhash.xxh3_64_intdigest(text.encode()) for text in texts)
    return ~seen.add(np.fromiter(keys, np.uint64, len(texts)))


def _count(text: _Text, rule: str, counts: CorpusCounts, dropped: Dropped | None) -> None:
    if text.begins:
        counts.rows += 1
        if text.repaired:
            counts.bad_encoding += 1
            if dropped is not None:
                dropped.add("bad_encoding", text.file, text.row, text.text)
    if rule == "unreadable":
        if counts.unreadable < _NAMED:
            counts.unreadable_files.append(text.text)
    else:
        counts.read += 1
    if not rule:
        counts.kept += 1
        return
    setattr(counts, rule, getattr(counts, rule) + 1)
    if dropped is not None:
        dropped.add(rule, text.file, text.row, text.text)


# ---- reading ----


def _batches(source: CorpusSource) -> Iterator[list[_Text]]:
    """Texts with the rules that need no other text. What was read before an error still comes, as without batches."""
    batch: list[_Text] = []
    size, full = 0, min(_FIRST_BATCH, _BATCH)
    try:
        for file, row, value in _rows(source):
            for text in _texts_of_row(source, file, row, value):
                batch.append(text)
                size += len(text.text)
                if len(batch) >= full or size >= _BATCH_CHARS:
                    yield batch
                    batch, size, full = [], 0, min(2 * full, _BATCH)
    except AugkdError:
        yield batch
        raise
    yield batch


def _texts_of_row(source: CorpusSource, file: str, row: int, value: Any) -> Iterable[_Text]:
    if isinstance(value, Damaged):
        rule = "unreadable" if value.whole else "malformed"
        return (_Text(value.message, rule, file, 0 if value.whole else row, not value.whole, False),)
    if isinstance(value, list | dict):
        raise DataError(
            f"{file} row {row}: column {source.text!r} is {shown(value)}, not a text; name another with `text`"
        )
    raw = "" if value is None else str(value)
    if source.sentences is not None:
        return _sentences_of_row(source, source.sentences, file, row, raw)
    text = clean(raw)
    return (_Text(text, _length_rule(text, source), file, row, True, damaged(raw)),)


def _sentences_of_row(source: CorpusSource, language: str, file: str, row: int, raw: str) -> Iterator[_Text]:
    broken = damaged(raw)
    begins = True
    for sentence in sentences(raw, language):
        text = clean(sentence)
        if text:  # of a piece of controls nothing is left
            yield _Text(text, _length_rule(text, source), file, row, begins, broken)
            begins = False
    if begins:
        yield _Text("", "empty", file, row, True, broken)


def _length_rule(text: str, source: CorpusSource) -> str:
    if not text:
        return "empty"
    if len(text) < source.min_chars:
        return "too_short"
    return "too_long" if len(text) > source.max_chars else ""


def _rows(source: CorpusSource) -> Iterator[tuple[str, int, Any]]:
    """File (as a path below the corpus's folder), row from 1, value of the text column or `Damaged`."""
    if source.dataset == DOCSTRINGS:
        from augkd.data.docstrings import corpus_texts

        for row, text in enumerate(corpus_texts(), 1):
            yield DOCSTRINGS, row, text
        return
    path = local_path(source.dataset)
    if path is None:
        for row, text in enumerate(_hub_texts(source), 1):
            yield source.dataset, row, text
        return
    for file in data_files(path):
        name = file.relative_to(path).as_posix() if path.is_dir() else file.name
        for row, value in enumerate(read_texts(file, source.text), 1):
            yield name, row, value


def _hub_texts(source: CorpusSource) -> Iterator[Any]:
    where = f"Hub dataset {source.dataset!r}"
    rows = iter(from_hub(source.dataset, source.config, split=source.split, streaming=True))
    number = 0
    while True:
        try:
            row = next(rows, None)
        except Exception as exc:  # the connection, long after it was opened
            raise DataError(f"{where} failed after row {number} ({first_line(exc)}); run again") from exc
        if row is None:
            return
        number += 1
        if number == 1:
            check_column(source.text, list(row), where)
        yield row.get(source.text)


def _installed() -> list[str]:
    """`name==version` of every installed package: the docstrings come from these."""
    return sorted({f"{found.name}=={found.version}" for found in importlib.metadata.distributions()})
