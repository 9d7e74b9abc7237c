"""Transfer sets and comparisons come out of a Ray cluster as they come out of one machine."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch
from support.seed_encoder import files_of
from support.tiny import LABELS

from augkd.errors import AugkdError, ClusterError, DataError, RecipeError
from augkd.models.classifier import load_backbone
from augkd.models.cluster import Cluster
from augkd.recipe import Recipe, load_recipe
from augkd.runs.comparison import compare_recipes
from augkd.runs.controls import with_controls
from augkd.runs.ray_jobs import Mailbox, Reporter, make_run, run_jobs_on
from augkd.runs.run import Run
from augkd.runs.workers import Job, Watcher
from augkd.workspace.fingerprints import file_fingerprint
from augkd.workspace.manifest_kinds import TransferSetManifest
from augkd.workspace.manifests import read_manifest
from augkd.workspace.progress import silent
from augkd.workspace.run_folder import run_folder

pytestmark = pytest.mark.xdist_group("ray")

CHANGES = ["training.epochs=1", "training.max_length=16", "teacher.epochs=1"]


@pytest.fixture(autouse=True)
def one_thread() -> object:
    """As in the workers, so that a run is the same to the bit wherever it goes on."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
def test_a_transfer_set_is_the_one_that_one_machine_makes(
    ray_address: str, recipe_file: Path, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, size in (("retrieval.dense.retriever.QUERIES_AT_ONCE", 32), ("distill.teacher.outputs._PART", 64)):
        monkeypatch.setattr(f"augkd.{name}", size)
    load_backbone(str(tiny_bert), LABELS, 16, seed=0).save(tmp_path / "teacher")
    changes = [f"teacher.model={tmp_path / 'teacher'}", "teacher.epochs=0"]
    changes += [f"data.neighbours.index.encoder.model={tiny_bert}", "data.neighbours.index.encoder.precision=float32"]
    recipe = load_recipe(str(recipe_file), [*CHANGES, *changes])
    here = Run(recipe, tmp_path / "here").transfer_set().folder
    stages: list[tuple[str, int, int | None]] = []
    with Cluster.connect(ray_address, workers=2) as cluster:
        run = Run(recipe, tmp_path / "ray", progress=lambda *step: stages.append(step), cluster=cluster)
        there = run.transfer_set().folder
    assert files_of(there / "data") == files_of(here / "data")
    rows = [read_manifest(folder, TransferSetManifest).teacher_rows for folder in (here, there)]
    assert rows[0] == rows[1] > 90
    assert {"index", "neighbours", "teacher logits"} <= {stage for stage, *_ in stages}


@pytest.mark.slow
def test_a_comparison_comes_out_as_one_run_after_the_other_although_a_worker_is_killed(
    ray_address: str, recipe_file: Path, tmp_path: Path
) -> None:
    recipes = with_controls({"mine": load_recipe(str(recipe_file), CHANGES)}, ["kd"])
    headlines: list[tuple[str, int, int]] = []
    seen: set[str] = set()
    with Cluster.connect(ray_address, workers=2) as cluster:

        def watch(stage: str, done: int, total: int | None) -> None:
            pool = cluster._pool
            if stage.endswith(": student") and not any(name.endswith(": student") for name in seen):
                assert pool is not None
                os.kill(pool[1].processes[0], signal.SIGKILL)
            seen.add(stage)

        both = compare_recipes(
            recipes, 1, tmp_path / "ray", watch, headline=lambda *line: headlines.append(line), cluster=cluster
        )
    alone = compare_recipes(recipes, 1, tmp_path / "alone", silent)
    for name in recipes:
        folders = [run_folder(tmp_path / where, name, 0) for where in ("ray", "alone")]
        assert len({file_fingerprint(folder / "student" / "model.safetensors") for folder in folders}) == 1, name
    assert [row["test"] for row in both["rows"]] == [row["test"] for row in alone["rows"]]
    assert headlines[-1][1:] == (2, 2)
    kinds = sorted(path.name.split("-")[0] for path in (tmp_path / "ray/shared").iterdir())
    assert kinds == ["index", "teacher", "teacher_logits", "transfer_set", "transfer_set"]


def job(recipe: Recipe, folder: Path) -> Job:
    return Job("mine", recipe, folder / "run", folder / "shared")


def nobody() -> Watcher:
    return Watcher(lambda *_: None, lambda _: None, lambda *_: None)


def test_a_mistake_in_a_run_is_raised_here_as_it_is(ray_address: str, recipe_file: Path, tmp_path: Path) -> None:
    lost = load_recipe(str(recipe_file), [*CHANGES, f"task.dataset={tmp_path / 'nowhere'}"])
    with Cluster.connect(ray_address, workers=1) as cluster:
        run_jobs_on(cluster, [], nobody())
        with pytest.raises(DataError, match="nowhere"):
            run_jobs_on(cluster, [job(lost, tmp_path)], nobody())
    assert list((tmp_path / "shared").iterdir()) == []


def test_a_worker_that_does_not_see_the_folders_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ClusterError, match=r"does not see .*/elsewhere; runs are written where they are trained"):
        make_run([], None, tmp_path, tmp_path / "elsewhere" / "token")
    (tmp_path / "token").touch()
    with pytest.raises(AugkdError, match=r"does not see .*/nowhere"):
        make_run([], None, tmp_path / "nowhere", tmp_path / "token")
    monkeypatch.chdir(tmp_path)
    assert callable(make_run([], None, tmp_path, tmp_path / "token"))


def test_a_time_budget_is_for_one_worker(recipe_file: Path, tmp_path: Path) -> None:
    recipes = {"mine": load_recipe(str(recipe_file), CHANGES)}
    with pytest.raises(RecipeError, match="for one run at a time, not for 2"):
        compare_recipes(recipes, 1, tmp_path, silent, time_budget=60.0, cluster=Cluster("node", 2, 1.0, 0.0))


def test_progress_is_sent_at_the_ends_of_a_stage_and_now_and_then() -> None:
    sent: list[tuple[int, tuple[str, int, int | None]]] = []

    class Put:
        remote = staticmethod(lambda number, message: sent.append((number, message)))

    class Box:
        put = Put

    report = Reporter(Box, 7)
    for step in range(1, 1001):
        report("student", step, 1000)
    report("results", 1, 1)
    assert sent[0] == (7, ("student", 1, 1000))
    assert sent[-2:] == [(7, ("student", 1000, 1000)), (7, ("results", 1, 1))]
    assert len(sent) < 100
    box = Mailbox()
    box.put(1, None)
    assert (box.take(), box.take()) == ([(1, None)], [])
