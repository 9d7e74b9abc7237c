"""Recipes × seeds, on one task or several: everything that does not depend on the seed is made once.

A finished run is not repeated, so a comparison continues where it was stopped and grows by a recipe or a seed.
"""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from augkd.augment import Progress
from augkd.data.task import load_task
from augkd.errors import RecipeError
from augkd.evaluation.compare import summarise
from augkd.evaluation.index_score import IndexScore, index_score, rank
from augkd.pipeline import Run
from augkd.recipe import Comparison, Recipe, dumped
from augkd.workspace import write_json


def compare_recipes(
    recipes: Mapping[str, Recipe], seeds: int, out: Path, progress: Progress, baseline: str | None = None
) -> dict[str, Any]:
    """Runs every recipe with seeds 0 to `seeds` - 1 below `out`; returns and writes the summary."""
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in recipes}
    for seed in range(seeds):
        for name, recipe in recipes.items():
            seeded = recipe.model_copy(update={"seed": seed})

            def told(stage: str, done: int, total: int | None, prefix: str = f"{name} seed {seed}: ") -> None:
                progress(prefix + stage, done, total)

            run = Run(seeded, out / "runs" / f"{name}-s{seed}", out / "shared", told, name)
            results[name].append(run.results())
            gc.collect()  # trainers are cycles: 140 MB a run of a MiniLM teacher until they are collected
    return summarise(results, out, baseline)


def compare_tasks(
    comparison: Comparison, recipes: Mapping[str, Recipe], seeds: int | None, out: Path, progress: Progress
) -> list[dict[str, Any]]:
    """A comparison recipe: each of its tasks in a folder of its own. `seeds` goes before the recipe's.

    Recipes that need classes are left out of regression tasks, and the summary says which (`left_out`).
    """
    values = []
    for options in comparison.tasks:
        task = load_task(**dumped(options))
        left_out = [name for name, recipe in recipes.items() if not task.labels and recipe.for_classes_only]
        fit = {name: recipe for name, recipe in recipes.items() if name not in left_out}
        here = {name: recipe.model_copy(update={"task": options}) for name, recipe in fit.items()}

        def told(stage: str, done: int, total: int | None, prefix: str = f"{task.name}: ") -> None:
            progress(prefix + stage, done, total)

        value = compare_recipes(here, seeds or comparison.seeds, out / task.name, told, comparison.baseline)
        values.append(value | {"left_out": left_out})
    return values


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
    for path in indexes:
        neighbours = options.model_copy(update={"index": str(path)})
        data = recipe.data.model_copy(update={"neighbours": neighbours, "augmented_samples": None})

        def told(stage: str, done: int, total: int | None, prefix: str = f"{path.name}: ") -> None:
            progress(prefix + stage, done, total)

        run = Run(recipe.model_copy(update={"data": data}), out / path.name, out / "shared", told, path.name)
        scores[path.name] = _score(run, options.k)
    ranked = rank(scores)
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
