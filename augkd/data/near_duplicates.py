"""Near-duplicates: texts that resemble an earlier kept text, by MinHash (Broder 1997) of 5-character shingles.

Characters, not words: corpus texts are sentences, and changing one word in ten leaves a word-trigram Jaccard of 0.45
but a character Jaccard of about 0.7. Bands of minima propose a kept text, and all 64 minima must then confirm it. By
bands alone, 137 of 20,000 questions were dropped at 0.8, with a median best match of 0.57, since such pairs far
outnumber those above 0.8; with confirmation 14 are dropped, none below 0.69. A kept text takes 64 bytes of disk (b-bit
MinHash, Li and König 2010).
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from augkd.data.seen import MEMORY, SeenKeys

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHINGLE = 5  # characters
PERMUTATIONS = 64  # minima per text
_PROPOSED = 0.9  # least share of the pairs at the threshold that bands propose
_PIECE = 1 << 16  # characters hashed at once: 256 KiB of 32-bit hashes stay in the cache
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_HALF = np.uint64(32)


def bands(near: float) -> tuple[int, int]:
    """(bands, minima in each) for a Jaccard similarity of `near`: the longest bands that propose 90 % of such pairs."""
    for rows in range(PERMUTATIONS, 1, -1):
        if share_proposed(near, PERMUTATIONS // rows, rows) >= _PROPOSED:
            return PERMUTATIONS // rows, rows
    return PERMUTATIONS, 1


def share_proposed(jaccard: float, bands: int, rows: int) -> float:
    """The share of pairs of this Jaccard similarity with a band in common: 1 - (1 - J^rows)^bands."""
    return 1.0 - float((1.0 - jaccard**rows) ** bands)


class NearDuplicates:
    """The texts kept so far, up to 4.29e9; `close` it, or use it in a `with`, to free its disk space in `folder`."""

    def __init__(self, near: float, *, memory: int = MEMORY, folder: Path | None = None) -> None:
        self._near = near
        self._holders = SeenKeys(memory=memory, folder=folder, numbered=True)  # band key → first kept text with it
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - signatures of kept texts, closed in `close`
        self._kept = 0

    def __enter__(self) -> NearDuplicates:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Forgets all texts and frees their memory and disk space."""
        self._holders.close()
        self._file.close()

    def add(self, texts: Sequence[str]) -> NDArray[np.bool_]:  # (n,)
        """True where a text resembles an earlier kept text, of an earlier call or of `texts`; the others are kept.

        A dropped text is not compared with later ones, so similarity is not transitive. The result does not depend on
        how texts are divided into calls.
        """
        minima = _minima([text.casefold() for text in texts])
        keys, signatures = band_keys(minima, self._near), _bytes(minima)
        holders = self._holders.find(keys.ravel()).reshape(keys.shape)
        dropped = self._resemble_kept(signatures, holders)
        self._drop_within(keys, signatures, holders < 0, dropped)
        self._keep(keys[~dropped], signatures[~dropped])
        return dropped

    def _resemble_kept(self, signatures: NDArray[np.uint8], holders: NDArray[np.int64]) -> NDArray[np.bool_]:
        dropped = np.zeros(len(signatures), bool)
        rows, band = np.nonzero(holders >= 0)
        if len(rows):
            kept = np.memmap(self._file, np.uint8, "r", shape=(self._kept, PERMUTATIONS))
            dropped[rows[_similar(signatures[rows], kept[holders[rows, band]], self._near)]] = True
        return dropped

    def _drop_within(
        self,
        keys: NDArray[np.uint64],  # (n, bands)
        signatures: NDArray[np.uint8],  # (n, PERMUTATIONS)
        free: NDArray[np.bool_],  # (n, bands) no kept text has the key yet
        dropped: NDArray[np.bool_],  # (n,) changed in place
    ) -> None:
        """Drops texts that resemble another text of this call: a loop, but only over texts that share a key."""
        _, place, times = np.unique(keys, return_inverse=True, return_counts=True)
        shared = free & (times[place].reshape(keys.shape) > 1)
        holder: dict[int, int] = {}
        for text in np.flatnonzero(shared.any(axis=1) & ~dropped).tolist():
            own = keys[text, shared[text]].tolist()
            rivals = sorted({holder[key] for key in own if key in holder})
            if rivals and _similar(signatures[text], signatures[rivals], self._near).any():
                dropped[text] = True
                continue
            for key in own:
                holder.setdefault(key, text)

    def _keep(self, keys: NDArray[np.uint64], signatures: NDArray[np.uint8]) -> None:
        numbers = np.arange(self._kept, self._kept + len(keys), dtype=np.uint32)
        self._holders.add(keys.ravel(), np.repeat(numbers, keys.shape[1]))
        self._file.write(signatures.tobytes())
        self._file.flush()
        self._kept += len(keys)


