"""Bytes as people write and read them: 256GiB, 1.5 GB, 900 MB."""

from __future__ import annotations

import re

from augkd.errors import RecipeError, shown

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_UNITS |= {f"{name}i": 2 ** (10 * power) for power, name in enumerate(("K", "M", "G", "T"), 1)}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?(?:[eE]\d+)?)\s*([KMGT]?i?)B?\s*", re.IGNORECASE)


def parse_bytes(value: str | int, what: str = "a size") -> int:
    """`value` in bytes: a number, or text like 2GiB or 1.5 GB. Raises RecipeError naming `what`."""
    match = _SIZE.fullmatch(str(value))
    unit = match.group(2).capitalize() if match else "?"
    if match is None or unit not in _UNITS or float(match.group(1)) <= 0:
        raise RecipeError(f"{what} is {shown(value)}; write it like 2GiB or 500 MB")
    return int(float(match.group(1)) * _UNITS[unit])


def show_bytes(size: float) -> str:
    """`size` in bytes as text with three figures: 1.46 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if size < 1024 or unit == "TiB":
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.3g} {unit}"
