"""How a file's bytes become rows where its name does not say: character encoding, delimiter, sheet of a workbook.

What a file shows beyond doubt is taken (a byte order mark, a delimiter that fits every row); the rest is UTF-8 and
commas. What it leaves open is for the user to say, in the options that `Reading` holds.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass

from augkd.errors import DataError, RecipeError, did_you_mean, short_repr

_AROUND = "\"'«»“”()[]{}.,;:!?"  # of a word
_SAMPLE_WORD = 24  # characters of an example in a message
# What text files are written in; charset-normalizer also knows DOS and Macintosh code pages, and guesses them too often
_COMMON = (
    *(
        "utf_8",
        "utf_16_le",
        "utf_16_be",
        "cp1252",
        "cp1250",
        "cp1251",
        "cp1253",
        "cp1254",
        "cp1255",
        "cp1256",
        "cp1257",
    ),
    *("cp1258", "cp874", "cp932", "euc_jp", "cp949", "gb18030", "big5", "koi8_r"),
)
# of charset-normalizer's `chaos`: guesses that are so close, with half the coherence at least, cannot be distinguished
_AS_CLEAR = 0.05
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16: it begins with the same two bytes
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@dataclass(frozen=True)
class Reading:
    """What the user says about a file; None where the file is to show it."""

    encoding: str | None = None
    delimiter: str | None = None
    sheet: str | None = None  # of a workbook; None: the only one that is not empty

    def __post_init__(self) -> None:
        if self.encoding is not None:
            try:
                "".encode(self.encoding)
            except (LookupError, ValueError, UnicodeError) as exc:
                suggestion = did_you_mean(self.encoding, ("utf-8", "utf-16", "cp1252", "cp1250", "cp1251", "shift_jis"))
                raise RecipeError(f"encoding {short_repr(self.encoding)} is not known{suggestion}") from exc
        if self.delimiter is not None and (len(self.delimiter) != 1 or self.delimiter in '"\r\n'):
            raise RecipeError(f"delimiter is {short_repr(self.delimiter)}; give one character, such as ';' or '\\t'")


AS_IT_IS = Reading()


def encoding_of(head: bytes, given: str | None = None) -> str:
    """The encoding of a file that begins with `head`: as given, by byte order mark, UTF-16 by its NULs, or UTF-8."""
    if given is not None:
        return "utf-8-sig" if codecs.lookup(given).name == "utf-8" else given
    for mark, name in _BOMS:
        if head.startswith(mark):
            return name
    pairs = len(head) // 2
    even, odd = head[: 2 * pairs : 2].count(0), head[1 : 2 * pairs : 2].count(0)
    if odd > 0.2 * pairs and even <= 0.01 * pairs:  # Latin letters; a text in UTF-8 has no NUL at all
        return "utf-16-le"
    if even > 0.2 * pairs and odd <= 0.01 * pairs:
        return "utf-16-be"
    return "utf-8-sig"


def guess_encodings(sample: bytes) -> list[tuple[str, str]]:
    """Encodings that `sample` may be in, the likeliest first, each with a word as it reads it.

    Raises DataError without charset-normalizer.
    """
    try:
        from charset_normalizer import from_bytes
    except ModuleNotFoundError:
        raise DataError("to guess an encoding, augkd needs charset-normalizer; pip install 'augkd[files]'") from None

    if _has_utf8(sample):
        return []
    matches = list(from_bytes(sample, cp_isolation=list(_COMMON)))
    most = max((match.coherence for match in matches), default=0.0)
    plausible = [
        match for match in matches if match.chaos <= matches[0].chaos + _AS_CLEAR and match.coherence >= most / 2
    ]
    found: dict[str, str] = {}  # text → encoding
    for match in plausible[:4]:
        name = "cp1252" if "cp1252" in match.could_be_from_charset else match.encoding
        found.setdefault(str(match), codecs.lookup(name).name)
    guesses = zip(found.values(), _examples(list(found)), strict=True)
    return sorted(guesses, key=lambda guess: guess[0] != "cp1252")  # by far the commonest of those that look alike


def _has_utf8(sample: bytes) -> bool:
    """Whether there are letters beyond ASCII in UTF-8: other bytes are then damage, and no other encoding."""
    text = sample.decode("utf-8", "surrogateescape")
    return any(char > "\x7f" and not "\udc80" <= char <= "\udcff" for char in text)


def _examples(texts: list[str]) -> list[str]:
    """A word of each text: the first that they read differently, of a single text the first beyond ASCII."""
    words = list(zip(*(text.split() for text in texts), strict=False))
    different = (row for row in words if len(set(row)) > 1)
    beyond_ascii = (row for row in words if not row[0].isascii())
    row = next(different, None) or next(beyond_ascii, ("",) * len(texts))
    return [word.strip(_AROUND)[:_SAMPLE_WORD] for word in row]
