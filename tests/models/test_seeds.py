"""What is drawn for a row depends on the row alone: not on the batch, its order, or what others draw."""

from __future__ import annotations

import torch

from augkd.models.seeds import RowRandom, rng_of


def test_a_row_draws_the_same_numbers_in_every_batch() -> None:
    whole = RowRandom((3, 1), [40, 7, 22]).uniform(torch.tensor([0, 0, 1, 2, 2, 2]))
    assert torch.equal(RowRandom((3, 1), [7]).uniform(torch.zeros(1, dtype=torch.long)), whole[2:3])
    other = RowRandom((3, 1), [22, 40]).uniform(torch.tensor([0, 0, 0, 1, 1]))
    assert torch.equal(other, torch.cat([whole[3:], whole[:2]]))


def test_numbers_go_to_their_rows_in_whatever_order_the_rows_stand() -> None:
    sorted_ = RowRandom((0,), [5, 6]).uniform(torch.tensor([0, 0, 1, 1]), 3)
    mixed = RowRandom((0,), [5, 6]).uniform(torch.tensor([1, 0, 1, 0]), 3)
    assert mixed.shape == (4, 3)
    assert torch.equal(mixed, sorted_[[2, 0, 3, 1]])


def test_a_stream_goes_on_and_differs_by_row_and_by_number() -> None:
    one = torch.zeros(4, dtype=torch.long)
    stream = RowRandom((1, 2), [9])
    drawn = [stream.uniform(one), stream.uniform(one), RowRandom((1, 2), [8]).uniform(one)]
    drawn.append(RowRandom((1, 3), [9]).uniform(one))
    assert len({tuple(numbers.tolist()) for numbers in drawn}) == 4
    assert torch.equal(torch.cat(drawn[:2]), RowRandom((1, 2), [9]).uniform(torch.zeros(8, dtype=torch.long)))


def test_numbers_are_uniform_over_rows_and_within_one() -> None:
    across = RowRandom((0,), range(4000)).uniform(torch.arange(4000))
    within = RowRandom((0,), [1]).uniform(torch.zeros(4000, dtype=torch.long))
    for numbers in (across, within):
        assert numbers.dtype == torch.float32
        assert float(numbers.min()) >= 0
        assert float(numbers.max()) < 1
        counts = torch.histc(numbers, 8, 0, 1)
        assert (counts - 500).abs().max() < 105  # 5 standard deviations of a binomial (4000, 1/8)


def test_no_rows_draw_nothing() -> None:
    assert RowRandom((0,), []).uniform(torch.zeros(0, dtype=torch.long)).shape == (0,)


def test_numbers_decide_a_generator_and_their_order_counts() -> None:
    drawn = {float(torch.rand((), generator=rng_of(*numbers))) for numbers in ((1, 2), (2, 1), (1, 2), (1,))}
    assert len(drawn) == 3
