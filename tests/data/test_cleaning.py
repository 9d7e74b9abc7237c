"""Cleaning has a normal form, sentence splitting loses nothing at any length, near-duplicates follow their S-curve."""

from __future__ import annotations

import random
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from augkd.data import near_duplicates as minhash
from augkd.data.cleaning import clean, damaged, is_language, sentences
from augkd.data.dropped import Dropped, DroppedText, read_dropped
from augkd.data.near_duplicates import NearDuplicates, band_keys, bands, share_proposed
from augkd.errors import DataError

PARTS = [
    *("a", "B", "e\u0301", "é", "中", "ﬁ", "😀", "\u094d", " ", "  ", "\t", "\n", "\x00", "\x85", "\xa0", "\u2028"),
    *("\u200b", "\u200d", "\ufeff", "\xad", "\u202e", "\u2066", "\ud800", "\udcff", "\u3000", "\x7f", "\ue000"),
]


def naive(text: str) -> str:
    """The definition of `clean`, character by character."""
    gone = {"\xad", "\u061c", "\u200b", "\u200e", "\u200f", "\u2060", "\ufeff", *map(chr, range(0x202A, 0x202F))}
    gone |= set(map(chr, range(0x2066, 0x206A)))
    shown = "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in text if c not in gone)
    spaced = (" " if unicodedata.category(c) == "Cc" or c.isspace() else c for c in unicodedata.normalize("NFC", shown))
    return " ".join("".join(spaced).split())


def test_clean_is_its_definition_and_cleaning_twice_changes_nothing() -> None:
    rng = random.Random(0)
    for _ in range(5000):
        text = "".join(rng.choices(PARTS, k=rng.randint(0, 8)))
        assert clean(text) == naive(text) == clean(clean(text)), ascii(text)


def test_joiners_stay_and_other_invisible_characters_go() -> None:
    assert clean("می\u200cخواهم") == "می\u200cخواهم"
    assert clean("\ufeffco\xadoper\u200bate \u202eright\u202c") == "cooperate right"


def test_bytes_that_are_not_utf8_are_seen_as_damage() -> None:
    assert damaged(b"caf\xe9".decode("utf-8", "surrogateescape"))
    assert not damaged("café")
    assert clean(b"caf\xe9".decode("utf-8", "surrogateescape")) == "caf\ufffd"


def test_a_document_splits_into_its_sentences() -> None:
    text = "Dr. Smith went to Rome. He left at 3.5 p.m. today!\n\nWas it good? Yes"
    assert [sentence.strip() for sentence in sentences(text, "en")] == [
        "Dr. Smith went to Rome.",
        "He left at 3.5 p.m. today!",
        "Was it good?",
        "Yes",
    ]


def test_sentences_are_the_same_whatever_the_window() -> None:
    rng = random.Random(0)
    text = " ".join(f"{'word ' * rng.randint(1, 40)}number{n}." for n in range(500)).replace("w", "W")
    whole = list(sentences(text, "en", window=len(text)))
    assert len(whole) == 500
    for window in (100, 999, 16_384):  # 100: shorter than many a sentence
        assert list(sentences(text, "en", window)) == whole


def test_a_line_of_five_megabytes_without_an_end_is_one_sentence() -> None:
    assert [len(s) for s in sentences("x" * 5_000_000 + ". The end.", "en")] == [5_000_002, 8]


def test_no_white_space_breaks_the_splitter() -> None:
    # sentencex 1.0.32 panics at each of these when they are passed on unchanged
    rng = random.Random(0)
    parts = [
        "a",
        "J.",
        "Mr.",
        ". ",
        "? ",
        "B",
        "\xa0",
        "\u2009",
        "\u2028",
        "\u2029",
        "\x85",
        "\u3000",
        "\ud800",
        "\x00",
    ]
    for _ in range(3000):
        text = "".join(rng.choices(parts, k=rng.randint(0, 40)))
        assert "".join("".join(sentences(text, "en")).split()) == "".join(text.replace("\ud800", "\ufffd").split())


@pytest.mark.parametrize(("code", "fine"), [("en", True), ("zh-Hans", True), ("english", False), ("", False)])
def test_a_language_is_a_code(code: str, fine: bool) -> None:
    assert is_language(code) == fine


# ---- near-duplicates ----


def shingles(text: str) -> set[str]:
    return {text[i : i + 5] for i in range(max(len(text) - 4, 1))}


def jaccard(first: str, second: str) -> float:
    a, b = shingles(first), shingles(second)
    return len(a & b) / len(a | b)


def pair(rng: random.Random, changes: int) -> tuple[str, str]:
    text = [rng.choice("abcdefghijklmnopqrstuvwxyz ") for _ in range(120)]
    changed = list(text)
    for place in rng.sample(range(120), changes):
        changed[place] = rng.choice("0123456789")
    return "".join(text), "".join(changed)


def test_the_share_of_equal_minima_is_the_jaccard() -> None:
    rng = random.Random(0)
    for changes in (1, 2, 5, 8, 20):
        pairs = [pair(rng, changes) for _ in range(200)]
        ones, others = (minhash._minima(list(side)) for side in zip(*pairs, strict=True))
        expected = float(np.mean([jaccard(*each) for each in pairs]))
        assert float((ones == others).mean()) == pytest.approx(expected, abs=0.015), changes  # 3 standard errors


