"""BM25 postings: for each word its texts and its contribution to their scores; and the best k texts of a query.

The Lucene variant, whose idf is never negative (Kamphuis et al. 2020), with all scores computed when the index is built
(BM25S: Lù 2024). A query processes its words in order of their highest contribution, and once the remaining words
cannot lift a new text into the best k, only texts found so far are scored (MaxScore: Turtle & Flood 1995). That is
exact, and so fast that common words need no stop list, which would cover only some languages.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from augkd.workspace.files import replacing

if TYPE_CHECKING:
    from numpy.typing import NDArray

K1 = 1.5  # how soon repetitions of a word stop counting; 1.5 and 0.75 are also the defaults of bm25s
B = 0.75  # how strongly long texts are penalised, 0 to 1


@dataclass(frozen=True)
class Part:
    """The words, as numbers, of consecutive texts."""

    first: int  # id of the first text
    words: NDArray[np.int32]  # (words,) of all texts, one after the other
    lengths: NDArray[np.int32]  # (texts,) number of words

    def postings(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Word, text (from 0) and number of occurrences of every posting, by word, then text."""
        texts = np.repeat(np.arange(len(self.lengths)), self.lengths)
        keys, times = np.unique(self.words.astype(np.int64) << 32 | texts, return_counts=True)
        return keys >> 32, keys & 0xFFFFFFFF, times


def write_postings(folder: Path, vocabulary: int, parts: Sequence[Part]) -> None:
    """Computes the scores of the postings of `vocabulary` words and writes them, by word, then text."""
    count = sum(len(part.lengths) for part in parts)
    text_counts = np.zeros(vocabulary, dtype=np.int64)  # texts that contain the word
    for part in parts:
        text_counts += np.bincount(part.postings()[0], minlength=vocabulary)
    starts = np.concatenate([[0], np.cumsum(text_counts)])
    idf = np.log1p((count - text_counts + 0.5) / (text_counts + 0.5))
    mean_length = sum(int(part.lengths.sum()) for part in parts) / count

    bounds = np.zeros(vocabulary, dtype=np.float32)
    with replacing(folder / "ids.npy") as ids_path, replacing(folder / "scores.npy") as scores_path:
        ids = _mapped(ids_path, np.dtype(np.int32), int(starts[-1]))
        scores = _mapped(scores_path, np.dtype(np.float32), int(starts[-1]))
        heads = starts[:-1].copy()  # position of the next posting of each word
        for part in parts:
            word, text, times = part.postings()
            distinct, first, counts = np.unique(word, return_index=True, return_counts=True)
            at = heads[word] + np.arange(len(word)) - np.repeat(first, counts)
            ids[at] = part.first + text
            saturation = K1 * (1 - B + B * part.lengths[text] / mean_length)
            contribution = (idf[word] * times / (times + saturation)).astype(np.float32)
            scores[at] = contribution
            bounds[distinct] = np.maximum(bounds[distinct], np.maximum.reduceat(contribution, first))
            heads[distinct] += counts
        ids.flush()
        scores.flush()
    _save(folder / "starts.npy", starts)
    _save(folder / "bounds.npy", bounds)


def _mapped(path: Path, kind: np.dtype[Any], size: int) -> Any:
    """A mapped file to fill in. All of its blocks are taken first: a full disk is an error now and no signal later."""
    array = np.lib.format.open_memmap(path, mode="w+", dtype=kind, shape=(size,))
    with path.open("r+b") as stream:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)
    return array


def _save(path: Path, array: NDArray[Any]) -> None:
    with replacing(path) as temporary, temporary.open("wb") as stream:
        np.save(stream, array, allow_pickle=False)


