"""The sections of a comparison's report: differences with their intervals, every seed, cost against quality.

Everything is read from compare.json as `augkd compare` wrote it; intervals that an older one does not have are left out
and said to be. Runs whose own reports lie beside them are linked.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from augkd.evaluation.report.blocks import Cell, Code, Plot, Section, Table, count, duration, figure, size
from augkd.evaluation.report.figures import Effect, Series, Sheet, forest, points

Facts = Mapping[str, Any]


def comparison_sections(value: Facts, folder: Path, page: Path, sheet: Sheet) -> list[Section]:
    """Sections for compare.json's `value` in `folder`, for a page that lies at `page`."""
    if "tasks" in value:
        return [_average(value, folder, page)]
    found = [_table(value), _differences(value, sheet), _seeds(value, sheet), _cost(value, sheet)]
    return [*(section for section in found if section is not None), _runs(value, folder, page)]


# ---- quality ----


def _table(value: Facts) -> Section:
    metric, split = value["metric"], _split(value)
    head = ["recipe", f"validation {metric}", f"test {metric}", f"difference to {value['baseline']}", "95 % interval"]
    head += ["verdict", "lead won back", "seeds"]
    rows = [_recipe_row(row) for row in value["rows"]]
    teacher = value["teacher"]
    rows.append(["teacher", figure(teacher["validation"]), figure(teacher["test"]), "", "", "", "", ""])
    best = max((row for row in value["rows"] if row[split]["mean"] is not None), key=lambda row: row[split]["mean"])
    lead = f"Task {value['task']}. The highest mean on the {split} split is {best['recipe']}'s, "
    lead += f"{figure(best[split]['mean'])}; the teacher has {figure(teacher[split])}. "
    if any(_interval(row) for row in value["rows"]):
        lead += "Intervals are for examples and seeds drawn anew, and hold for all recipes at once"
        lead += f" ({value['examples']:,} texts, {value['draws']:,} draws)." if value.get("examples") else "."
    else:
        lead += "No intervals were recorded: a difference here can be chance."
    return Section("headline", "Result", lead, [Table("Recipes, means ± standard deviation over seeds", head, rows)])


def _recipe_row(row: Facts) -> list[str]:
    difference, lead, interval = row["difference"], row.get("lead"), _interval(row)
    return [
        row["recipe"],
        _spread(row["validation"]),
        _spread(row["test"]),
        figure(difference["mean"], "+"),
        _around(interval),
        difference.get("verdict") or "–",
        f"{100 * lead['share']:.0f} %" if lead else "–",
        str(row["seeds"]),
    ]


def _spread(figures: Facts) -> str:
    sd = f" ± {figures['sd']:.4f}" if figures["sd"] is not None else ""
    return f"{figure(figures['mean'])}{sd}"


def _split(value: Facts) -> str:
    """The split that recipes are judged by."""
    split: str = value.get("split") or ("validation" if value["teacher"]["test"] is None else "test")
    return split


def _interval(row: Facts) -> tuple[float, float] | None:
    found = row["difference"].get("interval")
    return (float(found[0]), float(found[1])) if found else None


def _differences(value: Facts, sheet: Sheet) -> Section | None:
    effects = [
        Effect(row["recipe"], row["difference"]["mean"], _interval(row), _known(row["difference"]["values"]))
        for row in value["rows"]
        if row["difference"]["mean"] is not None
    ]
    if not effects:
        return None
    said = f"Differences in {value['metric']} to {value['baseline']}: " + "; ".join(map(_told, effects))
    lead = "Diamonds are means over seeds, small ticks the seeds. "
    lead += "Bars are 95 % intervals." if any(effect.interval for effect in effects) else "No intervals were recorded."
    drawn = forest(sheet, said, effects, f"difference in {value['metric']} to {value['baseline']}")
    return Section("differences", "Differences to the baseline", lead, [Plot(drawn, said + ".")])


def _told(effect: Effect) -> str:
    low, high = effect.interval or (0.0, 0.0)
    between = f" ({figure(low, '+')} to {figure(high, '+')})" if effect.interval else ""
    return f"{effect.name} {figure(effect.mean, '+')}{between}"


def _seeds(value: Facts, sheet: Sheet) -> Section:
    split = _split(value)
    rows = value["rows"]
    effects = [
        Effect(row["recipe"], row[split]["mean"], None, _known(row[split]["values"]))
        for row in rows
        if row[split]["mean"] is not None
    ]
    most = max(len(row[split]["values"]) for row in rows)
    said = f"{split.capitalize()} {value['metric']} of every seed (ticks) and their mean (diamonds)"
    drawn = forest(sheet, said, effects, f"{split} {value['metric']}", zero=False)
    head = ["recipe", *(f"seed {run}" for run in range(most))]
    table = [[row["recipe"], *(figure(one) for one in row[split]["values"])] for row in rows]
    filled = [[*row, *["–"] * (len(head) - len(row))] for row in table]
    caption = f"{split.capitalize()} {value['metric']} of every seed"
    return Section("seeds", "Every seed", "", [Plot(drawn, said + "."), Table(caption, head, filled)])


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


