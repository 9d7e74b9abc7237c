"""The token vectors that a static encoder keeps beside an index, and how another index or shard takes them over.

The vectors are fitted to a corpus once. Shards on other machines must encode with exactly those: a fit elsewhere may
differ in the last bit, and then the shards do not belong together.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from augkd.errors import ModelError, RecipeError, WorkspaceError
from augkd.models.locate import locate, model_fingerprint
from augkd.retrieval.encoders.distillation import made_from
from augkd.retrieval.encoders.static import StaticEncoder
from augkd.workspace.fingerprints import fingerprint
from augkd.workspace.folders import CACHE
from augkd.workspace.manifests import MANIFEST


def kept_in(cache: Path, model: str, dim: int) -> Path:
    """Where `cache`, a folder beside an index, keeps the vectors of this model and width."""
    return cache / f"static-{fingerprint(made_from(model_fingerprint(locate(model)), dim))[:16]}"


def find_kept(folder: Path, model: str, dim: int, expected: str | None = None) -> Path:
    """The kept vectors of an index, a shard or an encoder in `folder`, checked whole.

    `expected` is their fingerprint where it is known. Raises RecipeError when there are none of this model and width.
    """
    for place in (kept_in(folder / CACHE, model, dim), folder):
        if not (place / MANIFEST).exists():
            continue
        try:
            encoder = StaticEncoder.load(place)
        except (ModelError, WorkspaceError):
            if place != folder:
                raise
            break  # the manifest is that of the index or shard
        same = encoder.facts.get("made_from") == made_from(model_fingerprint(locate(model)), dim)
        if same and expected in (None, encoder.fingerprint):
            return place
    raise RecipeError(
        f"{folder} has no static encoder of '{model}' with {dim} dimensions that fits; give the folder of shard 1, or "
        "of an index built with the same encoder"
    )


def take_kept(source: Path, cache: Path, model: str, dim: int) -> None:
    """Copies the kept vectors `source`, from `find_kept`, into `cache`, in place of others of this model and width."""
    target = kept_in(cache, model, dim)
    if target.exists() and target.resolve() == source.resolve():
        return
    scratch = cache / f".{target.name}.{os.getpid()}.tmp"
    try:
        shutil.copytree(source, scratch)
        shutil.rmtree(target, ignore_errors=True)
        scratch.replace(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
