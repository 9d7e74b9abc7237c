"""Two texts are equal when a reader of their language takes them for the same words; nothing with a meaning is lost."""

from __future__ import annotations

import unicodedata

import pytest

from augkd.data.cleaning import identity, normalised

JOINER, VIRAMA = "\u200d", "\u0d4d"

DIFFERENT = [
    ("Tamil: art, morning", "இது கலை", "இது காலை"),
    ("Hindi: tomorrow, art", "कल", "कला"),
    ("Bengali: head, honour", "মাথা", "মথা"),
    ("Malayalam: to him, he", f"അവന{VIRAMA}", f"അവന{VIRAMA}{JOINER}"),
    ("Thai: old, nine", "เก่า", "เก้า"),
    ("Thai: come, horse", "มา", "ม้า"),
    ("Arabic: he wrote, it was written", "كَتَبَ", "كُتِبَ"),
    ("Hebrew: book, barber", "סֵפֶר", "סַפָּר"),
    ("Japanese: mother, bar", "はは", "ばば"),
    ("Chinese: buy, sell", "买", "卖"),
    ("Vietnamese: ghost, cheek", "ma", "má"),
    ("skin tones", "good 👍🏽", "good 👍🏿"),
    ("with and without a skin tone", "good 👍", "good 👍🏿"),
    ("woman technologist; woman, computer", f"👩{JOINER}💻", "👩💻"),
    ("flags of countries", "🇩🇪", "🇫🇷"),
    ("flags with tags", "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f", "🏴"),
    ("two faces", "great 😀", "great 😢"),
    ("keycaps", "1\ufe0f\u20e3", "1"),
    ("emoticons", "great :)", "great :("),
    ("currencies", "it costs €5", "it costs $5"),
    ("languages", "C++ is old", "C# is old"),
    ("decimals", "it weighs 1.5 kg", "it weighs 15 kg"),
    ("signs", "it is -5 outside", "it is 5 outside"),
    ("shares", "50 %", "50"),
    ("a mark that no letter composes with", "x\u030c", "x"),
]
EQUAL = [
    ("case, spacing and punctuation", "What's  the NAME?", "what 's the name"),
    ("quotation marks", "``so it goes´´", '"So it goes"'),
    ("composed and decomposed", "Café", "cafe\u0301"),
    ("sharp s", "Straße", "STRASSE"),
    ("Turkish dotted capital", "İstanbul", "istanbul"),
    ("final sigma", "ΟΔΟΣ", "οδος"),
    ("full width", "ＡＢＣ１２３", "abc123"),
    ("half-width kana with a voiced mark", "ｶﾞ", "ガ"),
    ("ligature", "ﬁne", "fine"),
    ("Persian prefix, however it is joined", "می\u200cخواهم", "می خواهم"),
    ("text and emoji presentation", "❤\ufe0f", "❤"),
    ("soft hyphen and zero-width space", "co\u00adop\u200berate", "cooperate"),
    ("stray tags", "hello\U000e0067\U000e007f", "hello"),
    ("dashes between numbers", "1990–95", "1990-95"),
    ("Arabic marks in another order", "\u0628\u0651\u064e", "\u0628\u064e\u0651"),
    ("an address", "See http://a.example", "see HTTP://A.example"),
]


@pytest.mark.parametrize(("first", "second"), [pair for _, *pair in DIFFERENT], ids=[name for name, *_ in DIFFERENT])
def test_texts_of_different_meaning_are_not_equal(first: str, second: str) -> None:
    assert normalised(first) != normalised(second)


@pytest.mark.parametrize(("first", "second"), [pair for _, *pair in EQUAL], ids=[name for name, *_ in EQUAL])
def test_texts_that_read_the_same_are_equal(first: str, second: str) -> None:
    assert normalised(first) == normalised(second) != ""


def test_every_letter_mark_digit_and_symbol_counts() -> None:
    """Of what NFKC casefolding leaves unchanged, whatever is not white space, punctuation or invisible stays."""
    lost = []
    for code in range(0x110000):
        char = chr(code)
        kind = unicodedata.category(char)
        if kind[0] in "LMNS" and unicodedata.normalize("NFKC", char.casefold()) == char and normalised(char) != char:
            lost.append(code)
    quotes = {ord("`"), ord("~")}
    selectors = {*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0), *range(0x180B, 0x180E), 0x180F}
    invisible = {0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5}  # grapheme joiner, Hangul fillers, Khmer inherent vowels
    assert set(lost) <= quotes | selectors | invisible
    assert quotes <= set(lost)


def test_without_letters_a_text_equals_only_itself() -> None:
    assert normalised(" ?! ") == normalised("…") == ""
    assert identity(" ?! ") == "?!" != identity("…")
    assert identity("Yes!") == identity("yes")
    assert len({identity(chr(0x1F600 + number)) for number in range(24)}) == 24
