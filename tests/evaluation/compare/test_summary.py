"""A comparison reports scores, differences and costs; a control differs from its recipe in what it is named for."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file
from typer.testing import CliRunner

from augkd.cli.app import app
from augkd.cli.terminal import Bars
from augkd.errors import RecipeError, WorkspaceError
from augkd.evaluation.compare.average import average
from augkd.evaluation.compare.schema import ComparisonSummary
from augkd.evaluation.compare.summary import run_folder, summarise
from augkd.evaluation.compare.table import average_table, comparison_table
from augkd.evaluation.predictions import FILE
from augkd.evaluation.results import RunResults
from augkd.recipe import Recipe, dump, load_comparison, load_recipe, recipes_by_name
from augkd.recipe.units import format_seconds
from augkd.runs.comparison import compare_recipes
from augkd.runs.controls import applicable, control, with_budget, with_controls
from augkd.runs.eta import Remaining, is_finished
from augkd.workspace.files import write_json
from augkd.workspace.manifests import write_manifest
from augkd.workspace.progress import silent

# ---- controls ----


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


NEIGHBOURS = {"neighbours": {"index": "somewhere", "k": 4}, "select": {"minimax": {"keep": 2}}}


def test_auto_adds_every_control_that_applies_to_the_last_recipe() -> None:
    augmented, plain = recipe_with(NEIGHBOURS), recipe_with({})
    assert applicable(augmented) == ["no-kd", "kd", "random"]
    assert applicable(recipe_with(NEIGHBOURS | {"select": "everything"})) == ["no-kd", "kd"]
    recipes = with_controls({"plain": plain, "mine": augmented}, ["auto"])
    assert list(recipes) == ["no-kd", "random", "plain", "mine"], "'plain' is already the control kd"
    assert recipes["random"].data.select == {"random": {"keep": 2}}
    assert recipes["random"].data.neighbours == augmented.data.neighbours
    assert dump(control(augmented, "kd")) == dump(plain)


def test_a_control_that_is_already_listed_by_content_or_name_is_not_run_twice() -> None:
    augmented, plain = recipe_with(NEIGHBOURS), recipe_with({})
    assert list(with_controls({"kd": recipe_with({}, epochs=9.0), "mine": augmented}, ["kd", "random"])) == [
        *("random", "kd", "mine")
    ]
    assert with_controls({"kd": recipe_with({}, epochs=9.0), "mine": augmented}, ["kd"])["kd"].training.epochs == 9
    assert list(with_controls({"mine": plain}, ["auto"])) == ["no-kd", "mine"]
    assert list(with_controls({"mine": recipe_with({}, epochs=9.0)}, [])) == ["mine"]


def test_a_requested_control_that_does_not_apply_is_an_error() -> None:
    with pytest.raises(RecipeError, match="'random' needs a recipe with candidates and a selector"):
        with_controls({"mine": recipe_with({})}, ["random"])
    with pytest.raises(RecipeError, match="no control 'randon'; did you mean 'random'"):
        with_controls({"mine": recipe_with({})}, ["randon"])


def test_two_recipe_files_with_the_same_name_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "kd.yaml").write_text("{}")
    with pytest.raises(RecipeError, match="two of the recipes are called 'kd'"):
        recipes_by_name(["kd", str(tmp_path / "kd.yaml")])


# ---- budgets ----


def test_a_budget_is_shared_by_assistants_stages_and_student_in_proportion_to_their_epochs() -> None:
    recipe = load_recipe("takd")
    timed = with_budget(recipe, 1800.0)
    epochs = [sum(s.epochs for s in (a.training or recipe.training).training_stages) for a in recipe.assistants]
    epochs.append(sum(stage.epochs for stage in recipe.training_stages))
    budgets = [a.training.budget for a in timed.assistants if a.training] + [timed.training.budget]
    assert budgets == pytest.approx([1800 * epoch / sum(epochs) for epoch in epochs])
    staged = with_budget(load_recipe("annealing-kd"), 60.0)
    assert sum(stage.budget or 0.0 for stage in staged.training_stages) == pytest.approx(60.0)
    assert recipe.training.budget is None


def test_a_comparison_recipe_can_say_a_budget(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("recipes: [kd]\ntasks: [x]\nbudget: 1.5h\n")
    assert load_comparison(str(path))[0].budget == 5400
    assert load_comparison(str(path), ["budget=10m"])[0].budget == 600
    with pytest.raises(RecipeError, match="budget is 'soon'; write it like"):
        load_comparison(str(path), ["budget=soon"])


def test_a_budget_that_is_no_time_is_refused_before_anything_is_run(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["compare", "kd", "--out", str(tmp_path / "out"), "--budget", "soon"])
    assert isinstance(done.exception, RecipeError)
    assert str(done.exception) == "--budget is 'soon'; write it like 90s, 30m or 2h30m"
    assert not (tmp_path / "out").exists()


# ---- summaries ----


def results(name: str, seed: int, test: float | None, validation: float = 0.5, **changed: Any) -> RunResults:
    cost: Any = {
        "teacher_rows": 30,
        "training_rows": 100,
        "scoring_rows": 0,
        "generator_rows": 0,
        "seconds": {"index": 1.0 - seed, "teacher": 60.0, "transfer_set": 5.0, "student": 10.0 + seed},
        "peak_rss_bytes": 2**20 * (seed + 1),
    }
    return {
        "task": "toy",
        "metric": "accuracy",
        "seed": seed,
        "recipe": name,
        "teacher": {"validation": 0.9, "test": None if test is None else 0.95},
        "student": {"validation": validation, "test": test, "parameters": 1000},
        "data": {"originals": 10, "candidates": 40, "kept_per_original": 2},
        "cost": cost | changed,
    }


TRUE = np.arange(200) % 3


def outputs(wrong: int, start: int = 0) -> NDArray[np.float32]:
    """Logits that are wrong on `wrong` of the 200 examples, from `start` on."""
    classes = TRUE.copy()
    classes[start : start + wrong] = (classes[start : start + wrong] + 1) % 3
    return np.eye(3, dtype=np.float32)[classes]


def write_predictions(folder: Path, logits: NDArray[np.float32], teacher: NDArray[np.float32], **changed: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {"validation": logits, "test": logits, "teacher_validation": teacher, "teacher_test": teacher}
    labels = TRUE.astype(np.int64)
    save_file(tensors | {"validation_labels": labels, "test_labels": labels} | changed, folder / FILE)


def compared(out: Path, misses: dict[str, list[int]], teacher: int = 10, **changed: Any) -> ComparisonSummary:
    """A summary of students that are wrong on so many of 200 examples, one number per seed."""
    runs = {}
    for name, each in misses.items():
        runs[name] = [results(name, seed, 1 - wrong / 200) for seed, wrong in enumerate(each)]
        for seed, wrong in enumerate(each):
            folder = run_folder(out, name, seed) / "student"
            write_predictions(folder, outputs(wrong, 3 * seed), outputs(teacher), **changed)
    return summarise(runs, out)


MISSES = {"kd": [60, 62, 61], "mine": [20, 24, 22], "same": [60, 62, 61], "bad": [120, 118, 119]}


def test_every_recipe_gets_the_verdict_that_its_predictions_give(tmp_path: Path) -> None:
    value = compared(tmp_path, MISSES)
    rows = {row["recipe"]: row for row in value["rows"]}
    assert (value["baseline"], value["examples"], value["comparisons"], value["split"]) == ("kd", 200, 3, "test")
    assert rows["kd"]["difference"]["verdict"] is None
    assert [rows[name]["difference"]["verdict"] for name in ("mine", "same", "bad")] == [
        *("better", "no difference shown", "worse")
    ]
    low, high = rows["mine"]["difference"]["interval"]
    assert rows["mine"]["difference"]["mean"] == pytest.approx(39 / 200)
    assert (low + high) / 2 == pytest.approx(39 / 200)
    assert 0.05 < high - low < 0.2
    assert json.loads((tmp_path / "compare.json").read_text()) == value


def test_the_gap_closed_is_measured_from_kd_and_only_to_a_better_teacher(tmp_path: Path) -> None:
    rows = {row["recipe"]: row for row in compared(tmp_path / "a", MISSES)["rows"]}
    assert rows["kd"]["gap_closed"] is None
    assert rows["mine"]["gap_closed"]["share"] == pytest.approx((61 - 22) / (61 - 10))
    low, high = rows["mine"]["gap_closed"]["interval"]
    assert low < (61 - 22) / (61 - 10) < high
    behind = compared(tmp_path / "b", MISSES, teacher=61)
    assert all(row["gap_closed"] is None for row in behind["rows"])
    unknown = compared(tmp_path / "c", MISSES, teacher_test=np.full((200, 3), np.nan, dtype=np.float32))
    assert unknown["gap_baseline"] is None
    assert all(row["gap_closed"] is None for row in unknown["rows"])


def test_students_without_predictions_get_means_but_no_interval(tmp_path: Path) -> None:
    compared(tmp_path, MISSES)
    (run_folder(tmp_path, "mine", 1) / "student" / FILE).unlink()
    runs = {name: [results(name, s, 1 - w / 200) for s, w in enumerate(each)] for name, each in MISSES.items()}
    value = summarise(runs, tmp_path)
    rows = {row["recipe"]: row for row in value["rows"]}
    assert value["comparisons"] == 2
    assert rows["mine"]["difference"]["interval"] is None
    assert rows["mine"]["difference"]["mean"] == pytest.approx(39 / 200)
    assert rows["bad"]["difference"]["interval"] is not None
    without = summarise(runs, tmp_path / "elsewhere")
    assert "no interval, as student folders lack predictions" in comparison_table(without)


def test_predictions_on_other_examples_are_an_error(tmp_path: Path) -> None:
    compared(tmp_path, MISSES)
    folder = run_folder(tmp_path, "same", 2) / "student"
    write_predictions(folder, outputs(3), outputs(0), test_labels=(TRUE[::-1]).astype(np.int64).copy())
    runs = {name: [results(name, s, 1 - w / 200) for s, w in enumerate(each)] for name, each in MISSES.items()}
    with pytest.raises(WorkspaceError, match=r"has other test examples; remove .* and run again"):
        summarise(runs, tmp_path)
    (folder / FILE).write_bytes(b"no tensors")
    with pytest.raises(WorkspaceError, match="cannot read predictions from"):
        summarise(runs, tmp_path)


def test_where_the_test_split_has_no_labels_validation_is_compared(tmp_path: Path) -> None:
    none = np.full(200, -100, dtype=np.int64)
    runs = {}
    for name, each in MISSES.items():
        runs[name] = [results(name, seed, None, 1 - wrong / 200) for seed, wrong in enumerate(each)]
        for seed, wrong in enumerate(each):
            folder = run_folder(tmp_path, name, seed) / "student"
            write_predictions(folder, outputs(wrong, seed), outputs(10), test_labels=none)
    value = summarise(runs, tmp_path)
    rows = {row["recipe"]: row for row in value["rows"]}
    assert value["split"] == "validation"
    assert rows["mine"]["difference"]["mean"] == pytest.approx(39 / 200)
    assert rows["mine"]["difference"]["verdict"] == "better"
    assert "Validation scores are slightly optimistic" in comparison_table(value)


def test_regression_is_compared_by_its_numbers(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    true = rng.normal(size=200).astype(np.float32)
    true[7] = np.nan  # a row without a label
    runs: dict[str, list[Any]] = {"kd": [], "mine": []}
    for name, noise in (("kd", 1.0), ("mine", 0.5)):
        for seed in range(2):
            logits = (np.nan_to_num(true) + noise * rng.normal(size=200)).astype(np.float32)[:, None]
            labels = {"test_labels": true, "validation_labels": true}
            write_predictions(run_folder(tmp_path, name, seed) / "student", logits, logits, **labels)
            known = ~np.isnan(true)
            score = float(np.corrcoef(logits[known, 0], true[known])[0, 1])
            runs[name].append(results(name, seed, score) | {"metric": "pearson"})
    value = summarise(runs, tmp_path)
    difference = value["rows"][1]["difference"]
    assert value["examples"] == 199
    assert sum(difference["interval"]) / 2 == pytest.approx(difference["mean"], abs=1e-6)
    assert difference["verdict"] == "better"


def test_costs_are_means_over_seeds_and_shared_stages_count_once(tmp_path: Path) -> None:
    value = compared(tmp_path, {"kd": [60, 60], "mine": [20, 20]})
    cost = value["rows"][1]["cost"]
    assert cost["seconds"] == {"student": 10.5, "transfer_set": 5.0}
    assert cost["peak_rss_bytes"] == 2**21
    assert (cost["candidates"], cost["originals"], cost["kept_per_original"]) == (40, 10, 2)
    assert value["shared_seconds"] == {"index": 1.0, "teacher": 60.0, "transfer_sets": 5.0}
    assert cost["generator_rows"] == 0


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        ({"originals": 10, "candidates": 80, "generated_per_original": 4, "kept_per_original": 4}, "4 of 12"),
        ({"originals": 10, "candidates": 0, "generated_per_original": 1, "kept_per_original": 1}, "1 of 1"),
        ({"originals": 10, "candidates": 80, "generated_per_original": 0, "kept_per_original": 8}, "8 of 8"),
        ({"originals": 10, "candidates": 0, "generated_per_original": 0, "kept_per_original": 0}, "0"),
    ],
)
def test_candidates_used_are_shown_out_of_all_available_with_generated_ones(
    tmp_path: Path, data: dict[str, int], shown: str
) -> None:
    runs: Any = {"kd": [results("kd", 0, 0.8)], "mine": [results("mine", 0, 0.8) | {"data": data}]}
    summarise(runs, tmp_path)
    page = (tmp_path / "compare.md").read_text()
    (row,) = re.findall(r"^\| mine \|(.*)\|$", page.split("\n\n")[1], flags=re.MULTILINE)
    assert row.split("|")[-2].strip() == shown


# ---- tables ----


def cells(text: str, name: str) -> list[str]:
    """The row of a recipe in the first table of a page."""
    (row,) = re.findall(rf"^\| {name} \|(.*)\|$", text.split("\n\n")[0], flags=re.MULTILINE)
    return [cell.strip() for cell in row.split("|")]


def test_the_markdown_has_the_values_of_the_summary(tmp_path: Path) -> None:
    value = compared(tmp_path, MISSES)
    text = (tmp_path / "compare.md").read_text()
    rows = {row["recipe"]: row for row in value["rows"]}
    low, high = rows["mine"]["difference"]["interval"]
    assert cells(text, "mine")[1:4] == ["0.8900 ± 0.0100", f"+0.1950 [{low:+.4f}, {high:+.4f}]", "better"]
    assert cells(text, "kd")[2:] == ["", "baseline", ""]
    assert cells(text, "teacher")[:2] == ["0.9000", "0.9500"]
    assert "simultaneous over all 3 comparisons" in text
    assert "3 seeds are few" in text
    assert max(map(len, text.splitlines()[:7])) < 120, "narrow enough to paste"


def test_an_empty_column_is_left_out(tmp_path: Path) -> None:
    value = compared(tmp_path, {"kd": [60], "mine": [20]})
    assert "rows scored" not in comparison_table(value)
    assert "generator rows" not in comparison_table(value)
    assert "candidates used" in comparison_table(value)
    value["rows"][1]["cost"] |= {"generator_rows": 4321, "scoring_rows": 77}
    assert "| 100 | 77 | 4,321 | 30 | 2 of 4 |" in comparison_table(value)
    assert "With one seed, intervals and verdicts say nothing about other seeds." in comparison_table(value)


def test_an_average_over_tasks_covers_the_recipes_that_ran_on_all(tmp_path: Path) -> None:
    first = compared(tmp_path / "a", {"kd": [60], "mine": [20], "bad": [120]})
    second = compared(tmp_path / "b", {"kd": [40], "mine": [40]}) | {"task": "other"}
    value = average([first, second], [tmp_path / "a", tmp_path / "b"])
    rows = {row["recipe"]: row for row in value["rows"]}
    assert list(rows) == ["kd", "mine"]
    assert rows["mine"]["mean"] == pytest.approx((0.9 + 0.8) / 2)
    assert (rows["mine"]["rank"], rows["kd"]["rank"]) == ((1 + 1.5) / 2, (2 + 1.5) / 2)
    assert (rows["mine"]["better"], rows["mine"]["worse"]) == (1, 0)
    assert rows["mine"]["difference"]["mean"] == pytest.approx((0.2 + 0.0) / 2)
    assert value["left_out"] == ["bad"]
    low, high = rows["mine"]["difference"]["interval"]
    assert f"| mine | 0.8500 | +0.1000 [{low:+.4f}, {high:+.4f}] | better | 1.25 | 1 | 0 |" in average_table(value)
    assert "| kd | 0.7500 |  | baseline | 1.75 | 0 | 0 |" in average_table(value)
    assert "Left out, as they did not run on every task: bad." in average_table(value)


def test_the_interval_of_an_average_narrows_with_the_root_of_the_number_of_tasks(tmp_path: Path) -> None:
    """Four equal tasks: half the standard error of one."""
    folders = [tmp_path / name for name in "abcd"]
    values = [compared(folder, MISSES) for folder in folders]
    (one,) = [row["difference"]["interval"] for row in values[0]["rows"] if row["recipe"] == "mine"]
    summary = average(values, folders)
    assert summary["comparisons"] == 3
    by_recipe = {row["recipe"]: row["difference"] for row in summary["rows"]}
    low, high = by_recipe["mine"]["interval"]
    assert (high - low) / (one[1] - one[0]) == pytest.approx(0.5, abs=0.03)
    assert (low + high) / 2 == pytest.approx(by_recipe["mine"]["mean"])
    assert [by_recipe[name]["verdict"] for name in ("kd", "mine", "same", "bad")] == [
        *(None, "better", "no difference shown", "worse")
    ]
    assert "It covers these tasks only, not other tasks." in average_table(summary)


def test_an_average_over_tasks_without_predictions_or_a_common_baseline_has_no_interval(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "ab"]
    values = [compared(folder, {"kd": [60, 61], "mine": [20, 22]}) for folder in folders]
    other = average([values[0], values[1] | {"baseline": "mine"}], folders)
    (run_folder(folders[1], "mine", 1) / "student" / FILE).unlink()
    for value in (other, average(values, folders)):
        rows = {row["recipe"]: row["difference"] for row in value["rows"]}
        assert rows["mine"]["interval"] is None
        assert rows["mine"]["mean"] == pytest.approx(39.5 / 200)
        assert value["comparisons"] == 0
        assert "no interval, as student folders lack predictions" in average_table(value)


# ---- time left ----


class RecordedHeadline:
    """A headline that records its lines."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, int, int]] = []

    def __call__(self, text: str, done: int, total: int) -> None:
        self.lines.append((text, done, total))


