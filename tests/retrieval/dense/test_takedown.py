"""A takedown removes the texts that it asks for, in any script, no others, and says which before it does so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.seed_encoder import SeedEncoder
from typer.testing import CliRunner

from augkd.cli.app import app
from augkd.data.corpus import CorpusSource
from augkd.errors import DataError
from augkd.retrieval.build import Removed, remove_from_index
from augkd.retrieval.dense.changes import Added, add_texts, remove_texts
from augkd.retrieval.dense.search import Index
from augkd.retrieval.dense.takedown import Takedown, Wanted
from augkd.retrieval.engines.local import build_dense

TEXTS = [
    *("இது கலை", "இது காலை", "Good 👍🏽", "good 👍🏿", "a 1.5 l bottle", "a 15 l bottle"),
    *("Hello, you!", "Hello you", "?!", "…"),
]


def index_of(folder: Path, texts: list[str]) -> Path:
    (folder / "corpus.txt").write_text("\n".join(texts))
    build_dense(folder / "index", CorpusSource(str(folder / "corpus.txt")), SeedEncoder(), factory="Flat")
    return folder / "index"


def texts_of(folder: Path) -> list[str]:
    index = Index.open(folder)
    return index.texts(range(len(index)))


def test_only_the_texts_asked_for_are_removed(tmp_path: Path) -> None:
    folder = index_of(tmp_path, TEXTS)
    assert remove_texts(folder, ["இது கலை", "good 👍🏿", "A 1.5 l bottle", "?!"]) == 4
    assert texts_of(folder) == ["இது காலை", "Good 👍🏽", "a 15 l bottle", "Hello, you!", "Hello you", "…"]


def test_a_text_that_differs_in_one_vowel_sign_or_emoji_is_new(tmp_path: Path) -> None:
    folder = index_of(tmp_path, ["இது கலை", "so 😀"])
    (tmp_path / "new.txt").write_text("இது காலை\nso 😢\nSo, 😀\n")
    added = add_texts(folder, CorpusSource(str(tmp_path / "new.txt")), SeedEncoder())
    assert added == Added(added=2, duplicates=1)
    assert texts_of(folder) == ["இது கலை", "so 😀", "இது காலை", "so 😢"]


def test_an_exact_takedown_leaves_texts_that_differ_in_case_or_punctuation(tmp_path: Path) -> None:
    folder = index_of(tmp_path, TEXTS)
    assert remove_texts(folder, ["hello you"], exact=True) == 0
    assert remove_texts(folder, ["Hello  you"], exact=True) == 1
    assert [text for text in texts_of(folder) if "Hello" in text] == ["Hello, you!"]
    assert remove_texts(folder, ["hello you"]) == 1


def test_what_will_be_removed_is_shown_before_and_nothing_is_removed_when_declined(tmp_path: Path) -> None:
    folder = index_of(tmp_path, TEXTS)
    (tmp_path / "takedown.txt").write_text("hello you\nnot there\n")
    shown: list[Takedown] = []

    def decline(takedown: Takedown) -> bool:
        assert len(texts_of(folder)) == len(TEXTS)
        shown.append(takedown)
        return False

    result = remove_from_index(folder, tmp_path / "takedown.txt", confirm=decline)
    assert result == Removed(asked=2, removed=0, texts=(), missing=("not there",))
    assert shown[0].texts == ("Hello, you!", "Hello you")
    assert shown[0].rows.tolist() == [6, 7]
    assert texts_of(folder) == TEXTS
    result = remove_from_index(folder, tmp_path / "takedown.txt")
    assert result == Removed(asked=2, removed=2, texts=("Hello, you!", "Hello you"), missing=("not there",))


def test_a_list_with_a_row_that_cannot_be_read_removes_nothing(tmp_path: Path) -> None:
    folder = index_of(tmp_path, TEXTS)
    (tmp_path / "takedown.jsonl").write_text('{"text": "Hello you"}\n{"text": "?!"\n')
    with pytest.raises(DataError, match=r"takedown\.jsonl: 1 rows cannot be read"):
        remove_from_index(folder, tmp_path / "takedown.jsonl")
    assert texts_of(folder) == TEXTS


def test_the_command_lists_the_texts_and_removes_none_on_a_dry_run(tmp_path: Path) -> None:
    folder = index_of(tmp_path, TEXTS)
    (tmp_path / "takedown.txt").write_text("hello you\nnot there\n")
    command = ["index", "remove", str(folder), str(tmp_path / "takedown.txt")]
    dry = CliRunner().invoke(app, [*command, "--dry-run"])
    listing = ["texts of the index to remove: 2", "  Hello, you!", "  Hello you"]
    missing = ["asked for, but not in the index: 1", "  not there"]
    assert dry.stdout.splitlines() == [*listing, *missing, "asked: 2", "removed: 0", "count: 10"]
    assert texts_of(folder) == TEXTS

    done = CliRunner().invoke(app, [*command, "--json"])
    assert json.loads(done.stdout) == {
        **{"asked": 2, "removed": 2, "count": 8},
        **{"texts": ["Hello, you!", "Hello you"], "missing": ["not there"]},
    }
    assert done.stderr.splitlines() == [*listing, *missing]
    assert len(texts_of(folder)) == 8


def test_a_truncated_dropped_text_is_recognised_by_its_beginning() -> None:
    wanted = Wanted(["see cafe\u0301 number 1.5 kg"])
    assert wanted.begins_any("see cafe…")  # the accent was cut off
    assert wanted.begins_any("see café number 1…")
    assert not wanted.begins_any("see café number 1.5 l, and more of it…")
    assert not wanted.begins_any("see cafe")
