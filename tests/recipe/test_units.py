"""Sizes are read as people write them and shown with three figures."""

from __future__ import annotations

import pytest

from augkd.errors import RecipeError
from augkd.recipe.units import format_bytes, parse_bytes


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (7, 7),
        ("7", 7),
        ("1KiB", 1024),
        ("2 GiB", 2**31),
        ("1.5GB", 1_500_000_000),
        ("5e2 mb", 500_000_000),
        ("3T", 3 * 10**12),
    ],
)
def test_a_size_is_read_in_powers_of_1000_or_1024(text: str | int, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "-1GiB", "0", "2 GiB!", "2XB", "2iB"])
def test_what_is_no_size_is_refused_by_name(text: str) -> None:
    with pytest.raises(RecipeError, match=r"faiss\.memory is .*write it like 2GiB"):
        parse_bytes(text, "faiss.memory")


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (1536 * 1024, "1.5 MiB"), (2**50, "1.02e+03 TiB")]
)
def test_a_size_is_shown_with_three_figures(size: int, text: str) -> None:
    assert format_bytes(size) == text
