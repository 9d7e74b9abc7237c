"""Opens a finished index together with the encoder its manifest names.

The encoder's fingerprint is compared at once, but its weights are loaded with the first search: an index whose manifest
or texts are all that is wanted costs no model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from augkd.errors import ModelError
from augkd.retrieval.dense.retriever import DenseRetriever
from augkd.retrieval.dense.search import Index
from augkd.retrieval.encoders.encoder import IndexEncoder
from augkd.retrieval.encoders.make import make_encoder, options_of
from augkd.retrieval.lexical.index import LexicalIndex
from augkd.retrieval.manifest import encoder_options, is_lexical, read_index_manifest
from augkd.retrieval.retriever import Retriever
from augkd.workspace.cache import artefact_here
from augkd.workspace.folders import CACHE
from augkd.workspace.progress import Progress, Steps, silent

Load = Callable[[Mapping[str, Any]], IndexEncoder]  # from the encoder table of a recipe to the encoder


def open_index(folder: Path | str, progress: Progress = silent) -> Retriever:
    """The finished index in `folder` with the encoder it was built with; loads no weights before the first search.

    `folder` may be a URL like s3://bucket/index: the index is copied here unless it was, which is what `progress` is
    about. Raises IndexFolderError for a folder that is missing or damaged, StorageError for such a URL, and ModelError
    when the model cannot be found or is not the one the index was built with.
    """
    folder = artefact_here(folder, "index", progress)
    return open_retriever(folder, partial(encoder_in, folder))


def open_retriever(folder: Path, load: Load) -> Retriever:
    """`open_index` with encoders that `load` makes from the encoder table of the index's recipe."""
    manifest = read_index_manifest(folder)
    if is_lexical(manifest):
        return LexicalIndex.open(folder)

    index = Index.open(folder)
    options = encoder_options(manifest)
    encoder = load(options)
    if encoder.fingerprint != manifest.made_from.encoder:
        raise ModelError(
            f"encoder '{options['model']}' is not the one that {folder} was built with; build the index again"
        )
    return with_encoder(index, encoder, load)


def with_encoder(index: Index, encoder: IndexEncoder, load: Load) -> DenseRetriever:
    """A retriever of an opened index and its encoder; if its recipe re-ranks, `load` makes the full model."""
    options = encoder_options(index.manifest)
    if not options["rerank"]:
        return DenseRetriever(index, encoder)
    full = {name: options[name] for name in ("model", "max_length", "precision", "query_prompt", "document_prompt")}
    reranker = load({"kind": "sentence", **full, "rerank": 0})
    return DenseRetriever(index, encoder, reranker=reranker, rerank=options["rerank"])


def encoder_in(
    folder: Path,
    options: Mapping[str, Any],
    *,
    texts: Sequence[str] | None = None,
    progress: Steps | None = None,
) -> IndexEncoder:
    """The encoder of the index in `folder`, from the encoder table of its recipe; arguments as of `make_encoder`.

    What is made for it once (token vectors, an INT8 file) is kept in the folder's cache.
    """
    kind = options["kind"]
    own = {name: options[name] for name in options_of(kind) if name in options}
    return make_encoder({"kind": kind, **own}, folder / CACHE, texts=texts, progress=progress)
