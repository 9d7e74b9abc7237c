"""One face for every index: texts in, the nearest texts of the corpus out.

What looks for neighbours need not know what finds them. `DenseRetriever` is an encoder and a FAISS index; where that
encoder is a fast static one, the best of what it finds can be scored again by the full model it was made from
(retrieve, then re-rank: Nogueira & Cho 2019). Hits come sorted by score, then id: FAISS leaves ties in any order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, final

import numpy as np

from augkd.errors import ModelError, RecipeError
from augkd.retrieval.index import Index, read_index_manifest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from augkd.retrieval.encoder import Encoder, IndexEncoder

_SLOTS = 131_072  # texts re-scored together at most: 200 MB of vectors at 384 dimensions
_AVERAGED = 16_384  # texts of a group encoded together


@dataclass(frozen=True)
class Hits:
    """What was found for each query, best first; equal scores in order of id."""

    scores: NDArray[np.float32]  # (queries, k), -inf where there are fewer
    ids: NDArray[np.int64]  # (queries, k), -1 where there are fewer
    vectors: NDArray[np.float32] | None  # (queries, k, dim) unit rows as the index stores them, when asked for


class Retriever(Protocol):
    """Finds the texts of a corpus that are like given ones."""

    @property
    def folder(self) -> Path:
        """Where the index lies."""
        ...

    @property
    def manifest(self) -> Mapping[str, Any]:
        """What the index says about itself."""
        ...

    @property
    def bounded(self) -> bool:
        """True where scores are cosines, so that distances and thresholds mean something."""
        ...

    def __len__(self) -> int:
        """Texts in the corpus."""
        ...

    def search(self, texts: Sequence[str], k: int, *, vectors: bool = False) -> Hits:
        """The `k` nearest corpus texts of each text."""
        ...

    def search_average(self, groups: Sequence[Sequence[str]], k: int, *, vectors: bool = False) -> Hits:
        """The `k` corpus texts nearest to each group as a whole: one query a group."""
        ...

    def texts(self, ids: Sequence[int] | NDArray[np.int64]) -> list[str]:
        """The texts with these ids, in their order."""
        ...


@final
class DenseRetriever:
    """An index of vectors with the encoder it was built with, and a re-ranker or none.

    With a re-ranker, the index gives the best max(k, `rerank`) and the k best of these by the re-ranker's cosine
    remain, with that cosine. `rerank` 0 puts the k that were found in a new order and fetches no more.
    """

    def __init__(self, index: Index, encoder: Encoder, *, reranker: Encoder | None = None, rerank: int = 0) -> None:
        if rerank < 0 or (rerank > 0 and reranker is None):
            raise RecipeError(f"encoder rerank is {rerank}; give 0, or a depth like 100 and a re-ranker")
        self._index = index
        self._encoder = encoder
        self._reranker = reranker
        self._rerank = rerank

    @property
    def folder(self) -> Path:
        """Where the index lies."""
        return self._index.folder

    @property
    def manifest(self) -> Mapping[str, Any]:
        """What the index says about itself."""
        return self._index.manifest

    @property
    def bounded(self) -> bool:
        """True: scores are cosines."""
        return True

    def __len__(self) -> int:
        return len(self._index)

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:  # (n, dim), unit rows
        """Vectors in the space of the index, which is not that of a re-ranker."""
        return self._encoder.encode(texts)

    def search(self, texts: Sequence[str], k: int, *, vectors: bool = False) -> Hits:
        """The `k` nearest corpus texts of each text, by cosine."""
        return self._blocks(len(texts), k, lambda encoder, rows: encoder.encode(texts[rows]), vectors)

    def search_average(self, groups: Sequence[Sequence[str]], k: int, *, vectors: bool = False) -> Hits:
        """The `k` texts nearest to the mean vector of each group (label average: Du et al. 2021, SentAugment).

        A re-ranker compares with the mean of its own vectors. Raises RecipeError for a group without a text.
        """
        check_groups(groups)
        return self._blocks(len(groups), k, lambda encoder, rows: _averages(encoder, groups[rows]), vectors)

    def texts(self, ids: Sequence[int] | NDArray[np.int64]) -> list[str]:
        """The texts with these ids, in their order; raises IndexError for an id that is not there."""
        return self._index.texts(ids)

    def _blocks(
        self, count: int, k: int, encode: Callable[[Encoder, slice], NDArray[np.float32]], vectors: bool
    ) -> Hits:
        """Answers `count` queries, as many at a time as the texts to re-score allow."""
        check_k(k)
        depth = max(k, self._rerank)
        size = max(1, _SLOTS // depth) if self._reranker is not None or vectors else max(1, count)
        answers = [
            self._answer(slice(start, start + size), k, depth, encode, vectors) for start in range(0, count, size)
        ]
        if not answers:
            return no_hits(0, k, self._index.dim if vectors else None)
        stored = [answer.vectors for answer in answers if answer.vectors is not None]
        return Hits(
            np.concatenate([answer.scores for answer in answers]),
            np.concatenate([answer.ids for answer in answers]),
            np.concatenate(stored) if stored else None,
        )

    def _answer(
        self, rows: slice, k: int, depth: int, encode: Callable[[Encoder, slice], NDArray[np.float32]], vectors: bool
    ) -> Hits:
        stored = None
        if vectors:
            scores, ids, stored = self._index.search_and_reconstruct(encode(self._encoder, rows), depth)
        else:
            scores, ids = self._index.search(encode(self._encoder, rows), depth)
        if self._reranker is not None:
            scores = self._rescored(encode(self._reranker, rows), ids)
        return best_first(scores, ids, stored, k)

    def _rescored(
        self,
        queries: NDArray[np.float32],  # (n, dim of the re-ranker)
        ids: NDArray[np.int64],  # (n, depth)
    ) -> NDArray[np.float32]:  # (n, depth)
        """The re-ranker's cosines; a text that was found more than once is encoded once."""
        assert self._reranker is not None
        distinct, places = np.unique(ids, return_inverse=True)
        texts = self._index.texts(np.maximum(distinct, 0))  # -1, FAISS's padding, gets a score that nobody reads
        slots = {text: slot for slot, text in enumerate(dict.fromkeys(texts))}
        candidates = self._reranker.encode(list(slots))
        slot_of = np.array([slots[text] for text in texts])[places.reshape(ids.shape)]
        # einsum, not BLAS: there a row's rounding depends on where it stands, and equal texts would not tie
        rows = zip(queries, slot_of, strict=True)
        return np.stack([np.einsum("wd,d->w", candidates[row], query) for query, row in rows])


