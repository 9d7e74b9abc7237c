"""Selectors pick what a loop in plain Python picks, no candidate twice (ALGORITHMS §25, Fixture D; §9.4)."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor

from augkd.models.seeds import RowRandom
from augkd.models.tokens import Tokens
from augkd.selection.divergence import divergence
from augkd.selection.pool import Pool
from augkd.selection.selectors import SCORED, SELECTORS, best, everything, minimax, nearest, random

SIZES = [3, 0, 1, 7, 2, 5]


def pool_of(sizes: list[int], seed: int = 0) -> Pool:
    owner = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    score = torch.rand(len(owner), generator=torch.Generator().manual_seed(seed))
    tokens = Tokens.of([[number] for number in range(len(owner))])
    return Pool(tokens, owner, score, torch.zeros(len(owner), 2), torch.arange(len(owner)))


def rng(seed: int = 0) -> RowRandom:
    return RowRandom((seed,), range(len(SIZES) + 2))


def numbers(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def reference(key: list[float], owner: list[int], keep: int) -> list[int]:
    """The `keep` smallest keys of each owner, earlier positions first among equals."""
    kept = []
    for row in sorted(set(owner)):
        places = [place for place, other in enumerate(owner) if other == row]
        kept += sorted(places, key=lambda place: (key[place], place))[:keep]
    return sorted(kept)


def test_minimax_keeps_candidates_3_and_2_of_fixture_d() -> None:
    student = torch.tensor([[2.0, 0.0], [0.0, 0.0], [0.0, 2.0], [1.0, 0.0]])
    values = divergence(student, torch.tensor([[2.0, 0.0]] * 4), 2.0)
    pool = pool_of([4])
    assert minimax(values, pool, rng(), 0, keep=1).tolist() == [2]
    assert minimax(values, pool, rng(), 0, keep=2).tolist() == [1, 2]
    assert minimax(values, pool, rng(), 0, keep=3).tolist() == [1, 2, 3]
    assert minimax(-values, pool, rng(), 0, keep=2).tolist() == [0, 3]  # the least divergent are the other two


def test_ties_keep_retrieval_order() -> None:
    pool = pool_of([5, 4])
    assert minimax(torch.zeros(9), pool, rng(), 0, keep=2).tolist() == [0, 1, 5, 6]
    # a zero divergence is a score like any other, not an empty place
    assert minimax(torch.tensor([0.0, 0, 1, 0, 0, 0, 0, 0, 0]), pool, rng(), 0, keep=2).tolist() == [0, 2, 5, 6]


@pytest.mark.parametrize("keep", [1, 2, 4, 10])
@pytest.mark.parametrize("name", [name for name in SELECTORS if name != "everything"])
def test_every_owner_gets_its_quota_or_all_it_has(name: str, keep: int) -> None:
    pool = pool_of(SIZES)
    chosen = SELECTORS[name](torch.rand(len(pool), generator=numbers(3)), pool, rng(), 0, keep=keep)
    counts = Counter(pool.owner[chosen].tolist())
    assert [counts[owner] for owner in range(len(SIZES))] == [min(size, keep) for size in SIZES]
    assert len(set(chosen.tolist())) == len(chosen)


@pytest.mark.parametrize("seed", range(20))
def test_minimax_and_nearest_equal_the_loop_in_plain_python(seed: int) -> None:
    draw = numbers(seed)
    sizes = torch.randint(0, 9, (8,), generator=draw).tolist()
    keep = int(torch.randint(1, 6, (1,), generator=draw))
    pool = pool_of(sizes, seed)
    values = torch.randint(0, 4, (len(pool),), generator=draw).float()  # many ties
    owner = pool.owner.tolist()
    assert minimax(values, pool, rng(), 0, keep=keep).tolist() == reference((-values).tolist(), owner, keep)
    assert nearest(values, pool, rng(), 0, keep=keep).tolist() == reference((-pool.score).tolist(), owner, keep)


def test_nearest_goes_by_score_and_not_by_divergence() -> None:
    pool = pool_of([4])
    by_score = pool.score.argsort(descending=True)[:2].sort().values.tolist()
    for values in (pool.score, -pool.score, torch.zeros(4)):
        assert nearest(values, pool, rng(), 0, keep=2).tolist() == by_score


def test_random_repeats_for_the_same_seed_and_differs_between_seeds_and_epochs() -> None:
    pool = pool_of([8] * 6)
    values = torch.zeros(len(pool))
    assert random(values, pool, rng(1), 0, keep=3).tolist() == random(values, pool, rng(1), 0, keep=3).tolist()
    assert random(values, pool, rng(1), 0, keep=3).tolist() != random(values, pool, rng(2), 0, keep=3).tolist()
    assert random(values, pool, rng(1), 0, keep=3).tolist() != random(values, pool, rng(1), 1, keep=3).tolist()


@pytest.mark.parametrize("keep", [1, 2, 3, 4, 8])
def test_random_takes_each_candidate_once_before_any_comes_again(keep: int) -> None:
    pool = pool_of([8, 7, 2])
    for size, owner in ((8, 0), (7, 1), (2, 2)):
        counts = torch.zeros(size, dtype=torch.long)
        for epoch in range(20):
            chosen = random(torch.zeros(len(pool)), pool, rng(), epoch, keep=keep)
            mine = chosen[pool.owner[chosen] == owner] - (pool.owner < owner).sum()
            assert len(mine) == len(set(mine.tolist())) == min(keep, size)
            counts[mine] += 1
            assert counts.max() - counts.min() <= 1


def test_random_takes_every_candidate_equally_often_whatever_its_divergence() -> None:
    pool, counts = pool_of([4, 4]), torch.zeros(8)
    for seed in range(2000):
        counts[random(torch.arange(8.0), pool, rng(seed), 0, keep=1)] += 1
    assert (counts - 500).abs().max() < 100  # 5 standard deviations of a binomial (2000, 1/4) are 97


def test_everything_takes_all_in_order() -> None:
    pool = pool_of(SIZES)
    assert everything(torch.zeros(len(pool)), pool, rng(), 0).tolist() == list(range(sum(SIZES)))


@pytest.mark.parametrize("name", SELECTORS)
def test_an_empty_pool_gives_nothing(name: str) -> None:
    chosen: Tensor = SELECTORS[name](torch.zeros(0), pool_of([0, 0]), rng(), 0)
    assert chosen.tolist() == []


@pytest.mark.parametrize("name", SELECTORS)
def test_only_the_selectors_in_scored_use_the_divergence(name: str) -> None:
    pool = pool_of([6, 6])
    up, down = torch.arange(12.0), -torch.arange(12.0)
    same = SELECTORS[name](up, pool, rng(), 0).tolist() == SELECTORS[name](down, pool, rng(), 0).tolist()
    assert same == (name not in SCORED)


def test_best_ranks_each_owner_s_candidates_where_a_global_sort_would_take_all_from_one() -> None:
    key, owner = torch.tensor([1.0, 2.0, 3.0, 10.0, 11.0, 12.0]), torch.tensor([0, 0, 0, 1, 1, 1])
    assert best(key, owner, 1).tolist() == [0, 3]
    assert key.argsort()[:2].tolist() == [0, 1]
