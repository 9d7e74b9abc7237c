"""Recipes × seeds: one table of means, spreads, honest differences and costs.

Controls are derived from the recipe itself, so that they differ from it in the one thing they are named for.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from augkd.errors import RecipeError, did_you_mean
from augkd.evaluation.compare.bootstrap import DRAWS, replicates
from augkd.evaluation.compare.inference import (
    LEVEL,
    Drawn,
    differences,
    drawn_differences,
    judged,
    mean_over_tasks,
    seeds_too,
    share_of_lead,
)
from augkd.evaluation.compare.table import average_table, table
from augkd.evaluation.metrics import metric_of
from augkd.evaluation.predictions import Predictions, read_predictions
from augkd.workspace.files import write_json, write_text

Results = Mapping[str, Sequence[Mapping[str, Any]]]  # recipe → results.json of each seed


# ---- controls and budgets ----


# ---- what came out ----


def run_folder(out: Path, name: str, seed: int) -> Path:
    """Where a comparison in `out` keeps one run."""
    return out / "runs" / f"{name}-s{seed}"


def summarise(
    results: Results, out: Path, baseline: str | None = None, budget: float | None = None, draws: int = DRAWS
) -> dict[str, Any]:
    """Means, spreads, differences to `baseline` with intervals, and costs; written to compare.json and compare.md.

    The baseline is `kd` where there is one, else the first recipe, unless another is named. Intervals need the
    predictions in the student folders below `out`; without them they are None.
    """
    baseline = baseline or ("kd" if "kd" in results else next(iter(results)))
    if baseline not in results:
        raise RecipeError(f"baseline '{baseline}' is not compared{did_you_mean(baseline, results)}")
    first = next(iter(results.values()))[0]
    split = "test" if first["student"]["test"] is not None else "validation"
    students = {
        name: [run_folder(out, name, run["seed"]) / "student" for run in runs] for name, runs in results.items()
    }
    predictions = read_predictions(students, split)
    rows = [_row(name, runs, results[baseline], split) for name, runs in results.items()]
    teacher = {"recipe": "teacher", "test": first["teacher"]["test"], "validation": first["teacher"]["validation"]}
    value: dict[str, Any] = {"task": first["task"], "metric": first["metric"], "baseline": baseline}
    value |= {"split": split, "examples": None, "draws": draws, "level": LEVEL, "comparisons": 0, "budget": budget}
    value |= {"teacher": teacher, "rows": rows, "shared_seconds": _shared_seconds(results)}
    if predictions is not None:
        value |= _judge(rows, predictions, first["metric"], baseline, draws)
    value["runs"] = {name: list(runs) for name, runs in results.items()}
    write_json(out / "compare.json", value)
    write_text(out / "compare.md", table(value) + "\n")
    return value


def _row(
    name: str, runs: Sequence[Mapping[str, Any]], baseline: Sequence[Mapping[str, Any]], split: str
) -> dict[str, Any]:
    unknown = {"interval": None, "p": None, "verdict": None}  # until predictions say more
    cost = _cost(runs)
    apart = [_difference(run, other, split) for run, other in zip(runs, baseline, strict=False)]
    return {
        "recipe": name,
        "seeds": len(runs),
        "validation": _figures([run["student"]["validation"] for run in runs]),
        "test": _figures([run["student"]["test"] for run in runs]),
        "difference": _figures(apart) | unknown,
        "lead": None,
        **{key: cost[key] for key in ("training_rows", "scoring_rows")},
        "seconds": cost["seconds"]["student"],
        "cost": cost,
    }


def _difference(run: Mapping[str, Any], baseline: Mapping[str, Any], split: str) -> float | None:
    """Figure of a run less that of the baseline with the same seed: what the seed did to both is taken out."""
    if run["recipe"] == baseline["recipe"]:
        return None
    assert run["seed"] == baseline["seed"]
    ours, theirs = run["student"][split], baseline["student"][split]
    return None if ours is None or theirs is None else float(ours - theirs)


def _figures(values: Sequence[float | None]) -> dict[str, Any]:
    known = [value for value in values if value is not None]
    return {
        "mean": statistics.mean(known) if known else None,
        "sd": statistics.stdev(known) if len(known) > 1 else None,  # sample sd: n - 1
        "values": list(values),
    }


def _cost(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a recipe costs: means over seeds, the largest of memory. `generator_rows` only where there are any."""
    costs = [run["cost"] for run in runs]
    rows = [key for key in ("teacher_rows", "training_rows", "scoring_rows", "generator_rows") if key in costs[0]]
    stages = ("student", "assistants", "transfer_set")
    seconds = {stage: [cost["seconds"][stage] for cost in costs if stage in cost["seconds"]] for stage in stages}
    return {
        **{key: statistics.mean(cost.get(key, 0) for cost in costs) for key in rows},
        "seconds": {stage: statistics.mean(values) for stage, values in seconds.items() if values},
        "peak_rss_bytes": max(cost["peak_rss_bytes"] for cost in costs),
        "candidates": runs[0]["data"]["candidates"],
        "originals": runs[0]["data"]["originals"],
        "generated_per_original": runs[0]["data"].get("generated_per_original", 0),  # not in runs of before it was told
        "kept_per_original": runs[0]["data"]["kept_per_original"],
        "parameters": runs[0]["student"]["parameters"],
    }


def _shared_seconds(results: Results) -> dict[str, float]:
    """Seconds of the stages that runs share, each once: the largest said, as a later run finds the stage finished."""
    every = [run["cost"]["seconds"] for runs in results.values() for run in runs]
    return {stage: max(s.get(stage, 0.0) for s in every) for stage in ("index", "teacher")} | {
        "transfer_sets": sum({s.get("transfer_set", 0.0) for s in every})  # one for each set of data options
    }


