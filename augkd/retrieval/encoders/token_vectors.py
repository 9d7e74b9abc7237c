"""The arithmetic behind static encoders: vectors of vocabulary entries from the model's, and their fit to real texts.

Without texts it is Model2Vec (Tulkens & van Dongen 2024): PCA, then SIF weights (Arora et al. 2017). With texts the
vectors are fitted so that their sums come close to the model's vectors of those texts, which is the aim of Model2Vec's
"tokenlearn"; but by least squares, without a training loop. First comes a linear map with few parameters, to which
every text contributes, from the model's vector of an entry alone and from its input embedding. Then each entry, and
each pair of neighbouring tokens that several texts contain, is corrected by the residual of that map.

Share of MiniLM's ten nearest among the hundred nearest, of 4,000 held-out review sentences (width 384, 20,000 texts):
the map alone 0.67, with entries 0.73, with pairs 0.75; entries without a map 0.66. From 79,000 texts 0.81.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIF = 1e-4  # a in a / (a + p): Model2Vec's value, for frequencies guessed from ranks
SIF_COUNTED = 1e-3  # for counted frequencies: recall of 100 was 0.56, 0.63, 0.61, 0.56 at 1e-4, 1e-3, 3e-3, 1e-2
MAP_RIDGE = 10.0  # 1, 10 and 100: no difference with 20,000 texts; with 500, recall of 100 was 0.55, 0.56 and 0.51
ENTRY_RIDGE, PAIR_RIDGE = 1.0, 2.0  # recall of 100 was 0.740, 0.754, 0.754 at (0.25, 0.5), (0.5, 1), (1, 2)
LEAST = 2  # texts that contain a pair; pairs of a single text would be four times as many, and gain nothing
_STEPS = 20  # conjugate-gradient steps; they leave 3e-3 of the residual, and recall does not change from 10 on
_BLOCK = 8192  # texts, or entries, whose features are in memory at once
_COLUMNS = 64  # solved at once, by all threads: six matrices of that many columns are in memory
_THREADS = 8  # with more, each has so few columns that it reads the counts for little


def rank_frequency(count: int) -> NDArray[np.float64]:  # (count,), sums to 1
    """Zipf's frequencies of `count` entries in order of rank: proportional to 1 / (rank + 1), ranks from 1."""
    inverse = 1 / np.arange(2, count + 2)
    return np.asarray(inverse / inverse.sum())


def sif_weights(frequency: NDArray[np.float64], a: float = SIF) -> NDArray[np.float32]:  # (n,)
    """a / (a + p) of each entry's share p of all tokens (Arora et al. 2017)."""
    return np.asarray(a / (a + frequency), dtype=np.float32)


def principal_components(vectors: NDArray[np.float32], dim: int) -> tuple[NDArray[np.float32], float]:
    """Centred rows of `vectors` (n, width) on the `dim` directions of largest variance, and the share these keep.

    With `dim` = width the rows are only centred, not rotated.
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
    """The `dim` directions (width, dim) that keep most of the sum of squares of `rows`, and the share kept.

    Each direction's largest component is made positive: the sign of an eigenvector is arbitrary.
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
    """How often each text contains each entry."""
    lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
    ids = np.fromiter((id_ for row in rows for id_ in row), dtype=np.int64, count=int(lengths.sum()))
    columns = np.minimum(np.searchsorted(entries, ids), len(entries) - 1)
    known = np.asarray(entries)[columns] == ids
    texts = np.repeat(np.arange(len(rows)), lengths)[known]
    ones = np.ones(len(texts), dtype=np.float32)
    return scipy.sparse.csr_array((ones, (texts, columns[known])), shape=(len(rows), len(entries)))


