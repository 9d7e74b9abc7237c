"""Files written completely or not at all: to a temporary name, flushed to disk, then renamed."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from augkd.errors import WorkspaceError
from augkd.workspace.disk import writing


@contextlib.contextmanager
def replacing(path: Path, needed: int | None = None) -> Iterator[Path]:
    """Yields a temporary path beside `path`; on success it is flushed to disk and renamed to `path`, else removed.

    Raises WorkspaceError when the disk is full or the folder cannot be written; `needed` is the file's size, if known.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with writing(path, needed, temporary):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            with temporary.open("rb") as stream:
                os.fsync(stream.fileno())
            temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):  # a folder that vanished or became read-only has its own message
            temporary.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Removes temporary files below `folder` whose writer was killed; those of a process that runs stay."""
    for path in folder.rglob(".*.tmp"):
        writer = path.name.split(".")[-2]
        if writer.isdigit() and not _runs(int(writer)):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def sweep_writes_of(path: Path) -> None:
    """Removes the temporary files that killed processes left when they wrote `path`."""
    for leftover in path.parent.glob(f".{path.name}.*.tmp"):
        writer = leftover.name.split(".")[-2]
        if writer.isdigit() and not _runs(int(writer)):
            leftover.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it runs, for somebody else
        return True
    return process != os.getpid()  # ours are removed by who writes them; what has our number is older than us


def write_text(path: Path, text: str) -> None:
    """Writes `text` as UTF-8, completely or not at all."""
    content = text.encode()
    with replacing(path, len(content)) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, value: object) -> None:
    """Writes `value` as indented JSON, completely or not at all; a float that is not finite becomes null."""
    write_text(path, json_text(value) + "\n")


def json_text(value: object) -> str:
    """`value` as indented JSON; a float that is not finite becomes null, since `NaN` is not JSON."""
    return json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path: Path) -> Any:
    """The value of a JSON file; raises WorkspaceError when the file is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WorkspaceError(f"{path} is missing; the folder is unfinished, or augkd did not write it") from None
    except (OSError, ValueError, RecursionError) as exc:
        raise WorkspaceError(f"{path} cannot be read ({exc}); remove the folder and run again") from exc
