"""What a recipe gets without options, and the permutation of DKPP, number by number in plain Python."""

from __future__ import annotations

import struct
from typing import Any

import pytest
import torch

from augkd.distill.objective.losses import LOSSES, permuted
from augkd.selection.divergence import binary_kl, divergence, kl

STUDENT = torch.tensor([[1.0, 0.0, -1.0], [0.5, 0.5, 0.0]])
TEACHER = torch.tensor([[2.0, -1.0, 0.0], [0.0, 1.0, 1.0]])
LABELS = torch.tensor([0, 2])
DEFAULTS: dict[str, dict[str, Any]] = {  # of the papers and of docs/recipes.md
    "kd": {"temperature": 2.0},
    "reverse_kd": {"temperature": 2.0},
    "dkpp": {"temperature": 1.0},
    "label_smoothing": {"smoothing": 0.1},
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_a_loss_without_options_has_the_documented_ones(name: str) -> None:
    (option,) = DEFAULTS[name]
    rows = LOSSES[name](STUDENT, TEACHER, LABELS, 0.5)
    assert torch.equal(rows, LOSSES[name](STUDENT, TEACHER, LABELS, 0.5, **DEFAULTS[name]))
    other = {option: DEFAULTS[name][option] / 2}
    assert not torch.allclose(rows, LOSSES[name](STUDENT, TEACHER, LABELS, 0.5, **other), atol=1e-3)


def test_divergences_are_unsoftened_unless_a_temperature_is_given() -> None:
    for measure in (kl, binary_kl, divergence):
        assert torch.equal(measure(STUDENT, TEACHER), measure(STUDENT, TEACHER, 1.0))
        assert not torch.allclose(measure(STUDENT, TEACHER), measure(STUDENT, TEACHER, 2.0), atol=1e-3)


def test_classes_against_numbers_and_a_number_against_classes_are_our_own_bugs() -> None:
    with pytest.raises(AssertionError):
        LOSSES["ce"](STUDENT, TEACHER, torch.tensor([0.5, 1.0]), 0.0)
    with pytest.raises(AssertionError):
        LOSSES["ce"](STUDENT[:, :1], TEACHER[:, :1], LABELS, 0.0)


def mixed(number: int) -> int:
    """The 32-bit hash, without tensors."""
    number &= 0xFFFFFFFF
    for _ in range(2):
        number = ((number ^ (number >> 16)) * 0x45D9F3B) & 0xFFFFFFFF
    return number ^ (number >> 16)


def permuted_by_hand(row: list[float]) -> list[float]:
    bits = [struct.unpack("<i", struct.pack("<f", value))[0] for value in row]
    count = len(row)
    of_row = sum(mixed(bit ^ mixed(place + 1)) for place, bit in enumerate(bits))
    top = row.index(max(row))
    others = [place for place in range(count) if place != top]
    drawn = sorted(others, key=lambda place: mixed(of_row ^ mixed(place + 1 + count)))
    result = list(row)
    for place, source in zip(others, drawn, strict=True):
        result[place] = row[source]
    return result


def test_the_permutation_is_the_order_of_the_hashes() -> None:
    draw = torch.Generator().manual_seed(0)
    rows = torch.randn(200, 7, generator=draw)
    expected = torch.tensor([permuted_by_hand(row) for row in rows.tolist()])
    assert torch.equal(permuted(rows), expected)
    assert (expected != rows).any(dim=1).float().mean() > 0.99