# ---- what it is worth ----


def _judge(
    rows: Sequence[dict[str, Any]], found: Predictions, metric: str, baseline: str, draws: int
) -> dict[str, Any]:
    """Puts intervals, verdicts and shares of the teacher's lead into `rows`; returns what holds for all of them."""
    named = {row["recipe"]: row for row in rows}
    figures, drawn = _measured(found.said, found.true, metric, draws)
    facts: dict[str, Any] = {"examples": len(found.true)}
    if baseline not in found.recipes:
        return facts
    apart = differences(figures, drawn, found.recipes.index(baseline))
    for place, one in apart.items():
        told = {"interval": list(one.interval), "p": one.p, "verdict": one.verdict}
        named[found.recipes[place]]["difference"] |= told
    facts["comparisons"] = len(apart)
    if found.teacher is None:
        return facts
    teacher, of_teacher = _measured(found.teacher[None, None], found.true, metric, draws)
    facts["lead_over"] = "kd" if "kd" in found.recipes else baseline
    plain, means, both = found.recipes.index(facts["lead_over"]), figures.mean(axis=1), seeds_too(drawn, 0)
    for place, name in enumerate(found.recipes):
        if place != plain:
            own, other = (means[place], both[:, place]), (means[plain], both[:, plain])
            share = share_of_lead(own, other, (teacher[0, 0], of_teacher[:, 0, 0]))
            named[name]["lead"] = share and {"share": share[0], "interval": list(share[1])}
    return facts


def _measured(
    said: NDArray[Any],  # (recipes, seeds, n)
    true: NDArray[Any],  # (n,)
    metric: str,
    draws: int,
    seed: int = 0,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:  # (recipes, seeds), (draws, recipes, seeds)
    """The metric on the examples as they are, and on resamples of them."""
    flat = said.reshape(-1, said.shape[-1])
    measure = metric_of(metric, regression=true.dtype.kind == "f")
    figures = np.array([measure(one, true) for one in flat]).reshape(said.shape[:2])
    return figures, replicates(metric, flat, true, draws=draws, seed=seed).reshape(draws, *said.shape[:2])


# ---- several tasks ----


def average(values: Sequence[Mapping[str, Any]], folders: Sequence[Path], draws: int = DRAWS) -> dict[str, Any]:
    """Over the tasks of a comparison: mean metric and mean rank (1 is best) of the recipes that ran on all of them.

    `folders` are those of the tasks. Mean differences to the baseline have intervals where every run of theirs left
    its predictions there, and the tasks have one baseline.
    """
    figures = [{row["recipe"]: row[value["split"]]["mean"] for row in value["rows"]} for value in values]
    names = [name for name in figures[0] if all(one.get(name) is not None for one in figures)]
    table_ = np.array([[one[name] for name in names] for one in figures])
    ranks = np.array([rankdata(-line) for line in table_]).reshape(table_.shape)
    verdicts = [{row["recipe"]: row["difference"]["verdict"] for row in value["rows"]} for value in values]
    baseline = values[0]["baseline"]
    plain = names.index(baseline) if baseline in names else None
    told = {} if plain is None else _differences_over_tasks(values, folders, names, plain, draws)
    rows = [
        {
            "recipe": name,
            "mean": float(table_[:, place].mean()),
            "difference": {
                "mean": None if plain in (None, place) else float((table_[:, place] - table_[:, plain]).mean()),
                **told.get(name, {"interval": None, "p": None, "verdict": None}),
            },
            "rank": float(ranks[:, place].mean()),
            **{word: sum(one[name] == word for one in verdicts) for word in ("better", "worse")},
        }
        for place, name in enumerate(names)
    ]
    teacher = [value["teacher"][value["split"]] for value in values]
    return {
        "tasks": [value["task"] for value in values],
        "metrics": [value["metric"] for value in values],
        "baseline": baseline,
        "comparisons": len(told),
        "draws": draws,
        "level": LEVEL,
        "teacher": None if None in teacher else statistics.mean(teacher),
        "rows": rows,
        "left_out": sorted({row["recipe"] for value in values for row in value["rows"]} - set(names)),
    }


def _differences_over_tasks(
    values: Sequence[Mapping[str, Any]], folders: Sequence[Path], names: Sequence[str], plain: int, draws: int
) -> dict[str, dict[str, Any]]:
    """Interval, p and verdict of each recipe but the one at `plain`; of none where predictions are missing."""
    tasks: list[Drawn] = []
    for number, (value, folder) in enumerate(zip(values, folders, strict=True)):
        students = {
            name: [run_folder(folder, name, run["seed"]) / "student" for run in value["runs"][name]] for name in names
        }
        found = read_predictions(students, value["split"])
        if found is None or list(found.recipes) != list(names) or value["baseline"] != names[plain]:
            return {}
        # tasks have examples and students of their own, so each is drawn by itself
        figures, drawn = _measured(found.said, found.true, value["metric"], draws, seed=number)
        tasks.append(drawn_differences(figures, drawn, plain, seed=number))
    others = [name for place, name in enumerate(names) if place != plain]
    return {
        name: {"interval": list(one.interval), "p": one.p, "verdict": one.verdict}
        for name, one in zip(others, judged(mean_over_tasks(tasks)), strict=True)
    }


def write_average(values: Sequence[Mapping[str, Any]], out: Path) -> dict[str, Any]:
    """`average` of tasks whose folders lie in `out`, written there to compare.json and compare.md."""
    value = average(values, [out / one["task"] for one in values])
    write_json(out / "compare.json", value)
    write_text(out / "compare.md", average_table(value) + "\n")
    return value