def _similar(first: NDArray[np.uint8], second: NDArray[np.uint8], near: float) -> NDArray[np.bool_]:
    """Whether at least `near` of the minima agree (standard error 0.05 at 0.8)."""
    agree: NDArray[np.bool_] = (first == second).mean(axis=-1) >= near
    return agree


def band_keys(minima: NDArray[np.uint32], near: float) -> NDArray[np.uint64]:  # (PERMUTATIONS, n) -> (n, bands)
    """A key for each band of minima, hashed together with the number of the band."""
    count, rows = bands(near)
    banded = minima[: count * rows].reshape(count, rows, -1)
    keys = np.repeat(np.arange(1, count + 1, dtype=np.uint64)[:, None], minima.shape[1], axis=1)
    for row in range(rows):
        keys = _mixed(keys * _GOLDEN + banded[:, row])
    return np.ascontiguousarray(keys.T)


def _bytes(minima: NDArray[np.uint32]) -> NDArray[np.uint8]:  # (PERMUTATIONS, n) -> (n, PERMUTATIONS)
    """One byte of each minimum; 1 in 256 minima that differ looks equal."""
    return np.ascontiguousarray((_mixed(minima.astype(np.uint64)) >> np.uint64(56)).astype(np.uint8).T)


def _minima(texts: list[str]) -> NDArray[np.uint32]:  # (PERMUTATIONS, n)
    minima = np.empty((PERMUTATIONS, len(texts)), np.uint32)
    start = size = 0
    for stop, text in enumerate(texts, 1):
        size += len(text)
        if size >= _PIECE or stop == len(texts):
            minima[:, start:stop] = _minima_of_piece(texts[start:stop])
            start, size = stop, 0
    return minima


def _minima_of_piece(texts: list[str]) -> NDArray[np.uint32]:  # (PERMUTATIONS, n)
    """The minimum of each permutation (x → a·x + b mod 2³²) over the shingles of each text."""
    shingles, starts = _shingles(texts)
    minima = np.empty((PERMUTATIONS, len(texts)), np.uint32)
    permuted = np.empty_like(shingles)
    for number in range(PERMUTATIONS):
        np.multiply(shingles, _FACTORS[number], out=permuted)
        np.add(permuted, _SHIFTS[number], out=permuted)
        np.minimum.reduceat(permuted, starts, out=minima[number])
    return minima


def _shingles(texts: list[str]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """The hashes of all shingles, text after text, and the position of each text's first."""
    tail = "\0" * SHINGLE  # pads a text that is shorter than a shingle
    codes = np.frombuffer((tail.join(texts) + tail).encode("utf-32-le"), np.uint32)
    lengths = np.array([len(text) for text in texts], np.int64)
    counts = np.maximum(lengths - SHINGLE + 1, 1)
    begins = np.cumsum(lengths + SHINGLE) - lengths - SHINGLE  # of each text in `codes`
    starts = np.cumsum(counts) - counts
    positions = np.arange(counts.sum()) + np.repeat(begins - starts, counts)

    size = len(codes) - SHINGLE + 1
    hashes = codes[:size].astype(np.uint64)
    for offset in range(1, SHINGLE):
        hashes = hashes * _GOLDEN + codes[offset : offset + size]
    return (_mixed(hashes) >> _HALF).astype(np.uint32)[positions], starts


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """splitmix64's finaliser (Steele et al. 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


# not from a NumPy generator, whose stream may change with its version: the same texts always give the same keys
_NUMBERS = (_mixed(np.arange(1, 2 * PERMUTATIONS + 1, dtype=np.uint64) * _GOLDEN) >> _HALF).astype(np.uint32)
_FACTORS = _NUMBERS[:PERMUTATIONS] | np.uint32(1)
_SHIFTS = _NUMBERS[PERMUTATIONS:]
