"""The arithmetic behind static encoders: vectors of vocabulary entries from the model's, and their fit to real texts.

Without texts it is Model2Vec (Tulkens & van Dongen 2024): PCA, then the weights of SIF (Arora et al. 2017). With texts
the vectors are fitted so that sums of them come near the model's vectors of those texts, which is the aim of
Model2Vec's "tokenlearn"; but by least squares, without a training loop. First come few numbers that every text has a
say in: one linear map, from what the model makes of an entry alone and from its input embedding. Then each entry, and
each pair of neighbours that several texts hold, moves by what the map leaves over.

Share of MiniLM's ten nearest among the hundred nearest, of 4,000 held-out review sentences (width 384, 20,000 texts):
the map alone 0.67, with entries 0.73, with pairs 0.75; entries without a map 0.66. Of 79,000 texts 0.81.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIF = 1e-4  # a in a / (a + p): Model2Vec's, for frequencies guessed from ranks
SIF_COUNTED = 1e-3  # for counted ones: recall of 100 was 0.56, 0.63, 0.61, 0.56 at 1e-4, 1e-3, 3e-3, 1e-2
MAP_RIDGE = 10.0  # 1, 10 and 100 alike for 20,000 texts; of 500, whose recall of 100 was 0.55, 0.56 and 0.51, 10
ENTRY_RIDGE, PAIR_RIDGE = 1.0, 2.0  # recall of 100 was 0.740, 0.754, 0.754 at (0.25, 0.5), (0.5, 1), (1, 2)
LEAST = 2  # texts that hold a pair; with those of one text there are four times as many, and nothing is gained
_STEPS = 20  # of conjugate gradients; leaves 3e-3 of the residual, and recall does not change from 10 on
_BLOCK = 8192  # texts, or entries, whose features are held at once
_COLUMNS = 64  # solved at once: six matrices of as many columns are held


def rank_frequency(count: int) -> NDArray[np.float64]:  # (count,), sums to 1
    """Zipf's frequencies of `count` entries in order of rank: proportional to 1 / (rank + 1), ranks from 1."""
    inverse = 1 / np.arange(2, count + 2)
    return np.asarray(inverse / inverse.sum())


def sif_weights(frequency: NDArray[np.float64], a: float = SIF) -> NDArray[np.float32]:  # (n,)
    """a / (a + p) of each entry's share p of all tokens (Arora et al. 2017)."""
    return np.asarray(a / (a + frequency), dtype=np.float32)


def principal_components(vectors: NDArray[np.float32], dim: int) -> tuple[NDArray[np.float32], float]:
    """Centred rows of `vectors` (n, width) on the `dim` directions of largest variance, and the share these keep.

    With `dim` = width nothing is turned, only centred.
    """
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    if dim == vectors.shape[1]:
        return centred.astype(np.float32), 1.0
    directions, explained = leading_directions(centred, dim)
    return (centred @ directions).astype(np.float32), explained


def leading_directions(
    rows: NDArray[Any],  # (n, width)
    dim: int,
) -> tuple[NDArray[np.float64], float]:
    """The `dim` directions (width, dim) that keep most of the squares in `rows`, and the share of them kept.

    Each direction's largest component is positive: eigenvectors come with either sign.
    """
    rows = rows.astype(np.float64)
    squares, directions = np.linalg.eigh(rows.T @ rows)  # ascending
    kept = directions[:, ::-1][:, :dim]
    kept = kept * np.sign(kept[np.abs(kept).argmax(axis=0), np.arange(dim)])
    return kept, float(squares[::-1][:dim].sum() / squares.sum())


def token_counts(
    rows: Sequence[Sequence[int]],  # token ids of each text
    entries: Sequence[int],  # ids of the vocabulary's entries, ascending; others are left out
) -> Any:  # scipy.sparse.csr_array (texts, entries), float32
    """How often each text holds each entry."""
    lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
    ids = np.fromiter((id_ for row in rows for id_ in row), dtype=np.int64, count=int(lengths.sum()))
    places = np.minimum(np.searchsorted(entries, ids), len(entries) - 1)
    known = np.asarray(entries)[places] == ids
    texts = np.repeat(np.arange(len(rows)), lengths)[known]
    ones = np.ones(len(texts), dtype=np.float32)
    return scipy.sparse.csr_array((ones, (texts, places[known])), shape=(len(rows), len(entries)))