def best_first(
    scores: NDArray[np.float32],  # (n, depth)
    ids: NDArray[np.int64],  # (n, depth), -1 where there are fewer
    vectors: NDArray[np.float32] | None,  # (n, depth, dim)
    k: int,
) -> Hits:
    """The `k` best of each row by score, then id; rows without that many end in -inf, -1 and zero vectors."""
    scores = np.where(ids < 0, -np.inf, scores).astype(np.float32, copy=False)
    order = np.lexsort((ids, -scores), axis=1)[:, :k]
    ids = np.take_along_axis(ids, order, axis=1)
    if vectors is not None:
        vectors = np.where(ids[:, :, None] < 0, np.float32(0), np.take_along_axis(vectors, order[:, :, None], axis=1))
    return Hits(np.take_along_axis(scores, order, axis=1), ids, vectors)


def no_hits(count: int, k: int, dim: int | None = None) -> Hits:
    """Hits of `count` queries that found nothing; with zero vectors where `dim` is given."""
    vectors = None if dim is None else np.zeros((count, k, dim), dtype=np.float32)
    return Hits(np.full((count, k), -np.inf, dtype=np.float32), np.full((count, k), -1, dtype=np.int64), vectors)


def check_k(k: int) -> None:
    """Raises RecipeError for a `k` below 1."""
    if k < 1:
        raise RecipeError(f"neighbours k is {k}; give at least 1")


def check_groups(groups: Sequence[Sequence[str]]) -> None:
    """Raises RecipeError when a group has nothing to average."""
    empty = next((number for number, group in enumerate(groups) if not group), None)
    if empty is not None:
        raise RecipeError(f"group {empty} of {len(groups)} has no text to average; leave it out")


def _averages(encoder: Encoder, groups: Sequence[Sequence[str]]) -> NDArray[np.float32]:  # (groups, dim), unit rows
    means = np.stack([_sum(encoder, group) / len(group) for group in groups])
    lengths = np.linalg.norm(means, axis=1, keepdims=True)
    return np.asarray(means / np.maximum(lengths, 1e-12), dtype=np.float32)  # opposite texts cancel to zero


def _sum(encoder: Encoder, texts: Sequence[str]) -> NDArray[np.float64]:  # (dim,)
    blocks: Iterator[Sequence[str]] = (texts[at : at + _AVERAGED] for at in range(0, len(texts), _AVERAGED))
    return np.asarray(sum(encoder.encode(block).sum(axis=0, dtype=np.float64) for block in blocks))


def open_retriever(folder: Path, load: Callable[[Mapping[str, Any]], IndexEncoder]) -> Retriever:
    """Opens the index in `folder`, whatever its kind; `load` makes an encoder of its options in a recipe.

    Raises IndexFolderError for a folder that is missing or damaged, and ModelError when the encoder that `load` gives
    is not the one the index was built with. A static encoder with `rerank` brings the sentence model it was made of.
    """
    from augkd.retrieval.lexical import LexicalIndex  # which imports Hits from here

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
