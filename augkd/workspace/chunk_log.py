"""Checksums of the chunks that wait in a spool, one line a chunk, appended when its files are complete.

A build may wait for days between two chunks, so what it wrote is compared before it goes into an index. A chunk without
a line is encoded again; a line that a kill cut off counts as none.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from augkd.workspace.checksums import entry_of
from augkd.workspace.line_log import append_lines, read_lines

CHUNK_LOG = "chunks.jsonl"
Entries = dict[str, dict[str, Any]]  # by path in the folder: a table of augkd.workspace.checksums


def log_path(folder: Path) -> Path:
    """The log of the spool in `folder`."""
    return folder / "build" / CHUNK_LOG


def record_chunk(folder: Path, paths: Iterable[Path]) -> Entries:
    """Appends the checksums of a chunk's files; returns them."""
    entries = {path.relative_to(folder).as_posix(): entry_of(path) for path in paths}
    append_lines(log_path(folder), [entries])
    return entries


def recorded_chunks(folder: Path) -> Entries:
    """The checksums of all chunks; raises WorkspaceError for a damaged log."""
    path = log_path(folder)
    lines, _ = read_lines(path, remedy=f"remove {path.parent} and run the same command")
    return {name: entry for line in lines for name, entry in line.items()}
