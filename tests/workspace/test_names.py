"""A name from a file or the network becomes one component of a path, or is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from augkd.errors import WorkspaceError
from augkd.workspace.names import LONGEST, name_problem, path_name
from augkd.workspace.run_folder import run_folder, task_folder


@pytest.mark.parametrize(
    "name", ["trec", "SST-2", "質問", "a b", "part-00003.arrow", "v1.2", "x" * LONGEST, "#1, (new)"]
)
def test_a_plain_name_is_accepted_unchanged(name: str) -> None:
    assert path_name(name, "the task") == name


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("/abs/dir", "contains /"),
        ("../../escaped", "contains /"),
        ("a/b", "contains /"),
        ("a\\b", "contains /"),
        ("c:", "contains /"),
        ("..", "is empty"),
        (".", "is empty"),
        ("", "is empty"),
        (" ", "is empty"),
        (".lock", "begins with a dot"),
        ("~root", "begins with a dot, ~"),
        ("name.", "ends with a dot"),
        ("name ", "ends with a dot or space"),
        ("x" * (LONGEST + 1), "longer than 200 bytes"),
        ("é" * 101, "longer than 200 bytes"),
        ("a\0b", "control"),
        ("a\nb", "control"),
        ("a\x1b[2Jb", "control"),
        ("a\u202eb", "invisible"),
        ("a\ud800b", "control"),
        ("NUL", "reserved"),
        ("com1.txt", "reserved"),
        ("runs", "reserved"),
        (None, "no text"),
        (5, "no text"),
    ],
)
def test_a_name_that_could_lead_elsewhere_is_refused_with_the_reason(name: object, reason: str) -> None:
    assert reason in str(name_problem(name, reserved=("runs",)))
    with pytest.raises(WorkspaceError, match=r"the task is .* which cannot be the name of a file or folder"):
        path_name(name, "the task", reserved=("runs",))


def test_the_message_about_a_hostile_name_has_one_line_without_escapes() -> None:
    with pytest.raises(WorkspaceError) as raised:
        path_name("a\x1b[2J\n" + "b" * 9000, "the task")
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 300


def test_the_folders_of_a_comparison_lie_in_it(tmp_path: Path) -> None:
    assert task_folder(tmp_path, "trec") == tmp_path / "trec"
    assert run_folder(tmp_path, "kd", 3) == tmp_path / "runs" / "kd-s3"
    for name in ("../../escaped", "/abs", "runs", "shared", "compare.json"):
        with pytest.raises(WorkspaceError, match="the name of a task"):
            task_folder(tmp_path, name)
    with pytest.raises(WorkspaceError, match="the name of a run"):
        run_folder(tmp_path, "../kd", 3)
