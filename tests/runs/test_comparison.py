"""A comparison runs its recipes on shared stages and grows by a seed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from augkd.errors import RecipeError, WorkspaceError
from augkd.evaluation.report.report import write_report
from augkd.recipe import Comparison, load_recipe
from augkd.runs.comparison import compare_recipes, compare_tasks
from augkd.runs.controls import with_controls
from augkd.runs.plan import plan_comparison
from augkd.workspace.progress import silent


class RecordedHeadline:
    """A headline that records its lines."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, int, int]] = []

    def __call__(self, text: str, done: int, total: int) -> None:
        self.lines.append((text, done, total))


def test_a_comparison_shares_stages_compares_its_recipes_and_grows_by_a_seed(recipe_file: Path, tmp_path: Path) -> None:
    changes = ["training.epochs=1", "training.max_length=16", "teacher.epochs=1"]
    recipes = with_controls({"mine": load_recipe(str(recipe_file), changes)}, ["kd"])
    first = compare_recipes(recipes, 1, tmp_path / "out", silent)
    assert [row["recipe"] for row in first["rows"]] == ["kd", "mine"]
    assert (first["comparisons"], first["examples"]) == (1, 18)
    assert first["rows"][1]["difference"]["verdict"] in ("better", "worse", "no difference shown")
    stages = ["index", "teacher", "teacher_logits", "transfer_set", "transfer_set"]
    assert sorted(path.name.split("-")[0] for path in (tmp_path / "out/shared").iterdir()) == stages
    headline = RecordedHeadline()
    second = compare_recipes(recipes, 2, tmp_path / "out", silent, headline=headline)
    assert (headline.lines[0][1:], headline.lines[-1][1:]) == ((2, 4), (3, 4))
    for old, new in zip(first["rows"], second["rows"], strict=True):
        assert new["test"]["values"][0] == old["test"]["values"][0]
        assert new["seeds"] == 2
    whole = write_report(tmp_path / "out").read_text(encoding="utf-8")
    assert "Differences to the baseline" in whole
    one = write_report(tmp_path / "out/runs/mine-s1").read_text(encoding="utf-8")
    assert {"learning", "cost", "errors", "explorer", "selection", "sources"} <= set(
        re.findall('<section id="(.*?)"', one)
    )
    assert "baseline: kd" in one
    with pytest.raises(RecipeError, match="baseline 'mime' is not one of the recipes; did you mean 'mine'"):
        compare_recipes(recipes, 2, tmp_path / "out", silent, baseline="mime")


@pytest.mark.parametrize("name", ["{elsewhere}", "../../escaped", "..", "shared", "a\nb"])
def test_a_task_name_that_leads_out_of_the_folder_is_refused_before_anything_is_written(
    recipe_file: Path, task_folder: Path, tmp_path: Path, name: str
) -> None:
    """`labels.json` names the task, and a comparison over several tasks has a folder for each."""
    name = name.format(elsewhere=tmp_path / "elsewhere")
    (task_folder / "labels.json").write_text(json.dumps({"task": name}))
    recipes = {"mine": load_recipe(str(recipe_file))}
    comparison = Comparison.model_validate({"recipes": ["mine"], "tasks": [str(task_folder)]})
    before = sorted(tmp_path.rglob("*"))
    for refused in (
        lambda: compare_tasks(comparison, recipes, 1, tmp_path / "out"),
        lambda: list(plan_comparison(comparison, recipes, tmp_path / "out")),
        lambda: list(plan_comparison(comparison, recipes)),
    ):
        with pytest.raises(WorkspaceError, match=r"the name of a task \(task.name, .*\) is .* cannot be"):
            refused()
    assert sorted(tmp_path.rglob("*")) == before
