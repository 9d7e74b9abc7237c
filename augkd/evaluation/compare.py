"""Recipes × seeds: one table of means and spreads, with everything that does not depend on the seed done once.

Controls are derived from the recipe itself, so that they differ from it in the one thing they are named for.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from augkd.errors import RecipeError, did_you_mean
from augkd.recipe import Recipe, TrainingOptions
from augkd.workspace import write_json

CONTROLS = ("no-kd", "kd", "random")


def with_controls(recipes: Mapping[str, Recipe], controls: Sequence[str]) -> dict[str, Recipe]:
    """The recipes, after the wanted controls of the last one: `no-kd`, `kd` (no candidates), `random` (selection)."""
    last = list(recipes.values())[-1]
    made: dict[str, Recipe] = {}
    for name in controls:
        if name not in CONTROLS:
            raise RecipeError(f"there is no control '{name}'{did_you_mean(name, CONTROLS)}")
        made[name] = control(last, name)
    return {**made, **recipes}


def control(recipe: Recipe, name: str) -> Recipe:
    """One control of a recipe; raises RecipeError when it would be the recipe itself."""
    tree = recipe.model_dump(mode="json")
    if name == "random":
        ((selector, given),) = tree["data"]["select"].items()
        if selector in ("everything", "random") or not recipe.data.augmented:
            raise RecipeError("the control 'random' needs a recipe with candidates and a selector that keeps some")
        tree["data"]["select"] = {"random": given}
        return Recipe.model_validate(tree)
    tree["data"] = {}
    if name == "no-kd":
        common = set(TrainingOptions.model_fields) - {"stages", "structure", "freelb"}
        tree["training"] = {key: value for key, value in tree["training"].items() if key in common}
        tree["training"] |= {"ce": {"weight": 1.0}, "epochs": sum(stage.epochs for stage in recipe.phases)}
        tree |= {"structure": None, "assistants": [], "ensemble": False}
    return Recipe.model_validate(tree)


def summarise(
    results: Mapping[str, Sequence[Mapping[str, Any]]], out: Path, baseline: str | None = None
) -> dict[str, Any]:
    """Mean, sd over seeds, difference to `baseline` and cost of each recipe; written to compare.json and compare.md.

    The baseline is `kd` where there is one, else the first recipe, unless another is named.
    """
    baseline = baseline or ("kd" if "kd" in results else next(iter(results)))
    rows = [_row(name, runs, results[baseline]) for name, runs in results.items()]
    first = next(iter(results.values()))[0]
    teacher = {"recipe": "teacher", "test": first["teacher"]["test"], "validation": first["teacher"]["validation"]}
    value: dict[str, Any] = {"task": first["task"], "metric": first["metric"], "baseline": baseline}
    value |= {"teacher": teacher, "rows": rows}
    value["runs"] = {name: list(runs) for name, runs in results.items()}
    write_json(out / "compare.json", value)
    (out / "compare.md").write_text(table(value) + "\n", encoding="utf-8")
    return value


def table(value: Mapping[str, Any]) -> str:
    """The comparison as a Markdown table."""
    metric = value["metric"]
    lines = [
        f"| recipe | validation {metric} | test {metric} | − {value['baseline']} | seeds "
        "| training rows | scoring rows | student seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in value["rows"]:
        lines.append(
            f"| {row['recipe']} | {_spread(row['validation'])} | {_spread(row['test'])} "
            f"| {_spread(row['difference'], '+')} | {row['seeds']} "
            f"| {row['training_rows']} | {row['scoring_rows']} | {row['seconds']:.0f} |"
        )
    teacher = value["teacher"]
    lines.append(f"| teacher | {_one(teacher['validation'])} | {_one(teacher['test'])} | | 1 | | | |")
    return "\n".join(lines)


def _row(name: str, runs: Sequence[Mapping[str, Any]], baseline: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "recipe": name,
        "seeds": len(runs),
        "validation": _figures([run["student"]["validation"] for run in runs]),
        "test": _figures([run["student"]["test"] for run in runs]),
        "difference": _figures([_difference(run, other) for run, other in zip(runs, baseline, strict=False)]),
        "training_rows": runs[0]["cost"]["training_rows"],
        "scoring_rows": runs[0]["cost"]["scoring_rows"],
        "seconds": statistics.mean(run["cost"]["seconds"]["student"] for run in runs),
    }


def _difference(run: Mapping[str, Any], baseline: Mapping[str, Any]) -> float | None:
    """Test figure of a run less that of the baseline with the same seed: what the seed did to both is taken out."""
    if run["recipe"] == baseline["recipe"]:
        return None
    assert run["seed"] == baseline["seed"]
    ours, theirs = run["student"]["test"], baseline["student"]["test"]
    return None if ours is None or theirs is None else float(ours - theirs)


def _figures(values: Sequence[float | None]) -> dict[str, Any]:
    known = [value for value in values if value is not None]
    return {
        "mean": statistics.mean(known) if known else None,
        "sd": statistics.stdev(known) if len(known) > 1 else None,  # sample sd: n - 1
        "values": list(values),
    }


def _spread(figures: Mapping[str, Any], sign: str = "") -> str:
    if figures["mean"] is None:
        return "–"
    sd = f" ± {figures['sd']:.4f}" if figures["sd"] is not None else ""
    return f"{figures['mean']:{sign}.4f}{sd}"


def _one(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
