"""The texts a corpus rule left out, so that a count in the manifest can be looked into: why were 9 % dropped?

Only the first of each rule are kept, cut short: enough to see a mistake in a rule or a file, never a second corpus.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from augkd.data.tables import read_rows
from augkd.errors import DataError, shown
from augkd.workspace.files import write_text

DROPPED = "dropped.jsonl"  # in an index folder
FIRST = 1000  # texts of each rule
WIDTH = 200  # characters of each text


@dataclass(frozen=True, slots=True)
class DroppedText:
    """One text and the rule that met it; of rows that could not be read, `text` is what is wrong with them."""

    rule: str  # the name of its field in CorpusCounts
    file: str  # as a path below the corpus's folder
    row: int  # from 1; 0: the file as a whole
    text: str


class Dropped:
    """Collects the first `first` texts of each rule, cut to `width` characters, in the order of the corpus."""

    def __init__(self, first: int = FIRST, width: int = WIDTH) -> None:
        self._first = first
        self._width = width
        self._of_rule: Counter[str] = Counter()
        self.texts: list[DroppedText] = []

    def add(self, rule: str, file: str, row: int, text: str) -> None:
        """Notes one text, unless its rule has enough."""
        if self._of_rule[rule] < self._first:
            self._of_rule[rule] += 1
            cut = text if len(text) <= self._width else text[: self._width - 1] + "…"
            self.texts.append(DroppedText(rule, file, row, cut))

    def write(self, path: Path) -> None:
        """Writes one JSON object a line, whole or not at all."""
        lines = (json.dumps(dataclasses.asdict(text), ensure_ascii=False) + "\n" for text in self.texts)
        write_text(path, "".join(lines))


def read_dropped(path: Path) -> Iterator[DroppedText]:
    """What `Dropped.write` wrote; raises DataError when the file is missing or not one of these."""
    if not path.is_file():
        raise DataError(f"{path} does not exist; an index built by this augkd has one, build the index again")
    for number, row in enumerate(read_rows(path), 1):
        try:
            yield DroppedText(**row)
        except TypeError as exc:
            raise DataError(f"{path} row {number} is no dropped text: {shown(row)}; build the index again") from exc


def forget_dropped(path: Path, gone: Callable[[str], bool]) -> None:
    """Rewrites the file without the texts for which `gone(text)`; of a text cut short, its beginning decides."""
    if not path.is_file():
        return
    kept = Dropped()
    kept.texts = [text for text in read_dropped(path) if not gone(text.text)]
    kept.write(path)
