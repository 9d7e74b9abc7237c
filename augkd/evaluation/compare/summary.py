"""The summary of recipes × seeds on one task: means, spreads, differences with intervals, costs.

A difference pairs runs of the same seed, so what the seed does to both sides cancels out.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from augkd.errors import RecipeError, did_you_mean
from augkd.evaluation.compare.bootstrap import RESAMPLES
from augkd.evaluation.compare.inference import (
    LEVEL,
    Difference,
    differences,
    gap_closed,
    mean_over_resampled_seeds,
)
from augkd.evaluation.compare.schema import (
    ComparisonSummary,
    RecipeCost,
    RecipeSummary,
    SeedDifference,
    SeedScores,
    Verdict,
)
from augkd.evaluation.compare.students import StudentPredictions, StudentScores, measure, read_students
from augkd.evaluation.compare.table import comparison_table
from augkd.evaluation.results import RunResults, Split
from augkd.workspace.checksums import write_signed
from augkd.workspace.files import write_text
from augkd.workspace.run_folder import run_folder

NO_VERDICT: Verdict = {"interval": None, "p": None, "verdict": None}


def student_folders(out: Path, runs: Mapping[str, Sequence[RunResults]]) -> dict[str, list[Path]]:
    """The student folders of each recipe of a comparison in `out`."""
    return {name: [run_folder(out, name, run["seed"]) / "student" for run in seeds] for name, seeds in runs.items()}


def summarise(
    runs: Mapping[str, Sequence[RunResults]],  # by recipe, one per seed
    out: Path,
    baseline: str | None = None,
    time_budget: float | None = None,
    split: Split | None = None,  # None: test, or validation where test has no labels
    resamples: int = RESAMPLES,
) -> ComparisonSummary:
    """Summarises the runs below `out`; writes the summary there to compare.json and compare.md.

    The baseline is `kd` if there is one, else the first recipe, unless another is named. Intervals need the predictions
    in the student folders; without them they are None. Raises RecipeError for an unknown baseline, and for `split` test
    where that has no labels.
    """
    baseline = baseline or ("kd" if "kd" in runs else next(iter(runs)))
    if baseline not in runs:
        raise RecipeError(f"baseline '{baseline}' is not one of the recipes{did_you_mean(baseline, runs)}")
    first = next(iter(runs.values()))[0]
    split = _split(first, split)
    summary: ComparisonSummary = {
        "task": first["task"],
        "metric": first["metric"],
        "split": split,
        "examples": None,
        "baseline": baseline,
        "gap_baseline": None,
        "comparisons": 0,
        "level": LEVEL,
        "resamples": resamples,
        "time_budget": time_budget,
        "teacher": {"validation": first["teacher"]["validation"], "test": first["teacher"]["test"]},
        "shared_seconds": _shared_seconds(runs),
        "rows": [_row(name, seeds, runs[baseline], split) for name, seeds in runs.items()],
        "runs": {name: list(seeds) for name, seeds in runs.items()},
    }
    predictions = read_students(student_folders(out, runs), split)
    if predictions is not None:
        _add_inference(summary, predictions)
    write_signed(out / "compare.json", summary)
    write_text(out / "compare.md", comparison_table(summary) + "\n")
    return summary


# ---- scores and costs ----


def _split(run: RunResults, asked: Split | None) -> Split:
    """The split to compare on."""
    labelled = run["student"]["test"] is not None
    if asked == "test" and not labelled:
        raise RecipeError(f"the test split of task '{run['task']}' has no labels; compare with --split validation")
    return asked or ("test" if labelled else "validation")


def _row(name: str, runs: Sequence[RunResults], baseline: Sequence[RunResults], split: Split) -> RecipeSummary:
    by_seed = [_difference(run, other, split) for run, other in zip(runs, baseline, strict=False)]
    difference: SeedDifference = {**_over_seeds(by_seed), **NO_VERDICT}
    return {
        "recipe": name,
        "seeds": len(runs),
        "validation": _over_seeds([run["student"]["validation"] for run in runs]),
        "test": _over_seeds([run["student"]["test"] for run in runs]),
        "difference": difference,
        "gap_closed": None,
        "cost": _cost(runs),
    }


def _difference(run: RunResults, baseline: RunResults, split: Split) -> float | None:
    """Score of a run minus that of the baseline with the same seed; None for the baseline itself."""
    if run["recipe"] == baseline["recipe"]:
        return None
    assert run["seed"] == baseline["seed"]
    score, other = run["student"][split], baseline["student"][split]
    return None if score is None or other is None else score - other


def _over_seeds(values: Sequence[float | None]) -> SeedScores:
    known = [value for value in values if value is not None]
    return {
        "mean": statistics.mean(known) if known else None,
        "sd": statistics.stdev(known) if len(known) > 1 else None,
        "values": list(values),
    }


def _cost(runs: Sequence[RunResults]) -> RecipeCost:
    costs, data = [run["cost"] for run in runs], runs[0]["data"]
    stages = ("student", "assistants", "transfer_set")
    seconds = {stage: [cost["seconds"][stage] for cost in costs if stage in cost["seconds"]] for stage in stages}
    return {
        "teacher_rows": statistics.mean(cost["teacher_rows"] for cost in costs),
        "training_rows": statistics.mean(cost["training_rows"] for cost in costs),
        "scoring_rows": statistics.mean(cost["scoring_rows"] for cost in costs),
        "generator_rows": statistics.mean(cost["generator_rows"] for cost in costs),
        "seconds": {stage: statistics.mean(values) for stage, values in seconds.items() if values},
        "peak_rss_bytes": max(cost["peak_rss_bytes"] for cost in costs),
        "candidates": data["candidates"],
        "originals": data["originals"],
        "generated_per_original": data["generated_per_original"],
        "kept_per_original": data["kept_per_original"],
        "parameters": runs[0]["student"]["parameters"],
    }


def _shared_seconds(runs: Mapping[str, Sequence[RunResults]]) -> dict[str, float]:
    """Seconds of the stages that runs share, each once: the maximum, as later runs find the stage finished."""
    seconds = [run["cost"]["seconds"] for seeds in runs.values() for run in seeds]
    return {stage: max(run.get(stage, 0.0) for run in seconds) for stage in ("index", "teacher")} | {
        "transfer_sets": sum({run.get("transfer_set", 0.0) for run in seconds})  # one for each set of data options
    }


# ---- inference ----


def verdict_of(difference: Difference) -> Verdict:
    """A difference as compare.json has it."""
    return {"interval": list(difference.interval), "p": difference.p, "verdict": difference.verdict}


def _add_inference(summary: ComparisonSummary, predictions: StudentPredictions) -> None:
    """Adds intervals, verdicts and the teacher gap closed of the recipes whose predictions are known."""
    summary["examples"] = len(predictions.labels)
    if summary["baseline"] not in predictions.recipes:
        return
    scores = measure(summary["metric"], predictions.students, predictions.labels, summary["resamples"])
    baseline = predictions.recipes.index(summary["baseline"])
    rows = {row["recipe"]: row for row in summary["rows"]}
    by_recipe = differences(scores.scores, scores.resampled, baseline)
    for place, difference in by_recipe.items():
        rows[predictions.recipes[place]]["difference"].update(verdict_of(difference))  # type: ignore[typeddict-item]
    summary["comparisons"] = len(by_recipe)
    if predictions.teacher is not None:
        _add_gap_closed(summary, rows, predictions, scores)


def _add_gap_closed(
    summary: ComparisonSummary,
    rows: Mapping[str, RecipeSummary],
    predictions: StudentPredictions,
    scores: StudentScores,
) -> None:
    assert predictions.teacher is not None
    metric, resamples = summary["metric"], summary["resamples"]
    teacher = measure(metric, predictions.teacher[None, None], predictions.labels, resamples)
    summary["gap_baseline"] = "kd" if "kd" in predictions.recipes else summary["baseline"]
    plain = predictions.recipes.index(summary["gap_baseline"])
    mean, resampled = scores.scores.mean(axis=1), mean_over_resampled_seeds(scores.resampled, 0)
    for place, name in enumerate(predictions.recipes):
        if place == plain:
            continue
        gap = gap_closed(
            (float(mean[place]), resampled[:, place]),
            (float(mean[plain]), resampled[:, plain]),
            (float(teacher.scores[0, 0]), teacher.resampled[:, 0, 0]),
        )
        if gap is not None:
            rows[name]["gap_closed"] = {"share": gap.share, "interval": list(gap.interval)}
