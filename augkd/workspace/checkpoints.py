"""Checkpoints of a training that can be trusted: whole, and with the bytes they were written with.

Other libraries write most of a checkpoint's files, one after another. The marker is written last, with the checksums of
all of them, so a checkpoint that a kill cut off has none and is removed.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from augkd.workspace.checksums import check, read_signed, table_of, write_signed

CHECKPOINT = "augkd.json"  # the marker, in the checkpoint's folder


def mark_whole(checkpoint: Path, facts: Mapping[str, Any]) -> None:
    """Marks a checkpoint as complete; `facts` are stored with the checksums of its files."""
    names = [path.relative_to(checkpoint).as_posix() for path in checkpoint.rglob("*") if path.is_file()]
    listed = [name for name in names if not name.startswith(".") and name != CHECKPOINT]
    write_signed(checkpoint / CHECKPOINT, {**facts, "files": table_of(checkpoint, listed)})


def unmark(checkpoint: Path) -> None:
    """Takes back the mark, before files of the checkpoint are replaced or removed."""
    (checkpoint / CHECKPOINT).unlink(missing_ok=True)


def rotate(folder: Path, limit: int | None, best: str | None) -> None:
    """Removes the oldest checkpoints until `limit` are left (None or 0: no limit), never the newest nor the `best`."""
    whole = _newest_first(folder)
    kept = {path for path in whole if path == whole[0] or str(path) == best}
    spare = [path for path in reversed(whole) if path not in kept]
    for path in spare[: max(0, len(whole) - max(limit, len(kept)))] if limit else ():
        unmark(path)
        shutil.rmtree(path)


def check_checkpoint(checkpoint: Path) -> dict[str, Any]:
    """The facts of a whole checkpoint; raises WorkspaceError, naming the file, when one is damaged."""
    remedy = f"remove {checkpoint} and run the same command"
    facts = read_signed(checkpoint / CHECKPOINT, remedy)
    check(checkpoint, facts["files"], remedy=remedy)
    return facts


def last_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint below `folder`; those that were cut off by a kill are removed.

    Raises WorkspaceError for a damaged one, older ones included: the best of them is loaded when the training ends.
    """
    newest = None
    for path in _newest_first(folder):
        if not (path / CHECKPOINT).exists():
            shutil.rmtree(path)
            continue
        check_checkpoint(path)
        newest = newest or path
    return newest


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]), reverse=True)
