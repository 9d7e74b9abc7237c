"""A store that grows by parts: each is written whole, then listed in the manifest with its checksum.

A part that is not listed was cut off by a kill and is removed; one that is listed but gone is made again by whoever
asks for its content; one whose bytes have changed is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from augkd.errors import WorkspaceError
from augkd.workspace.checksums import check, entry_of
from augkd.workspace.files import replacing
from augkd.workspace.manifest_kinds import Header
from augkd.workspace.manifests import MANIFEST, parse_manifest, read_kind, write_manifest


@dataclass
class PartStore:
    """The parts in `folder`, in order; the caller holds `locks.claimed(folder)` while it adds some."""

    folder: Path
    kind: str  # of its manifest
    made_from: Mapping[str, Any]
    _entries: dict[str, dict[str, Any]] = field(default_factory=dict)

    def open(self) -> list[Path]:
        """The parts that are complete; raises WorkspaceError, which names it, for a damaged one."""
        self._entries = {}
        for leftover in self.folder.glob(".*.tmp"):  # from a killed write
            leftover.unlink()
        if (self.folder / MANIFEST).exists():
            manifest = parse_manifest(self.folder, read_kind(self.folder, self.kind), Header)
            self._entries = {
                name: entry.on_disk() for name, entry in manifest.files.items() if (self.folder / name).exists()
            }
        for path in self.folder.glob("part-*.safetensors"):
            if path.name not in self._entries:
                path.unlink()
        for path in self.parts():
            remedy = f"remove {path} and run the same command"
            check(self.folder, self._entries, [path.name], remedy)
        return self.parts()

    def parts(self) -> list[Path]:
        """The parts, as `open` found them and `add` left them."""
        return [self.folder / name for name in sorted(self._entries)]

    @contextmanager
    def add(self, needed: int | None = None, **facts: Any) -> Iterator[Path]:
        """Yields the path to write the next part to; then it is listed, with `facts` about the whole store."""
        number = 1 + max((int(name.split("-")[1].split(".")[0]) for name in self._entries), default=-1)
        path = self.folder / f"part-{number:05d}.safetensors"
        with replacing(path, needed) as temporary:
            yield temporary
        self._entries[path.name] = entry_of(path)
        self.write_manifest(**facts)

    def write_manifest(self, **facts: Any) -> None:
        """Writes the manifest with all parts and `facts`."""
        write_manifest(self.folder, self.kind, self.made_from, files=dict(sorted(self._entries.items())), **facts)


def damaged_part(path: Path, exc: Exception) -> WorkspaceError:
    """The error for a part with the right checksum that its library cannot read."""
    return WorkspaceError(f"{path} cannot be read ({exc}); remove it and run the same command")
