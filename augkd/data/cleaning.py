"""Operations on one text: cleaning, normalising for comparison, splitting into sentences.

Invisible characters are removed: they change neither look nor meaning, but two texts that differ in one are not equal,
and most tokenizers drop them anyway. The joiners U+200C and U+200D stay; Persian, Indic scripts and emoji need them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
# soft hyphen, zero-width space, directional marks, embeddings, overrides and isolates, word joiner, byte order mark
_INVISIBLE = re.compile("[\u00ad\u061c\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_WIDE_SPACE = re.compile(r"[^\S\x00-\x7f]")
_LANGUAGE = re.compile("[a-z]{2,3}(-[A-Za-z]{2,8})?")
_WINDOW = 16_384  # characters segmented at once: 1.5 ms in sentencex, whose time grows faster than linearly


def clean(text: str) -> str:
    """`text` in NFC, without invisible characters, control characters and white space as single spaces, stripped."""
    if text.isprintable() and "  " not in text and unicodedata.is_normalized("NFC", text):
        return text.strip()  # most texts, at a fifth of the cost: U+0020 is the only printable white space
    if not text.isascii():
        text = unicodedata.normalize("NFC", _INVISIBLE.sub("", repaired(text)))
    return " ".join(_CONTROL.sub(" ", text).split())


def normalised(text: str) -> str:
    """The key by which two texts count as equal: letters and digits (NFKC, casefolded); '' where there are none."""
    casefolded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return "".join(filter(str.isalnum, casefolded))


def damaged(text: str) -> bool:
    """Whether `text` has surrogates: bytes that were not UTF-8 (`surrogateescape`), or halves from JSON escapes."""
    return not text.isascii() and _SURROGATE.search(text) is not None


def repaired(text: str) -> str:
    """`text` with surrogates replaced by U+FFFD; no tokenizer and no Parquet writer accepts them."""
    return _SURROGATE.sub("\ufffd", text)


def is_language(code: str) -> bool:
    """Whether `code` looks like a language code; sentencex splits an unknown language by the nearest one's rules."""
    return _LANGUAGE.fullmatch(code) is not None


def sentences(text: str, language: str, window: int = _WINDOW) -> Iterator[str]:
    """The sentences of a document, unchanged; blank ones are left out.

    At most `window` characters are segmented at once, and the next window begins with the last sentence of this one, so
    that no sentence is cut, however long it is.
    """
    from sentencex import segment

    text = _WIDE_SPACE.sub(_ascii_space, repaired(text))
    start = 0  # of the sentence
    at = 0  # of the window; beyond `start` until the end of the sentence is found
    while at < len(text):
        pieces: list[str] = segment(language, text[at : at + window])
        if at + window >= len(text):
            pieces[0] = text[start : at + len(pieces[0])]
            yield from filter(str.strip, pieces)
            return
        if len(pieces) == 1:
            at += window - window // 8  # overlap: the border of the window may have hidden an end
            continue
        pieces[0] = text[start : at + len(pieces[0])]
        yield from filter(str.strip, pieces[:-1])
        start += sum(map(len, pieces[:-1]))
        at = start


def _ascii_space(space: re.Match[str]) -> str:
    """sentencex 1.0 panics at white space of several bytes; U+00A0 after an initial is enough."""
    return "\n" if space[0] in "\x85\u2028\u2029" else " "
