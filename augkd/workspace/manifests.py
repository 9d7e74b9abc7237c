"""The manifest of an artefact, written last: a folder without one is unfinished, whatever killed the writer.

It records the format version, the fingerprints of all inputs, the recipe, seeds, counts and library versions.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from augkd.errors import WorkspaceError, short_repr
from augkd.workspace.files import read_json, write_json
from augkd.workspace.manifest_kinds import Header, Manifest

_M = TypeVar("_M", bound=Manifest)
FORMAT = 1  # raised when an older augkd could misread what a newer one wrote
MANIFEST = "manifest.json"
_LIBRARIES = ("augkd", "torch", "transformers", "sentence-transformers", "faiss-cpu", "datasets", "pyarrow", "numpy")


def write_manifest(folder: Path, kind: str, made_from: Mapping[str, Any], **facts: Any) -> None:
    """Marks `folder` as a finished artefact of `kind` (`index`, `teacher`, `transfer_set`, `student`, `run`).

    `made_from` holds the fingerprints of all inputs; `facts` (recipe, seeds, counts) are stored beside it.
    """
    value = {"format": FORMAT, "kind": kind, "made_from": dict(made_from), **facts, "versions": versions()}
    write_json(folder / MANIFEST, value)


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
    manifest = read_json(path)
    actual = manifest.get("kind") if isinstance(manifest, dict) else None
    if actual != kind:
        raise WorkspaceError(f"{folder} holds {describe_kind(actual)}, not augkd's {kind}; give the {kind} folder")
    newer = manifest.get("format")
    if isinstance(newer, int) and newer > FORMAT:
        raise WorkspaceError(f"{folder} has format {newer}, this augkd reads up to {FORMAT}; upgrade augkd")
    return dict(manifest)


def parse_manifest(folder: Path, manifest: Mapping[str, Any], model: type[_M]) -> _M:
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


def describe_kind(kind: object) -> str:
    """The kind of a manifest as a message names it."""
    return f"augkd's {kind}" if isinstance(kind, str) else "something unknown"


def finished(folder: Path, kind: str, made_from: Mapping[str, Any]) -> bool:
    """Whether `folder` already holds exactly this artefact (same kind, same inputs)."""
    if not (folder / MANIFEST).exists():
        return False
    return parse_manifest(folder, read_kind(folder, kind), Header).made_from == dict(made_from)


def versions() -> dict[str, str]:
    """Installed versions of the libraries that results depend on."""
    installed = {}
    for name in _LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            installed[name] = importlib.metadata.version(name)
    return installed
