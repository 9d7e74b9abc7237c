"""The texts that the rules of a corpus dropped, so that a count in the manifest can be explained.

Only the first texts of each rule are kept, truncated: enough to see a mistake in a rule or file, never a second corpus.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from augkd.data.tables import read_rows
from augkd.errors import DataError, short_repr
from augkd.workspace.files import write_text
from augkd.workspace.fingerprints import fingerprint

DROPPED = "dropped.jsonl"  # in an index folder
FIRST = 1000  # texts kept per rule
WIDTH = 200  # characters kept per text


@dataclass(frozen=True, slots=True)
class DroppedText:
    """One text and the rule that dropped it; for a row that could not be read, `text` is the error message."""

    rule: str  # the name of its field in CorpusCounts
    file: str  # path below the corpus's folder
    row: int  # from 1; 0: the file as a whole
    text: str


class Dropped:
    """Collects the first `first` texts of each rule, truncated to `width` characters, in the order of the corpus."""

    def __init__(self, first: int = FIRST, width: int = WIDTH) -> None:
        self._first = first
        self._width = width
        self._counts: Counter[str] = Counter()
        self.texts: list[DroppedText] = []

    def add(self, rule: str, file: str, row: int, text: str) -> None:
        """Adds a text, unless its rule has enough."""
        if self._counts[rule] < self._first:
            self._counts[rule] += 1
            cut = text if len(text) <= self._width else text[: self._width - 1] + "…"
            self.texts.append(DroppedText(rule, file, row, cut))

    def write(self, path: Path) -> None:
        """Writes one JSON object per line, completely or not at all."""
        lines = (json.dumps(dataclasses.asdict(text), ensure_ascii=False) + "\n" for text in self.texts)
        write_text(path, "".join(lines))


def read_dropped(path: Path) -> Iterator[DroppedText]:
    """The texts that `Dropped.write` wrote; raises DataError when the file is missing or is something else."""
    if not path.is_file():
        raise DataError(f"{path} does not exist; build the index again")
    for number, row in enumerate(read_rows(path), 1):
        try:
            yield DroppedText(**row)
        except TypeError as exc:
            raise DataError(
                f"{path} row {number} is not a dropped text: {short_repr(row)}; build the index again"
            ) from exc


def forget_dropped(path: Path, removed: Callable[[str], bool]) -> Path:
    """Writes the texts without those for which `removed(text)` to a file beside it, named after its content.

    A truncated text is judged by its beginning. Returns the new path, or `path` itself where nothing is removed.
    """
    if not path.is_file():
        return path
    texts, kept = list(read_dropped(path)), Dropped()
    kept.texts = [text for text in texts if not removed(text.text)]
    if len(kept.texts) == len(texts):
        return path
    digest = fingerprint([dataclasses.asdict(text) for text in kept.texts])
    target = path.with_name(f"dropped-{digest[:8]}.jsonl")
    kept.write(target)
    return target
