"""The one function that prints: texts, labels and names come from strangers, and a terminal obeys what it is sent.

Escape sequences can retitle a window, hide lines or paste commands; direction controls show a text other than the one
that is there. Such characters are printed as escapes, \\u001b, which JSON reads back as the same text.
"""

from __future__ import annotations

import unicodedata
from typing import Any

import typer

from augkd.workspace.files import json_text

# control, surrogate, private (icons of a terminal's font are no text), line and paragraph separators
_CATEGORIES = {"Cc", "Cs", "Co", "Zl", "Zp"}
# Format characters (Cf) are direction controls, tags and the like; but joiners belong to emoji and to Indic and Arabic
# words, and a soft hyphen and a byte order mark only take no space.
_HARMLESS = {"\u00ad", "\u200c", "\u200d", "\ufeff"}


def say(line: str, *, err: bool = False) -> None:
    """Prints one line on stdout, or stderr, in which nothing controls the terminal; a line break in it is escaped."""
    typer.echo(neutral(line), err=err)


def say_json(value: Any) -> None:
    """Prints a value as JSON."""
    typer.echo("\n".join(map(neutral, json_text(value).split("\n"))))


def neutral(line: str) -> str:
    """`line` with every character that could control a terminal as an escape, like \\u001b."""
    if line.isascii() and line.isprintable():
        return line
    return "".join(_escaped(character) if _controls(character) else character for character in line)


def _controls(character: str) -> bool:
    if character == "\t" or character in _HARMLESS:
        return False
    category = unicodedata.category(character)
    return category in _CATEGORIES or category == "Cf"


def _escaped(character: str) -> str:
    """As JSON escapes it: one beyond the first plane as a pair of surrogates."""
    if ord(character) < 0x10000:
        return f"\\u{ord(character):04x}"
    high, low = divmod(ord(character) - 0x10000, 0x400)
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"
