"""Recipes × seeds, on one task or several: everything that does not depend on the seed is made once.

A finished run is not repeated, so a comparison continues where it was stopped, and grows by a recipe or a seed.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from augkd.errors import RecipeError, did_you_mean
from augkd.evaluation.compare.average import write_average
from augkd.evaluation.compare.schema import AverageSummary, ComparisonSummary
from augkd.evaluation.compare.summary import summarise
from augkd.evaluation.results import RunResults, Split
from augkd.models.cluster import Cluster
from augkd.recipe import Comparison, Recipe
from augkd.runs.controls import with_time_budget
from augkd.runs.eta import Headline, TimeLeft, is_finished, no_headline
from augkd.runs.ray_jobs import run_jobs_on
from augkd.runs.run import Run, forget_peak
from augkd.runs.task import task_from
from augkd.runs.workers import Job, Watcher, run_jobs
from augkd.workspace.progress import Progress, prefixed, silent
from augkd.workspace.run_folder import run_folder, task_folder

Plan = Mapping[str, Mapping[Path, Recipe]]  # recipe → run folder → the recipe with its seed


def compare_recipes(
    recipes: Mapping[str, Recipe],
    seeds: int,
    out: Path,
    progress: Progress = silent,
    baseline: str | None = None,
    time_budget: float | None = None,
    headline: Headline = no_headline,
    jobs: int = 1,
    split: Split | None = None,
    cluster: Cluster | None = None,
) -> ComparisonSummary:
    """Runs every recipe with seeds 0 to `seeds` - 1 below `out`; returns and writes the summary.

    `time_budget` in seconds is what every student trains for, in place of its epochs. `headline` is called with how
    many of all runs are done and how long the others will take. `jobs` runs go on at once, each in a process of its
    own: a script that asks for more than one needs `if __name__ == "__main__"`. `split` is compared (None: test,
    or validation where test has no labels). With a `cluster`, each of its workers does one run at a time instead;
    `out` is then a folder that all its machines see. Raises RecipeError for a baseline that is not compared, and for a
    time budget with several jobs, whose students would take time from one another.
    """
    if baseline is not None and baseline not in recipes:  # before hours are spent
        raise RecipeError(f"baseline '{baseline}' is not one of the recipes{did_you_mean(baseline, recipes)}")
    jobs = _jobs(time_budget, jobs, cluster)
    plan = _plan(recipes, seeds, out, time_budget)
    time_left = TimeLeft(_runs_of(plan), headline, jobs=jobs)
    _run_side_by_side([(plan, out, "")], jobs, progress, time_left, cluster)
    return summarise(_run_all(plan, out, progress, time_left), out, baseline, time_budget, split)


def compare_tasks(
    comparison: Comparison,
    recipes: Mapping[str, Recipe],
    seeds: int | None,
    out: Path,
    progress: Progress = silent,
    time_budget: float | None = None,
    headline: Headline = no_headline,
    jobs: int = 1,
    split: Split | None = None,
    cluster: Cluster | None = None,
) -> tuple[list[ComparisonSummary], AverageSummary | None]:
    """A comparison recipe: each of its tasks in a folder of its own. `seeds`, `time_budget`, `split` go before its own.

    `jobs` and `cluster` as in `compare_recipes`, over all tasks. Recipes that need classes are left out of regression
    tasks, and the summary lists them (`left_out`). Returns the summary of every task and, with two tasks or more, the
    averages over them, which are written to `out` too.
    """
    time_budget = comparison.budget if time_budget is None else time_budget
    jobs = _jobs(time_budget, jobs, cluster)
    plans = _plans(comparison, recipes, seeds, out, time_budget, progress)
    runs = {folder: run for plan in plans.values() for folder, run in _runs_of(plan).items()}
    time_left = TimeLeft(runs, headline, jobs=jobs)
    folders = {name: task_folder(out, name) for name in plans}
    side_by_side = [(plan, folders[name], f"{name}: ") for name, plan in plans.items()]
    _run_side_by_side(side_by_side, jobs, progress, time_left, cluster)
    summaries = []
    for name, plan in plans.items():
        folder = folders[name]
        results = _run_all(plan, folder, prefixed(progress, f"{name}: "), time_left)
        baseline = comparison.baseline if comparison.baseline in plan else None  # it may need classes
        summary = summarise(results, folder, baseline, time_budget, split or comparison.split)
        summary["left_out"] = [recipe for recipe in recipes if recipe not in plan]
        summaries.append(summary)
    return summaries, write_average(summaries, out) if len(summaries) > 1 else None


def _jobs(time_budget: float | None, jobs: int, cluster: Cluster | None) -> int:
    """How many runs go on at once."""
    if cluster is not None:
        jobs = cluster.workers
    if time_budget is not None and jobs > 1:
        raise RecipeError(f"a time budget is for one run at a time, not for {jobs}; leave out --budget or --jobs")
    return jobs


# ---- which runs there are ----


def _plans(
    comparison: Comparison,
    recipes: Mapping[str, Recipe],
    seeds: int | None,
    out: Path,
    time_budget: float | None,
    progress: Progress,
) -> dict[str, Plan]:
    """The runs of each task, by its name."""
    plans: dict[str, Plan] = {}
    for options in comparison.tasks:
        task = task_from(options, progress)
        if task.name in plans:
            raise RecipeError(f"two tasks are called '{task.name}'; give one another name, e.g. name: {task.name}-2")
        fitting = {
            name: recipe.model_copy(update={"task": options})
            for name, recipe in recipes.items()
            if not recipe.unsuited_losses(task.target.problem_type)
        }
        plans[task.name] = _plan(fitting, seeds or comparison.seeds, task_folder(out, task.name), time_budget)
    return plans


def _plan(recipes: Mapping[str, Recipe], seeds: int, out: Path, time_budget: float | None) -> Plan:
    if time_budget is not None:
        recipes = {name: with_time_budget(recipe, time_budget) for name, recipe in recipes.items()}
    return {
        name: {run_folder(out, name, seed): recipe.model_copy(update={"seed": seed}) for seed in range(seeds)}
        for name, recipe in recipes.items()
    }


def _runs_of(plan: Plan) -> dict[Path, tuple[str, Recipe]]:
    return {folder: (name, recipe) for name, runs in plan.items() for folder, recipe in runs.items()}


def _seed_by_seed(plan: Plan) -> Iterator[tuple[str, Path, Recipe]]:
    """Every run, all recipes of one seed before the next, so that a comparison that is stopped has all recipes."""
    for turn in zip(*(runs.items() for runs in plan.values()), strict=True):
        for name, (folder, recipe) in zip(plan, turn, strict=True):
            yield name, folder, recipe


# ---- running them ----


def _run_all(plan: Plan, out: Path, progress: Progress, time_left: TimeLeft) -> dict[str, list[RunResults]]:
    """Runs one after another; results of each recipe by seed."""
    results: dict[str, list[RunResults]] = {name: [] for name in plan}
    for name, folder, recipe in _seed_by_seed(plan):
        time_left.begin(folder)
        forget_peak()
        watched = partial(_watched, progress, time_left, folder, f"{folder.name}: ")
        trained = not is_finished(folder, recipe)
        results[name].append(Run(recipe, folder, out / "shared", watched, name).results())
        time_left.end(folder, results[name][-1])
        if trained:
            gc.collect()  # trainers are cycles: 140 MB a run of a MiniLM teacher until they are collected
    return results


def _run_side_by_side(
    plans: Sequence[tuple[Plan, Path, str]],
    workers: int,
    progress: Progress,
    time_left: TimeLeft,
    cluster: Cluster | None,
) -> None:
    """Does the runs that are not finished, `workers` at once; `_run_all` then finds them done.

    What they share is made before, here and with all cores: a worker would have only its share of them, and the others
    would wait.
    """
    if workers == 1 and cluster is None:
        return
    jobs = [
        Job(name, recipe, folder, out / "shared", prefix)
        for plan, out, prefix in plans
        for name, folder, recipe in _seed_by_seed(plan)
        if not is_finished(folder, recipe)
    ]
    if cluster is not None and jobs:
        cluster.warm("augkd.runs.run", "augkd.distill.trainer")  # while this process makes what they share
    first_of_recipe: dict[tuple[Path, str], Job] = {}
    for job in jobs:
        first_of_recipe.setdefault((job.shared, job.name), job)
    for job in first_of_recipe.values():
        shown = prefixed(progress, f"{job.prefix}{job.name}: ")
        Run(job.recipe, job.folder, job.shared, shown, job.name, cluster).prepare()
        gc.collect()

    def watch(job: Job, stage: str, done: int, total: int | None) -> None:
        _watched(progress, time_left, job.folder, f"{job.prefix}{job.folder.name}: ", stage, done, total)

    def began(job: Job) -> None:
        time_left.begin(job.folder)

    def ended(job: Job, results: RunResults) -> None:
        time_left.end(job.folder, results)

    watcher = Watcher(watch, began, ended)
    if cluster is None:
        run_jobs(jobs, workers, watcher)
    else:
        run_jobs_on(cluster, jobs, watcher)


def _watched(
    progress: Progress, time_left: TimeLeft, folder: Path, prefix: str, stage: str, done: int, total: int | None
) -> None:
    progress(prefix + stage, done, total)
    time_left.tick(folder, stage, done, total)
