"""What a user's files leave open, decided where only one reading is plausible, and what the user says about them.

`init` looks at more than a run: the encoding of a file that is not UTF-8, and splits without labels (Kaggle's
test files). What it decides stands in the recipe, so that a run guesses nothing.
"""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from augkd.data.compression import open_bytes
from augkd.data.formats import TEXT, format_of
from augkd.data.reading import Reading, encoding_of, guess_encodings
from augkd.data.sources import SPLITS, RawTask
from augkd.data.tables import data_files, local_path
from augkd.errors import DataError, RecipeError, did_you_mean, short_repr

_LOOKED_AT = 1 << 24  # bytes of a file in which one that is not UTF-8 is looked for
_CHUNK = 1 << 16


@dataclass(frozen=True)
class Given:
    """What the user says about the files of a task, as the options of `init` and of a recipe's `task`."""

    encoding: str | None = None
    delimiter: str | None = None
    sheet: str | None = None
    splits: Mapping[str, str] | None = None
    merge_labels: bool | None = None

    @property
    def reading(self) -> Reading:
        """How the files are read."""
        return Reading(self.encoding, self.delimiter, self.sheet)

    def options(self) -> dict[str, Any]:
        """The options that are set."""
        return {name: value for name, value in vars(self).items() if value is not None}


NOTHING_GIVEN = Given()


@dataclass(frozen=True)
class Decided:
    """Options that `init` adds to a recipe, each with the reason."""

    options: dict[str, Any] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)  # option → reason


NOTHING_DECIDED = Decided()


def parse_splits(text: str) -> dict[str, str]:
    """`train=a.csv,test=b.csv` as a table; raises RecipeError."""
    splits = {}
    for part in text.split(","):
        name, equals, file = (piece.strip() for piece in part.partition("="))
        if not equals or not file:
            raise RecipeError(f"--splits is {short_repr(text)}; write it like train=a.csv,test=b.csv")
        if name not in SPLITS:
            raise RecipeError(f"--splits has no split {name!r}{did_you_mean(name, SPLITS)}")
        splits[name] = file
    return splits


def sniff_encoding(dataset: str, option: str) -> tuple[str, str] | None:
    """The encoding of a data set's files and the reason, None where they show it themselves.

    Raises DataError, which names `option`, where several encodings are plausible.
    """
    path = local_path(dataset)
    for file in data_files(path) if path else []:
        if format_of(file) in TEXT and (sample := _not_utf8(file)):
            found = guess_encodings(sample)
            if len(found) == 1:
                ((name, word),) = found
                return name, f"{file.name} is not UTF-8, and this reads it well: {word}"
            if found:
                shown = " or ".join(f"{name} ({word})" for name, word in found)
                raise DataError(
                    f"{file} is not UTF-8; it may be {shown}: give {option} {found[0][0]}, or the right one"
                )
    return None


def _not_utf8(file: Path) -> bytes:
    """Bytes around the first that are not UTF-8; b'' where there are none, or the file shows another encoding."""
    with open_bytes(file) as stream:
        if encoding_of(stream.peek(_CHUNK)) != "utf-8-sig":
            return b""
        decoder, before, size = codecs.getincrementaldecoder("utf-8")(), b"", 0
        while size < _LOOKED_AT and (chunk := stream.read(_CHUNK)):
            try:
                decoder.decode(chunk)
            except UnicodeDecodeError:
                return bytes(before + chunk + stream.read(_CHUNK))
            before, size = chunk, size + len(chunk)
    return b""


def labelled_splits(raw: RawTask, label: str | tuple[str, ...]) -> tuple[dict[str, str], str] | None:
    """The splits that have labels, as `splits` names them, and why the others are not; None where all have some."""
    columns = (label,) if isinstance(label, str) else label
    without = [split for split in SPLITS[1:] if split in raw.rows and not _any_label(raw, split, columns)]
    if not without or not set(raw.rows) - set(without) <= set(raw.names) or not _any_label(raw, "train", columns):
        return None
    named = " and ".join(f"{raw.names.get(split, split)} ({split})" for split in without)
    return {split: raw.names[split] for split in raw.rows if split not in without}, f"{named} has no labels; left out"


def _any_label(raw: RawTask, split: str, columns: tuple[str, ...]) -> bool:
    empty = (None, "", raw.null)
    return any(row.get(column) not in empty for row in raw.rows[split] for column in columns)
