"""Which 64-bit keys have occurred, and with what number, at the scale of a corpus in bounded memory.

An open-addressing table of plain uint64 (16 to 32 bytes per key; a Python set takes 73) holds the newest keys; at its
limit it is spilled into a sorted run on disk. Runs are memory-mapped, searched by bisection and merged four at a time,
so that there are few to search. Their files have no name, so they vanish with the process, however it ends.
64 bits suffice for hashes: among 5e9 texts, 0.7 colliding pairs are expected, that is one text dropped by mistake.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Keys = NDArray[np.uint64]
    Numbers = NDArray[np.uint32]
    Flags = NDArray[np.bool_]

MEMORY = 1 << 28  # bytes: 16.8 million keys before the first run
_SMALLEST = 1 << 12  # slots
_FAN_OUT = 4  # runs of one level that are merged into one of the next
_MERGED = 1 << 20  # keys sorted at once in a merge


@dataclass(frozen=True, eq=False)
class _Run:
    """Ascending keys on disk and, at the same positions, their numbers."""

    keys: Keys
    numbers: Numbers | None


class SeenKeys:
    """A growing map from uint64 keys to the first number of each key; without `numbered`, a set.

    `memory` bounds the table of keys in bytes (at least 32 KiB, rounded down to a power of two); a spill briefly takes
    half as much again, numbers take half as much always. Runs lie in `folder` (None: the system's temporary folder).
    `close` it, or use it in a `with`, to free the disk space.
    """

    def __init__(self, *, memory: int = MEMORY, folder: Path | None = None, numbered: bool = False) -> None:
        self._slots = max(1 << max((memory // 8).bit_length() - 1, 0), _SMALLEST)
        self._folder = folder
        self._numbered = numbered
        self.close()

    def __enter__(self) -> SeenKeys:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Forgets all keys and frees their memory and disk space."""
        self._runs: dict[int, list[_Run]] = {}  # by level; no key is in two runs
        self._clear(_SMALLEST)

    def _clear(self, slots: int) -> None:
        self._table: Keys = np.zeros(slots, np.uint64)  # 0: an empty slot
        self._numbers: Numbers = np.zeros(slots if self._numbered else 0, np.uint32)
        self._held = 0

    def __len__(self) -> int:
        return self._held + sum(len(run.keys) for run in self._all_runs())

    @property
    def table_bytes(self) -> int:
        """Bytes of memory that the table of keys takes."""
        return int(self._table.nbytes)

    @property
    def runs(self) -> int:
        """The number of sorted runs on disk."""
        return len(self._all_runs())

    def add(self, keys: Keys, numbers: Numbers | None = None) -> Flags:  # all (n,)
        """Adds `keys`; True where a key is new, in neither an earlier call nor an earlier place of `keys`."""
        new = np.zeros(len(keys), bool)
        distinct, first = np.unique(_nonzero(keys), return_index=True)  # ascending: bisection stays local
        step = self._slots // 4  # so that any batch fits through any table
        for start in range(0, len(distinct), step):
            part, places = distinct[start : start + step], first[start : start + step]
            self._make_room(len(part))  # before the runs are searched: a spill moves keys there
            absent = self._in_runs(part) < 0
            absent[absent] = self._insert(part[absent], None if numbers is None else numbers[places[absent]])
            new[places[absent]] = True
        return new

    def find(self, keys: Keys) -> NDArray[np.int64]:  # both (n,)
        """The number that each key was first added with (0 without numbers); -1 for a key that was never added."""
        distinct, place = np.unique(_nonzero(keys), return_inverse=True)
        return np.maximum(self._in_runs(distinct), self._in_table(distinct))[place]

    def _make_room(self, count: int) -> None:
        """Keeps the table at most half full, for short probe sequences: 2.5 slots on average for a new key."""
        while (self._held + count) * 2 > len(self._table):
            if len(self._table) == self._slots:
                self._spill()
                continue
            used = self._table != 0
            keys, numbers = self._table[used], self._numbers[used] if self._numbered else None
            self._clear(2 * len(self._table))
            self._insert(keys, numbers)

    def _insert(self, keys: Keys, numbers: Numbers | None) -> Flags:
        """Inserts distinct keys into the table, all at once; True where a key was not there."""
        new = np.zeros(len(keys), bool)
        pending = np.arange(len(keys))
        mask = np.uint64(len(self._table) - 1)
        slot = keys & mask
        while len(pending):
            empty = self._table[slot] == 0
            self._table[slot[empty]] = keys[
                empty
            ]  # of keys that compete for a slot, the last gets it; the others go on
            placed = self._table[slot] == keys
            added = placed & empty
            new[pending[added]] = True
            if numbers is not None:
                self._numbers[slot[added]] = numbers[pending[added]]
            pending, keys, slot = pending[~placed], keys[~placed], (slot[~placed] + np.uint64(1)) & mask
        self._held += int(new.sum())
        return new

    def _in_table(self, keys: Keys) -> NDArray[np.int64]:
        numbers = np.full(len(keys), -1, np.int64)
        pending = np.arange(len(keys))
        mask = np.uint64(len(self._table) - 1)
        slot = keys & mask
        while len(pending):
            held = self._table[slot]
            here = held == keys
            numbers[pending[here]] = self._numbers[slot[here]] if self._numbered else 0
            collided = ~here & (held != 0)
            pending, keys, slot = pending[collided], keys[collided], (slot[collided] + np.uint64(1)) & mask
        return numbers

    def _in_runs(self, keys: Keys) -> NDArray[np.int64]:
        numbers = np.full(len(keys), -1, np.int64)
        for run in self._all_runs():
            place = np.minimum(np.searchsorted(run.keys, keys), len(run.keys) - 1)
            here = run.keys[place] == keys
            numbers[here] = 0 if run.numbers is None else run.numbers[place[here]]
        return numbers

    def _all_runs(self) -> list[_Run]:
        return [run for level in self._runs.values() for run in level]

    def _spill(self) -> None:
        used = self._table != 0
        run = _Run(self._table[used], self._numbers[used] if self._numbered else None)
        self._clear(len(self._table))
        self._keep(iter([_ascending(run)]), level=0)

    def _keep(self, pieces: Iterator[_Run], level: int) -> None:
        """Writes a run, piece by piece in ascending order, and merges its level once that is full."""
        with tempfile.TemporaryFile(dir=self._folder) as keys, tempfile.TemporaryFile(dir=self._folder) as numbers:
            for piece in pieces:
                keys.write(piece.keys.data)
                if piece.numbers is not None:
                    numbers.write(piece.numbers.data)
            run = _Run(_mapped(keys, np.uint64), _mapped(numbers, np.uint32) if self._numbered else None)
        runs = self._runs.setdefault(level, [])
        runs.append(run)
        if len(runs) == _FAN_OUT:
            self._keep(_merged(runs), level + 1)
            self._runs[level] = []


def _mapped(stream: Any, kind: Any) -> Any:
    """The content of a file as an array; the mapping keeps the file alive after the stream is closed."""
    stream.flush()
    return np.memmap(stream, kind, "r")


def _ascending(run: _Run) -> _Run:
    if run.numbers is None:
        return _Run(np.sort(run.keys), None)
    order = np.argsort(run.keys)
    return _Run(run.keys[order], run.numbers[order])


def _merged(runs: list[_Run]) -> Iterator[_Run]:
    """All runs as one, about `_MERGED` keys at a time, since equal ranges of hashes hold about equally many keys."""
    parts = -(-sum(len(run.keys) for run in runs) // _MERGED)
    edges = np.array([part * 2**64 // parts for part in range(1, parts)], np.uint64)
    cuts = [[0, *np.searchsorted(run.keys, edges).tolist(), len(run.keys)] for run in runs]
    for part in range(parts):
        pieces = [(run, slice(cut[part], cut[part + 1])) for run, cut in zip(runs, cuts, strict=True)]
        numbers = [run.numbers[piece] for run, piece in pieces if run.numbers is not None]
        keys = np.concatenate([run.keys[piece] for run, piece in pieces])
        yield _ascending(_Run(keys, np.concatenate(numbers) if numbers else None))


def _nonzero(keys: Keys) -> Keys:
    """The keys with 0, which marks an empty slot, replaced by 1: one more collision in 2**64."""
    return np.maximum(keys, np.uint64(1))
