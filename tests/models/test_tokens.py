"""Rows of tokens survive being taken, joined and padded; groups hold each row once and can be undone."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
import torch

from augkd.models.tokens import RowGroups, Tokens


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
    rng = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, longest + 1, (rows,), generator=rng).tolist()
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


def test_the_positions_of_rows_are_those_of_their_tokens() -> None:
    rows = torch.tensor([4, 1, 3, 0])
    assert TOKENS.ids[TOKENS.positions(rows)].tolist() == [11, 12, 13, 14, 8, 5, 6, 7]


# ---- row groups ----


@pytest.mark.parametrize("token_budget", [1, 30, 64, 200, 10_000])
def test_groups_hold_each_row_once_and_keep_to_the_token_budget(token_budget: int) -> None:
    tokens = random_tokens(0)
    groups = RowGroups.of(tokens, token_budget)
    assert sorted(torch.cat(groups.groups).tolist()) == list(range(len(tokens)))
    for group in groups:
        assert len(group) == 1 or len(group) * int(tokens.widths[group].max()) <= token_budget
    # as full as they can be, in whole sixteens: the next row, or the next sixteen, never fitted
    for group, following in itertools.pairwise(groups):
        assert len(group) <= 16 or len(group) % 16 == 0
        more = 1 if len(group) < 16 else 16
        if len(following) >= more:
            assert (len(group) + more) * int(tokens.widths[following[more - 1]]) > token_budget


def test_groups_hold_rows_of_similar_length_so_that_little_is_padding() -> None:
    tokens = random_tokens(0, rows=200)
    lengths = [sorted(tokens.lengths[group].tolist()) for group in RowGroups.of(tokens, 256)]
    assert all(a[-1] <= b[0] for a, b in itertools.pairwise(lengths))
    padded = sum(len(group) * group[-1] for group in lengths)
    unsorted = sum(8 * int(tokens.lengths[i : i + 8].max()) for i in range(0, 200, 8))
    assert padded < 1.1 * int(tokens.lengths.sum()) < unsorted


@pytest.mark.parametrize("token_budget", [1, 64, 10_000])
def test_rows_of_groups_that_are_not_mixed_are_padded_as_on_their_own(token_budget: int) -> None:
    tokens = random_tokens(0, rows=200)
    groups = RowGroups.of(tokens, token_budget, mixed=False)
    assert sorted(torch.cat(groups.groups).tolist()) == list(range(200))
    assert all(tokens.widths[group].unique().numel() == 1 for group in groups)
    assert all(len(group) == 1 or len(group) * int(tokens.widths[group[0]]) <= token_budget for group in groups)
    mixed = [tokens.widths[group].unique().numel() for group in RowGroups.of(tokens, 10_000)]
    assert max(mixed) > 1


@pytest.mark.parametrize(("limit", "widths"), [(0, [1, 3, 4, 5, 9]), (64, [4, 4, 4, 8, 12]), (10, [4, 4, 4, 8, 10])])
def test_rows_are_padded_to_multiples_of_four_within_the_limit(limit: int, widths: list[int]) -> None:
    tokens = Tokens.of([[7] * length for length in (1, 3, 4, 5, 9)], limit=limit)
    assert tokens.widths.tolist() == widths
    assert tokens.padded(0)["input_ids"].shape == (5, widths[-1])
    taken = tokens.take(torch.tensor([3, 1]))
    assert (taken.limit, taken.join(Tokens.of([])).limit) == (limit, 0)
    inputs = taken.padded(0)
    assert inputs["attention_mask"].sum(dim=1).tolist() == [5, 3]
    assert torch.equal(inputs["attention_mask"].bool(), tokens.mask(torch.tensor([3, 1])))
    assert inputs["input_ids"].sum(dim=1).tolist() == [35, 21]


def test_a_training_s_batches_have_few_shapes() -> None:
    rng = np.random.default_rng(0)
    shapes: Counter[tuple[int, int]] = Counter()
    for _ in range(200):  # steps of 32 texts with 4 candidates each
        tokens = Tokens.of([[1] * int(length) for length in rng.gamma(4, 3, 160).clip(3, 60)], limit=128)
        shapes.update((len(rows), tokens.mask(rows).shape[1]) for rows in RowGroups.of(tokens, 1024))
    assert sum(shapes.values()) > 500
    assert len(shapes) < 60


def test_restored_pieces_are_in_row_order() -> None:
    tokens = random_tokens(0)
    groups = RowGroups.of(tokens, 64)
    pieces = [torch.stack([group, tokens.lengths[group]], dim=1) for group in groups]
    restored = groups.restore(pieces)
    assert restored[:, 0].tolist() == list(range(len(tokens)))
    assert torch.equal(restored[:, 1], tokens.lengths)
    assert torch.cat(pieces)[:, 0].tolist() != list(range(len(tokens)))  # as forwarded they are in another order


def test_no_rows_give_no_group() -> None:
    assert list(RowGroups.of(Tokens.of([]), 100)) == []
