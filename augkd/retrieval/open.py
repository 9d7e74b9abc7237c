"""Index recipes to indexes: the one place that knows which kind of encoder goes with which kind of index.

`augkd index` and the pipeline both come here; what is underneath takes an encoder and does not ask for its kind.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from augkd.data.corpus import CorpusCounts, CorpusSource, stream_corpus
from augkd.errors import ModelError, RecipeError
from augkd.recipe import IndexRecipe, dumped
from augkd.retrieval.dense.builder import build_index, build_shard, merge_shards
from augkd.retrieval.dense.changes import add_texts, remove_texts
from augkd.retrieval.dense.retriever import DenseRetriever
from augkd.retrieval.dense.search import Index, verify
from augkd.retrieval.encoders.encoder import IndexEncoder
from augkd.retrieval.encoders.make import make_encoder
from augkd.retrieval.lexical.index import LexicalIndex, build_lexical
from augkd.retrieval.manifest import read_index_manifest
from augkd.retrieval.retriever import Retriever
from augkd.workspace.folders import CACHE
from augkd.workspace.progress import Progress, Steps

if TYPE_CHECKING:
    from augkd.retrieval.encoders.encoder import IndexEncoder

_OPTIONS = {"sentence": ("model", "max_length", "precision", "workers"), "static": ("model", "dim")}


def make_index(recipe: IndexRecipe, folder: Path, progress: Progress) -> Retriever:
    """Builds (or resumes, or opens) an index recipe's index in `folder`."""
    source, written = CorpusSource(**dumped(recipe.corpus)), dumped(recipe)
    told = partial(progress, "index")
    if recipe.encoder.kind == "lexical":
        build_lexical(folder, source, recipe=written, progress=told)
    else:
        encoder = _encoder(recipe, folder, progress)
        build_index(folder, source, encoder, **_options(recipe), recipe=written, progress=told)
    return open_index(folder)


def make_shard(recipe: IndexRecipe, folder: Path, shard: tuple[int, int], progress: Progress) -> dict[str, Any]:
    """Encodes share i of n of an index recipe's corpus, `shard` = (i, n); the shard's manifest."""
    if recipe.encoder.kind == "lexical":
        raise RecipeError("a lexical index has no vectors to share the work of; build it whole, without --shard")
    source, encoder = CorpusSource(**dumped(recipe.corpus)), _encoder(recipe, folder, progress)
    told = partial(progress, "shard")
    return build_shard(folder, source, encoder, shard, **_options(recipe), recipe=dumped(recipe), progress=told)


def merge_index(shards: Sequence[Path], folder: Path) -> Retriever:
    """Makes the index of all its shards in `folder`."""
    merge_shards(shards, folder)
    return open_index(folder)


def open_index(folder: Path) -> Retriever:
    """A finished index with the encoder it was built with."""
    return open_retriever(folder, lambda options: _made(options, folder))


def index_identity(index: Retriever) -> dict[str, Any]:
    """What decides the neighbours an index gives: what it was made from, its bytes, and re-ranking."""
    manifest = index.manifest
    rerank = (manifest.get("recipe") or {}).get("encoder", {}).get("rerank", 0)
    return {"made_from": manifest["made_from"], "sha256": manifest["sha256"], "rerank": rerank}


def add_to_index(folder: Path, dataset: str, text: str, progress: Progress) -> dict[str, int]:
    """Adds a corpus to an index, cleaned by the rules the index was built by; how many were added and known already."""
    manifest = _dense(folder, "added to")
    rules = {**(manifest.get("recipe") or {"corpus": {}})["corpus"], "limit": None, "split": "train", "config": None}
    source = CorpusSource(**{**rules, "dataset": dataset, "text": text})
    return add_texts(folder, source, _made(encoder_options(manifest), folder), partial(progress, "add"))


