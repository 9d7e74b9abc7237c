"""What a run's manifests say of its student: where its teacher and its index lie."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from support.finished_run import RECIPE, finished_run
from support.manifests import complete_manifest

from augkd.errors import ModelError
from augkd.ship.student_folder import find_student
from augkd.workspace.run_folder import relative_stages


def recorded(run: Path, stages: dict[str, Path]) -> None:
    for folder in stages.values():
        folder.mkdir(parents=True, exist_ok=True)
    complete_manifest(run, "run", {}, recipe=RECIPE, seed=3, stages=relative_stages(run, stages))


def test_the_teacher_that_a_comparison_shares_is_found_where_the_run_records_it(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "out/runs/mine-s3")
    shared = tmp_path / "out/shared"
    (shared / "teacher-another").mkdir(parents=True)
    recorded(run, {"teacher": shared / "teacher-of-this", "index": shared / "index-of-this"})
    student = find_student(run)
    assert student.teacher() == shared / "teacher-of-this"
    assert student.index() == shared / "index-of-this"
    assert find_student(run / "student") == student


def test_a_removed_index_is_still_named_and_a_removed_teacher_is_not(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run")
    recorded(run, {"teacher": run / "teacher", "index": run / "index"})
    (run / "teacher").rmdir()
    (run / "index").rmdir()
    assert find_student(run).teacher() is None
    assert find_student(run).index() == run / "index", "so that a message can say what is gone"


def test_a_student_whose_run_is_not_finished_has_neither(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run")
    (run / "manifest.json").unlink()
    student = find_student(run)
    assert (student.teacher(), student.index()) == (None, None)


@pytest.mark.parametrize(
    ("change", "table", "key"),
    [
        ({"training": []}, "training", "max_length"),
        ({"training": {"max_length": "64"}}, "training", "max_length"),
        ({"training": {}}, "training", "max_length"),
        ({"teacher": "a teacher"}, "teacher", "model"),
        ({"teacher": {"model": "a/b", "epochs": None}}, "teacher", "epochs"),
    ],
)
def test_a_recipe_of_other_kinds_in_the_manifest_is_named(
    tmp_path: Path, change: dict[str, object], table: str, key: str
) -> None:
    run = finished_run(tmp_path / "run")
    student = find_student(run)
    assert student.recipe is not None
    changed = replace(student, recipe={**student.recipe, **change})
    with pytest.raises(ModelError, match=rf"manifest\.json: recipe\.{table} is .*, without a usable {key}; train"):
        _ = changed.max_length, changed.teacher()


def test_a_folder_without_a_student_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="holds no student; give a run's folder"):
        find_student(tmp_path)
