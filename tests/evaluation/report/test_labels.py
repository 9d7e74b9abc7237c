"""Scores against labels, and the answers of a teacher that is asked, from results.json alone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from augkd.evaluation.report.blocks import Plot, Table
from augkd.evaluation.report.figures import StyleSheet
from augkd.evaluation.report.labels import asked, label_curve, label_curves, label_points, mean_points


def results(*students: tuple[int, float, float], final: float = 0.9, left_out: int = 0) -> Any:
    between = [{"labels": n, "validation": validation, "test": test} for n, validation, test in students]
    return {
        "metric": "accuracy",
        "seed": 0,
        "label_rounds": {"chosen": [10, 10], "students": between},
        "data": {"labelled_by_the_teacher": 120, "left_out": left_out},
        "student": {"validation": 0.95, "test": final},
    }


def test_points_are_the_students_between_rounds_and_the_final_one_without_texts_that_were_left_out() -> None:
    assert label_points(results((100, 0.7, 0.6), (110, 0.8, 0.7), left_out=3), "test") == [
        *((100, 0.6), (110, 0.7), (117, 0.9)),
    ]
    assert label_points({"student": {"test": 0.5}, "data": {}}, "test") == []  # type: ignore[typeddict-item]


def test_the_mean_is_over_the_seeds_that_all_have_a_student_with_so_many_labels() -> None:
    runs = [results((100, 0.7, 0.6), (110, 0.8, 0.7)), results((100, 0.7, 0.8), final=0.7)]
    assert mean_points(runs, "test") == [(100, 0.7), (120, 0.8)]


def test_a_run_with_a_label_budget_has_a_plot_and_one_without_has_none() -> None:
    section = label_curve(SimpleNamespace(results=results((100, 0.7, 0.6))), StyleSheet())  # type: ignore[arg-type]
    assert section is not None
    (plot,) = section.blocks
    assert isinstance(plot, Plot)
    assert plot.caption == "accuracy against labels: 0.7000 with 100, 0.9500 with 120 (validation)."
    without: Any = SimpleNamespace(results={"student": {}, "data": {}})
    assert label_curve(without, StyleSheet()) is None
    assert asked(without) is None


def test_a_comparison_has_a_line_and_a_row_for_each_recipe_with_a_label_budget() -> None:
    runs = {"random": [results((100, 0.7, 0.6))], "entropy": [results((110, 0.7, 0.8))], "kd": [{"student": {}}]}
    summary: Any = {"split": "test", "metric": "accuracy", "runs": runs}
    section = label_curves(summary, StyleSheet())
    assert section is not None
    table = section.blocks[1]
    assert isinstance(table, Table)
    assert table.head == ["recipe", "100", "110", "120"]
    assert table.rows == [["random", "0.6000", "–", "0.9000"], ["entropy", "–", "0.8000", "0.9000"]]
    assert label_curves({**summary, "runs": {"kd": runs["kd"]}}, StyleSheet()) is None


def test_what_a_teacher_answered_is_a_table() -> None:
    report = {
        "texts": 120,
        "answered": 117,
        "smoothed": 5,
        "left_out": {"refused": 2, "unparsable": 1},
        "prompt_tokens": 12345,
        "completion_tokens": 120,
        "calibration": {"temperature": 1.5, "texts": 100, "nll": [0.9, 0.6], "ece": [0.2, 0.05], "accuracy": 0.8},
    }
    run: Any = SimpleNamespace(results={"asked": [report]})
    section = asked(run)
    assert section is not None
    (table,) = section.blocks
    assert isinstance(table, Table)
    rows = dict(map(tuple, table.rows))  # type: ignore[arg-type]
    assert rows["left out"] == "refused: 2, unparsable: 1"
    assert rows["tokens read"] == "12,345"
    assert rows["calibration error, before and after"] == "0.2000 → 0.0500"