def remove_from_index(folder: Path, takedown: Path) -> dict[str, int]:
    """Takes the texts of a file out of an index, for good; how many were asked for and how many went."""
    _dense(folder, "removed from")
    source = CorpusSource(dataset=str(takedown), max_chars=10**9)
    wanted = list(stream_corpus(source, CorpusCounts()))
    return {"asked": len(wanted), "removed": remove_texts(folder, wanted)}


def verify_index(folder: Path) -> str:
    """Checks an index against its checksums and says what was checked; raises IndexFolderError for what is wrong."""
    if read_index_manifest(folder)["encoder"].get("kind") == "lexical":
        return f"the postings, by checksum, and the number of texts, {len(LexicalIndex.open(folder))}"
    return f"{verify(folder)['files']} files by checksum, all right"


def _encoder(recipe: IndexRecipe, folder: Path, progress: Progress) -> IndexEncoder:
    """A recipe's encoder; a static one is fitted to the beginning of the corpus."""
    if recipe.encoder.kind != "static":
        return _made(dumped(recipe.encoder), folder)
    texts = stream_corpus(CorpusSource(**dumped(recipe.corpus)), CorpusCounts())
    sample = list(itertools.islice(texts, recipe.encoder.sample))
    return _made(dumped(recipe.encoder), folder, sample, partial(progress, "static vectors"))


def _made(
    options: Mapping[str, Any],
    folder: Path,
    texts: Sequence[str] | None = None,
    progress: Steps | None = None,
) -> IndexEncoder:
    """The encoder of an index in `folder`; what is made for it once is kept there, below `workspace.CACHE`."""
    told = {name: value for name, value in options.items() if name in _OPTIONS[options["kind"]]}
    return make_encoder({"kind": options["kind"], **told}, folder / CACHE, texts=texts, progress=progress)


def _options(recipe: IndexRecipe) -> dict[str, Any]:
    faiss = recipe.faiss
    return {"factory": faiss.factory, "recall": faiss.recall, "memory": faiss.budget, "seed": recipe.seed}


def _dense(folder: Path, what: str) -> Mapping[str, Any]:
    manifest = read_index_manifest(folder)
    if manifest["encoder"].get("kind") == "lexical":
        raise RecipeError(
            f"{folder} is a lexical index, which cannot be {what}; build it again from the changed corpus"
        )
    return manifest


def open_retriever(folder: Path, load: Callable[[Mapping[str, Any]], IndexEncoder]) -> Retriever:
    """Opens the index in `folder`, whatever its kind; `load` makes an encoder of its options in a recipe.

    Raises IndexFolderError for a folder that is missing or damaged, and ModelError when the encoder that `load` gives
    is not the one the index was built with. A static encoder with `rerank` brings the sentence model it was made of.
    """
    from augkd.retrieval.lexical.index import LexicalIndex  # which imports Hits from here

    manifest = read_index_manifest(folder)
    if manifest["encoder"].get("kind") == "lexical":
        return LexicalIndex.open(folder)

    index = Index.open(folder)
    options = encoder_options(manifest)
    encoder = load(options)
    if encoder.fingerprint != manifest["made_from"]["encoder"]:
        raise ModelError(
            f"encoder '{options['model']}' is not the one that {folder} was built with; build the index again"
        )
    if not options["rerank"]:
        return DenseRetriever(index, encoder)
    return DenseRetriever(index, encoder, reranker=load(_source_model(options)), rerank=options["rerank"])


def encoder_options(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The encoder of an index as its recipe has it; an index of before these keys is `sentence`, not re-ranked."""
    recipe = manifest.get("recipe") or {"encoder": manifest["encoder"]}  # built by a library call, without a recipe
    defaults = {"kind": "sentence", "max_length": None, "precision": "auto", "rerank": 0}
    return {**defaults, **recipe["encoder"]}


def _source_model(options: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: options[key] for key in ("model", "max_length", "precision")}
    return {"kind": "sentence", **kept, "rerank": 0}
