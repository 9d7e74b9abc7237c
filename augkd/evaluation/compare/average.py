"""Averages over the tasks of a comparison: mean metric, mean difference to the baseline, mean rank of each recipe."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from augkd.evaluation.compare.bootstrap import RESAMPLES
from augkd.evaluation.compare.inference import (
    LEVEL,
    gap_closed,
    mean_over_resampled_seeds,
    mean_over_tasks,
    resampled_differences,
    with_intervals,
)
from augkd.evaluation.compare.schema import (
    AverageRow,
    AverageSummary,
    ComparisonSummary,
    GapClosedSummary,
    Verdict,
)
from augkd.evaluation.compare.students import StudentScores, measure, read_students
from augkd.evaluation.compare.summary import NO_VERDICT, student_folders, verdict_of
from augkd.evaluation.compare.table import average_table
from augkd.workspace.checksums import write_signed
from augkd.workspace.files import write_text
from augkd.workspace.run_folder import task_folder


def write_average(tasks: Sequence[ComparisonSummary], out: Path) -> AverageSummary:
    """Averages tasks whose folders lie in `out`; writes the summary there to compare.json and compare.md."""
    summary = average(tasks, [task_folder(out, task["task"]) for task in tasks])
    write_signed(out / "compare.json", summary)
    write_text(out / "compare.md", average_table(summary) + "\n")
    return summary


def average(tasks: Sequence[ComparisonSummary], folders: Sequence[Path], resamples: int = RESAMPLES) -> AverageSummary:
    """Averages of the recipes that ran on all tasks; `folders` are those of the tasks.

    Mean differences to the baseline, and shares of the teacher gap closed, have intervals if every run of these recipes
    left its predictions in its task's folder and all tasks have the same baseline.
    """
    scores = [{row["recipe"]: row[task["split"]]["mean"] for row in task["rows"]} for task in tasks]
    names = [name for name in scores[0] if all(task.get(name) is not None for task in scores)]
    baseline = tasks[0]["baseline"]
    measured = _measured(tasks, folders, names, resamples) if baseline in names else None
    verdicts = {} if measured is None else _verdicts(measured, names, baseline)
    plain = "kd" if "kd" in names else baseline
    gaps = {} if measured is None else _gaps_closed(measured, names, plain)
    teacher = [task["teacher"][task["split"]] for task in tasks]
    return {
        "tasks": [task["task"] for task in tasks],
        "metrics": [task["metric"] for task in tasks],
        "baseline": baseline,
        "gap_baseline": plain if gaps else None,
        "comparisons": len(verdicts),
        "resamples": resamples,
        "level": LEVEL,
        "teacher": None if None in teacher else statistics.mean(teacher),  # type: ignore[type-var]
        "rows": _rows(
            tasks, np.array([[task[name] for name in names] for task in scores]), names, baseline, verdicts, gaps
        ),
        "left_out": sorted({name for task in scores for name in task} - set(names)),
    }


def _rows(
    tasks: Sequence[ComparisonSummary],
    scores: NDArray[np.float64],  # (tasks, names)
    names: Sequence[str],
    baseline: str,
    verdicts: Mapping[str, Verdict],
    gaps: Mapping[str, GapClosedSummary],
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
                "gap_closed": gaps.get(name),
                "rank": float(ranks[:, place].mean()),
                "better": sum(task[name] == "better" for task in outcomes),
                "worse": sum(task[name] == "worse" for task in outcomes),
            }
        )
    return summaries


# ---- inference ----


@dataclass(frozen=True)
class _TaskScores:
    """Scores of a task's students and of its teacher, resampled by themselves: a task has its own examples."""

    students: StudentScores
    teacher: StudentScores | None  # one recipe and seed; None where its outputs are not known for every example


def _measured(
    tasks: Sequence[ComparisonSummary], folders: Sequence[Path], names: Sequence[str], resamples: int
) -> list[_TaskScores] | None:
    """Scores on each task; None where predictions are missing or baselines differ."""
    measured: list[_TaskScores] = []
    for number, (task, folder) in enumerate(zip(tasks, folders, strict=True)):
        runs = {name: task["runs"][name] for name in names}
        predictions = read_students(student_folders(folder, runs), task["split"])
        if predictions is None or list(predictions.recipes) != list(names) or task["baseline"] != tasks[0]["baseline"]:
            return None
        score = partial(measure, task["metric"], labels=predictions.labels, resamples=resamples, seed=number)
        teacher = None if predictions.teacher is None else score(predictions.teacher[None, None])
        measured.append(_TaskScores(score(predictions.students), teacher))
    return measured


def _verdicts(tasks: Sequence[_TaskScores], names: Sequence[str], baseline: str) -> dict[str, Verdict]:
    """The verdict on each recipe but the baseline."""
    place = names.index(baseline)
    resampled = [
        resampled_differences(task.students.scores, task.students.resampled, place, seed=number)
        for number, task in enumerate(tasks)
    ]
    others = [name for name in names if name != baseline]
    means = with_intervals(mean_over_tasks(resampled))
    return {name: verdict_of(difference) for name, difference in zip(others, means, strict=True)}


def _gaps_closed(tasks: Sequence[_TaskScores], names: Sequence[str], plain: str) -> dict[str, GapClosedSummary]:
    """The share of the mean teacher gap that each recipe but `plain` closes: gaps are averaged before they are divided.

    The mean of the tasks' shares would be ruled by tasks with next to no gap.
    """
    teachers = [task.teacher for task in tasks if task.teacher is not None]
    if len(teachers) < len(tasks):
        return {}
    value = np.mean([task.students.scores.mean(axis=1) for task in tasks], axis=0)
    resampled = np.mean(
        [mean_over_resampled_seeds(task.students.resampled, number) for number, task in enumerate(tasks)], axis=0
    )
    teacher = (
        float(np.mean([one.scores[0, 0] for one in teachers])),
        np.mean([one.resampled[:, 0, 0] for one in teachers], axis=0),
    )
    base = names.index(plain)
    gaps = {
        name: gap_closed((float(value[i]), resampled[:, i]), (float(value[base]), resampled[:, base]), teacher)
        for i, name in enumerate(names)
        if name != plain
    }
    return {name: {"share": gap.share, "interval": list(gap.interval)} for name, gap in gaps.items() if gap is not None}
