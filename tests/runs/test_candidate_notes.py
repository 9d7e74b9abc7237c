"""A run without candidates, or with too few, says so on the terminal, in results.json and in the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.command_line import Augkd
from support.transfer import transfer

from augkd.data.transfer_set import TransferSet
from augkd.recipe.data import DataOptions
from augkd.runs.candidate_notes import candidate_notes

NONE = "the transfer set has no candidate for any of its"


def with_candidates(counts: list[int]) -> TransferSet:
    """A transfer set whose originals have so many candidates each."""
    whole = transfer(len(counts), k=max(counts))
    rows = [
        row | {"candidates": row["candidates"][:count]}
        for row, count in zip(whole.table.to_pylist(), counts, strict=True)
    ]
    return TransferSet(type(whole.table).from_pylist(rows, schema=whole.table.schema), whole.labels, whole.folder)


def notes(counts: list[int], **data: Any) -> list[str]:
    given = {"transfer_set": "x", "select": {"minimax": {"keep": 3}}} | data
    return list(candidate_notes(DataOptions.model_validate(given), with_candidates(counts)))


def test_the_candidates_of_each_original_are_counted() -> None:
    assert with_candidates([2, 0, 4]).candidate_counts().tolist() == [2, 0, 4]


def test_more_than_a_tenth_of_the_originals_with_fewer_than_keep_is_said() -> None:
    assert notes([3] * 9 + [2]) == []  # a tenth, not more
    (note,) = notes([3] * 8 + [2, 0])
    assert note.startswith("2 of 10 originals have fewer candidates than the 3 that minimax keeps; ")


def test_without_keep_one_candidate_is_enough() -> None:
    assert notes([1] * 10, select="everything") == []
    (note,) = notes([1] * 8 + [0, 0], select="everything")
    assert note.startswith("2 of 10 originals have fewer candidates than one; ")


def test_no_candidate_at_all_is_said_and_only_where_the_recipe_asks_for_some() -> None:
    none = TransferSet(*vars(with_candidates([1, 1])).values()).table
    empty = [row | {"candidates": []} for row in none.to_pylist()]
    found = TransferSet(type(none).from_pylist(empty, schema=none.schema), transfer(1).labels, Path())
    given = DataOptions.model_validate({"transfer_set": "x"})
    assert [note[: len(NONE)] for note in candidate_notes(given, found)] == [NONE]
    assert list(candidate_notes(DataOptions.model_validate({}), found)) == []


def test_a_distance_bound_that_leaves_nothing_is_said_everywhere(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    augkd, out = Augkd(monkeypatch, capsys), tmp_path / "out"
    nothing = ("--set", "data.neighbours.max_distance=0.0", "--set", "training.epochs=1")
    done = augkd("augment", recipe_file, "--out", out, *nothing, "--json")
    assert (done.code, done.json["candidates"]) == (0, 0)
    assert f"warning: {NONE} 90 originals" in done.err

    done = augkd("run", recipe_file, "--out", out, *nothing)
    assert done.code == 0, done.err
    assert f"warning: {NONE} 90 originals" in done.err
    (note,) = json.loads((out / "results.json").read_text())["notes"]
    assert note.startswith(NONE)
    assert augkd("report", out).code == 0
    assert f"Note: {NONE} 90 originals" in (out / "report.html").read_text()


def test_a_run_with_enough_candidates_has_no_notes(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done = Augkd(monkeypatch, capsys)("augment", recipe_file, "--out", tmp_path / "out")
    assert (done.code, "warning" in done.err) == (0, False)
