"""What a run takes on the disk: counted for stages that are to be made, and tested before any of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from augkd.errors import WorkspaceError
from augkd.models.locate import weight_files
from augkd.recipe import load_recipe
from augkd.runs import disk_plan as module
from augkd.runs.disk_plan import check_disk, disk_lines, disk_plan
from augkd.runs.task import read_task
from augkd.workspace import disk


def test_every_stage_that_is_not_finished_is_counted(recipe_file: Path, tiny_bert: Path, tmp_path: Path) -> None:
    recipe = load_recipe(str(recipe_file), [])
    task = read_task(recipe)
    sizes = disk_plan(recipe, task, tmp_path / "out")
    (weights,) = weight_files(tiny_bert)
    assert sizes["teacher"] == sizes["student"] == 10 * weights.stat().st_size  # result, 3 checkpoints of 3 times it
    characters = sum(len(example.text) for example in task.train)
    assert sizes["transfer set"] == (1 + 4) * (characters + 90 * (200 + 4 * 3))  # an original, 4 neighbours
    corpus = (tmp_path / "corpus.txt").stat().st_size
    assert sizes["index"] >= corpus
    (tmp_path / "out" / "teacher").mkdir(parents=True)
    (tmp_path / "out" / "teacher" / "manifest.json").write_text("{}")
    assert set(disk_plan(recipe, task, tmp_path / "out")) == {"index", "transfer set", "student"}
    (line,) = disk_lines({"index": 2_000_000}, tmp_path)
    assert line.startswith("disk          at most 2.0 MB (index 2.0 MB); ")
    assert line.endswith(f" free in {tmp_path}")


def test_layers_that_are_stored_are_counted_until_the_student_is_there(recipe_file: Path, tmp_path: Path) -> None:
    stored = load_recipe(str(recipe_file), ["structure={alp: {}}"])
    task = read_task(stored)
    sizes = disk_plan(stored, task, tmp_path / "out")
    assert sizes["teacher layers"] == (1 + 4) * 90 * (3 * 32 * 2 + 16)  # three layers, 32 wide, in fp16
    live = load_recipe(str(recipe_file), ["structure={hidden: {}}"])
    assert "teacher layers" not in disk_plan(live, task, tmp_path / "out")
    (tmp_path / "out" / "student").mkdir(parents=True)
    (tmp_path / "out" / "student" / "manifest.json").write_text("{}")
    assert "teacher layers" not in disk_plan(stored, task, tmp_path / "out")


def test_a_run_that_cannot_fit_stops_before_it_begins_and_with_room_it_does_not(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe(str(recipe_file), [])
    task = read_task(recipe)
    check_disk(recipe, task, tmp_path / "out", shared=False)
    largest = max(disk_plan(recipe, task, None).values())
    for target in (module, disk):
        monkeypatch.setattr(target, "free_bytes", lambda _: largest // 3 - 1)
    with pytest.raises(WorkspaceError, match=r"out has too little room for the (teacher|student): .* needed, .* free"):
        check_disk(recipe, task, tmp_path / "out", shared=False)
    lines = list(disk_lines(disk_plan(recipe, task, None), tmp_path))
    assert "more than is free" in lines[-1]
    for target in (module, disk):
        monkeypatch.setattr(target, "free_bytes", lambda _: largest // 3)
    check_disk(recipe, task, tmp_path / "out", shared=False)
