"""What a student's folder and its run's manifests say of teacher and index."""

from __future__ import annotations

from pathlib import Path

from augkd.ship.student_folder import find_student
from augkd.workspace.manifests import write_manifest


def test_the_teacher_that_a_comparison_shares_is_found_by_what_it_was_made_from(tmp_path: Path) -> None:
    options = {"model": "somewhere", "epochs": 2.0}
    training = {"max_length": 32, "precision": "auto"}
    run = tmp_path / "runs" / "kd-s0"
    (run / "student").mkdir(parents=True)
    (run / "student" / "config.json").write_text("{}")
    recipe = {"task": {}, "teacher": options, "training": training, "data": {}}
    write_manifest(run / "student", "student", {"task": "t"}, recipe=recipe)
    write_manifest(run, "run", {})
    for name, epochs in (("teacher-a", 1.0), ("teacher-b", 2.0)):
        made_from = {"task": "t", "teacher": {"model": None, "epochs": epochs}, **training}
        (tmp_path / "shared" / name).mkdir(parents=True)
        write_manifest(tmp_path / "shared" / name, "teacher", made_from)
    assert find_student(run).teacher() == tmp_path / "shared" / "teacher-b"
