"""Pools keep a candidate's columns together and its owner ascending through join and take."""

from __future__ import annotations

import pytest
import torch

from augkd.models.tokens import Tokens
from augkd.selection.pool import Pool


def pool(owner: list[int], first: int) -> Pool:
    numbers = torch.arange(len(owner)) + first  # each candidate's number is in all its columns
    tokens = Tokens.of([[number] for number in numbers.tolist()])
    return Pool(tokens, torch.tensor(owner), numbers / 100, numbers[:, None].float(), numbers)


def test_joined_pools_keep_owners_ascending_and_the_first_pool_s_candidates_first() -> None:
    joined = pool([0, 0, 2], 10).join(pool([0, 1, 2, 2], 20))
    assert joined.owner.tolist() == [0, 0, 0, 1, 2, 2, 2]
    assert joined.row.tolist() == [10, 11, 20, 21, 12, 22, 23]


def test_a_candidate_s_columns_stay_together_through_join_and_take() -> None:
    taken = pool([0, 0, 2], 10).join(pool([0, 1, 2, 2], 20)).take(torch.tensor([6, 0, 3]))
    assert len(taken) == 3
    assert taken.owner.tolist() == [2, 0, 1]
    assert taken.tokens.ids.tolist() == [23, 10, 21]
    assert taken.score.tolist() == pytest.approx([0.23, 0.10, 0.21])
    assert taken.teacher.flatten().tolist() == taken.row.tolist() == [23, 10, 21]
