"""How much room an index takes on the disk, and whether it is there before hours of encoding are spent.

Only what can be known without reading the corpus or loading a model is counted. The sizes are upper bounds, copies and
other texts that will be dropped included, so a third of them must be free; what an interrupted build left counts as
room.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from augkd.data.corpus import CorpusSource
from augkd.data.sizes import size_of
from augkd.errors import AugkdError
from augkd.models.locate import BUNDLED, bundled_encoder, locate
from augkd.recipe import IndexRecipe, dump
from augkd.retrieval.dense.size import plan_index
from augkd.workspace.disk import check_room
from augkd.workspace.files import read_json
from augkd.workspace.manifest_kinds import ShardManifest
from augkd.workspace.manifests import MANIFEST

SURE = 3  # an upper bound divided by this must fit


def index_bytes(recipe: IndexRecipe) -> int:
    """Texts and, of a dense index, its vectors at their peak; of a lexical one, its postings."""
    source = CorpusSource(**dump(recipe.corpus))
    texts = size_of(source.dataset).bytes
    count, dim = source.known_size(), _dim(recipe)
    if recipe.encoder.kind == "lexical":
        return 3 * texts
    if not count or not dim:
        return texts
    chosen = plan_index(count, dim, None, recipe.faiss.recall).chosen
    return texts + (chosen.disk_bytes if chosen else 6 * dim * count)


def check_index_room(recipe: IndexRecipe, folder: Path, shards: int = 1) -> None:
    """Raises WorkspaceError when an index, or one of `shards` shards of it, that is not finished cannot fit."""
    if not (folder / MANIFEST).exists():
        _check(folder, index_bytes(recipe) // shards // SURE, "the index" if shards == 1 else "the shard")


def check_merge_room(shards: Sequence[ShardManifest], folder: Path) -> None:
    """Raises WorkspaceError when not even the texts of the shards, which are copied, would fit."""
    if not (folder / MANIFEST).exists():
        entries = (item for shard in shards for item in shard.files.items())
        _check(
            folder, sum(entry.bytes for name, entry in entries if name.startswith("texts/")), "the texts of the index"
        )


def local_model(model: str | None) -> Path | None:
    """The folder of a model that is on this machine; nothing is downloaded."""
    try:
        if model == BUNDLED:
            return bundled_encoder()
        return locate(model) if model is not None and Path(model).expanduser().is_dir() else None
    except AugkdError:
        return None  # whoever loads it says what is wrong with it


def _check(folder: Path, needed: int, what: str) -> None:
    left = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else 0
    check_room(folder, needed - left, what)


def _dim(recipe: IndexRecipe) -> int | None:
    if recipe.encoder.kind == "static":
        return recipe.encoder.static_dim
    folder = local_model(recipe.encoder.model)
    if folder is None or not (folder / "config.json").is_file():
        return None
    return recipe.encoder.dim or read_json(folder / "config.json").get("hidden_size")
