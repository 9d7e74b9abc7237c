"""A summary has the scores, differences and costs of a comparison, and its tables have the summary's values."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from augkd.errors import RecipeError, WorkspaceError
from augkd.evaluation.compare.average import average
from augkd.evaluation.compare.schema import ComparisonSummary
from augkd.evaluation.compare.summary import summarise
from augkd.evaluation.compare.table import average_table, comparison_table
from augkd.evaluation.predictions import FILE
from augkd.evaluation.results import RunResults
from augkd.workspace.checksums import read_signed
from augkd.workspace.run_folder import run_folder


def results(name: str, seed: int, test: float | None, validation: float = 0.5, **changed: Any) -> RunResults:
    cost: Any = {
        "teacher_rows": 30,
        "training_rows": 100,
        "scoring_rows": 0,
        "generator_rows": 0,
        "seconds": {"index": 1.0 - seed, "teacher": 60.0, "transfer_set": 5.0, "student": 10.0 + seed},
        "peak_rss_bytes": 2**20 * (seed + 1),
    }
    run: Any = {
        "task": "toy",
        "metric": "accuracy",
        "seed": seed,
        "recipe": name,
        "teacher": {"validation": 0.9, "test": None if test is None else 0.95},
        "student": {"validation": validation, "test": test, "parameters": 1000},
        "data": {"originals": 10, "candidates": 40, "generated_per_original": 0, "kept_per_original": 2},
        "cost": cost | changed,
    }
    return cast(RunResults, run)


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
    assert read_signed(tmp_path / "compare.json").items() >= value.items()


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


def test_recipes_can_be_compared_on_validation_and_the_table_then_shows_no_test_score(tmp_path: Path) -> None:
    validation = {"kd": [60, 60], "mine": [80, 80]}  # on test it is the other way round
    runs = {}
    for name, wrong in {"kd": [40, 40], "mine": [20, 20]}.items():
        runs[name] = [
            results(name, seed, 1 - test / 200, 1 - validation[name][seed] / 200) for seed, test in enumerate(wrong)
        ]
        for seed, test in enumerate(wrong):
            on_validation = outputs(validation[name][seed], seed)
            folder = run_folder(tmp_path, name, seed) / "student"
            write_predictions(folder, outputs(test, seed), outputs(10), validation=on_validation)
    assert summarise(runs, tmp_path)["rows"][1]["difference"]["mean"] == pytest.approx(0.1)
    value = summarise(runs, tmp_path, split="validation")
    difference = value["rows"][1]["difference"]
    assert difference["mean"] == pytest.approx(-0.1)
    assert difference["verdict"] == "worse"
    page = comparison_table(value)
    assert "validation accuracy" in page
    assert "test accuracy" not in page
    assert "The test split has no labels" not in page
    with pytest.raises(RecipeError, match="test split of task 'toy' has no labels; compare with --split validation"):
        summarise({"kd": [results("kd", 0, None, 0.5)]}, tmp_path, split="test")


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
    assert value["gap_baseline"] == "kd"
    gap = rows["mine"]["gap_closed"]
    assert gap["share"] == pytest.approx((0.2 + 0.0) / (0.25 + 0.15))  # teacher 0.95; kd 0.7 and 0.8
    shown = f"{gap['share']:.0%} [{gap['interval'][0]:.0%}, {gap['interval'][1]:.0%}]"
    assert f"| mine | 0.8500 | +0.1000 [{low:+.4f}, {high:+.4f}] | better | {shown} | 1.25 | 1 | 0 |" in average_table(
        value
    )
    assert "| kd | 0.7500 |  | baseline |  | 1.75 | 0 | 0 |" in average_table(value)
    assert "Left out, as they did not run on every task: bad." in average_table(value)


def test_the_interval_of_an_average_narrows_with_the_root_of_the_number_of_tasks(tmp_path: Path) -> None:
    """Four equal tasks: half the standard error of one."""
    folders = [tmp_path / name for name in "abcd"]
    values = [compared(folder, MISSES) for folder in folders]
    (one,) = [row["difference"]["interval"] for row in values[0]["rows"] if row["recipe"] == "mine"]
    summary = average(values, folders)
    assert summary["comparisons"] == 3
    of_one = [row["gap_closed"] for row in values[0]["rows"] if row["recipe"] == "mine"]
    shares = [*of_one, *(row["gap_closed"] for row in summary["rows"] if row["recipe"] == "mine")]
    assert shares[1]["share"] == pytest.approx(shares[0]["share"])
    widths = [share["interval"][1] - share["interval"][0] for share in shares]
    assert widths[1] / widths[0] == pytest.approx(0.5, abs=0.05)
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
        assert value["gap_baseline"] is None
        assert "no interval, as student folders lack predictions" in average_table(value)