# ---- cost ----


def _cost(value: Facts, sheet: Sheet) -> Section:
    split = _split(value)
    rows = [row for row in value["rows"] if row[split]["mean"] is not None]
    series = [Series(row["recipe"], [row["seconds"]], [row[split]["mean"]]) for row in rows]
    quickest, best = min(rows, key=lambda row: row["seconds"]), max(rows, key=lambda row: row[split]["mean"])
    said = f"{quickest['recipe']} is the quickest to train ({duration(quickest['seconds'])}), {best['recipe']} the best"
    said += f" ({duration(best['seconds'])})."
    drawn = points(sheet, said, series, "seconds of training a student", f"{split} {value['metric']}", log=True)
    head = [
        "recipe",
        "training",
        "texts trained on",
        "texts scored",
        "candidates",
        "kept of each text's",
        "peak memory",
    ]
    table = [_cost_row(row) for row in value["rows"]]
    lead = "Means over seeds, of the student alone; index, teacher and transfer set are shared."
    shared = {name: seconds for name, seconds in value.get("shared_seconds", {}).items() if seconds}
    if shared:
        told = (f"{name.replace('_', ' ')} {duration(seconds)}" for name, seconds in shared.items())
        lead += f" They took: {', '.join(told)}."
    return Section("cost", "Cost against quality", lead, [Plot(drawn, said), Table("Cost of each recipe", head, table)])


def _cost_row(row: Facts) -> list[str]:
    cost = row.get("cost", {})
    kept = cost.get("kept_per_original")
    return [
        row["recipe"],
        duration(row["seconds"]),
        count(row["training_rows"]),
        count(row["scoring_rows"]),
        count(cost.get("candidates")),
        "–" if kept is None else f"{kept:.3g}",
        size(cost.get("peak_rss_bytes")),
    ]


# ---- where the runs are ----


def _runs(value: Facts, folder: Path, page: Path) -> Section:
    rows: list[list[str | Cell]] = []
    missing = None
    for name, runs in value["runs"].items():
        for run in runs:
            path = f"runs/{name}-s{run['seed']}"
            linked = _link(folder / path / "report.html", page, "report")
            missing = missing or (None if linked.href else path)
            rows.append([Cell(f"{name}, seed {run['seed']}"), figure(run["student"]["test"]), path, linked])
    blocks: list[Table | Code] = [Table("Runs", ["run", f"test {value['metric']}", "folder", "report"], rows)]
    lead = ""
    if missing:
        lead = "A run without a report gets one by the command below, in the comparison's folder; then make this anew."
        blocks.append(Code("Command", f"augkd report {missing}"))
    return Section("runs", "Runs", lead, blocks)


def _average(value: Facts, folder: Path, page: Path) -> Section:
    """The page of a comparison on several tasks."""
    head = ["recipe", "mean", f"difference to {value['baseline']}", "95 % interval", "verdict"]
    head += ["mean rank", "better on", "worse on"]
    rows: list[list[str | Cell]] = [_average_row(row) for row in value["rows"]]
    rows.append(["teacher", figure(value["teacher"]), *[""] * 6])
    tasks: list[list[str | Cell]] = [
        [task, metric, _link(folder / task / "report.html", page, "report")]
        for task, metric in zip(value["tasks"], value["metrics"], strict=True)
    ]
    lead = f"Over {len(value['tasks'])} tasks; better and worse are against {value['baseline']}. "
    if value.get("comparisons"):
        lead += "Intervals are for examples and seeds of these tasks drawn anew, not for other tasks."
    else:
        lead += "No intervals were recorded: a difference here can be chance."
    tables = [Table("Means over tasks", head, rows), Table("Tasks", ["task", "metric", "report"], tasks)]
    return Section("headline", "Result", lead, tables)


def _around(interval: Sequence[float] | None) -> str:
    return f"{figure(interval[0], '+')} to {figure(interval[1], '+')}" if interval else "–"


def _average_row(row: Facts) -> list[str | Cell]:
    difference = row.get("difference", {})  # not in an older comparison
    interval = difference.get("interval")
    return [
        row["recipe"],
        figure(row["mean"]),
        figure(difference.get("mean"), "+"),
        _around(interval),
        difference.get("verdict") or "–",
        f"{row['rank']:.2f}",
        str(row["better"]),
        str(row["worse"]),
    ]


def _link(target: Path, page: Path, text: str) -> Cell:
    """A link that holds when the folder is moved; a dash where there is nothing to lead to."""
    if not target.exists():
        return Cell("–")
    relative = os.path.relpath(target.resolve(), page.resolve().parent)
    return Cell(text, href=quote(relative))
