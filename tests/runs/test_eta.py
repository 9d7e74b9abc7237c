"""The time left is estimated from finished runs and from the progress of those under way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support.manifests import complete_manifest
from support.results import complete_results

from augkd.recipe import Recipe, dump
from augkd.recipe.units import format_seconds
from augkd.runs.eta import TimeLeft, is_finished
from augkd.workspace.files import write_json


def recipe_with(data: dict[str, Any], **training: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "task": "x",
            "teacher": {"model": "t", "epochs": 1},
            "student": {"layers": [0]},
            "data": data,
            "training": {"kd": {"weight": 1.0}} | training,
        }
    )


class RecordedHeadline:
    """A headline that records its lines."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, int, int]] = []

    def __call__(self, text: str, done: int, total: int) -> None:
        self.lines.append((text, done, total))


def test_the_time_left_is_what_finished_runs_of_the_same_recipe_took(tmp_path: Path) -> None:
    recipe, now, headline = recipe_with({}), [0.0], RecordedHeadline()
    runs = {tmp_path / f"{name}-s{seed}": (name, recipe) for seed in range(3) for name in ("fast", "slow")}
    remaining = TimeLeft(runs, headline, lambda: now[0])
    assert headline.lines == [("time left: not known yet", 0, 6)]
    folders = list(runs)
    for folder, seconds in ((folders[0], 100.0), (folders[1], 1000.0)):
        remaining.begin(folder)
        remaining.end(folder, {"cost": {"seconds": {"student": seconds, "teacher": 10**6}}})
    assert remaining.seconds() == 2 * (100 + 1000)
    remaining.begin(folders[2])
    now[0] = 60.0
    remaining.tick(folders[2], "student", 1, 100)
    assert headline.lines[-1] == (f"about {format_seconds(2140)} left", 2, 6)
    now[0] = 900.0  # longer than such a run takes: it must be about to end
    assert remaining.seconds() == 2 * 1000 + 100
    now[0] = 902.0
    lines = len(headline.lines)
    remaining.tick(folders[2], "test", 1, 2)
    now[0] = 903.0
    remaining.tick(folders[2], "test", 2, 2)
    assert len(headline.lines) == lines + 1, "not at every step"


def test_a_recipe_that_has_not_been_run_is_expected_to_take_what_the_others_did(tmp_path: Path) -> None:
    runs = {tmp_path / name: (name, recipe_with({})) for name in ("a", "b")}
    remaining = TimeLeft(runs, clock=lambda: 0.0)
    remaining.end(tmp_path / "a", {"cost": {"seconds": {"student": 40.0, "assistants": 2.0}}})
    assert remaining.seconds() == 42.0
    remaining.end(tmp_path / "b", {"cost": {"seconds": {"student": 1.0}}})
    assert remaining.seconds() == 0.0


def test_a_student_under_way_tells_how_long_its_recipe_takes(tmp_path: Path) -> None:
    """The slowest recipe of a comparison may not be done once for most of the time."""
    recipe, now = recipe_with({}), [0.0]
    runs = {tmp_path / f"{name}-s{seed}": (name, recipe) for seed in range(2) for name in ("fast", "slow")}
    remaining = TimeLeft(runs, clock=lambda: now[0])
    fast, slow, *_ = runs
    remaining.end(fast, {"cost": {"seconds": {"student": 10.0}}})
    remaining.begin(slow)
    now[0] = 50.0  # it waited for an index: not the student's time
    remaining.tick(slow, "student", 0, 1000)
    assert remaining.seconds() == 10 + 10, "the other fast one, and a slow one not begun: this one must be about to end"
    now[0] = 60.0
    remaining.tick(slow, "student", 10, 1000)
    assert remaining.seconds() == 10 + 10, "ten of a thousand steps tell nothing"
    now[0] = 70.0
    remaining.tick(slow, "student", 20, 1000)
    assert remaining.seconds() == 980 + 1000 + 10
    now[0] = 71.0
    assert remaining.seconds() == 979 + 1000 + 10
    remaining.tick(slow, "teacher layers", 1, 9)
    assert remaining.seconds() == 979 + 1000 + 10


def test_the_stages_of_training_to_come_count_by_their_epochs(tmp_path: Path) -> None:
    stages = {"stages": [{"kd": {}, "epochs": 2}, {"kd": {}, "epochs": 3}, {"ce": {}, "epochs": 1}]}
    recipe = Recipe.model_validate(dump(recipe_with({})) | {"training": stages})
    now, folder = [0.0], tmp_path / "only"
    remaining = TimeLeft({folder: ("only", recipe)}, clock=lambda: now[0])
    remaining.begin(folder)
    for second, done, total in ((0, 0, 20), (10, 10, 20)):  # two epochs of ten steps, a step a second
        now[0] = float(second)
        remaining.tick(folder, "student", done, total)
    assert remaining.seconds() == 10 + 30 + 10
    for second, done, total in ((20, 20, 20), (20, 0, 30), (35, 30, 30), (35, 0, 10), (37, 1, 10)):
        now[0] = float(second)
        remaining.tick(folder, "student", done, total)
    assert remaining.seconds() == 9 * 2


def test_the_longest_run_left_bounds_those_side_by_side(tmp_path: Path) -> None:
    recipe, now = recipe_with({}), [0.0]
    runs = {tmp_path / name: (name, recipe) for name in ("short", "long")}
    remaining = TimeLeft(runs, clock=lambda: now[0], jobs=2)
    for folder, total in zip(runs, (10, 100), strict=True):
        remaining.begin(folder)
        remaining.tick(folder, "student", 0, total)
    now[0] = 5.0
    for folder, total in zip(runs, (10, 100), strict=True):
        remaining.tick(folder, "student", 5, total)
    assert remaining.seconds() == 95.0


def test_finished_runs_count_at_once_and_those_of_another_recipe_do_not(tmp_path: Path) -> None:
    recipe, other, headline = recipe_with({}), recipe_with({}, epochs=9.0), RecordedHeadline()
    for name, done in (("a", recipe), ("b", other)):
        (tmp_path / name).mkdir()
        results = {"cost": {"seconds": {"student": 10.0, "teacher": 60.0}}}
        write_json(tmp_path / name / "results.json", complete_results(results))
        complete_manifest(tmp_path / name, "run", {}, recipe=dump(done))
    assert is_finished(tmp_path / "a", recipe)
    remaining = TimeLeft({tmp_path / name: (name, recipe) for name in ("a", "b")}, headline)
    assert headline.lines == [("about 10 s left", 1, 2)]
    assert remaining.seconds() == 10.0
