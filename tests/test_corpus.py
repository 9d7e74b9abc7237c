"""A corpus is cleaned, counted and bounded; two spellings of one text fold to the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from augkd.data.corpus import CorpusCounts, CorpusSource, check_not_empty, clean, fold, stream_corpus
from augkd.errors import DataError, RecipeError


def read(**options: Any) -> tuple[list[str], CorpusCounts]:
    counts = CorpusCounts()
    return list(stream_corpus(CorpusSource(**options), counts)), counts


def test_clean_composes_and_leaves_single_spaces_only() -> None:
    assert clean(" a\x00b\t\n c\u00a0\u0085d ") == "a b c d"
    assert clean("e\u0301") == "\u00e9"
    assert clean("x\ud800") == "x\ufffd"


def test_fold_ignores_case_punctuation_width_and_spaces() -> None:
    assert fold("What's  UP?") == fold("whats up") == "whatsup"
    assert fold("Straße ２") == "strasse2"
    assert fold("?!") == ""


def test_every_text_left_out_is_counted_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\n \t\nlonger text\nab\n")
    texts, counts = read(dataset=str(tmp_path), min_chars=3, max_chars=5)
    assert texts == ["one"]
    assert counts == CorpusCounts(read=5, kept=1, empty=2, too_short=1, too_long=1)


def test_the_limit_counts_kept_texts_over_all_files(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("three\nfour\n")
    (tmp_path / "a.csv").write_text("text\none\ntwo\n")
    texts, counts = read(dataset=str(tmp_path), limit=3)
    assert texts == ["one", "two", "three"]
    assert counts.read == 3


def test_a_missing_text_column_names_the_columns_there_are(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("sentence,score\na,1\n")
    with pytest.raises(DataError, match=r"a\.csv has no column 'text' \(it has: sentence, score\)"):
        read(dataset=str(tmp_path / "a.csv"))
    with pytest.raises(DataError, match="did you mean 'sentence'"):
        read(dataset=str(tmp_path / "a.csv"), text="sentense")


def test_a_list_is_no_text(tmp_path: Path) -> None:
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


@pytest.mark.parametrize("options", [{"limit": 0}, {"min_chars": 0}, {"min_chars": 9, "max_chars": 8}])
def test_options_out_of_range_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(RecipeError, match=str(next(iter(options.values())))):
        CorpusSource("a.txt", **options)


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

    asked = []

    def load(*args: Any, **options: Any) -> Any:
        asked.append((args, options))
        return datasets.Dataset.from_list([{"text": " a "}, {"text": None}]).to_iterable_dataset()

    monkeypatch.setattr(datasets, "load_dataset", load)
    texts, counts = read(dataset="org/name", split="extra", config="en")
    assert (texts, counts.empty) == (["a"], 1)
    assert asked == [(("org/name", "en"), {"split": "extra", "streaming": True})]


def test_what_goes_wrong_at_the_hub_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def load(*args: Any, **options: Any) -> Any:
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(DataError, match=r"'org/name' is no file or folder here .*\(no route\)"):
        read(dataset="org/name")


def test_the_built_in_corpus_streams() -> None:
    texts, counts = read(dataset="augkd:docstrings", limit=20)
    assert len(texts) == counts.kept == 20
    source = CorpusSource("augkd:docstrings")
    assert source.fingerprint() == source.fingerprint()
