"""Sizes are parsed as people write them and formatted with three significant figures."""

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
def test_a_size_is_parsed_in_powers_of_1000_or_1024(text: str | int, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "-1GiB", "0", "2 GiB!", "2XB", "2iB"])
def test_an_invalid_size_is_refused_with_its_key(text: str) -> None:
    with pytest.raises(RecipeError, match=r"faiss\.memory is .*write it like 2GiB"):
        parse_bytes(text, "faiss.memory")


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (1536 * 1024, "1.5 MiB"), (2**50, "1.02e+03 TiB")]
)
def test_a_size_is_formatted_with_three_significant_figures(size: int, text: str) -> None:
    assert format_bytes(size) == text
