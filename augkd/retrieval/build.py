"""Builds and changes indexes from recipes and files: the one place that knows which engine serves which kind of index.

`augkd index` and the pipeline both come here; what is underneath takes an encoder and does not ask for its kind.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from augkd.data.corpus import CorpusCounts, CorpusSource, stream_corpus
from augkd.errors import DataError, IndexFolderError, RecipeError
from augkd.models.cluster import Cluster
from augkd.recipe import CorpusOptions, EncoderOptions, IndexRecipe, dump
from augkd.recipe.files import validate
from augkd.retrieval.dense.changes import Added, add_texts, remove_texts
from augkd.retrieval.dense.search import Index
from augkd.retrieval.dense.takedown import Confirm, Takedown
from augkd.retrieval.encoders.encoder import IndexEncoder
from augkd.retrieval.encoders.kept import find_kept, take_kept
from augkd.retrieval.engines.local import build_dense
from augkd.retrieval.engines.ray import encode_on
from augkd.retrieval.engines.shards import encode_shard, merge_encoded_shards, read_shards
from augkd.retrieval.lexical.index import build_lexical
from augkd.retrieval.manifest import encoder_options, read_index_manifest
from augkd.retrieval.open import encoder_in, open_index, with_encoder
from augkd.retrieval.retriever import Retriever
from augkd.retrieval.room import check_index_room, check_merge_room
from augkd.retrieval.spool import encode_parts
from augkd.workspace.folders import CACHE
from augkd.workspace.manifest_kinds import DenseManifest, LexicalManifest, ShardManifest
from augkd.workspace.manifests import MANIFEST, parse_manifest, rewrite_manifest
from augkd.workspace.progress import Progress, silent
from augkd.workspace.verify import verify


def build_index(
    recipe: IndexRecipe,
    folder: Path,
    progress: Progress = silent,
    encoder: Path | None = None,
    cluster: Cluster | None = None,
) -> Retriever:
    """Builds (or resumes, or opens) the index of a recipe in `folder`.

    `encoder` is the folder of an index, a shard or a static encoder whose token vectors are used; None: they are
    fitted to the corpus. A model is loaded once, by the build, and searches use the same one; opening a finished index
    loads none. The workers of `cluster` encode (None: this machine does); the index has the same bytes. The caller
    holds `workspace.locks.locked(folder)` where two builds could meet.
    """
    check_index_room(recipe, folder)
    source = CorpusSource(**dump(recipe.corpus)).here(progress)
    report = partial(progress, "index")
    if recipe.encoder.kind == "lexical":
        _check_encoder_folder(recipe, encoder)
        if cluster is not None:
            raise RecipeError("a lexical index encodes no vectors; build it on one machine, without --engine ray")
        return build_lexical(folder, source, recipe=dump(recipe), progress=report)
    if cluster is not None:
        cluster.warm("torch", "faiss", *(["sentence_transformers"] if recipe.encoder.kind == "sentence" else []))
    made = _encoder(recipe, source, folder, progress, encoder)
    encode = encode_parts if cluster is None else encode_on(cluster, dump(recipe.encoder))
    options = {**_options(recipe), "recipe": dump(recipe), "encode": encode}
    index = build_dense(folder, source, made, **options, progress=report)
    return with_encoder(_record_rerank(index, recipe), made, partial(encoder_in, folder))


def build_shard(
    recipe: IndexRecipe,
    folder: Path,
    shard: tuple[int, int],
    progress: Progress = silent,
    encoder: Path | None = None,
) -> ShardManifest:
    """Encodes share i of n of a recipe's corpus, `shard` = (i, n), in `folder`; the shard's manifest.

    Shard 1 fits a static encoder; every other one takes it from `encoder`, the folder of shard 1. Raises RecipeError
    for a shard of a lexical index, and for one that would fit an encoder of its own.
    """
    if recipe.encoder.kind == "lexical":
        raise RecipeError("a lexical index encodes no vectors, so it has no shards; build it whole, without --shard")
    if recipe.encoder.kind == "static" and shard[0] > 1 and encoder is None:
        raise RecipeError(
            f"shard {shard[0]}/{shard[1]} would fit a static encoder of its own; build shard 1/{shard[1]} first, and "
            "give its folder with --encoder"
        )
    check_index_room(recipe, folder, shard[1])
    source = CorpusSource(**dump(recipe.corpus)).here(progress)
    made = _encoder(recipe, source, folder, progress, encoder)
    report = partial(progress, "shard")
    return encode_shard(folder, source, made, shard, **_options(recipe), recipe=dump(recipe), progress=report)


def merge_shards(shards: Sequence[Path], folder: Path) -> Retriever:
    """Builds the index in `folder` from all of its shards; what does not fit is an error, before it writes."""
    manifests = read_shards(shards)
    check_merge_room(manifests, folder)
    first = manifests[0]
    options = validate(EncoderOptions, (first.recipe or {}).get("encoder", {}), shards[0] / MANIFEST)
    if options.kind == "static":
        kept = find_kept(shards[0], options.model, options.static_dim, first.made_from.encoder)
        merge_encoded_shards(
            shards, folder, partial(take_kept, kept, folder / CACHE, options.model, options.static_dim)
        )
    else:
        merge_encoded_shards(shards, folder)
    return open_index(folder)


def add_to_index(folder: Path, dataset: str, text: str = "text", progress: Progress = silent) -> Added:
    """Adds the column `text` of a corpus to an index, cleaned by the rules that the index was built with."""
    manifest = _dense_manifest(folder, "added to")
    rules = (manifest.recipe or {}).get("corpus", {})
    new = {"dataset": dataset, "text": text, "limit": None, "split": "train", "config": None}
    new |= {"encoding": None, "delimiter": None, "sheet": None}  # those of the index's own corpus
    options = validate(CorpusOptions, rules | new if isinstance(rules, dict) else rules, folder / MANIFEST)
    source = CorpusSource(**dump(options)).here(progress)
    return add_texts(folder, source, encoder_in(folder, encoder_options(manifest)), partial(progress, "add"))


@dataclasses.dataclass(frozen=True)
class Removed:
    """What a takedown list asked for, how many texts of the index were removed, and which."""

    asked: int  # different texts in the list
    removed: int
    texts: tuple[str, ...]  # of the index, as it held them
    missing: tuple[str, ...]  # asked for, and not in the index


def remove_from_index(folder: Path, takedown: Path, *, exact: bool = False, confirm: Confirm | None = None) -> Removed:
    """Removes the texts of a file from an index, for good; see `retrieval.dense.changes.remove_texts`.

    Raises DataError, before anything is removed, for a file with a row that cannot be read.
    """
    _dense_manifest(folder, "removed from")
    counts, found = CorpusCounts(), []
    texts = list(stream_corpus(CorpusSource(dataset=str(takedown), max_chars=10**9), counts))
    if unreadable := counts.malformed + counts.bad_encoding + counts.unreadable:
        raise DataError(f"{takedown}: {unreadable} rows cannot be read as text; correct them (nothing was removed)")

    def seen(takedown: Takedown) -> bool:
        found.append(takedown)
        return confirm is None or confirm(takedown)

    removed = remove_texts(folder, texts, exact=exact, confirm=seen)
    return Removed(len(texts), removed, found[0].texts if removed else (), found[0].missing)


def verify_index(folder: Path) -> str:
    """Checks an index against its checksums; returns what was checked, and raises IndexFolderError for any damage."""
    read_index_manifest(folder)
    verification = verify(folder)
    if verification.damaged:
        raise IndexFolderError(verification.damaged[0])
    return f"{verification.files} files by checksum, all right"


def _encoder(
    recipe: IndexRecipe, source: CorpusSource, folder: Path, progress: Progress, given: Path | None
) -> IndexEncoder:
    """A recipe's encoder; a static one is fitted to the first texts of the corpus, unless its folder is given."""
    _check_encoder_folder(recipe, given)
    if recipe.encoder.kind != "static":
        return encoder_in(folder, dump(recipe.encoder))
    if given is not None:
        model, dim = recipe.encoder.model, recipe.encoder.static_dim
        take_kept(find_kept(given, model, dim), folder / CACHE, model, dim)
        return encoder_in(folder, dump(recipe.encoder))
    texts = stream_corpus(source, CorpusCounts())
    sample = list(itertools.islice(texts, recipe.encoder.sample))
    return encoder_in(folder, dump(recipe.encoder), texts=sample, progress=partial(progress, "static vectors"))


