"""Recipes × seeds, on one task or several: everything that does not depend on the seed is made once.

A finished run is not repeated, so a comparison continues where it was stopped and grows by a recipe or a seed.
"""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from augkd.data.task import load_task
from augkd.errors import RecipeError, did_you_mean
from augkd.evaluation.compare.summary import run_folder, summarise, write_average
from augkd.evaluation.index_score import IndexScore, index_score, rank
from augkd.recipe import Comparison, Recipe, dumped
from augkd.retrieval.manifest import read_index_manifest
from augkd.retrieval.open import encoder_options
from augkd.runs.controls import with_budget
from augkd.runs.eta import Headline, Remaining, is_finished, unseen
from augkd.runs.run import Run, forget_peak
from augkd.runs.workers import Job, run_jobs
from augkd.workspace.files import write_json
from augkd.workspace.progress import Progress


def compare_recipes(
    recipes: Mapping[str, Recipe],
    seeds: int,
    out: Path,
    progress: Progress,
    baseline: str | None = None,
    budget: float | None = None,
    headline: Headline = unseen,
    jobs: int = 1,
) -> dict[str, Any]:
    """Runs every recipe with seeds 0 to `seeds` - 1 below `out`; returns and writes the summary.

    A `budget` in seconds is what every student trains for, in place of its epochs. `headline` is told how many of all
    runs are done and how long the others will take. `jobs` runs go on at once, each in a process of its own: a script
    that asks for more than one needs `if __name__ == "__main__"`. Raises RecipeError for a budget and several jobs,
    whose students would take one another's time.
    """
    if baseline is not None and baseline not in recipes:  # said before hours are spent
        raise RecipeError(f"baseline '{baseline}' is not compared{did_you_mean(baseline, recipes)}")
    planned = _planned(recipes, seeds, out, _checked_budget(budget, jobs))
    remaining = Remaining(_flat(planned), headline, jobs=jobs)
    _run_ahead([(planned, out, "")], jobs, progress, remaining)
    return summarise(_run_all(planned, out, progress, remaining), out, baseline, budget)


def _checked_budget(budget: float | None, jobs: int) -> float | None:
    if budget is not None and jobs > 1:
        raise RecipeError(f"a budget of time is for one run at a time, not for {jobs}; leave out --budget or --jobs")
    return budget


Planned = Mapping[str, Mapping[Path, Recipe]]  # recipe → run folder → the recipe with its seed


def _planned(recipes: Mapping[str, Recipe], seeds: int, out: Path, budget: float | None) -> Planned:
    timed = {name: recipe if budget is None else with_budget(recipe, budget) for name, recipe in recipes.items()}
    return {
        name: {run_folder(out, name, seed): recipe.model_copy(update={"seed": seed}) for seed in range(seeds)}
        for name, recipe in timed.items()
    }


def _flat(planned: Planned) -> dict[Path, tuple[str, Recipe]]:
    return {folder: (name, recipe) for name, runs in planned.items() for folder, recipe in runs.items()}


def _run_ahead(
    plans: Sequence[tuple[Planned, Path, str]], workers: int, progress: Progress, remaining: Remaining
) -> None:
    """Does the runs that are not finished side by side, seed after seed; `_run_all` then finds them done.

    What they share is made before, here and with all cores: a worker that made it would have its share of them, and the
    others would wait.
    """
    if workers == 1:
        return
    jobs = [
        Job(name, recipe, folder, out / "shared", prefix)
        for planned, out, prefix in plans
        for turn in zip(*(runs.items() for runs in planned.values()), strict=True)
        for name, (folder, recipe) in zip(planned, turn, strict=True)
        if not is_finished(folder, recipe)
    ]

    def told(job: Job, stage: str, done: int, total: int | None) -> None:
        progress(f"{job.prefix}{job.folder.name}: {stage}", done, total)
        remaining.tick(job.folder, stage, done, total)

    def told_of(job: Job) -> Progress:  # of what its recipe's other runs share
        return lambda stage, done, total: progress(f"{job.prefix}{job.name}: {stage}", done, total)

    first: dict[tuple[Path, str], Job] = {}
    for job in jobs:
        first.setdefault((job.shared, job.name), job)
    for job in first.values():
        Run(job.recipe, job.folder, job.shared, told_of(job), job.name).prepare()
        gc.collect()
    run_jobs(
        jobs,
        workers,
        told,
        lambda job: remaining.begin(job.folder),
        lambda job, found: remaining.end(job.folder, found),
    )


def _run_all(planned: Planned, out: Path, progress: Progress, remaining: Remaining) -> dict[str, list[dict[str, Any]]]:
    """Results of each recipe by seed. Seed after seed, so that a comparison that is stopped has all recipes."""
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in planned}
    for turn in zip(*(runs.items() for runs in planned.values()), strict=True):
        for name, (folder, recipe) in zip(planned, turn, strict=True):

            def told(stage: str, done: int, total: int | None, folder: Path = folder) -> None:
                progress(f"{folder.name}: {stage}", done, total)
                remaining.tick(folder, stage, done, total)

            remaining.begin(folder)
            forget_peak()
            found = Run(recipe, folder, out / "shared", told, name).results()
            remaining.end(folder, found)
            results[name].append(found)
            gc.collect()  # trainers are cycles: 140 MB a run of a MiniLM teacher until they are collected
    return results


