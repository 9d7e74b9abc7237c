"""Files for workers on other machines: a model, an index. Nothing has to lie on a shared file system.

A worker that sees the same files under the same path (sizes and times agree) reads them in place. Another one asks the
machine of the command for them, piece by piece, and keeps them in a private temporary folder, where the other workers
of its machine find them. What is loaded from them is compared with its fingerprint or checksum, as it is in place.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from augkd.errors import ClusterError
from augkd.workspace.fingerprints import fingerprint
from augkd.workspace.locks import claimed

_PIECE = 64 * 2**20  # bytes that travel at once


@dataclass(frozen=True)
class ShippedFile:
    """A file, by its path in the folder."""

    name: str
    size: int  # bytes
    changed: int  # ns


@dataclass(frozen=True)
class ShippedFolder:
    """A folder of the machine that the command runs on."""

    folder: str
    node: str  # Ray's id of that machine
    files: tuple[ShippedFile, ...]
    in_place: bool

    def open(self) -> Path:
        """The folder on this machine; its files are fetched unless they are here."""
        here = Path(self.folder)
        if self.in_place and self.files == _described(here, [here / file.name for file in self.files]):
            return here
        return self._fetched()

    def _fetched(self) -> Path:
        kept = _private_folder() / fingerprint([self.folder, self.node, [vars(file) for file in self.files]])[:16]
        with claimed(kept):
            if not kept.exists():
                scratch = kept.with_name(f".{kept.name}.{os.getpid()}.tmp")
                shutil.rmtree(scratch, ignore_errors=True)
                scratch.mkdir()
                for file in self.files:
                    self._fetch(file, scratch / file.name)
                scratch.replace(kept)
        return kept

    def _fetch(self, file: ShippedFile, target: Path) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        there = NodeAffinitySchedulingStrategy(self.node, soft=False)
        read: Any = ray.remote(_read).options(num_cpus=0, scheduling_strategy=there)
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as stream:
            for start in range(0, file.size, _PIECE):
                stream.write(ray.get(read.remote(str(Path(self.folder) / file.name), start, _PIECE)))
        if target.stat().st_size != file.size:
            raise ClusterError(f"{self.folder}/{file.name} changed while a worker fetched it; run the command again")


def ship(folder: Path, node: str, files: Iterable[Path] | None = None, *, in_place: bool = True) -> ShippedFolder:
    """`folder` for workers, with those of its `files` that they need (None: all)."""
    whole = folder.resolve()
    chosen = [path for path in whole.rglob("*") if not _is_passing(path)] if files is None else list(files)
    return ShippedFolder(str(whole), node, _described(whole, chosen), in_place)


def _is_passing(path: Path) -> bool:
    """Whether it is the lock or the unfinished file of a process at work."""
    return path.name.endswith((".lock", ".tmp"))


def _described(folder: Path, files: Iterable[Path]) -> tuple[ShippedFile, ...]:
    described = []
    for path in sorted(files):
        if path.is_file():
            state = path.stat()
            described.append(ShippedFile(path.relative_to(folder).as_posix(), state.st_size, state.st_mtime_ns))
    return tuple(described)


def _read(path: str, start: int, size: int) -> bytes:
    """A piece of a file, on the machine that has it."""
    with Path(path).open("rb") as stream:
        stream.seek(start)
        return stream.read(size)


def _private_folder() -> Path:
    """A temporary folder of this machine that only this user can write."""
    folder = Path(tempfile.gettempdir()) / f"augkd-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    state = folder.lstat()
    if folder.is_symlink() or state.st_uid != os.getuid() or state.st_mode & 0o022:
        raise ClusterError(f"{folder} belongs to another user or others may write it; remove it, or set TMPDIR")
    return folder
