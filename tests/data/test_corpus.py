"""A corpus is cleaned, split, deduplicated, counted and bounded; damage is counted and costs no other text."""

from __future__ import annotations

import dataclasses
import gzip
import itertools
import json
import random
import zlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from augkd.data.cleaning import clean, normalised
from augkd.data.corpus import CorpusCounts, CorpusSource, check_not_empty, stream_corpus
from augkd.data.dropped import Dropped
from augkd.errors import DataError, RecipeError


def read(**options: Any) -> tuple[list[str], CorpusCounts]:
    counts = CorpusCounts()
    texts = list(stream_corpus(CorpusSource(**options), counts))
    assert counts.read == sum_of(counts)
    return texts, counts


def sum_of(counts: CorpusCounts) -> int:
    rules = ("malformed", "empty", "too_short", "too_long", "duplicates", "near_duplicates")
    return counts.kept + sum(getattr(counts, rule) for rule in rules)


def test_clean_composes_and_leaves_single_spaces_only() -> None:
    assert clean(" a\x00b\t\n c\u00a0\u0085d ") == "a b c d"
    assert clean("e\u0301") == "\u00e9"
    assert clean("x\ud800") == "x\ufffd"


def test_normalised_texts_ignore_case_punctuation_width_and_spaces() -> None:
    assert normalised("What's  UP?") == normalised("whats up") == "whatsup"
    assert normalised("Straße ２") == "strasse2"
    assert normalised("?!") == ""


def test_every_dropped_text_is_counted_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\n \t\nlonger text\nab\n")
    texts, counts = read(dataset=str(tmp_path), min_chars=3, max_chars=5)
    assert texts == ["one"]
    assert counts == CorpusCounts(read=5, kept=1, empty=2, too_short=1, too_long=1, rows=5)