def test_the_time_left_is_what_finished_runs_of_the_same_recipe_took(tmp_path: Path) -> None:
    recipe, now, headline = recipe_with({}), [0.0], RecordedHeadline()
    runs = {tmp_path / f"{name}-s{seed}": (name, recipe) for seed in range(3) for name in ("fast", "slow")}
    remaining = Remaining(runs, headline, lambda: now[0])
    assert headline.lines == [("time left: not known yet", 0, 6)]
    folders = list(runs)
    for folder, seconds in ((folders[0], 100.0), (folders[1], 1000.0)):
        remaining.begin(folder)
        remaining.end(folder, {"cost": {"seconds": {"student": seconds, "teacher": 10**6}}})
    assert remaining.left() == 2 * (100 + 1000)
    remaining.begin(folders[2])
    now[0] = 60.0
    remaining.tick(folders[2], "student", 1, 100)
    assert headline.lines[-1] == (f"about {format_seconds(2140)} left", 2, 6)
    now[0] = 900.0  # longer than such a run takes: it must be about to end
    assert remaining.left() == 2 * 1000 + 100
    now[0] = 902.0
    lines = len(headline.lines)
    remaining.tick(folders[2], "test", 1, 2)
    now[0] = 903.0
    remaining.tick(folders[2], "test", 2, 2)
    assert len(headline.lines) == lines + 1, "not at every step"


