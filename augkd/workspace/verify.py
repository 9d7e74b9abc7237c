"""All bytes of whatever augkd wrote below a folder, compared with the checksums that were recorded: `augkd verify`.

An artefact holds others (an index its static encoder, a run its stages), and a run may use stages that lie elsewhere.
Nothing is taken from memory or from a stamp, and nothing is changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from augkd.errors import WorkspaceError
from augkd.workspace.checkpoints import CHECKPOINT
from augkd.workspace.checksums import Table, damage, entry_of, read_checked, read_signed
from augkd.workspace.chunk_log import CHUNK_LOG, recorded_chunks
from augkd.workspace.files import read_json
from augkd.workspace.line_log import is_line_log, read_lines
from augkd.workspace.manifest_kinds import Listing
from augkd.workspace.manifests import MANIFEST, parse_manifest, read_any
from augkd.workspace.run_folder import recorded_stages

# The files that list others or sign themselves, and what they belong to; a manifest says so itself.
_KINDS = {
    MANIFEST: "",
    CHECKPOINT: "checkpoint",
    "stage.json": "finished stage of training",
    "building.json": "unfinished work",
    CHUNK_LOG: "encoded chunks",
    "round-*.json": "round of a label budget",
    "answers.jsonl": "answers of a teacher",
    "requested.jsonl": "texts that were handed out",
    "compare.json": "comparison",
    "calibration.json": "calibration",
}
_ONCE_UNSIGNED = {"compare.json", "calibration.json"}  # an older augkd wrote them without a checksum


@dataclass(frozen=True)
class VerifiedArtefact:
    """One artefact: what it is, and how much of it was compared."""

    folder: Path
    kind: str
    files: int
    bytes: int


@dataclass(frozen=True)
class Verification:
    """What was compared, and every file that is damaged or missing, as a line."""

    artefacts: tuple[VerifiedArtefact, ...]
    damaged: tuple[str, ...]

    @property
    def files(self) -> int:
        """Files compared, manifests aside."""
        return sum(artefact.files for artefact in self.artefacts)

    @property
    def bytes(self) -> int:
        """Bytes of these files."""
        return sum(artefact.bytes for artefact in self.artefacts)


def verify(folder: Path) -> Verification:
    """Compares every file of every artefact in `folder`, and in the stages of a run that lie elsewhere.

    Raises WorkspaceError for a folder without any.
    """
    if not folder.is_dir():
        raise WorkspaceError(f"{folder} is not a folder; give that of a run, an index or a student")
    artefacts: list[VerifiedArtefact] = []
    damaged: list[str] = []
    seen: set[Path] = set()
    for path in _listing_files(folder):
        if path.resolve() not in seen:
            seen.add(path.resolve())
            _verify(path, artefacts, damaged)
    if not artefacts and not damaged:
        raise WorkspaceError(f"{folder} holds nothing that augkd wrote; give that of a run, an index or a student")
    return Verification(tuple(artefacts), tuple(damaged))


def _listing_files(folder: Path) -> Iterator[Path]:
    """The files that list others, in `folder` and in the stages elsewhere of the runs in it."""
    own = sorted(path for name in _KINDS for path in folder.rglob(name))
    yield from own
    for path in own:
        if path.name == MANIFEST:
            for stage in recorded_stages(path.parent):
                if stage.is_dir() and not stage.is_relative_to(folder.absolute()):
                    yield from sorted(inner for name in _KINDS for inner in stage.rglob(name))


def _verify(path: Path, artefacts: list[VerifiedArtefact], damaged: list[str]) -> None:
    try:
        listed = _listed(path)
    except WorkspaceError as exc:
        damaged.append(str(exc))
        return
    if listed is None:
        return
    folder, kind, table = listed
    damaged += [problem for name, entry in table.items() if (problem := damage(folder, name, entry, fresh=True))]
    artefacts.append(VerifiedArtefact(folder, kind, len(table), sum(entry["bytes"] for entry in table.values())))


def _listed(path: Path) -> tuple[Path, str, Table] | None:
    """The folder, kind and table of a file that lists others; None for a file of another program."""
    kind = next(kind for name, kind in _KINDS.items() if fnmatch(path.name, name))
    if path.name == CHUNK_LOG:
        folder = path.parent.parent
        table = recorded_chunks(folder)
        return folder, kind, {name: entry for name, entry in table.items() if (folder / name).exists()}
    if path.suffix == ".jsonl":
        return _line_log(path, kind)
    if path.name in _ONCE_UNSIGNED and read_checked(path, "run the command that wrote it again") == read_json(path):
        return None
    value: Any = read_any(path.parent) if path.name == MANIFEST else read_signed(path)
    if not isinstance(value, dict) or "checksum" not in value:
        return None
    files = {name: entry.on_disk() for name, entry in parse_manifest(path.parent, value, Listing).files.items()}
    return path.parent, kind or str(value.get("kind")), files


def _line_log(path: Path, kind: str) -> tuple[Path, str, Table] | None:
    """All lines of a log, compared; None for lines of another program, like answers that were never imported."""
    if not is_line_log(path):
        return None
    read_lines(path)
    return path.parent, kind, {path.name: entry_of(path)}
