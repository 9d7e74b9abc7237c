"""A corpus of unlabelled text, streamed: cleaned, split into sentences, deduplicated and counted.

Texts are processed in batches, for speed, but yielded one by one, and the counts at any moment cover exactly the texts
yielded or dropped so far, so results do not depend on the batch size. Memory is bounded by the largest row and the
table of seen keys. Every dropped text is counted with its reason: an index smaller than its file looks like a bug.
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
from augkd.data.formats import Damaged, describe, is_missing
from augkd.data.near_duplicates import NearDuplicates
from augkd.data.raw_texts import raw_texts
from augkd.data.reading import Reading
from augkd.data.seen import MEMORY, SeenKeys
from augkd.data.sizes import size_of
from augkd.data.tables import DOCSTRINGS, data_files, local_path
from augkd.errors import AugkdError, DataError, RecipeError, did_you_mean, short_repr
from augkd.workspace.fingerprints import file_fingerprint, fingerprint
from augkd.workspace.progress import Progress, silent
from augkd.workspace.storage import url_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

DUPLICATES = ("keep", "exact", "near")
NEAR = 0.8

_READING = ("encoding", "delimiter", "sheet")
_BATCH = 4096  # texts per batch, or fewer once they have this many characters:
_BATCH_CHARS = 1 << 22
_FIRST_BATCH = 64  # texts; doubles up to _BATCH, so that the first texts of a slow source come soon
_NAMED = 20  # damaged files that are named


@dataclass(frozen=True)
class CorpusSource:
    """Where the texts come from and which of them are kept; `split` and `config` are for Hub names."""

    dataset: str  # file, folder, Hub name or augkd:docstrings
    text: str = "text"
    split: str = "train"
    config: str | None = None
    limit: int | None = None  # texts to keep; None: all
    min_chars: int = 1
    max_chars: int = 2000
    sentences: str | None = None  # language code: splits each row into sentences; None: a row is a text
    duplicates: str = "exact"  # keep: drops none; exact: drops copies; near: also texts that overlap by `near`
    near: float = NEAR  # Jaccard similarity of character shingles, 0.5 to 1; approximate, see `near_duplicates`
    encoding: str | None = None  # of the files; None: the one that each shows, else UTF-8
    delimiter: str | None = None  # between the columns of a CSV file; None: the one that each shows
    sheet: str | None = None  # of a workbook; None: the only one

    @property
    def reading(self) -> Reading:
        """How the files are read; raises RecipeError for an unknown encoding or a delimiter that can be none."""
        return Reading(self.encoding, self.delimiter, self.sheet)

    def __post_init__(self) -> None:
        assert self.reading
        if self.limit is not None and self.limit < 1:
            raise RecipeError(f"corpus limit is {self.limit}; give at least 1, or leave it out for the whole corpus")
        if not 1 <= self.min_chars <= self.max_chars:
            raise RecipeError(
                f"corpus min_chars {self.min_chars} and max_chars {self.max_chars} need 1 <= min_chars <= max_chars"
            )
        if self.sentences is not None and not is_language(self.sentences):
            raise RecipeError(f"corpus sentences is {self.sentences!r}; give a language code like en, or leave it out")
        if self.duplicates not in DUPLICATES:
            raise RecipeError(f"corpus duplicates is {self.duplicates!r}{did_you_mean(self.duplicates, DUPLICATES)}")
        if not 0.5 <= self.near <= 1:  # below, bands of 64 minima propose too many texts that differ
            raise RecipeError(f"corpus near is {self.near}; give a Jaccard similarity from 0.5 to 1, like {NEAR}")
        if self.near != NEAR and self.duplicates != "near":
            raise RecipeError(
                f"corpus near {self.near} needs duplicates: near, not {self.duplicates}; change one of them"
            )

    def fingerprint(self) -> str:
        """sha256 of the options and the bytes of the files; does not depend on where the files are.

        How files are read is part of it only where they are not UTF-8 with commas, as all were once.
        """
        options = {name: value for name, value in dataclasses.asdict(self).items() if name not in _READING}
        if self.dataset == DOCSTRINGS:
            return fingerprint({**options, "made_of": [sys.version, _installed()]})
        path = local_path(self.dataset)
        if path is None:
            return fingerprint(options)
        files = data_files(path)
        read_as = {file.name: how for file in files if (how := describe(file, self.reading))}
        options |= {"read_as": read_as} if read_as else {}
        return fingerprint({**options, "dataset": [[f.name, file_fingerprint(f)] for f in files]})

    def known_size(self) -> int | None:
        """An upper bound of the texts that will be kept, where it is free (the rows of Parquet files), else None."""
        rows = None if self.sentences else size_of(self.dataset).rows
        return rows if self.limit is None or rows is None else min(rows, self.limit)

    def here(self, progress: Progress = silent) -> CorpusSource:
        """The same corpus; of a URL, its copy on this machine, so that all that is read of it is of one state."""
        path = local_path(self.dataset, progress) if url_of(self.dataset) is not None else None
        return self if path is None else dataclasses.replace(self, dataset=str(path))


@dataclass
class CorpusCounts:
    """How many texts were read, kept, and dropped by each rule.

    `read` = `kept` + the fields from `malformed` to `near_duplicates`. A text is a row or, with `sentences`, a
    sentence; a blank or malformed row is one text. `rows`, `bad_encoding` and `unreadable` are not part of that sum.
    """

    read: int = 0
    kept: int = 0
    malformed: int = 0  # rows that cannot be parsed: invalid JSON, more or fewer fields than the header
    empty: int = 0
    too_short: int = 0
    too_long: int = 0
    duplicates: int = 0  # after cleaning equal to an earlier text that passed the rules above
    near_duplicates: int = 0
    rows: int = 0
    bad_encoding: int = 0  # rows whose bytes that are not UTF-8 became U+FFFD; the rules then apply to them
    unreadable: int = 0  # truncated or damaged files; what comes before the damage is read
    unreadable_files: list[str] = field(default_factory=list)  # messages about the first 20 of them


class _Text(NamedTuple):
    """A cleaned text with the rule that drops it, '' for none, and its place in the corpus."""

    text: str
    rule: str
    file: str
    row: int
    begins: bool  # it is the first text of its row
    repaired: bool  # its row had bytes that are not UTF-8


def stream_corpus(
    source: CorpusSource,
    counts: CorpusCounts,
    dropped: Dropped | None = None,
    *,
    scratch: Path | None = None,
    memory: int = MEMORY,
) -> Iterator[str]:
    """Yields the cleaned texts in the order of the files, up to `source.limit`; updates `counts` and `dropped`.

    The first of equal or similar texts is kept. Keys beyond `memory` bytes go to unnamed files in `scratch` (None: the
    system's temporary folder), which vanish when the generator ends or is closed, or the process is killed.
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


# ---- rules ----


def _apply(rule: str, rules: list[str], batch: list[_Text], test: Callable[[list[str]], NDArray[np.bool_]]) -> None:
    """Sets `rule` for the texts that no rule has dropped yet and for which `test` is true."""
    kept = [place for place, dropped_by in enumerate(rules) if not dropped_by]
    for place in np.flatnonzero(test([batch[place].text for place in kept])).tolist() if kept else ():
        rules[kept[place]] = rule


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


# ---- texts of a row ----


def _batches(source: CorpusSource) -> Iterator[list[_Text]]:
    """Texts with the rules that need no other text; before an error is raised, the texts read so far are yielded."""
    batch: list[_Text] = []
    size, full = 0, min(_FIRST_BATCH, _BATCH)
    try:
        for file, row, value in raw_texts(source.dataset, source.text, source.split, source.config, source.reading):
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
            f"{file} row {row}: column {source.text!r} is {short_repr(value)}, not a text; name another with `text`"
        )
    raw = "" if is_missing(value) else str(value)
    if source.sentences is not None:
        return _sentences_of_row(source, source.sentences, file, row, raw)
    text = clean(raw)
    return (_Text(text, _length_rule(text, source), file, row, True, damaged(raw)),)


def _sentences_of_row(source: CorpusSource, language: str, file: str, row: int, raw: str) -> Iterator[_Text]:
    broken = damaged(raw)
    begins = True
    for sentence in sentences(raw, language):
        text = clean(sentence)
        if text:  # nothing is left of a piece that is control characters only
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


def _installed() -> list[str]:
    """`name==version` of every installed package, since the docstrings come from these."""
    return sorted({f"{package.name}=={package.version}" for package in importlib.metadata.distributions()})
