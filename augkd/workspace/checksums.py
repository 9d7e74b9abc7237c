"""Checksums of files: which bytes an artefact was written with, and whether it still has them.

A table lists files with their size and xxh3, which finds damage at the speed of memory (24 GiB/s on one core, sha256 1)
and protects from no attacker. A file is compared before it is read for the first time; reading it then finds it in the
page cache. Of an artefact of 64 MiB or more, a stamp in its folder remembers the result while no file is touched.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import xxhash

from augkd.errors import WorkspaceError
from augkd.workspace.file_memory import FileMemory
from augkd.workspace.files import json_text, read_json, write_json, write_text
from augkd.workspace.names import name_problem

STAMP = ".verified.json"
REMEMBERED_FROM = 64 * 2**20  # bytes: less is compared at every opening, in under 0.05 s
_CLOCK_TICK = 20_000_000  # ns: no less than the step in which the kernel's clock stamps files (10 ms at 100 Hz)
_MARK = b',\n  "checksum": '  # the last key of a signed file
_UNLISTED = {"manifest.json", "building.json", "README.md", "LICENSE"}  # written later than the table, or by the user
_WORK = {"build", "change", "checkpoints"}  # folders of unfinished work

Entry = Mapping[str, Any]  # {"bytes": size, "xxh3": 16 hex digits}
Table = Mapping[str, Entry]  # by path in the folder, with /


def checksum(path: Path) -> str:
    """xxh3 (64 bits, hex) of a file's bytes."""
    digest = xxhash.xxh3_64()
    with path.open("rb", buffering=0) as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


_remembered = FileMemory(checksum)


def entry_of(path: Path) -> dict[str, Any]:
    """The entry of a file in a table."""
    return {"bytes": path.stat().st_size, "xxh3": checksum(path)}


def table_of(folder: Path, names: Iterable[str] | None = None) -> dict[str, dict[str, Any]]:
    """The table of the files `names` in `folder`; None: of all that belong to its artefact.

    These are all but hidden ones, cards, unfinished work, and folders with a manifest of their own.
    """
    listed = _files(folder, folder) if names is None else names
    return {name: entry_of(folder / name) for name in sorted(listed)}


def _files(folder: Path, root: Path) -> Iterator[str]:
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name.startswith("."):
            continue
        if path.is_dir():
            if path.name not in _WORK and not (path / "manifest.json").exists():
                yield from _files(path, root)
        elif path.name not in _UNLISTED:
            yield path.relative_to(root).as_posix()


# ---- comparing ----


def damage(folder: Path, name: str, entry: Entry, *, fresh: bool = False) -> str | None:
    """What is wrong with a file of a table; None when its size and its checksum are right.

    `fresh`: its bytes are read even if this process has compared them before.
    """
    path = folder / name
    if any(name_problem(part) for part in name.split("/")):
        return f"{path} is not a name that augkd gives a file"
    try:
        state = path.stat()
    except FileNotFoundError:
        return f"{path} is missing"
    if state.st_size != entry["bytes"]:
        return f"{path} is damaged: it has {state.st_size:,} bytes, {entry['bytes']:,} were written"
    if (checksum(path) if fresh else _checksum_once(path, state)) != entry["xxh3"]:
        return f"{path} is damaged: its checksum is not the one it was written with"
    return None


def check(folder: Path, table: Table, names: Iterable[str] | None = None, remedy: str | None = None) -> None:
    """Compares the files of a table, or only `names`, with what is on disk.

    Raises WorkspaceError, which names the first file that is damaged or missing and says what to do (`remedy`).
    """
    if names is None and _is_stamped(folder, table):
        return
    for name in table if names is None else names:
        if name not in table:
            raise WorkspaceError(f"{folder / name} is not listed in the manifest; {remedy or remake(folder)}")
        if problem := damage(folder, name, table[name]):
            raise WorkspaceError(f"{problem}; {remedy or remake(folder)}")
    if names is None:
        _stamp(folder, table)


def remake(folder: Path) -> str:
    """The end of a message about a damaged artefact."""
    return f"remove {folder} and run the command that made it again"


def _checksum_once(path: Path, state: os.stat_result) -> str:
    """The checksum, computed once in this process for as long as size, times and inode stay the same."""
    age = time.time_ns() - state.st_ctime_ns
    if age <= _CLOCK_TICK:  # a later change might get the same stamp
        return checksum(path)
    return _remembered.of(path, state)


def _is_stamped(folder: Path, table: Table) -> bool:
    if not _is_large(table) or not (folder / STAMP).is_file():
        return False
    with contextlib.suppress(OSError, ValueError):
        return bool(json.loads((folder / STAMP).read_text(encoding="utf-8")) == {"state": _state(folder, table)})
    return False


def _stamp(folder: Path, table: Table) -> None:
    if not _is_large(table) or not os.access(folder, os.W_OK):
        return
    newest = max((folder / name).stat().st_ctime_ns for name in table)
    if time.time_ns() - newest > _CLOCK_TICK:
        with contextlib.suppress(OSError):  # a full or read-only disk: the next opening compares again
            write_json(folder / STAMP, {"state": _state(folder, table)})


def _is_large(table: Table) -> bool:
    return bool(sum(entry["bytes"] for entry in table.values()) >= REMEMBERED_FROM)


def _state(folder: Path, table: Table) -> str:
    """A digest of the table and of what the system knows of its files: a copy or a changed file gives another.

    The time of change cannot be set back, unlike that of modification.
    """
    digest = xxhash.xxh3_128()
    for name, entry in table.items():
        state = (folder / name).stat()
        facts = (state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino, state.st_dev)
        digest.update(f"{name}\0{entry['xxh3']}\0{facts}\0".encode())
    return digest.hexdigest()


# ---- JSON that is signed by its own checksum ----


def write_signed(path: Path, value: Mapping[str, Any]) -> None:
    """Writes `value` as JSON whose last key, `checksum`, is the xxh3 of all that stands before it."""
    write_text(path, signed_text(value))


def signed_text(value: Mapping[str, Any]) -> str:
    """The text that `write_signed` writes."""
    body = json_text({key: inner for key, inner in value.items() if key != "checksum"}).removesuffix("\n}")
    return body + _signature(body.encode()).decode()


def read_signed(path: Path, remedy: str | None = None) -> dict[str, Any]:
    """What `write_signed` wrote; raises WorkspaceError when it is missing or a byte of it has changed."""
    remedy = remedy or remake(path.parent)
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise WorkspaceError(f"{path} is missing; {remedy}") from None
    except OSError as exc:
        raise WorkspaceError(f"{path} cannot be read ({exc.strerror})") from exc
    if not is_signed(raw):
        raise WorkspaceError(f"{path} is damaged: its content does not have the checksum it was written with; {remedy}")
    value: dict[str, Any] = json.loads(raw)
    return value


def read_checked(path: Path, remedy: str) -> Any:
    """The value of a JSON file, whose checksum is compared where it has one: files of an older augkd have none.

    Raises WorkspaceError when the file is missing or damaged. Damage to the key of the checksum leaves the rest whole.
    """
    value = read_json(path)
    if not isinstance(value, dict) or "checksum" not in value:
        return value
    return {key: inner for key, inner in read_signed(path, remedy).items() if key != "checksum"}


def is_signed(raw: bytes) -> bool:
    """Whether these are the bytes of a signed file, unchanged."""
    body, mark, _ = raw.rpartition(_MARK)
    return bool(mark) and raw == body + _signature(body)


def _signature(body: bytes) -> bytes:
    return _MARK + f'"{xxhash.xxh3_64_hexdigest(body)}"\n}}\n'.encode()