def pair_keys(
    ids: NDArray[np.int64],  # token ids of all texts, one after the other
    lengths: NDArray[np.int64],  # (texts,)
    size: int,  # larger than any id
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Text and key of every two tokens in a row, texts ascending. `size` stands for the beginning and end of a text."""
    owner = np.repeat(np.arange(len(lengths)), lengths + 2)
    framed = np.full(len(owner), size, dtype=np.int64)
    framed[np.arange(len(ids)) + 2 * np.repeat(np.arange(len(lengths)), lengths) + 1] = ids
    keys = framed[:-1] * (size + 1) + framed[1:]
    inside = keys != size * (size + 1) + size  # not the border between two texts, nor an empty text
    return owner[:-1][inside], keys[inside]


def pair_counts(
    texts: NDArray[np.int64],  # (pairs,) from `pair_keys`
    keys: NDArray[np.int64],
    count: int,
) -> tuple[NDArray[np.int64], Any]:
    """The pairs that at least `LEAST` of `count` texts contain, ascending, and their count in each text: csr."""
    distinct, columns = np.unique(keys, return_inverse=True)
    ones = np.ones(len(keys), dtype=np.float32)
    counts = scipy.sparse.csr_array((ones, (texts, columns)), shape=(count, len(distinct)))
    kept = np.flatnonzero(np.bincount(counts.indices, minlength=len(distinct)) >= LEAST)
    return distinct[kept], counts[:, kept].tocsr()


def fit(
    alone: NDArray[np.float32],  # (entries, width), the model's vectors of single entries, centred
    embeddings: NDArray[np.float32] | None,  # (entries, any), the model's input embeddings, centred
    counts: Any,  # csr (texts, entries)
    pairs: Any,  # csr (texts, pairs)
    targets: NDArray[np.float32],  # (texts, width), the model's vectors of the texts
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:  # (entries, width), (pairs, width)
    """Vectors E and P such that the directions of counts · E + pairs · P are close to `targets`, unit vectors.

    E starts as `alone` with SIF weights of the counted frequencies, scaled to fit best, plus a linear map of that, of
    `alone` and of `embeddings`: ridge regression on the residual, with each text divided by √tokens. Then each text is
    divided by the length that its sum has at this point, and E and P change to minimise
    ‖X E + Y P − targets‖² + ridge ‖ΔE‖² + ridge ‖P‖². An entry that no text contains keeps its E.
    With the division by √tokens in this step too, recall of 100 is 0.740 instead of 0.754.
    """
    frequency = counts.sum(axis=0) + 0.5  # half a count: an unseen entry is rare, not impossible
    start = alone * sif_weights(frequency / frequency.sum(), SIF_COUNTED)[:, None]
    rows = _divide_rows(counts, np.sqrt(counts.sum(axis=1)))
    guess = rows @ start
    scale = np.float32((guess * targets).sum() / max(float((guess * guess).sum()), 1e-12))
    start *= scale
    inputs = [start, alone, np.ones((len(alone), 1), dtype=np.float32), *([] if embeddings is None else [embeddings])]
    present = np.flatnonzero(counts.sum(axis=0))  # of a vocabulary of 250,000, most entries are in no sample
    linear_map = _linear_map(rows[:, present], [table[present] for table in inputs], targets - guess * scale)
    del guess
    for begin in range(0, len(start), _BLOCK):
        block = slice(begin, begin + _BLOCK)
        start[block] += _features(inputs, block) @ linear_map

    lengths = np.linalg.norm(counts @ start, axis=1)
    rows = _divide_rows(counts, lengths)
    both = scipy.sparse.hstack([rows[:, present], _divide_rows(pairs, lengths)]).tocsr()
    ridge = np.repeat(np.array([ENTRY_RIDGE, PAIR_RIDGE], dtype=np.float32), [len(present), pairs.shape[1]])
    change = _ridge(both, targets - rows @ start, ridge)
    start[present] += change[: len(present)]
    return start, change[len(present) :]


def _features(inputs: Sequence[NDArray[Any]], entries: NDArray[np.int64] | slice) -> NDArray[np.float32]:
    return np.concatenate([table[entries] for table in inputs], axis=1, dtype=np.float32)


def _divide_rows(rows: Any, lengths: NDArray[Any]) -> Any:  # csr; a row of length 0 becomes zeros
    inverse = np.divide(1, lengths, out=np.zeros(len(lengths), dtype=np.float32), where=lengths > 1e-6)
    return (scipy.sparse.diags_array(inverse.astype(np.float32)) @ rows).tocsr()


def _linear_map(rows: Any, inputs: Sequence[NDArray[Any]], targets: NDArray[np.float32]) -> NDArray[np.float32]:
    """argmin ‖rows · features · W − targets‖² + ridge ‖W‖², `inputs` side by side being the features."""
    width = sum(table.shape[1] for table in inputs)
    squares, products = MAP_RIDGE * np.eye(width), np.zeros((width, targets.shape[1]))
    for start in range(0, len(targets), _BLOCK):
        part = rows[start : start + _BLOCK]
        block = np.concatenate([part @ table for table in inputs], axis=1, dtype=np.float64)
        squares += block.T @ block
        products += block.T @ targets[start : start + _BLOCK]
    return np.asarray(np.linalg.solve(squares, products), dtype=np.float32)


def _ridge(rows: Any, targets: NDArray[np.float32], ridge: NDArray[np.float32]) -> NDArray[np.float32]:
    """argmin ‖rows · D − targets‖² + Σ ridge_i ‖D_i‖², by conjugate gradients for each column separately.

    Preconditioned with the diagonal: columns of frequent tokens are thousands of times as long as those of rare ones,
    and 15 steps without it leave 50 times as much of the residual. Columns are shared among as many threads as torch
    has, which changes no byte: 40,000 rows take 2.6 s on two, 4.8 on one.
    """
    transposed = rows.T.tocsr()
    scale = (1 / (rows.power(2).sum(axis=0) + ridge))[:, None].astype(np.float32)
    solution = np.empty((rows.shape[1], targets.shape[1]), dtype=np.float32)
    threads = min(torch.get_num_threads(), _THREADS)
    width = _COLUMNS // threads

    def solve(begin: int) -> None:
        columns = slice(begin, begin + width)
        solution[:, columns] = _conjugate_gradients(rows, transposed, targets[:, columns], ridge[:, None], scale)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(solve, range(0, targets.shape[1], width)))  # the list raises what a thread raised
    return solution


def _conjugate_gradients(
    rows: Any, transposed: Any, targets: NDArray[np.float32], ridge: NDArray[np.float32], scale: NDArray[np.float32]
) -> NDArray[np.float32]:
    residual = transposed @ targets
    scaled = scale * residual
    direction, solution = scaled.copy(), np.zeros_like(residual)
    product = (residual * scaled).sum(axis=0)
    for _ in range(_STEPS):
        image = transposed @ (rows @ direction) + ridge * direction
        step = product / np.maximum((direction * image).sum(axis=0), 1e-30)  # zero for a column that has converged
        solution += step * direction
        residual -= step * image
        scaled = scale * residual
        before, product = product, (residual * scaled).sum(axis=0)
        direction = scaled + product / np.maximum(before, 1e-30) * direction
    return np.asarray(solution, dtype=np.float32)