def test_the_limit_counts_kept_texts_over_all_files(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("three\nfour\n")
    (tmp_path / "a.csv").write_text("text\none\ntwo\n")
    texts, counts = read(dataset=str(tmp_path), limit=3)
    assert texts == ["one", "two", "three"]
    assert counts.read == 3


def test_a_missing_text_column_is_reported_with_the_columns_there_are(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("sentence,score\na,1\n")
    with pytest.raises(DataError, match=r"a\.csv has no column 'text' \(it has: sentence, score\)"):
        read(dataset=str(tmp_path / "a.csv"))
    with pytest.raises(DataError, match="did you mean 'sentence'"):
        read(dataset=str(tmp_path / "a.csv"), text="sentense")


def test_a_list_is_not_a_text(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": null}\n{"text": ["a"]}\n')
    with pytest.raises(DataError, match=r"a\.jsonl row 2: column 'text' is \['a'\]"):
        read(dataset=str(tmp_path / "a.jsonl"))


def test_a_corpus_without_usable_text_says_why(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\nabc\n")
    source = CorpusSource(str(tmp_path / "a.txt"), max_chars=2)
    counts = CorpusCounts()
    assert list(stream_corpus(source, counts)) == []
    with pytest.raises(DataError, match=r"no usable text: 2 read, 1 empty, .* 1 longer than max_chars 2"):
        check_not_empty(source, counts)


@pytest.mark.parametrize(
    "options",
    [
        {"limit": 0},
        {"min_chars": 0},
        {"min_chars": 9, "max_chars": 8},
        {"near": 0.4, "duplicates": "near"},
        {"near": 0.7},
        {"sentences": "english"},
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=str(next(iter(options.values())))):
        CorpusSource("a.txt", **options)


def test_a_misspelt_rule_for_duplicates_gets_a_suggestion() -> None:
    with pytest.raises(RecipeError, match=r"duplicates is 'exakt'; did you mean 'exact'"):
        CorpusSource("a.txt", duplicates="exakt")


# ---- duplicates ----


def mixed_file(path: Path, rows: int = 300) -> Path:
    """Lines of which many are empty, too short, too long, or equal to an earlier one but for white space."""
    rng = random.Random(0)
    kinds = ("", "a", "x" * 50, *(f"text  number {n}" for n in range(60)), *(f"text number {n} " for n in range(60)))
    path.write_text("".join(f"{rng.choice(kinds)}\n" for _ in range(rows)))
    return path


def naive(path: Path, limit: int | None) -> tuple[list[str], CorpusCounts]:
    """The rules for `mixed_file`, line by line with a set."""
    counts, texts = CorpusCounts(), []
    for line in path.read_text().split("\n")[:-1]:
        text = " ".join(line.split())
        rule = "empty" if not text else "too_short" if len(text) < 3 else "too_long" if len(text) > 40 else ""
        rule = rule or ("duplicates" if text in texts else "kept")
        counts.read, counts.rows = counts.read + 1, counts.rows + 1
        setattr(counts, rule, getattr(counts, rule) + 1)
        if rule == "kept":
            texts.append(text)
            if counts.kept == limit:
                break
    return texts, counts


@pytest.mark.parametrize("batch", [1, 7, 4096])
@pytest.mark.parametrize("limit", [1, 10, 33, None])
def test_the_first_of_equal_texts_is_kept_whatever_the_batch_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int | None, batch: int
) -> None:
    monkeypatch.setattr("augkd.data.corpus._BATCH", batch)
    path = mixed_file(tmp_path / "a.txt")
    assert read(dataset=str(path), min_chars=3, max_chars=40, limit=limit) == naive(path, limit)


def test_counts_are_exact_at_every_yielded_text(tmp_path: Path) -> None:
    path = mixed_file(tmp_path / "a.txt")
    counts = CorpusCounts()
    for number, _ in enumerate(stream_corpus(CorpusSource(str(path), min_chars=3, max_chars=40), counts), 1):
        assert counts == naive(path, number)[1]


def test_duplicates_are_kept_on_request(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\none \ntwo\none\n")
    assert read(dataset=str(tmp_path), duplicates="keep")[0] == ["one", "one", "two", "one"]
    assert read(dataset=str(tmp_path))[0] == ["one", "two"]


@pytest.mark.parametrize("batch", [1, 3, 4096])
def test_near_duplicates_are_dropped_only_on_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr("augkd.data.corpus._BATCH", batch)
    text = "The quick brown fox jumps over the lazy dog near the old stone bridge by the river in spring"
    lines = [text, "Something else altogether, of another length", text.upper(), text + ".", text, text[:45]]
    (tmp_path / "a.txt").write_text("\n".join(lines))
    texts, counts = read(dataset=str(tmp_path), duplicates="near")
    assert texts == [lines[0], lines[1], lines[5]]
    assert (counts.duplicates, counts.near_duplicates) == (1, 2)
    assert read(dataset=str(tmp_path))[0] == [*lines[:4], lines[5]]


def test_keys_beyond_the_memory_bound_change_no_result_and_leave_no_file(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    lines = [f"text {n * 7919 % 9000}" for n in range(20_000)]  # 9000 texts, most of them at least twice
    (tmp_path / "a.txt").write_text("\n".join(lines))
    source = CorpusSource(str(tmp_path / "a.txt"))
    stream = stream_corpus(source, CorpusCounts(), scratch=scratch, memory=1 << 15)
    assert list(stream) == list(dict.fromkeys(lines))

    def mapped() -> int:
        return Path("/proc/self/maps").read_text().count(str(scratch))

    before = mapped()
    early = stream_corpus(source, CorpusCounts(), scratch=scratch, memory=1 << 15)
    list(itertools.islice(early, 5000))
    assert mapped() > before == 0
    early.close()
    assert mapped() == 0
    assert list(scratch.iterdir()) == []


# ---- sentences ----


def test_a_document_yields_its_sentences_and_a_blank_one_counts_once(tmp_path: Path) -> None:
    rows = ["One is here. Two is\nhere.\n\nThree", " \n\n ", "One is here. \x00", "Mr. J.\xa0Doe sat. " + "y" * 60]
    pq.write_table(pa.table({"text": rows}), tmp_path / "a.parquet")
    texts, counts = read(dataset=str(tmp_path), sentences="en", max_chars=50)
    assert texts == ["One is here.", "Two is here.", "Three", "Mr. J. Doe sat."]
    assert counts == CorpusCounts(read=7, kept=4, empty=1, too_long=1, duplicates=1, rows=4)
    assert read(dataset=str(tmp_path))[0][0] == "One is here. Two is here. Three"
    assert CorpusSource(str(tmp_path), sentences="en").known_size() is None


# ---- damage ----


def damaged_corpus(folder: Path) -> list[str]:
    """Writes files with every kind of damage; returns the texts that a corpus of them must yield."""
    (folder / "a.txt").write_bytes(
        b"caf\xe9 one\nn\x00ul\n\n" + b"x" * 5_000_000 + b"\nafter the long line\n\xff\xfe\n"
    )
    lines = [f"line {n * n * 7919 % 100_003} of the packed file" for n in range(5000)]
    packed = gzip.compress("".join(f"{line}\n" for line in lines).encode())[:-2000]
    (folder / "b.txt.gz").write_bytes(packed)
    (folder / "c.jsonl").write_bytes(
        b'{"text": "json \xff"}\n{"text": "cut\n[1]\n{"text": "half \\ud800"}\n{"text": "end"'
    )
    (folder / "d.csv").write_bytes(b'text,n\n"quoted, one",1\ntoo,many,fields\n"bad"quote,2\nlast,3\n')
    (folder / "e.parquet").write_bytes(b"PAR1 cut short")
    (folder / "f.csv").write_bytes(b"")
    (folder / "g.txt.gz").write_bytes(b"no gzip at all")
    text = pa.array([b"fine", b"bad \xff", None], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": text}), folder / "h.parquet")
    (folder / "i.txt").write_text("the end\n")
    # what zlib can decompress of the truncated file, complete lines only
    whole = zlib.decompressobj(wbits=31).decompress(packed).decode().split("\n")[:-1]
    assert lines[: len(whole)] == whole
    assert len(whole) > 3000
    top = ["caf\ufffd one", "n ul", "after the long line", "\ufffd\ufffd"]
    return [
        *top,
        *dict.fromkeys(whole),
        "json \ufffd",
        "half \ufffd",
        "quoted, one",
        "last",
        "fine",
        "bad \ufffd",
        "the end",
    ]


def test_damage_in_a_corpus_is_counted_and_costs_no_other_text(tmp_path: Path) -> None:
    expected = damaged_corpus(tmp_path)
    texts, counts = read(dataset=str(tmp_path))
    assert texts == expected
    assert (counts.malformed, counts.empty, counts.too_long) == (5, 2, 1)
    assert counts.bad_encoding == 5  # two in a.txt, two in c.jsonl, one in h.parquet
    assert counts.unreadable == 4
    assert counts.rows == counts.read
    assert [message.split(" is ")[0].rsplit("/")[-1] for message in counts.unreadable_files] == [
        *("b.txt.gz", "e.parquet", "f.csv", "g.txt.gz"),
    ]
    json.dumps(dataclasses.asdict(counts))  # goes into the manifest


def test_a_dropped_text_is_recorded_with_file_and_row(tmp_path: Path) -> None:
    damaged_corpus(tmp_path)
    counts, dropped = CorpusCounts(), Dropped()
    list(stream_corpus(CorpusSource(str(tmp_path)), counts, dropped))
    places = {(text.rule, text.file, text.row) for text in dropped.texts}
    assert {("empty", "a.txt", 3), ("too_long", "a.txt", 4), ("bad_encoding", "a.txt", 6)} <= places
    assert {("malformed", "c.jsonl", 2), ("malformed", "c.jsonl", 3), ("malformed", "d.csv", 2)} <= places
    assert {("unreadable", "b.txt.gz", 0), ("unreadable", "e.parquet", 0), ("empty", "h.parquet", 3)} <= places
    assert max(len(text.text) for text in dropped.texts) == 200
    for rule in ("malformed", "empty", "too_long", "unreadable", "bad_encoding"):
        assert sum(text.rule == rule for text in dropped.texts) == getattr(counts, rule)


def test_a_corpus_of_one_damaged_file_reports_its_damage(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 cut short")
    source, counts = CorpusSource(str(tmp_path / "a.parquet")), CorpusCounts()
    assert list(stream_corpus(source, counts)) == []
    assert source.known_size() == 0
    with pytest.raises(DataError, match=r"; 1 damaged, first: .*a\.parquet is not a readable Parquet file") as caught:
        check_not_empty(source, counts)
    assert "\n" not in str(caught.value)


def test_texts_before_an_error_are_yielded(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n{"text": ["two"]}\n')
    assert read(dataset=str(tmp_path), limit=1)[0] == ["one"]
    stream = stream_corpus(CorpusSource(str(tmp_path)), CorpusCounts())
    assert next(stream) == "one"
    with pytest.raises(DataError, match="row 2"):
        next(stream)


def test_the_size_is_known_for_parquet_only(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a", "b", "c"]}), tmp_path / "a.parquet")
    assert CorpusSource(str(tmp_path)).known_size() == 3
    assert CorpusSource(str(tmp_path), limit=2).known_size() == 2
    (tmp_path / "b.txt").write_text("d")
    assert CorpusSource(str(tmp_path)).known_size() is None


def test_the_fingerprint_follows_content_and_options_but_not_the_place(tmp_path: Path) -> None:
    for folder, text in (("x", "one"), ("y", "one"), ("z", "two")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.txt").write_text(text)
    x, y, z = (CorpusSource(str(tmp_path / folder)).fingerprint() for folder in "xyz")
    assert x == y != z
    assert CorpusSource(str(tmp_path / "x"), max_chars=9).fingerprint() != x


def test_a_hub_corpus_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    calls = []

    def load(*args: Any, **options: Any) -> Any:
        calls.append((args, options))
        return datasets.Dataset.from_list([{"text": " a "}, {"text": None}]).to_iterable_dataset()

    monkeypatch.setattr(datasets, "load_dataset", load)
    texts, counts = read(dataset="org/name", split="extra", config="en")
    assert (texts, counts.empty) == (["a"], 1)
    assert calls == [(("org/name", "en"), {"split": "extra", "streaming": True})]


def test_an_error_of_the_hub_is_reported_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def load(*args: Any, **options: Any) -> Any:
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(DataError, match=r"'org/name' is not a file or folder .*\(no route\)"):
        read(dataset="org/name")


def test_the_built_in_corpus_streams() -> None:
    texts, counts = read(dataset="augkd:docstrings", limit=20)
    assert len(texts) == counts.kept == 20
    source = CorpusSource("augkd:docstrings")
    assert source.fingerprint() == source.fingerprint()
