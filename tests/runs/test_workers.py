"""Runs side by side come out as one after the other, share what they share, and end together when one cannot go on."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from augkd.cli.app import app
from augkd.errors import AugkdError, DataError, RecipeError
from augkd.recipe import Recipe, load_recipe
from augkd.runs.comparison import compare_recipes
from augkd.runs.controls import with_controls
from augkd.runs.eta import TimeLeft
from augkd.runs.workers import Job, Watcher, run_jobs
from augkd.workspace.fingerprints import file_fingerprint
from augkd.workspace.locks import claimed
from augkd.workspace.manifest_kinds import StudentManifest, TeacherManifest
from augkd.workspace.manifests import read_manifest
from augkd.workspace.progress import silent
from augkd.workspace.run_folder import run_folder

CHANGES = ["training.epochs=1", "training.max_length=16", "teacher.epochs=1"]


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Here and in the workers, so that a run is the same to the bit wherever it goes on."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def recipes_of(path: Path) -> dict[str, Recipe]:
    return with_controls({"mine": load_recipe(str(path), CHANGES)}, ["kd"])


@pytest.mark.slow
def test_two_at_once_come_out_as_one_after_the_other(recipe_file: Path, tmp_path: Path, one_thread: None) -> None:
    told: list[tuple[str, int, int]] = []
    seen: set[str] = set()
    recipes = recipes_of(recipe_file)
    both = compare_recipes(
        recipes,
        2,
        tmp_path / "both",
        lambda stage, done, total: seen.add(stage.split(":")[0]),
        headline=lambda *line: told.append(line),
        jobs=2,
    )
    alone = compare_recipes(recipes, 2, tmp_path / "alone", silent)
    for name in recipes:
        for seed in range(2):
            folders = [run_folder(tmp_path / where, name, seed) for where in ("both", "alone")]
            weights = {file_fingerprint(folder / "student" / "model.safetensors") for folder in folders}
            assert len(weights) == 1, f"{name}-s{seed}"
    assert [row["test"] for row in both["rows"]] == [row["test"] for row in alone["rows"]]
    assert [line[1:] for line in told][-1] == (4, 4)
    assert seen >= {"kd-s0", "mine-s1"}
    kinds = sorted(path.name.split("-")[0] for path in (tmp_path / "both/shared").iterdir())
    assert kinds == ["index", "teacher", "teacher_logits", "transfer_set", "transfer_set"]
    seconds = read_manifest(next((tmp_path / "both/shared").glob("teacher-*")), TeacherManifest).seconds
    assert both["shared_seconds"]["teacher"] == seconds, "one teacher, made once"


@pytest.mark.slow
def test_the_order_of_stages_does_not_change_what_is_taught(
    recipe_file: Path, tmp_path: Path, one_thread: None
) -> None:
    """The teacher is asked about other texts together when kd goes first; its word on each must be the same."""
    mine = load_recipe(str(recipe_file), [*CHANGES, "training.precision=bfloat16"])
    compare_recipes(with_controls({"mine": mine}, ["kd"]), 1, tmp_path / "after", silent)
    compare_recipes({"mine": mine}, 1, tmp_path / "first", silent)
    students = [run_folder(tmp_path / where, "mine", 0) / "student" for where in ("after", "first")]
    sets = [read_manifest(student, StudentManifest).made_from.transfer_set for student in students]
    assert sets[0] == sets[1]
    assert len({file_fingerprint(student / "model.safetensors") for student in students}) == 1


def test_a_mistake_in_one_run_ends_all_and_is_told_as_it_is(recipe_file: Path, tmp_path: Path) -> None:
    good = job(recipe_file, tmp_path)
    lost = load_recipe(str(recipe_file), [*CHANGES, f"task.dataset={tmp_path / 'nowhere'}"])
    bad = replace(good, recipe=lost, folder=tmp_path / "bad")
    with pytest.raises(DataError, match="nowhere"):
        run_jobs([bad, good], 2, watcher())
    assert not multiprocessing.active_children()


def no_progress(job: Job, stage: str, done: int, total: int | None) -> None:
    """Progress that nobody watches."""


def watcher(began: Callable[[Job], None] = lambda _: None) -> Watcher:
    return Watcher(no_progress, began, lambda *_: None)


def job(recipe_file: Path, tmp_path: Path) -> Job:
    return Job("mine", load_recipe(str(recipe_file), CHANGES), tmp_path / "run", tmp_path / "shared")


def test_a_worker_that_is_killed_is_noticed(recipe_file: Path, tmp_path: Path) -> None:
    def kill(_: Job) -> None:
        (child,) = multiprocessing.active_children()
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)

    with pytest.raises(AugkdError, match=r"a worker died .*try fewer --jobs"):
        run_jobs([job(recipe_file, tmp_path)], 1, watcher(kill))
    assert not multiprocessing.active_children()


def test_no_jobs_start_no_worker() -> None:
    run_jobs([], 4, watcher())


def test_a_time_budget_is_for_one_run_at_a_time(recipe_file: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="for one run at a time, not for 2; leave out --budget or --jobs"):
        compare_recipes(recipes_of(recipe_file), 1, tmp_path / "out", silent, time_budget=60.0, jobs=2)
    arguments = ["compare", str(recipe_file), "--out", str(tmp_path / "out"), "--budget", "1m", "--jobs", "2"]
    assert isinstance(CliRunner().invoke(app, arguments).exception, RecipeError)


def test_time_left_is_shared_by_the_runs_under_way(tmp_path: Path) -> None:
    recipe = Recipe.model_validate(
        {"task": "x", "teacher": {"model": "t", "epochs": 1}, "student": {"layers": [0]}, "training": {"kd": {}}}
    )
    now = [0.0]
    runs = {tmp_path / str(number): ("a", recipe) for number in range(5)}
    remaining = TimeLeft(runs, clock=lambda: now[0], jobs=2)
    first, second, third, *_ = runs
    remaining.begin(first)
    remaining.begin(second)
    now[0] = 100.0
    remaining.end(first, {"cost": {"seconds": {"student": 100.0}}})
    remaining.begin(third)
    now[0] = 150.0
    assert remaining.seconds() == (100 * 4 - 100 - 50) / 2


def hold(folder: Path, ready: Any, events: Any) -> None:
    with claimed(folder):
        ready.set()
        time.sleep(0.5)
        events.put("first")


def test_a_claim_keeps_another_process_waiting_and_leaves_nothing_behind(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, events = context.Event(), context.Queue()
    other = context.Process(target=hold, args=(tmp_path / "stage", ready, events))
    other.start()
    assert ready.wait(60)
    with claimed(tmp_path / "stage"):
        assert events.get(timeout=1) == "first"
    other.join()
    assert list(tmp_path.iterdir()) == []
