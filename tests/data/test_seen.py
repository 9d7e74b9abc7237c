"""Seen keys give the answers of a Python set, in memory and on disk, and leave no file behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from augkd.data.seen import SeenKeys

SMALL = 1 << 15  # bytes: 4096 slots, spilled after 2048 keys


def stream(count: int, different: int, seed: int) -> np.ndarray:
    """`count` draws of `different` keys that are spread over all 64 bits, 0 among them."""
    rng = np.random.default_rng(seed)
    keys = rng.integers(0, 2**64, different, dtype=np.uint64)
    keys[0] = 0
    return keys[rng.integers(0, different, count)]


def by_set(keys: np.ndarray) -> list[bool]:
    seen: set[int] = set()
    new = []
    for key in keys.tolist():
        new.append(key not in seen)
        seen.add(key)
    return new


@pytest.mark.parametrize("batch", [1000, 4096, 70_000])
@pytest.mark.parametrize("memory", [SMALL, 1 << 28])
def test_a_key_is_new_exactly_where_a_set_does_not_hold_it(tmp_path: Path, memory: int, batch: int) -> None:
    keys = stream(70_000, 50_000, seed=0)
    with SeenKeys(memory=memory, folder=tmp_path) as seen:
        new = [seen.add(keys[start : start + batch]) for start in range(0, len(keys), batch)]
        assert np.concatenate(new).tolist() == by_set(keys)
        assert len(seen) == len(set(keys.tolist()))
        assert (seen.runs > 0) == (memory == SMALL)
        others = stream(1000, 1000, seed=1)
        known = set(keys.tolist())
        assert (seen.find(keys[:500]) == 0).all()
        assert seen.find(others).tolist() == [0 if key in known else -1 for key in others.tolist()]


def test_the_table_stays_within_its_bound_and_runs_are_merged(tmp_path: Path) -> None:
    keys = np.random.default_rng(0).integers(1, 2**64, 60_000, dtype=np.uint64)
    with SeenKeys(memory=SMALL, folder=tmp_path) as seen:
        for start in range(0, len(keys), 500):
            seen.add(keys[start : start + 500])
            assert seen.table_bytes <= SMALL
        assert 0 < seen.runs <= 3 * 3  # about 30 spills, three levels at most


@pytest.mark.parametrize("memory", [SMALL, 1 << 28])
def test_a_key_has_the_number_it_was_first_added_with(tmp_path: Path, memory: int) -> None:
    keys = stream(40_000, 30_000, seed=0)
    numbers = np.arange(len(keys), dtype=np.uint32)
    first: dict[int, int] = {}
    for number, key in enumerate(keys.tolist()):
        first.setdefault(key, number)
    with SeenKeys(memory=memory, folder=tmp_path, numbered=True) as seen:
        for start in range(0, len(keys), 999):
            seen.add(keys[start : start + 999], numbers[start : start + 999])
        assert seen.find(keys).tolist() == [first[key] for key in keys.tolist()]
        assert (seen.runs > 0) == (memory == SMALL)


def test_a_small_set_takes_little_memory() -> None:
    with SeenKeys() as seen:
        seen.add(np.arange(1, 10_000, dtype=np.uint64))
        assert seen.table_bytes <= 32 * 10_000


def open_files() -> int:
    return sum(1 for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith("(deleted)"))


def test_runs_have_no_name_in_the_folder_and_closing_frees_their_space(tmp_path: Path) -> None:
    before = open_files()
    seen = SeenKeys(memory=SMALL, folder=tmp_path)
    seen.add(np.random.default_rng(0).integers(1, 2**64, 5000, dtype=np.uint64))
    assert seen.runs > 0
    assert open_files() > before
    assert list(tmp_path.iterdir()) == []
    seen.close()
    assert (seen.runs, len(seen), open_files()) == (0, 0, before)