def test_a_recipe_that_has_not_been_run_is_expected_to_take_what_the_others_did(tmp_path: Path) -> None:
    runs = {tmp_path / name: (name, recipe_with({})) for name in ("a", "b")}
    remaining = Remaining(runs, clock=lambda: 0.0)
    remaining.end(tmp_path / "a", {"cost": {"seconds": {"student": 40.0, "assistants": 2.0}}})
    assert remaining.left() == 42.0
    remaining.end(tmp_path / "b", {"cost": {"seconds": {"student": 1.0}}})
    assert remaining.left() == 0.0


def test_a_student_under_way_tells_how_long_its_recipe_takes(tmp_path: Path) -> None:
    """The slowest recipe of a comparison may not be done once for most of the time."""
    recipe, now = recipe_with({}), [0.0]
    runs = {tmp_path / f"{name}-s{seed}": (name, recipe) for seed in range(2) for name in ("fast", "slow")}
    remaining = Remaining(runs, clock=lambda: now[0])
    fast, slow, *_ = runs
    remaining.end(fast, {"cost": {"seconds": {"student": 10.0}}})
    remaining.begin(slow)
    now[0] = 50.0  # it waited for an index: not the student's time
    remaining.tick(slow, "student", 0, 1000)
    assert remaining.left() == 10 + 10, "the other fast one, and a slow one not begun: this one must be about to end"
    now[0] = 60.0
    remaining.tick(slow, "student", 10, 1000)
    assert remaining.left() == 10 + 10, "ten of a thousand steps tell nothing"
    now[0] = 70.0
    remaining.tick(slow, "student", 20, 1000)
    assert remaining.left() == 980 + 1000 + 10
    now[0] = 71.0
    assert remaining.left() == 979 + 1000 + 10
    remaining.tick(slow, "teacher layers", 1, 9)
    assert remaining.left() == 979 + 1000 + 10


