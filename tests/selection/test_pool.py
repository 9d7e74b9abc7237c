"""Ragged rows survive being taken, joined, padded and batched."""

from __future__ import annotations

import itertools

import pytest
import torch

from augkd.models.tokens import Tokens
from augkd.selection.pool import Pool


def rows_of(tokens: Tokens) -> list[list[int]]:
    bounds = tokens.offsets.tolist()
    return [tokens.ids[a:b].tolist() for a, b in itertools.pairwise(bounds)]


def types_of(tokens: Tokens) -> list[list[int]]:
    bounds = tokens.offsets.tolist()
    return [tokens.types[a:b].tolist() for a, b in itertools.pairwise(bounds)]


ROWS = [[5, 6, 7], [8], [9, 10], [], [11, 12, 13, 14]]
TYPES = [[0, 0, 1], [0], [0, 1], [], [0, 0, 1, 1]]
TOKENS = Tokens.of(ROWS, TYPES)


def random_tokens(seed: int, rows: int = 50, longest: int = 30) -> Tokens:
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, longest + 1, (rows,), generator=draw).tolist()
    return Tokens.of([[row * 100 + place for place in range(length)] for row, length in enumerate(lengths)])


def test_tokens_keep_their_rows_and_types() -> None:
    assert rows_of(TOKENS) == ROWS
    assert types_of(TOKENS) == TYPES
    assert TOKENS.lengths.tolist() == [3, 1, 2, 0, 4]
    assert len(TOKENS) == 5
    assert Tokens.of(ROWS).types.tolist() == [0] * 10


@pytest.mark.parametrize("wanted", [[0, 1, 2, 3, 4], [4, 0], [2, 2, 3, 2], [], [3]])
def test_take_gives_the_wanted_rows_in_the_wanted_order(wanted: list[int]) -> None:
    taken = TOKENS.take(torch.tensor(wanted, dtype=torch.long))
    assert rows_of(taken) == [ROWS[row] for row in wanted]
    assert types_of(taken) == [TYPES[row] for row in wanted]


def test_join_puts_rows_one_after_the_other() -> None:
    other = Tokens.of([[1, 2], [3]], [[0, 1], [1]])
    joined = TOKENS.join(other)
    assert rows_of(joined) == [*ROWS, [1, 2], [3]]
    assert types_of(joined) == [*TYPES, [0, 1], [1]]
    assert rows_of(Tokens.of([]).join(other)) == rows_of(other.join(Tokens.of([]))) == [[1, 2], [3]]


def test_taking_from_a_join_is_taking_from_its_parts() -> None:
    one, two = random_tokens(1), random_tokens(2)
    picked = torch.tensor([3, 70, 49, 50])
    assert rows_of(one.join(two).take(picked)) == [
        rows_of(one)[3],
        rows_of(two)[20],
        rows_of(one)[49],
        rows_of(two)[0],
    ]


def test_padded_fills_to_the_longest_row_and_masks_what_it_filled() -> None:
    padded = Tokens.of([[5, 6, 7], [8]], [[0, 1, 1], [0]]).padded(pad_id=99)
    assert padded["input_ids"].tolist() == [[5, 6, 7], [8, 99, 99]]
    assert padded["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert padded["token_type_ids"].tolist() == [[0, 1, 1], [0, 0, 0]]


@pytest.mark.parametrize("budget", [1, 30, 64, 200, 10_000])
def test_batches_hold_each_row_once_and_honour_the_budget(budget: int) -> None:
    tokens = random_tokens(0)
    groups = list(tokens.batches(budget))
    assert sorted(torch.cat(groups).tolist()) == list(range(len(tokens)))
    for group in groups:
        assert len(group) == 1 or len(group) * int(tokens.lengths[group].max()) <= budget
    # as full as they can be: the next row never fitted
    for group, following in itertools.pairwise(groups):
        assert (len(group) + 1) * int(tokens.lengths[following[0]]) > budget


def test_batches_hold_rows_of_similar_length_so_that_little_is_padding() -> None:
    tokens = random_tokens(0, rows=200)
    groups = list(tokens.batches(256))
    lengths = [sorted(tokens.lengths[group].tolist()) for group in groups]
    assert all(a[-1] <= b[0] for a, b in itertools.pairwise(lengths))
    padded = sum(len(group) * group[-1] for group in lengths)
    unsorted = sum(8 * int(tokens.lengths[i : i + 8].max()) for i in range(0, 200, 8))
    assert padded < 1.1 * int(tokens.lengths.sum()) < unsorted


@pytest.mark.parametrize("budget", [1, 64, 10_000])
def test_batches_that_are_not_mixed_need_no_padding(budget: int) -> None:
    tokens = random_tokens(0, rows=200)
    groups = list(tokens.batches(budget, mixed=False))
    assert sorted(torch.cat(groups).tolist()) == list(range(200))
    assert all(tokens.lengths[group].unique().numel() == 1 for group in groups)
    assert all(len(group) == 1 or len(group) * int(tokens.lengths[group[0]]) <= budget for group in groups)
    mixed = [tokens.lengths[group].unique().numel() for group in tokens.batches(10_000)]
    assert max(mixed) > 1


def test_no_rows_give_no_batch() -> None:
    assert list(Tokens.of([]).batches(100)) == []


def pool(owner: list[int], base: int) -> Pool:
    number = torch.arange(len(owner)) + base
    tokens = Tokens.of([[int(n)] for n in number])
    return Pool(tokens, torch.tensor(owner), number / 100, number[:, None].float(), number)


def test_joined_pools_keep_owners_ascending_and_the_first_pool_s_candidates_first() -> None:
    joined = pool([0, 0, 2], 10).join(pool([0, 1, 2, 2], 20))
    assert joined.owner.tolist() == [0, 0, 0, 1, 2, 2, 2]
    assert joined.row.tolist() == [10, 11, 20, 21, 12, 22, 23]


def test_a_candidate_s_columns_stay_together_through_join_and_take() -> None:
    taken = pool([0, 0, 2], 10).join(pool([0, 1, 2, 2], 20)).take(torch.tensor([6, 0, 3]))
    assert len(taken) == 3
    assert taken.owner.tolist() == [2, 0, 1]
    assert rows_of(taken.tokens) == [[23], [10], [21]]
    assert taken.score.tolist() == pytest.approx([0.23, 0.10, 0.21])
    assert taken.teacher.flatten().tolist() == taken.row.tolist() == [23, 10, 21]
