"""Which characters separate and quote the fields of a CSV file, from its first rows.

A header that commas divide is taken as it always was. Semicolons, tabs and bars are taken where they divide the header
and the rows alike and nothing else does; clevercsv (van den Burg et al. 2019) is asked about the rest, for backslashes
before quotes and single quotes. Two delimiters that both fit are a question for the user.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from augkd.errors import DataError

HEAD = 1 << 16  # characters that are looked at
_SNIFFED = 1 << 13  # of these by clevercsv, whose time grows with their square
_DELIMITERS = ",;\t|"
_FITS = 0.9  # least share of the rows with as many fields as the header: a file may have some damaged rows
_STATED = re.compile(r"sep=(.)\r?\n?")  # Excel's first line


@dataclass(frozen=True)
class Dialect:
    """How the fields of a line are written."""

    delimiter: str = ","
    quote: str = '"'
    escape: str | None = None
    stated: bool = False  # whether the first line is Excel's sep=

    def describe(self) -> str:
        """What is not as in any CSV, for a note; '' where all is."""
        named = {"\t": "tabs", ";": "semicolons", "|": "bars"}
        between = "" if self.delimiter == "," else f"{named.get(self.delimiter, repr(self.delimiter))} between columns"
        quote = "" if self.quote == '"' else f"{self.quote} around fields"
        escape = f"{self.escape} before quotes" if self.escape else ""
        found = ", ".join(filter(None, (between, quote, escape)))
        return f"with {found}" if found else ""


def dialect_of(head: str, path: Path, given: str | None = None) -> Dialect:
    """The dialect of a CSV file that begins with `head`; raises DataError where two delimiters fit equally well."""
    stated = _STATED.match(head)
    if given is not None:
        return Dialect(given, stated=stated is not None)
    if stated:
        return Dialect(stated[1], stated=True)
    first = head.partition("\n")[0]
    shares = {mark: _share(head, Dialect(mark)) for mark in _DELIMITERS if mark in first}
    if not shares:  # a single column
        return Dialect()
    fitting = [mark for mark, share in shares.items() if share >= _FITS]
    best = [mark for mark in fitting if shares[mark] == max(shares.values())]
    if len(best) == 1:
        return Dialect(best[0])
    if best:
        raise DataError(
            f"{path} has {' or '.join(map(repr, best))} between its columns, and both fit; "
            f"set delimiter: {best[1]!r} or delimiter: {best[0]!r} (--delimiter of init)"
        )
    return _sniffed(head) or Dialect()


def _share(head: str, dialect: Dialect) -> float:
    """The share of the rows of `head` with as many fields as the header, which must have two or more."""
    lines = io.StringIO(head, newline="")
    rows: list[int] = []
    reader = rows_in(lines, dialect)
    while True:
        try:
            row = next(reader, None)
        except csv.Error:
            rows.append(0)
            continue
        if row is None:
            break
        if row:
            rows.append(len(row))
    if len(head) >= HEAD:
        rows = rows[:-1]  # cut off
    header, *others = rows or [0]
    if header < 2:
        return 0.0
    return sum(size == header for size in others) / len(others) if others else 1.0


def rows_in(lines: Iterable[str], dialect: Dialect) -> Any:
    """`csv.reader` of this dialect."""
    return csv.reader(
        lines,
        delimiter=dialect.delimiter,
        quotechar=dialect.quote,
        escapechar=dialect.escape,
        doublequote=dialect.escape is None,
        strict=True,
    )


def _sniffed(head: str) -> Dialect | None:
    """What clevercsv finds, where every row fits and it is more than commas and double quotes; None without it."""
    try:
        from clevercsv.detect import Detector
        from clevercsv.exceptions import Error
    except ModuleNotFoundError:
        return None
    sample = head[:_SNIFFED]
    try:
        found = Detector().detect(sample[: sample.rfind("\n") + 1], delimiters=list(_DELIMITERS))
    except Error:  # a null character: the reader says where
        return None
    if found is None or found.delimiter not in _DELIMITERS:
        return None
    quote = "'" if found.quotechar == "'" and '"' not in head else '"'
    escape = "\\" if found.escapechar == "\\" and f"\\{quote}" in head else None
    dialect = Dialect(found.delimiter, quote, escape)
    return dialect if dialect != Dialect() and _share(head, dialect) == 1 else None
