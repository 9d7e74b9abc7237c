"""Averages over the tasks of a comparison: mean metric, mean difference to the baseline, mean rank of each recipe."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from augkd.evaluation.compare.bootstrap import RESAMPLES
from augkd.evaluation.compare.inference import (
    LEVEL,
    ResampledDifferences,
    mean_over_tasks,
    resampled_differences,
    with_intervals,
)
from augkd.evaluation.compare.schema import (
    AverageRow,
    AverageSummary,
    ComparisonSummary,
    Verdict,
)
from augkd.evaluation.compare.students import measure, read_students
from augkd.evaluation.compare.summary import NO_VERDICT, student_folders, verdict_of
from augkd.evaluation.compare.table import average_table
from augkd.workspace.files import write_json, write_text
from augkd.workspace.run_folder import task_folder


def write_average(tasks: Sequence[ComparisonSummary], out: Path) -> AverageSummary:
    """Averages tasks whose folders lie in `out`; writes the summary there to compare.json and compare.md."""
    summary = average(tasks, [task_folder(out, task["task"]) for task in tasks])
    write_json(out / "compare.json", summary)
    write_text(out / "compare.md", average_table(summary) + "\n")
    return summary


def average(tasks: Sequence[ComparisonSummary], folders: Sequence[Path], resamples: int = RESAMPLES) -> AverageSummary:
    """Averages of the recipes that ran on all tasks; `folders` are those of the tasks.

    Mean differences to the baseline have intervals if every run of these recipes left its predictions in its task's
    folder and all tasks have the same baseline.
    """
    scores = [{row["recipe"]: row[task["split"]]["mean"] for row in task["rows"]} for task in tasks]
    names = [name for name in scores[0] if all(task.get(name) is not None for task in scores)]
    baseline = tasks[0]["baseline"]
    verdicts = _verdicts(tasks, folders, names, baseline, resamples) if baseline in names else {}
    teacher = [task["teacher"][task["split"]] for task in tasks]
    return {
        "tasks": [task["task"] for task in tasks],
        "metrics": [task["metric"] for task in tasks],
        "baseline": baseline,
        "comparisons": len(verdicts),
        "resamples": resamples,
        "level": LEVEL,
        "teacher": None if None in teacher else statistics.mean(teacher),  # type: ignore[type-var]
        "rows": _rows(tasks, np.array([[task[name] for name in names] for task in scores]), names, baseline, verdicts),
        "left_out": sorted({name for task in scores for name in task} - set(names)),
    }


def _rows(
    tasks: Sequence[ComparisonSummary],
    scores: NDArray[np.float64],  # (tasks, names)
    names: Sequence[str],
    baseline: str,
    verdicts: Mapping[str, Verdict],
) -> list[AverageRow]:
    ranks = np.array([rankdata(-row) for row in scores]).reshape(scores.shape)
    plain = names.index(baseline) if baseline in names else None
    outcomes = [{row["recipe"]: row["difference"]["verdict"] for row in task["rows"]} for task in tasks]
    summaries: list[AverageRow] = []
    for place, name in enumerate(names):
        apart = None if plain in (None, place) else float((scores[:, place] - scores[:, plain]).mean())
        summaries.append(
            {
                "recipe": name,
                "mean": float(scores[:, place].mean()),
                "difference": {"mean": apart, **verdicts.get(name, NO_VERDICT)},
                "rank": float(ranks[:, place].mean()),
                "better": sum(task[name] == "better" for task in outcomes),
                "worse": sum(task[name] == "worse" for task in outcomes),
            }
        )
    return summaries


def _verdicts(
    tasks: Sequence[ComparisonSummary], folders: Sequence[Path], names: Sequence[str], baseline: str, resamples: int
) -> dict[str, Verdict]:
    """The verdict on each recipe but the baseline; on none where predictions are missing or baselines differ."""
    place = names.index(baseline)
    resampled: list[ResampledDifferences] = []
    for number, (task, folder) in enumerate(zip(tasks, folders, strict=True)):
        runs = {name: task["runs"][name] for name in names}
        predictions = read_students(student_folders(folder, runs), task["split"])
        if predictions is None or list(predictions.recipes) != list(names) or task["baseline"] != baseline:
            return {}
        # Tasks have their own examples and students, so each is resampled by itself.
        scores = measure(task["metric"], predictions.students, predictions.labels, resamples, seed=number)
        resampled.append(resampled_differences(scores.scores, scores.resampled, place, seed=number))
    others = [name for name in names if name != baseline]
    means = with_intervals(mean_over_tasks(resampled))
    return {name: verdict_of(difference) for name, difference in zip(others, means, strict=True)}
