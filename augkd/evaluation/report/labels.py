"""Sections about labels that cost something: the student against their number, and the answers of a teacher.

Nothing is shown for a run without a label budget, or whose teacher is a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from augkd.evaluation.compare.schema import ComparisonSummary
from augkd.evaluation.report.blocks import Plot, Section, Table, count, decimal
from augkd.evaluation.report.data import RunData
from augkd.evaluation.report.figures import Series, StyleSheet, lines
from augkd.evaluation.results import RunResults, Split

_AXIS = "texts labelled by the teacher"


def label_curve(run: RunData, sheet: StyleSheet) -> Section | None:
    """The score of each student of a label budget against the number of labels; None without one."""
    points = label_points(run.results, "validation")
    if not points:
        return None
    test = [point for point in label_points(run.results, "test") if point[1] is not None]
    series = [_series("validation", points), *([_series("test", test)] if test else [])]
    last = points[-1]
    caption = f"{run.results['metric']} against labels: {decimal(points[0][1])} with {count(points[0][0])}, "
    caption += f"{decimal(last[1])} with {count(last[0])} (validation)."
    intro = "Each point is a student of the same recipe, trained on what the teacher had labelled by then."
    plot = Plot(lines(sheet, caption, series, _AXIS, run.results["metric"], marks=True), caption)
    return Section("labels", "Labels", intro, [plot])


def label_curves(summary: ComparisonSummary, sheet: StyleSheet) -> Section | None:
    """The mean score over seeds against the number of labels, a line for each recipe with a label budget."""
    split, metric = summary["split"], summary["metric"]
    curves = {name: curve for name, runs in summary["runs"].items() if (curve := mean_points(runs, split))}
    if not curves:
        return None
    caption = f"Mean {split} {metric} over seeds against labels: "
    caption += "; ".join(f"{name} {decimal(curve[-1][1])} with {count(curve[-1][0])}" for name, curve in curves.items())
    series = [_series(name, curve) for name, curve in curves.items()]
    plot = Plot(lines(sheet, f"{caption}.", series, _AXIS, f"{split} {metric}", marks=True), f"{caption}.")
    sizes = sorted({size for curve in curves.values() for size, _ in curve})
    rows = [[name, *(decimal(dict(curve).get(size)) for size in sizes)] for name, curve in curves.items()]
    table = Table(f"Mean {split} {metric} by number of labels", ["recipe", *map(count, sizes)], rows)
    intro = "Each point is a student trained on what the teacher had labelled by then, averaged over seeds."
    return Section("labels", "Labels", intro, [plot, table])


def label_points(results: RunResults, split: Split) -> list[tuple[int, float]]:
    """(labels, score) of the students between rounds and of the final one; [] without a label budget."""
    rounds = results.get("label_rounds")
    if rounds is None:
        return []
    between = [(student["labels"], student[split]) for student in rounds["students"]]
    final = (results["data"]["labelled_by_the_teacher"] - results["data"].get("left_out", 0), results["student"][split])
    return [(labels, score) for labels, score in (*between, final) if score is not None]


def mean_points(runs: Sequence[RunResults], split: Split) -> list[tuple[int, float]]:
    """(labels, mean score) over runs that differ in the seed, where all of them have a student."""
    curves = [dict(label_points(run, split)) for run in runs]
    shared = set.intersection(*map(set, curves)) if curves else set()
    return [(labels, float(np.mean([curve[labels] for curve in curves]))) for labels in sorted(shared)]


def asked(run: RunData) -> Section | None:
    """What a teacher that is asked answered, and how it was calibrated; None for other teachers."""
    reports = run.results.get("asked")
    if not reports:
        return None
    head = (
        ["", *(f"teacher {number}" for number in range(1, len(reports) + 1))] if len(reports) > 1 else ["", "teacher"]
    )
    columns = [_facts(report) for report in reports]
    rows = [[name, *(column[name] for column in columns)] for name in columns[0]]
    intro = "Texts without an answer are left out of the transfer set; left_out.jsonl in its folder lists them. "
    intro += "The calibration is measured on the texts that the temperature was fitted to."
    return Section("asked", "Answers of the teacher", intro, [Table("Answers and calibration", head, rows)])


def _facts(report: dict[str, Any]) -> dict[str, str]:
    calibration, reasons = report["calibration"], report["left_out"]
    before_after = {
        f"{name}, before and after": " → ".join(map(decimal, calibration[key])) if calibration[key] else "–"
        for name, key in (("negative log-likelihood", "nll"), ("calibration error", "ece"))
    }
    return {
        "texts": count(report["texts"]),
        "answered": count(report["answered"]),
        "answered without probabilities (smoothed)": count(report["smoothed"]),
        "left out": ", ".join(f"{reason}: {count(texts)}" for reason, texts in reasons.items()) or "0",
        "tokens read": count(report["prompt_tokens"]),
        "tokens written": count(report["completion_tokens"]),
        "texts calibrated on": count(calibration["texts"]),
        "temperature": decimal(calibration["temperature"]),
        "accuracy on them": decimal(calibration["accuracy"]),
        **before_after,
    }


def _series(name: str, points: Sequence[tuple[int, float]]) -> Series:
    return Series(name, [x for x, _ in points], [y for _, y in points])