@dataclass(frozen=True, eq=False)
class Postings:
    """The score that each word gives to each text it occurs in."""

    starts: NDArray[np.int64]  # (words + 1,) where each word's postings begin
    ids: NDArray[np.int32]  # (postings,) texts, ascending within a word
    scores: NDArray[np.float32]  # (postings,) above 0
    bounds: NDArray[np.float32]  # (words,) highest score of each

    @classmethod
    def open(cls, folder: Path) -> Postings:
        """Maps what `write_postings` wrote; raises ValueError, OSError or EOFError where they do not fit each other."""
        arrays = [np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in cls.__annotations__]
        opened = cls(*map(np.asarray, arrays))  # plain views of the mapped files: slicing a memmap is slow
        opened.check()
        return opened

    @property
    def last(self) -> int:
        """The highest id of a text; -1 without a posting."""
        return int(self.ids.max(initial=-1))

    def check(self) -> None:
        """Raises ValueError for arrays that `write_postings` does not write together."""
        starts, ids = self.starts, self.ids
        kinds = [array.dtype for array in (starts, ids, self.scores, self.bounds)]
        flat = all(array.ndim == 1 for array in (starts, ids, self.scores, self.bounds))
        if kinds != [np.int64, np.int32, np.float32, np.float32] or not flat or not len(starts):
            raise ValueError(f"arrays of types {', '.join(map(str, kinds))}")
        if self.ids.min(initial=0) < 0:
            raise ValueError("an id below 0")
        ascending = starts[0] == 0 and starts[-1] == len(ids) and not (np.diff(starts) < 0).any()
        if not ascending or len(self.scores) != len(ids) or len(self.bounds) != len(starts) - 1:
            raise ValueError(f"{len(starts)} starts for {len(ids)} ids and {len(self.bounds)} words")

    def of(self, word: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Texts with this word, and their scores."""
        run = slice(int(self.starts[word]), int(self.starts[word + 1]))
        return self.ids[run], self.scores[run]


def best(
    postings: Postings,
    query: Mapping[int, int],  # word → occurrences in the query
    k: int,
    totals: NDArray[np.float32],  # (texts,) zeros, and zeros again afterwards
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:  # both (up to k,)
    """The k texts with the highest scores, best first, then by id. Every text adds up its words in the same order."""
    terms = sorted(query, key=lambda word: (-float(postings.bounds[word]) * query[word], word))
    bounds = [float(postings.bounds[word]) * query[word] for word in terms]
    rest = np.cumsum([0.0, *reversed(bounds)])[::-1]  # the most that the terms from here on can add
    rest = rest + 1e-7 * len(terms) * rest[0]  # plus the most that float32 can round a sum up

    reached: NDArray[np.int32] = np.empty(0, dtype=np.int32)
    place = 0
    while place < len(terms):
        ids, scores = postings.of(terms[place])
        if k <= len(reached) <= 2 * len(ids) and _kth(totals[reached], k) > rest[place]:
            break  # a text not found yet cannot be among the best
        before = totals[ids]
        reached = np.concatenate([reached, ids[before == 0]])
        totals[ids] = before + scores * np.float32(query[terms[place]])
        place += 1

    candidates = np.sort(
        _promising(reached, totals[reached], k, rest[place])[0]
    )  # ascending, as they lie in the postings
    sums = totals[candidates]
    totals[reached] = 0
    for later in range(place, len(terms)):
        ids, scores = postings.of(terms[later])
        at = np.minimum(np.searchsorted(ids, candidates), len(ids) - 1)
        shared = ids[at] == candidates
        sums[shared] += scores[at[shared]] * np.float32(query[terms[later]])
        candidates, sums = _promising(candidates, sums, k, rest[later + 1])

    order = np.lexsort((candidates, -sums))[:k]
    return sums[order], candidates[order]


def _promising(
    candidates: NDArray[np.int32], sums: NDArray[np.float32], k: int, rest: float
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The candidates that can still be among the best k when each may gain up to `rest`."""
    if len(candidates) <= k:
        return candidates, sums
    kept = sums.astype(np.float64) + rest >= _kth(sums, k)
    return candidates[kept], sums[kept]


def _kth(sums: NDArray[np.float32], k: int) -> float:
    return float(np.partition(sums, len(sums) - k)[len(sums) - k])