def pair_keys(
    ids: NDArray[np.int64],  # token ids of all texts, one after the other
    lengths: NDArray[np.int64],  # (texts,)
    size: int,  # more than any id
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Text and key of every two tokens in a row, texts ascending. Before the first and after the last stands `size`."""
    owner = np.repeat(np.arange(len(lengths)), lengths + 2)
    framed = np.full(len(owner), size, dtype=np.int64)
    framed[np.arange(len(ids)) + 2 * np.repeat(np.arange(len(lengths)), lengths) + 1] = ids
    keys = framed[:-1] * (size + 1) + framed[1:]
    inside = keys != size * (size + 1) + size  # from one text to the next, or of an empty one
    return owner[:-1][inside], keys[inside]


def pair_counts(
    texts: NDArray[np.int64],  # (pairs,) as `pair_keys` tells them
    keys: NDArray[np.int64],
    count: int,
) -> tuple[NDArray[np.int64], Any]:
    """The pairs that at least `LEAST` of `count` texts hold, ascending, and how often each text does: csr."""
    every, places = np.unique(keys, return_inverse=True)
    each = scipy.sparse.csr_array((np.ones(len(keys), dtype=np.float32), (texts, places)), shape=(count, len(every)))
    kept = np.flatnonzero(np.bincount(each.indices, minlength=len(every)) >= LEAST)
    return every[kept], each[:, kept].tocsr()


def fitted(
    alone: NDArray[np.float32],  # (entries, width), the model's vectors of single entries, centred
    embeddings: NDArray[np.float32] | None,  # (entries, any) that the model itself begins with, centred
    counts: Any,  # csr (texts, entries)
    pairs: Any,  # csr (texts, pairs)
    wanted: NDArray[np.float32],  # (texts, width), the model's vectors of the texts
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:  # (entries, width), (pairs, width)
    """Vectors E and P for which the directions of counts · E + pairs · P are near `wanted`, which are unit vectors.

    E begins as `alone` under SIF weights of the counted frequencies, scaled to fit best, and as a linear map of that,
    of `alone` and of `embeddings`: ridge regression on what is left, of texts divided by √tokens. Then each text is
    divided by the length its sum has by now, and E and P move to minimise
    ‖X E + Y P − wanted‖² + ridge ‖ΔE‖² + ridge ‖P‖². An entry that no text holds keeps its E of before.
    Dividing by √tokens here too, recall of 100 is 0.740 and not 0.754.
    """
    seen = counts.sum(axis=0) + 0.5  # half a sight: an unseen entry is rare, not impossible
    start = alone * sif_weights(seen / seen.sum(), SIF_COUNTED)[:, None]
    rows = _divided(counts, np.sqrt(counts.sum(axis=1)))
    guess = rows @ start
    scale = np.float32((guess * wanted).sum() / max(float((guess * guess).sum()), 1e-12))
    start *= scale
    known = [start, alone, np.ones((len(alone), 1)), *([] if embeddings is None else [embeddings])]
    held = np.flatnonzero(counts.sum(axis=0))  # a vocabulary of 250,000 has most of its entries in no sample
    mapped = _linear_map(rows[:, held], _features(known, held), wanted - guess * scale)
    for begin in range(0, len(start), _BLOCK):
        block = slice(begin, begin + _BLOCK)
        start[block] += _features(known, block) @ mapped

    lengths = np.linalg.norm(counts @ start, axis=1)
    rows = _divided(counts, lengths)
    both = scipy.sparse.hstack([rows[:, held], _divided(pairs, lengths)]).tocsr()
    ridge = np.repeat(np.array([ENTRY_RIDGE, PAIR_RIDGE], dtype=np.float32), [len(held), pairs.shape[1]])
    moved = _ridge(both, wanted - rows @ start, ridge)
    start[held] += moved[: len(held)]
    return start, moved[len(held) :]


def _features(known: Sequence[NDArray[Any]], at: NDArray[np.int64] | slice) -> NDArray[np.float32]:
    return np.concatenate([one[at] for one in known], axis=1, dtype=np.float32)


def _divided(rows: Any, lengths: NDArray[Any]) -> Any:  # csr; a row of length 0 becomes zeros
    inverse = np.divide(1, lengths, out=np.zeros(len(lengths), dtype=np.float32), where=lengths > 1e-6)
    return (scipy.sparse.diags_array(inverse.astype(np.float32)) @ rows).tocsr()


def _linear_map(rows: Any, features: NDArray[np.float32], wanted: NDArray[np.float32]) -> NDArray[np.float32]:
    """argmin ‖rows · features · W − wanted‖² + ridge ‖W‖²."""
    width = features.shape[1]
    squares, products = MAP_RIDGE * np.eye(width), np.zeros((width, wanted.shape[1]))
    for start in range(0, len(wanted), _BLOCK):
        block = (rows[start : start + _BLOCK] @ features).astype(np.float64)
        squares += block.T @ block
        products += block.T @ wanted[start : start + _BLOCK]
    return np.asarray(np.linalg.solve(squares, products), dtype=np.float32)


def _ridge(rows: Any, wanted: NDArray[np.float32], ridge: NDArray[np.float32]) -> NDArray[np.float32]:
    """argmin ‖rows · D − wanted‖² + Σ ridge_i ‖D_i‖², by conjugate gradients of each column for itself.

    Scaled by the diagonal: columns of frequent tokens are thousands of times as long as those of rare ones, and 15
    steps that are not scaled leave 50 times as much of the residual as 15 that are.
    """
    transposed = rows.T.tocsr()
    scale = (1 / (rows.power(2).sum(axis=0) + ridge))[:, None].astype(np.float32)
    found = np.empty((rows.shape[1], wanted.shape[1]), dtype=np.float32)
    for begin in range(0, wanted.shape[1], _COLUMNS):
        columns = slice(begin, begin + _COLUMNS)
        found[:, columns] = _descended(rows, transposed, wanted[:, columns], ridge[:, None], scale)
    return found


def _descended(
    rows: Any, transposed: Any, wanted: NDArray[np.float32], ridge: NDArray[np.float32], scale: NDArray[np.float32]
) -> NDArray[np.float32]:
    residual = transposed @ wanted
    scaled = scale * residual
    direction, found = scaled.copy(), np.zeros_like(residual)
    product = (residual * scaled).sum(axis=0)
    for _ in range(_STEPS):
        image = transposed @ (rows @ direction) + ridge * direction
        step = product / np.maximum((direction * image).sum(axis=0), 1e-30)  # a column that is done has zeros here
        found += step * direction
        residual -= step * image
        scaled = scale * residual
        before, product = product, (residual * scaled).sum(axis=0)
        direction = scaled + product / np.maximum(before, 1e-30) * direction
    return np.asarray(found, dtype=np.float32)