def test_pairs_share_a_band_as_often_as_their_jaccard_says() -> None:
    rng = random.Random(0)
    for changes in (1, 3, 5, 8):
        pairs = [pair(rng, changes) for _ in range(400)]
        ones, others = (band_keys(minhash._minima(list(side)), 0.8) for side in zip(*pairs, strict=True))
        share = float((ones == others).any(axis=1).mean())
        expected = float(np.mean([share_proposed(jaccard(*each), *bands(0.8)) for each in pairs]))
        assert share == pytest.approx(expected, abs=0.075), changes  # 3 standard errors


def test_pairs_above_the_threshold_are_dropped_and_pairs_well_below_it_kept() -> None:
    rng = random.Random(0)
    shares = {}
    for changes in (1, 3, 5, 8):
        pairs = [pair(rng, changes) for _ in range(200)]
        with NearDuplicates(0.8) as near:
            dropped = near.add([text for both in pairs for text in both])
        assert not dropped[::2].any()
        shares[round(float(np.mean([jaccard(*each) for each in pairs])), 1)] = float(dropped[1::2].mean())
    assert shares.keys() == {0.9, 0.8, 0.7, 0.5}
    assert shares[0.9] > 0.95
    assert shares[0.7] < 0.1
    assert shares[0.5] == 0


@pytest.mark.parametrize("near", [0.5, 0.6, 0.8, 0.9, 1.0])
def test_the_bands_propose_at_least_ninety_percent_at_the_threshold(near: float) -> None:
    count, rows = bands(near)
    assert count * rows <= 64
    assert share_proposed(near, count, rows) >= 0.9


def test_minima_do_not_depend_on_the_other_texts() -> None:
    texts = ["", "a", "abcd", "abcde", "a longer text, é and 中文 in it", "x" * 100_000, "end"]
    together = minhash._minima(texts).T
    assert together.tolist() == [minhash._minima([text])[:, 0].tolist() for text in texts]
    assert len({tuple(row) for row in together.tolist()}) == len(texts)


def variants(count: int) -> list[str]:
    """Texts of which many resemble one another, closely or not."""
    rng = random.Random(0)
    seeds = ["".join(rng.choices("abcdefgh ", k=80)) for _ in range(count // 10)]
    texts = []
    for _ in range(count):
        letters = list(rng.choice(seeds))
        for place in rng.sample(range(80), rng.choice((0, 1, 1, 2, 3, 6))):
            letters[place] = rng.choice("0123456789")
        texts.append("".join(letters))
    return texts


def by_loop(texts: list[str]) -> list[bool]:
    """The definition, text by text: the first kept text with one of its band keys has 0.8 of its minima."""
    minima = minhash._minima(texts)
    keys, signatures = band_keys(minima, 0.8).tolist(), minhash._bytes(minima)
    holder: dict[int, int] = {}
    dropped = []
    for text, own in enumerate(keys):
        rivals = {holder[key] for key in own if key in holder}
        dropped.append(any((signatures[text] == signatures[rival]).mean() >= 0.8 for rival in rivals))
        if not dropped[-1]:
            for key in own:
                holder.setdefault(key, text)
    return dropped


@pytest.mark.parametrize(("batch", "memory"), [(1, 1 << 28), (7, 1 << 15), (500, 1 << 28), (800, 1 << 15)])
def test_a_text_is_dropped_exactly_when_it_resembles_an_earlier_kept_one(batch: int, memory: int) -> None:
    texts = variants(800)
    with NearDuplicates(0.8, memory=memory) as near:
        flags = [near.add(texts[start : start + batch]).tolist() for start in range(0, 800, batch)]
    assert [flag for part in flags for flag in part] == by_loop(texts)
    assert 200 < sum(by_loop(texts)) < 700


# ---- what was dropped ----


def test_the_first_dropped_texts_of_each_rule_are_read_back_truncated(tmp_path: Path) -> None:
    dropped = Dropped(first=2, width=5)
    for row in range(1, 5):
        dropped.add("too_long", "a/b.txt", row, f"text é {row}")
    dropped.add("empty", "a/b.txt", 9, "")
    dropped.write(tmp_path / "dropped.jsonl")
    assert list(read_dropped(tmp_path / "dropped.jsonl")) == [
        DroppedText("too_long", "a/b.txt", 1, "text…"),
        DroppedText("too_long", "a/b.txt", 2, "text…"),
        DroppedText("empty", "a/b.txt", 9, ""),
    ]


def test_another_file_is_not_read_as_dropped_texts(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"dropped\.jsonl does not exist; build the index again"):
        list(read_dropped(tmp_path / "dropped.jsonl"))
    (tmp_path / "dropped.jsonl").write_text('{"text": "a"}\n')
    with pytest.raises(DataError, match=r"row 1 is not a dropped text: \{'text': 'a'\}"):
        list(read_dropped(tmp_path / "dropped.jsonl"))
