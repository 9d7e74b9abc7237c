"""Answers that were paid for, kept as they came: one JSON line each, appended the moment it arrives.

A reply is stored whole and read when it is needed, so that a better reading needs no new request. Parts that are
renamed when complete, as elsewhere, would lose a part's answers; here a kill loses only the requests on their way.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from augkd.workspace.line_log import append_lines, read_lines

FILE = "answers.jsonl"
_REMEDY = "remove that line and run the same command; only its text is asked about again"


class AnswerStore:
    """The answers in a folder by key; the last one of a key counts. Hold the folder's lock while adding."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._records: dict[str, dict[str, Any]] = {}
        self._read = 0  # bytes

    def refresh(self) -> None:
        """Reads what was added since the last time, by this process or another one.

        Raises WorkspaceError for a damaged answer: it was paid for, so the user decides.
        """
        path = self.folder / FILE
        if path.exists() and path.stat().st_size > self._read:
            records, self._read = read_lines(path, self._read, _REMEDY)
            self._records |= {record["key"]: record for record in records}

    def get(self, key: str) -> Mapping[str, Any] | None:
        """The record of a key, as far as it has been read."""
        return self._records.get(key)

    def records(self) -> list[Mapping[str, Any]]:
        """All that have been read."""
        return list(self._records.values())

    def add(self, record: Mapping[str, Any]) -> None:
        """Appends a record, which has a `key`; on disk when this returns."""
        self.folder.mkdir(parents=True, exist_ok=True)
        append_lines(self.folder / FILE, [record])
        self._records[str(record["key"])] = dict(record)

    def __len__(self) -> int:
        return len(self._records)


def answer_key(*parts: object) -> str:
    """What an answer is stored under: 128 bits over everything it depends on."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
