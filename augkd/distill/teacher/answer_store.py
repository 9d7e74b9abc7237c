"""Answers that were paid for, kept as they came: one JSON line each, appended the moment it arrives.

A reply is stored whole and read when it is needed, so that a better reading needs no new request. Parts that are
renamed when complete, as elsewhere, would lose a part's answers; here a kill loses only the requests on their way.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FILE = "answers.jsonl"


class AnswerStore:
    """The answers in a folder by key; the last one of a key counts. Hold the folder's lock while adding."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._records: dict[str, dict[str, Any]] = {}
        self._read = 0  # bytes

    def refresh(self) -> None:
        """Reads what was added since the last time, by this process or another one."""
        path = self.folder / FILE
        if not path.exists() or path.stat().st_size <= self._read:
            return
        with path.open("rb") as stream:
            stream.seek(self._read)
            for line in stream:
                if not line.endswith(b"\n"):
                    break  # still being written, or cut by a kill; `add` ends it, and it is no answer
                self._read += len(line)
                record = _parsed(line)
                if record is not None:
                    self._records[record["key"]] = record

    def get(self, key: str) -> Mapping[str, Any] | None:
        """The record of a key, as far as it has been read."""
        return self._records.get(key)

    def records(self) -> list[Mapping[str, Any]]:
        """All that have been read."""
        return list(self._records.values())

    def add(self, record: Mapping[str, Any]) -> None:
        """Appends a record, which has a `key`; on disk when this returns."""
        self.folder.mkdir(parents=True, exist_ok=True)
        line = json.dumps(dict(record), ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        with (self.folder / FILE).open("ab+") as stream:
            if stream.tell() and not _ends_with_newline(stream):
                line = b"\n" + line
            stream.write(line)
            stream.flush()
            os.fsync(stream.fileno())
        self._records[str(record["key"])] = dict(record)

    def __len__(self) -> int:
        return len(self._records)


def answer_key(*parts: object) -> str:
    """What an answer is stored under: 128 bits over everything it depends on."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _parsed(line: bytes) -> dict[str, Any] | None:
    """None for a line that a kill has cut."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and isinstance(record.get("key"), str) else None


def _ends_with_newline(stream: Any) -> bool:
    stream.seek(-1, os.SEEK_END)
    return bool(stream.read(1) == b"\n")
