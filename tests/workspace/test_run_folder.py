"""A run records where its stages lie, and finds them again wherever the whole is moved."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.manifests import complete_manifest

from augkd.errors import WorkspaceError
from augkd.workspace.run_folder import RunFolder, relative_stages


def finished(folder: Path, stages: dict[str, Path]) -> Path:
    for path in stages.values():
        path.mkdir(parents=True, exist_ok=True)
    complete_manifest(folder, "run", {}, recipe={"seed": 0}, stages=relative_stages(folder, stages))
    return folder


def test_stages_of_a_run_of_a_comparison_and_of_elsewhere_are_found(tmp_path: Path) -> None:
    stages = {
        "student": tmp_path / "out/runs/kd-s0/student",
        "teacher": tmp_path / "out/shared/teacher-abc",
        "index": tmp_path / "elsewhere/index",
    }
    run = RunFolder.open(finished(tmp_path / "out/runs/kd-s0", stages))
    assert {name: run.stage(name) for name in stages} == stages
    assert run.stage("masked_lm") is None


def test_a_comparison_that_was_moved_still_finds_its_shared_stages(tmp_path: Path) -> None:
    stages = {"teacher": tmp_path / "out/shared/teacher-abc", "index": tmp_path / "elsewhere/index"}
    finished(tmp_path / "out/runs/kd-s0", stages)
    (tmp_path / "out").rename(tmp_path / "moved")
    run = RunFolder.open(tmp_path / "moved/runs/kd-s0")
    assert run.stage("teacher") == tmp_path / "moved/shared/teacher-abc"
    assert run.stage("index") == tmp_path / "elsewhere/index", "an index of the user's own stays where it is"


def test_a_stage_that_was_removed_is_recorded_and_not_there(tmp_path: Path) -> None:
    run = RunFolder.open(finished(tmp_path / "run", {"student": tmp_path / "run/student"}))
    (tmp_path / "run/student").rmdir()
    assert run.stage("student") is None
    assert run.recorded("student") == tmp_path / "run/student"


def test_only_a_run_below_a_comparison_has_one(tmp_path: Path) -> None:
    run = RunFolder.open(finished(tmp_path / "out/runs/kd-s0", {}))
    assert run.comparison is None, "there is no compare.json yet"
    (tmp_path / "out/compare.json").write_text("{}")
    assert run.comparison == tmp_path / "out"
    (tmp_path / "compare.json").write_text("{}")
    assert RunFolder.open(finished(tmp_path / "a/b", {})).comparison is None


def test_a_run_without_a_record_is_rejected_in_one_line(tmp_path: Path) -> None:
    complete_manifest(tmp_path, "run", {}, recipe={})
    with pytest.raises(WorkspaceError, match="does not record where its stages lie; run the same command again"):
        RunFolder.open(tmp_path)
