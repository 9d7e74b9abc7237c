"""How large a corpus is before it is read: bytes of its files, and rows where they are Parquet.

Of a corpus in storage nothing is copied: the list of its files tells the bytes, and Parquet footers are read in place.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from augkd.data.formats import format_of
from augkd.data.parquet import parquet_count
from augkd.data.tables import DOCSTRINGS, FACTS, data_files, is_wanted, local_path
from augkd.workspace.storage import Storage, url_of


@dataclass(frozen=True)
class CorpusSize:
    """What can be known of a corpus without reading it."""

    bytes: int
    rows: int | None  # None: it has files that are not Parquet


_UNKNOWN = CorpusSize(0, None)


def size_of(dataset: str) -> CorpusSize:
    """The size of a file, a folder or a URL; of a name on the Hub and of the built-in corpus, nothing is known."""
    if dataset == DOCSTRINGS:
        return _UNKNOWN
    if (url := url_of(dataset)) is not None:
        return _stored(Storage.at(url))
    path = local_path(dataset)
    files = data_files(path) if path else []
    if not files:
        return _UNKNOWN
    size = sum(file.stat().st_size for file in files)
    if any(format_of(file) != ".parquet" for file in files):
        return CorpusSize(size, None)
    return CorpusSize(size, sum(parquet_count(file) or 0 for file in files))  # of a damaged file no row can be read


def _stored(storage: Storage) -> CorpusSize:
    there = storage.files()
    files = [file for file in there if is_wanted(file.name) and file.name != FACTS]
    size = sum(file.bytes for file in files)
    if not files or any(format_of(Path(file.name)) != ".parquet" for file in files):
        return CorpusSize(size, None)
    rows = 0
    for file in files:
        with storage.opened(None if storage.is_file(there) else file.name) as stream:
            rows += parquet_count(stream) or 0
    return CorpusSize(size, rows)
