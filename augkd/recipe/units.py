"""Sizes and durations as people write them, parsed and formatted: 256GiB, 1.5 GB, 900 MB; 30m, 1.5h, 2h30m, 90 s."""

from __future__ import annotations

import re

from augkd.errors import RecipeError, short_repr

_BYTES = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_BYTES |= {f"{name}i": 2 ** (10 * power) for power, name in enumerate(("K", "M", "G", "T"), 1)}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?(?:[eE]\d+)?)\s*([KMGT]?i?)B?\s*", re.IGNORECASE)
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_MOST_BYTES, _MOST_SECONDS = 2**60, 10_000 * 86400.0  # beyond any machine, and any training
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd])", re.IGNORECASE)


def parse_bytes(value: str | int, what: str = "a size") -> int:
    """`value` in bytes, from a number or text like 2GiB or 1.5 GB; raises RecipeError naming `what`."""
    match = _SIZE.fullmatch(str(value))
    unit = match.group(2).capitalize() if match else "?"
    if match is None or unit not in _BYTES or float(match.group(1)) <= 0:
        raise RecipeError(f"{what} is {short_repr(value)}; write it like 2GiB or 500 MB")
    size = float(match.group(1)) * _BYTES[unit]
    if not 1 <= size <= _MOST_BYTES:
        raise RecipeError(f"{what} is {short_repr(value)}; give 1 byte to {format_bytes(_MOST_BYTES)}")
    return int(size)


def format_bytes(size: float) -> str:
    """`size` bytes as text with three significant figures: 1.46 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if size < 1024 or unit == "TiB":
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.3g} {unit}"


def parse_seconds(value: str | float, what: str = "a time") -> float:
    """`value` in seconds, from a number or text like 30m, 1.5h or 2h30m; raises RecipeError naming `what`."""
    text = f"{value}s" if re.fullmatch(r"\d+(\.\d+)?", str(value)) else str(value).strip()
    parts = _PART.findall(text)
    seconds = sum(float(number) * _SECONDS[unit.lower()] for number, unit in parts)
    if _PART.sub("", text).strip() or seconds <= 0:
        raise RecipeError(f"{what} is {short_repr(value)}; write it like 90s, 30m or 2h30m")
    if seconds > _MOST_SECONDS:
        raise RecipeError(f"{what} is {short_repr(value)}; give {format_seconds(_MOST_SECONDS)} at most")
    return seconds


def format_seconds(seconds: float) -> str:
    """`seconds` as text with at most two units: 45 s, 3 min 20 s, 2 h 05 min, 1 d 4 h."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 else "")
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"
