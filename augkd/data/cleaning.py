"""What is done to one text: cleaned, folded for comparison, cut into sentences.

Invisible characters go: they change neither look nor meaning, but two texts that differ in one are not equal, and most
tokenizers drop them anyway. The joiners U+200C and U+200D stay, since Persian, Indic scripts and emoji need them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
# soft hyphen, zero-width space, marks, embeddings, overrides and isolates of direction, word joiner, byte order mark
_INVISIBLE = re.compile("[\u00ad\u061c\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_WIDE_SPACE = re.compile(r"[^\S\x00-\x7f]")
_LANGUAGE = re.compile("[a-z]{2,3}(-[A-Za-z]{2,8})?")
_WINDOW = 16_384  # characters segmented at a time; sentencex needs 1.5 ms for them, and more than linear time for more


def clean(text: str) -> str:
    """NFC without invisible characters; controls (also NUL) become spaces, white space single spaces; stripped."""
    if text.isprintable() and "  " not in text and unicodedata.is_normalized("NFC", text):
        return text.strip()  # most texts, at a fifth of the cost: of white space and controls only U+0020 is printable
    if not text.isascii():
        text = unicodedata.normalize("NFC", _INVISIBLE.sub("", repaired(text)))
    return " ".join(_CONTROL.sub(" ", text).split())


def normalised(text: str) -> str:
    """What makes two texts the same: letters and digits alone (NFKC, case folded); '' for a text that has none."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return "".join(filter(str.isalnum, folded))


def damaged(text: str) -> bool:
    """Whether `text` has surrogates: bytes that were not UTF-8 (`surrogateescape`), or halves from JSON escapes."""
    return not text.isascii() and _SURROGATE.search(text) is not None


def repaired(text: str) -> str:
    """Surrogates as U+FFFD; with them no tokenizer and no Parquet writer takes the text."""
    return _SURROGATE.sub("\ufffd", text)


def is_language(code: str) -> bool:
    """Whether `code` looks like a language code; sentencex splits a language it does not know by its nearest rules."""
    return _LANGUAGE.fullmatch(code) is not None


def sentences(text: str, language: str, window: int = _WINDOW) -> Iterator[str]:
    """The sentences of a document, as they stand in it, blank ones left out.

    At most `window` characters are segmented at a time, and the next piece begins with the last sentence of this one,
    so that no sentence is cut, however long it is.
    """
    from sentencex import segment

    text = _WIDE_SPACE.sub(_narrow, repaired(text))
    start = 0  # of the sentence
    at = 0  # of the window: after `start` while no end of the sentence is in sight
    while at < len(text):
        found: list[str] = segment(language, text[at : at + window])
        if at + window >= len(text):
            found[0] = text[start : at + len(found[0])]
            yield from filter(str.strip, found)
            return
        if len(found) == 1:
            at += window - window // 8  # an end that the border of the window hid is seen the next time
            continue
        found[0] = text[start : at + len(found[0])]
        yield from filter(str.strip, found[:-1])
        start += sum(map(len, found[:-1]))
        at = start


def _narrow(space: re.Match[str]) -> str:
    """sentencex 1.0 panics at white space of several bytes (U+00A0 after an initial is enough)."""
    return "\n" if space[0] in "\x85\u2028\u2029" else " "
