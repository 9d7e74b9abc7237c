"""The manifest of an artefact, written last: a folder without one is unfinished, whatever killed the writer.

It records the format version, the fingerprints of all inputs, the recipe, seeds, counts and library versions, and the
size and checksum of every file, its own included.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from augkd.errors import WorkspaceError, short_repr
from augkd.workspace.checksums import Table, check, is_signed, read_signed, remake, table_of, write_signed
from augkd.workspace.files import read_json
from augkd.workspace.manifest_kinds import Header, Manifest, Part

_M = TypeVar("_M", bound=Manifest)
_P = TypeVar("_P", bound=Part)
FORMAT = 2  # raised when an older augkd could misread what a newer one wrote
MANIFEST = "manifest.json"
STATE = "building.json"  # marks unfinished work and names its inputs
_OURS = {"format", "kind", "made_from", "versions", "checksum"}  # a manifest with two of these keys is augkd's
_LIBRARIES = ("augkd", "torch", "transformers", "sentence-transformers", "faiss-cpu", "datasets", "pyarrow", "numpy")


def write_manifest(
    folder: Path, kind: str, made_from: Mapping[str, Any], *, files: Table | None = None, **facts: Any
) -> None:
    """Marks `folder` as a finished artefact of `kind` (`index`, `teacher`, `transfer_set`, `student`, `run`).

    `made_from` holds the fingerprints of all inputs; `facts` (recipe, seeds, counts) are stored beside it, and `files`:
    the sizes and checksums of the artefact's files (None: of those in the folder, taken now).
    """
    value = {"format": FORMAT, "kind": kind, "made_from": dict(made_from), **facts, "versions": versions()}
    write_signed(folder / MANIFEST, value | {"files": dict(table_of(folder) if files is None else files)})


def check_files(folder: Path, manifest: Manifest, names: Iterable[str] | None = None) -> None:
    """Compares the files that a manifest lists, or only `names`; raises WorkspaceError that names a damaged one."""
    check(folder, {name: {"bytes": entry.bytes, "xxh3": entry.xxh3} for name, entry in manifest.files.items()}, names)


def check_if_ours(folder: Path, names: Iterable[str] | None = None) -> None:
    """`check_files` of a folder that augkd wrote, of those of `names` that it lists.

    Does nothing for a folder from elsewhere, like a model of the Hub, and for one that is unfinished.
    """
    if not (folder / MANIFEST).is_file():
        return
    value = read_any(folder)
    if isinstance(value, dict) and "checksum" in value:
        manifest = parse_manifest(folder, value, Header)
        check_files(folder, manifest, None if names is None else [name for name in names if name in manifest.files])


def rewrite_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Replaces the manifest of a finished artefact; `manifest` holds `files` as they are now."""
    write_signed(folder / MANIFEST, manifest)


def read_manifest(folder: Path, model: type[_M]) -> _M:
    """The manifest of a finished artefact, as the model of its kind.

    Raises WorkspaceError when it is missing, foreign, from a newer augkd, or holds something that augkd never writes.
    """
    return parse_manifest(folder, read_kind(folder, model.KIND), model)


def read_kind(folder: Path, kind: str) -> dict[str, Any]:
    """The unchecked manifest of a finished artefact of this kind; raises WorkspaceError for any other folder."""
    path = folder / MANIFEST
    if not path.exists():
        state = "is unfinished (no manifest.json)" if folder.exists() else "does not exist"
        raise WorkspaceError(f"{kind} folder {folder} {state}; run the command that builds it again")
    manifest = read_any(folder)
    actual = manifest.get("kind") if isinstance(manifest, dict) else None
    if actual != kind:
        raise WorkspaceError(f"{folder} holds {describe_kind(actual)}, not augkd's {kind}; give the {kind} folder")
    return dict(manifest)


def read_any(folder: Path) -> Any:
    """The content of a manifest: signed, or another program's; raises WorkspaceError for a damaged one of ours."""
    path = folder / MANIFEST
    signed, value = is_signed(path.read_bytes()), read_json(path)
    if signed or not isinstance(value, dict) or len(_OURS & value.keys()) < 2:
        return value
    written = value.get("format")
    if isinstance(written, int) and written > FORMAT:
        raise WorkspaceError(f"{path} has format {written}, this augkd reads up to {FORMAT}; upgrade augkd")
    if written == 1 and "checksum" not in value:
        raise WorkspaceError(f"{path} is of an older augkd, without checksums; {remake(path.parent)}")
    return read_signed(path)  # raises


def parse_manifest(folder: Path, manifest: Mapping[str, Any], model: type[_P]) -> _P:
    """`manifest`, read from `folder`, as a `model`; raises WorkspaceError that names the first key it cannot have."""
    try:
        return model.model_validate(manifest)
    except ValidationError as exc:
        error = exc.errors(include_url=False)[0]
        where = ".".join(short_repr(part).strip("'") for part in error["loc"])
        reason = error["msg"].removeprefix("Value error, ")
        given = "is missing" if error["type"] == "missing" else f"is {short_repr(error['input'])}: {reason}"
        raise WorkspaceError(
            f"{folder / MANIFEST}: {where} {given}; the folder is damaged or was changed by hand, remove it and run "
            "the command that built it again"
        ) from exc


def kind_of(folder: Path) -> str | None:
    """The kind that the manifest of a folder records; None without a manifest, and for one of another program."""
    path = folder / MANIFEST
    manifest = read_json(path) if path.is_file() else None
    kind = manifest.get("kind") if isinstance(manifest, dict) else None
    return kind if isinstance(kind, str) else None


def describe_kind(kind: object) -> str:
    """The kind of a manifest as a message names it."""
    return f"augkd's {kind}" if isinstance(kind, str) else "something unknown"


def finished(folder: Path, kind: str, made_from: Mapping[str, Any]) -> bool:
    """Whether `folder` already holds exactly this artefact (same kind, same inputs).

    Raises WorkspaceError, which names the file, when it does and a file of it is damaged.
    """
    if not (folder / MANIFEST).exists():
        return False
    manifest = parse_manifest(folder, read_kind(folder, kind), Header)
    if manifest.made_from != dict(made_from):
        return False
    check_files(folder, manifest)
    with contextlib.suppress(OSError):  # left by a kill right after the manifest
        (folder / STATE).unlink(missing_ok=True)
    return True


def versions() -> dict[str, str]:
    """Installed versions of the libraries that results depend on."""
    installed = {}
    for name in _LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            installed[name] = importlib.metadata.version(name)
    return installed
