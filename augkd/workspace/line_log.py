"""Files of JSON lines that grow while others read them; each line ends with its own checksum, in its key `xxh3`.

What a kill cut off has no end of line: readers stop before it and the next writer removes it. Any other line that does
not have its checksum is damage, and refused by its number.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import xxhash

from augkd.errors import WorkspaceError
from augkd.workspace.disk import writing

_MARK = b', "xxh3": "'  # the last key of a line
_END = len(_MARK) + 18  # bytes of the mark, 16 hex digits, quote and brace


def append_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Adds non-empty records, which are on the disk when this returns. Hold the folder's lock."""
    lines = b"".join(_line(record) for record in records)
    with writing(path, len(lines)), path.open("ab+") as stream:
        _remove_torn_line(stream)
        stream.write(lines)
        stream.flush()
        os.fsync(stream.fileno())


def read_lines(
    path: Path,
    start: int = 0,  # byte to begin at: 0, or the end of an earlier reading
    remedy: str = "remove it and run the same command",
) -> tuple[list[dict[str, Any]], int]:
    """The records from `start` on, and where they end; raises WorkspaceError, with its number, for a damaged line.

    A last line without its end counts as not yet written.
    """
    if not path.exists():
        return [], start
    with path.open("rb") as stream:
        stream.seek(start)
        raw = stream.read()
    whole = raw[: raw.rfind(b"\n") + 1]
    records = []
    for number, line in enumerate(whole.split(b"\n")[:-1]):
        if not _is_signed(line):
            before = _lines_before(path, start)
            raise WorkspaceError(f"{path}:{before + number + 1} is damaged: it does not have its checksum; {remedy}")
        record = json.loads(line)
        del record["xxh3"]
        records.append(record)
    return records, start + len(whole)


def is_line_log(path: Path) -> bool:
    """Whether a line of the file ends with what may be a checksum: another program's file has none."""
    with path.open("rb") as stream:
        return any(line[-_END - 1 :].startswith(_MARK) for line in stream)


def _line(record: Mapping[str, Any]) -> bytes:
    body = json.dumps(dict(record), ensure_ascii=False).encode("utf-8", "replace")[:-1]
    return _signed(body) + b"\n"


def _signed(body: bytes) -> bytes:
    return body + _MARK + xxhash.xxh3_64_hexdigest(body).encode() + b'"}'


def _is_signed(line: bytes) -> bool:
    return len(line) > _END and line == _signed(line[:-_END])


def _remove_torn_line(stream: Any) -> None:
    end = stream.seek(0, os.SEEK_END)
    if not end:
        return
    stream.seek(end - 1)
    if stream.read(1) == b"\n":
        return
    stream.seek(0)
    stream.truncate(stream.read().rfind(b"\n") + 1)


def _lines_before(path: Path, place: int) -> int:
    with path.open("rb") as stream:
        return stream.read(place).count(b"\n")
