"""The manifest of a finished index, dense or lexical: what can be known without opening the index.

It decides whether two indexes give the same neighbours, and names the encoder that queries need. No weights are loaded.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from augkd.errors import IndexFolderError, RecipeError, WorkspaceError
from augkd.recipe import EncoderOptions
from augkd.recipe.files import validate
from augkd.workspace.cache import manifest_here
from augkd.workspace.manifest_kinds import DenseManifest, IndexManifest, LexicalManifest, ShardManifest
from augkd.workspace.manifests import MANIFEST, check_files, parse_manifest, read_kind


def read_index_manifest(folder: Path) -> IndexManifest:
    """The manifest of an index folder; raises IndexFolderError when it is missing, damaged or of something else."""
    try:
        written = read_kind(folder, "index")
        encoder = written.get("encoder")
        lexical = isinstance(encoder, dict) and encoder.get("kind") == "lexical"
        manifest: IndexManifest
        if lexical:
            manifest = parse_manifest(folder, written, LexicalManifest)
        else:
            manifest = parse_manifest(folder, written, DenseManifest)
        _check_recipe(folder, manifest)
    except (WorkspaceError, RecipeError) as exc:
        raise IndexFolderError(str(exc)) from exc
    return manifest


def index_manifest(place: Path | str) -> IndexManifest:
    """`read_index_manifest` of a folder or a URL; of a URL, nothing but the manifest is read."""
    with manifest_here(place) as folder:
        return read_index_manifest(folder)


def read_dense_manifest(folder: Path) -> DenseManifest:
    """`read_index_manifest` of an index of vectors; raises IndexFolderError for a lexical one."""
    manifest = read_index_manifest(folder)
    if isinstance(manifest, LexicalManifest):
        raise IndexFolderError(f"{folder} is a lexical index, which has no vectors; give an index of vectors")
    return manifest


def check_index(folder: Path, manifest: IndexManifest | ShardManifest, names: Iterable[str] | None = None) -> None:
    """Compares the files of an index, or only `names`, with their checksums; raises IndexFolderError, with the name."""
    try:
        check_files(folder, manifest, names)
    except WorkspaceError as exc:
        raise IndexFolderError(str(exc)) from exc


def is_lexical(manifest: IndexManifest) -> bool:
    """Whether the index finds words (BM25) and not vectors."""
    return isinstance(manifest, LexicalManifest)


def index_identity(manifest: IndexManifest) -> dict[str, Any]:
    """What decides the neighbours that an index finds: its sources, its bytes, and the depth of re-ranking."""
    rerank = (manifest.recipe or {}).get("encoder", {}).get("rerank", 0)
    return {"made_from": manifest.made_from.on_disk(), "sha256": manifest.sha256, "rerank": rerank}


def encoder_options(manifest: IndexManifest) -> dict[str, Any]:
    """The encoder table of the index's recipe with its defaults; without a recipe, the encoder that was recorded."""
    prompts = {"query_prompt": None, "document_prompt": None}
    defaults = {"kind": "sentence", "max_length": None, "precision": "auto", "rerank": 0, **prompts}
    recorded = manifest.encoder.on_disk()
    if manifest.recipe is None:  # built by a library call
        return defaults | recorded
    table = manifest.recipe.get("encoder", {})
    if "query_prompt" not in table and table.get("kind", "sentence") == "sentence":
        table = {name: value for name, value in table.items() if name != "dim"}  # written when it said nothing of these
    return {**defaults, "model": recorded.get("model"), **table}


def _check_recipe(folder: Path, manifest: IndexManifest) -> None:
    """Raises RecipeError for a recipe whose encoder is none, or not the kind that the index records."""
    if manifest.recipe is None:
        return
    path = folder / MANIFEST
    options = validate(EncoderOptions, manifest.recipe.get("encoder", {}), path)
    if options.kind != manifest.encoder.kind:
        raise RecipeError(f"{path}: the recipe's encoder is {options.kind}, the index's {manifest.encoder.kind}")