def _check_encoder_folder(recipe: IndexRecipe, given: Path | None) -> None:
    if given is not None and recipe.encoder.kind != "static":
        raise RecipeError(f"encoder.kind {recipe.encoder.kind} has no fitted encoder to take over; drop --encoder")


def _record_rerank(index: Index, recipe: IndexRecipe) -> Index:
    """The index with the recipe's `rerank` in its manifest: a finished index takes another depth without a rebuild."""
    if encoder_options(index.manifest)["rerank"] == recipe.encoder.rerank:
        return index
    manifest = index.manifest.on_disk() | {"recipe": dump(recipe)}
    rewrite_manifest(index.folder, manifest)
    return dataclasses.replace(index, manifest=parse_manifest(index.folder, manifest, DenseManifest))


def _options(recipe: IndexRecipe) -> dict[str, Any]:
    faiss = recipe.faiss
    return {"factory": faiss.factory, "recall": faiss.recall, "memory": faiss.memory_bytes, "seed": recipe.seed}


def _dense_manifest(folder: Path, change: str) -> DenseManifest:
    manifest = read_index_manifest(folder)
    if isinstance(manifest, LexicalManifest):
        raise RecipeError(
            f"{folder} is a lexical index, which cannot be {change}; build it again from the changed corpus"
        )
    return manifest
