"""Times as people write and read them: 30m, 1.5h, 2h30m, 90 s."""

from __future__ import annotations

import re

from augkd.errors import RecipeError, shown

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd])", re.IGNORECASE)


def parse_seconds(value: str | float, what: str = "a time") -> float:
    """`value` in seconds: a number of seconds, or text like 30m, 1.5h or 2h30m. Raises RecipeError naming `what`."""
    text = f"{value}s" if re.fullmatch(r"\d+(\.\d+)?", str(value)) else str(value).strip()
    parts = _PART.findall(text)
    seconds = sum(float(number) * _UNITS[unit.lower()] for number, unit in parts)
    if _PART.sub("", text).strip() or seconds <= 0:
        raise RecipeError(f"{what} is {shown(value)}; write it like 90s, 30m or 2h30m")
    return seconds


def show_seconds(seconds: float) -> str:
    """`seconds` as text with two figures at most: 45 s, 3 min 20 s, 2 h 05 min, 1 d 4 h."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 else "")
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"
