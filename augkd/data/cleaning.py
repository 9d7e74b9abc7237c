"""Operations on one text: cleaning, normalising for comparison, splitting into sentences.

Invisible characters are removed: they change neither look nor meaning, but two texts that differ in one are not equal,
and most tokenizers drop them anyway. The joiners U+200C and U+200D stay; Persian, Indic scripts and emoji need them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

NORMALISATION = 2  # raised whenever `normalised` changes: it decides what is in a transfer set

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
    """The key by which two texts count as equal: NFKC, casefolded, without white space and punctuation, perhaps ''.

    All else stays, above all vowel signs, accents, symbols and emoji with their modifiers: Tamil கலை (art) and காலை
    (morning) differ in one combining mark. So does punctuation that carries meaning: inside a number (1.5), as its
    minus, as an emoticon. Invisible characters go, as in Unicode's NFKC_Casefold, except joiners that make another
    letter (after a virama: Malayalam "he" and "to him" differ in nothing else) or another emoji.
    """
    if text.isascii():
        text = text.lower()
    else:
        text = unicodedata.normalize("NFKC", _SPACING_ACCENT.sub(" ", text))
        text = unicodedata.normalize("NFKC", text.casefold()).replace("i\u0307", "i")  # of the Turkish İ
        text = _JOINING.sub(_joining, text)
    if not _MAY_BE_MEANINGFUL.search(text):  # most texts, in half the time
        return text.translate(_WITHOUT_PUNCTUATION)
    parts = _MEANINGFUL.split(text)
    parts[::2] = [part.translate(_WITHOUT_PUNCTUATION) for part in parts[::2]]
    parts[1::2] = [_DASH.sub("-", part) for part in parts[1::2]]
    return "".join(parts)


def identity(text: str) -> str:
    """`normalised`, or the cleaned text where that is '': punctuation alone, like '?!', equals only itself."""
    return normalised(text) or " ".join(text.split())


_SPACING_ACCENT = re.compile("[\u00a8\u00af\u00b4\u00b8\u02d8-\u02dd\u0384\u1fbd\u1fbf\u1fc0\u1ffe]")  # used as quotes
_DASH = re.compile("[\u2010-\u2015\u2212]")
_MEANINGFUL = re.compile(
    r"((?<=\d)[.,:/'\u2019\u066b\u066c\u2010-\u2015-](?=\d)"  # 1.5, 1'000, 12:30, 1990-95
    r"|(?<!\w)[-\u2212](?=\d)"  # -5
    r"|[:;=]['-]?[()\[\]/\\|]+(?![\w/]))"  # :-) and :( , but not the :// of an address
)
_MAY_BE_MEANINGFUL = re.compile(r"[\d:;=]")
# a flag of England, Scotland or Wales is a black flag with invisible tags, which anywhere else mean nothing
_JOINING = re.compile("\U0001f3f4[\U000e0020-\U000e007f]+|[\U000e0020-\U000e007f]+|[\u200c\u200d]")
# Default_Ignorable_Code_Point of Unicode 16, but for what `_JOINING` judges
_IGNORABLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e001f\U000e0080-\U000e0fff]"
)
_VIRAMA = 9  # its canonical combining class


def _joining(found: re.Match[str]) -> str:
    """Tags and joiners where they make another emoji, joiners after a virama, where they make another letter."""
    before = found.string[max(found.start() - 1, 0) : found.start()]
    if found[0][0] == "\U0001f3f4" or (before and unicodedata.combining(before) == _VIRAMA):
        return found[0]
    of_emoji = before == "\ufe0f" or (before != "" and unicodedata.category(before) in ("So", "Sk", "Cn"))
    return found[0] if found[0] == "\u200d" and of_emoji else ""


class _WithoutPunctuation(dict[int, int | None]):
    """For `str.translate`: None for white space, punctuation and what is invisible; filled as characters are met."""

    def __missing__(self, code: int) -> int | None:
        char = chr(code)
        kind = unicodedata.category(char)
        gone = kind == "Cc" or kind[0] in "ZP" or char in "`~" or _IGNORABLE.match(char) is not None
        self[code] = None if gone and char not in _SYMBOLS else code
        return self[code]


_SYMBOLS = "#%&@\u2030\u00a7"  # to Unicode punctuation: C#, 50%, R&D
_WITHOUT_PUNCTUATION = _WithoutPunctuation()


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