def test_the_stages_of_training_to_come_count_by_their_epochs(tmp_path: Path) -> None:
    stages = {"stages": [{"kd": {}, "epochs": 2}, {"kd": {}, "epochs": 3}, {"ce": {}, "epochs": 1}]}
    recipe = Recipe.model_validate(dump(recipe_with({})) | {"training": stages})
    now, folder = [0.0], tmp_path / "only"
    remaining = Remaining({folder: ("only", recipe)}, clock=lambda: now[0])
    remaining.begin(folder)
    for second, done, total in ((0, 0, 20), (10, 10, 20)):  # two epochs of ten steps, a step a second
        now[0] = float(second)
        remaining.tick(folder, "student", done, total)
    assert remaining.left() == 10 + 30 + 10
    for second, done, total in ((20, 20, 20), (20, 0, 30), (35, 30, 30), (35, 0, 10), (37, 1, 10)):
        now[0] = float(second)
        remaining.tick(folder, "student", done, total)
    assert remaining.left() == 9 * 2


def test_the_longest_run_left_bounds_those_side_by_side(tmp_path: Path) -> None:
    recipe, now = recipe_with({}), [0.0]
    runs = {tmp_path / name: (name, recipe) for name in ("short", "long")}
    remaining = Remaining(runs, clock=lambda: now[0], jobs=2)
    for folder, total in zip(runs, (10, 100), strict=True):
        remaining.begin(folder)
        remaining.tick(folder, "student", 0, total)
    now[0] = 5.0
    for folder, total in zip(runs, (10, 100), strict=True):
        remaining.tick(folder, "student", 5, total)
    assert remaining.left() == 95.0