def compare_tasks(
    comparison: Comparison,
    recipes: Mapping[str, Recipe],
    seeds: int | None,
    out: Path,
    progress: Progress,
    budget: float | None = None,
    headline: Headline = unseen,
    jobs: int = 1,
) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """A comparison recipe: each of its tasks in a folder of its own. `seeds` and `budget` go before the recipe's.

    `jobs` as in `compare_recipes`, over all tasks. Recipes that need classes are left out of regression tasks, and the
    summary says which (`left_out`). Returns the summary of every task and, with two tasks or more, the averages over
    them, which `out` gets too.
    """
    budget = _checked_budget(comparison.budget if budget is None else budget, jobs)
    tasks = [(options, load_task(**dumped(options))) for options in comparison.tasks]
    plans = {}
    for options, task in tasks:
        fit = {name: r for name, r in recipes.items() if task.labels or not r.for_classes_only}
        here = {name: recipe.model_copy(update={"task": options}) for name, recipe in fit.items()}
        if task.name in plans:
            raise RecipeError(f"two tasks are called '{task.name}'; give one another name, e.g. name: {task.name}-2")
        plans[task.name] = _planned(here, seeds or comparison.seeds, out / task.name, budget)
    flat = {key: run for plan in plans.values() for key, run in _flat(plan).items()}
    remaining = Remaining(flat, headline, jobs=jobs)
    _run_ahead([(plan, out / name, f"{name}: ") for name, plan in plans.items()], jobs, progress, remaining)
    values = []
    for name, plan in plans.items():

        def told(stage: str, done: int, total: int | None, prefix: str = f"{name}: ") -> None:
            progress(prefix + stage, done, total)

        results = _run_all(plan, out / name, told, remaining)
        baseline = comparison.baseline if comparison.baseline in plan else None  # it may need classes
        value = summarise(results, out / name, baseline, budget)
        values.append(value | {"left_out": [recipe for recipe in recipes if recipe not in plan]})
    return values, write_average(values, out) if len(values) > 1 else None


def score_indexes(
    recipe: Recipe, indexes: Sequence[Path], out: Path, progress: Progress
) -> tuple[dict[str, Any], list[str]]:
    """Ranks built indexes for the recipe's task by the teacher's outputs on their neighbours; no student is trained.

    Returns what score.json in `out` gets, and the lines of a table. Index folders are told apart by their names.
    """
    options = recipe.data.neighbours
    if options is None:
        raise RecipeError("this recipe has no data.neighbours; score indexes with one that has, e.g. minimax-knn")
    if len({path.name for path in indexes}) < len(indexes):
        raise RecipeError(f"two of the indexes have the same name: {', '.join(path.name for path in indexes)}")
    scores: dict[str, IndexScore] = {}
    cosines = set()  # whose they are
    for path in indexes:
        neighbours = options.model_copy(update={"index": str(path)})
        data = recipe.data.model_copy(update={"neighbours": neighbours, "augmented_samples": None})

        def told(stage: str, done: int, total: int | None, prefix: str = f"{path.name}: ") -> None:
            progress(prefix + stage, done, total)

        run = Run(recipe.model_copy(update={"data": data}), out / path.name, out / "shared", told, path.name)
        scores[path.name] = _score(run, options.k)
        encoder = encoder_options(read_index_manifest(path))
        kind = "sentence" if encoder["rerank"] else encoder["kind"]  # re-ranked: cosines of the full model
        cosines.add((kind, encoder.get("model")))
    ranked = rank(scores, cosines=len(cosines) == 1)
    value = {"task": run.task.name, "ranked": ranked, "scores": {n: dataclasses.asdict(scores[n]) for n in ranked}}
    write_json(out / "score.json", value)
    return value, _table({name: scores[name] for name in ranked})


def _score(run: Run, k: int) -> IndexScore:
    transfer, labels = run.transfer_set(), run.labels
    found = transfer.candidates()
    return index_score(
        transfer.teacher(),
        [labels.index(label) if labels and label is not None else label for label in transfer.column("label")],
        found.owner,
        found.teacher,
        found.score if run.index().bounded else None,
        list(zip(found.text, found.text_pair, strict=True)),
        k=k,
    )


def _table(scores: Mapping[str, IndexScore]) -> list[str]:
    """The scores as lines, best index first."""
    names = [field.name for field in dataclasses.fields(IndexScore)]
    width = max(map(len, scores))
    lines = [" " * width + "".join(f"{name:>12}" for name in names)]
    for index, score in scores.items():
        figures = (getattr(score, name) for name in names)
        shown = (
            "–" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.4f}" for value in figures
        )
        lines.append(f"{index:{width}}" + "".join(f"{value:>12}" for value in shown))
    return lines