def test_finished_runs_count_at_once_and_those_of_another_recipe_do_not(tmp_path: Path) -> None:
    recipe, other, headline = recipe_with({}), recipe_with({}, epochs=9.0), RecordedHeadline()
    for name, done in (("a", recipe), ("b", other)):
        (tmp_path / name).mkdir()
        write_json(tmp_path / name / "results.json", results(name, 0, 0.5))
        write_manifest(tmp_path / name, "run", {}, recipe=dump(done))
    assert is_finished(tmp_path / "a", recipe)
    remaining = Remaining({tmp_path / name: (name, recipe) for name in ("a", "b")}, headline)
    assert headline.lines == [("about 10 s left", 1, 2)]
    assert remaining.left() == 10.0


def test_without_a_terminal_the_headline_is_a_line_for_each_run_that_is_done(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Bars() as bars:
        for text, done in (("soon", 0), ("sooner", 0), ("now", 1)):
            bars.headline(text, done, 2)
    assert capsys.readouterr().err.splitlines() == ["all runs: 0 of 2 done, soon", "all runs: 1 of 2 done, now"]


def test_a_stage_that_begins_again_is_timed_anew(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two stages of training have one name; without it the second would go at a negative rate."""
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    with Bars() as bars:
        for second, done in ((100, 50), (110, 100), (120, 1), (130, 21)):
            now[0] = float(second)
            bars("student", done, 100 if done >= 50 else 21)
    assert capsys.readouterr().err.splitlines()[-2:] == [
        "student: 100 of 100, 5.0/s, 0 s left",
        "student: 21 of 21, 2.0/s, 0 s left",
    ]


# ---- a whole comparison ----


def test_a_comparison_shares_stages_judges_its_recipes_and_grows_by_a_seed(recipe_file: Path, tmp_path: Path) -> None:
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
    with pytest.raises(RecipeError, match="baseline 'mime' is not one of the recipes; did you mean 'mine'"):
        compare_recipes(recipes, 2, tmp_path / "out", silent, baseline="mime")
