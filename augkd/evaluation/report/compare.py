"""The sections of a comparison's report: differences with their intervals, every seed, cost against quality.

Everything is read from compare.json. Runs that have a report of their own are linked.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from augkd.evaluation.compare.schema import (
    AverageRow,
    AverageSummary,
    ComparisonSummary,
    GapClosedSummary,
    RecipeSummary,
    SeedScores,
)
from augkd.evaluation.compare.table import shown_splits
from augkd.evaluation.report.blocks import Cell, Code, Plot, Section, Table, count, decimal, duration, size
from augkd.evaluation.report.figures import Effect, Series, StyleSheet, forest, points
from augkd.evaluation.report.labels import label_curves
from augkd.evaluation.results import Split
from augkd.workspace.run_folder import run_folder, task_folder


def comparison_sections(summary: ComparisonSummary, folder: Path, page: Path, sheet: StyleSheet) -> list[Section]:
    """Sections on a comparison in `folder`, for a page at `page`."""
    sections = [_headline(summary), _differences(summary, sheet), label_curves(summary, sheet), _seeds(summary, sheet)]
    sections.append(_cost(summary, sheet))
    return [*(section for section in sections if section is not None), _runs(summary, folder, page)]


# ---- quality ----


def _headline(summary: ComparisonSummary) -> Section:
    metric, split, teacher = summary["metric"], summary["split"], summary["teacher"]
    shown = shown_splits(summary)
    head = ["recipe", *(f"{name} {metric}" for name in shown), f"difference to {summary['baseline']}"]
    head += ["95 % interval", "verdict", "teacher gap closed", "seeds"]
    rows = [_recipe_row(row, summary["baseline"], shown) for row in summary["rows"]]
    rows.append(["teacher", *(decimal(teacher[name]) for name in shown), "", "", "", "", ""])
    scores = _scores(summary)
    best = max(scores, key=lambda name: scores[name])
    intro = (
        f"Task {summary['task']}. {best} has the highest mean {metric} on the {split} split, {decimal(scores[best])}; "
    )
    intro += f"the teacher has {decimal(teacher[split])}. "
    if any(row["difference"]["interval"] for row in summary["rows"]):
        intro += "Intervals account for the choice of examples and seeds and hold for all recipes simultaneously"
        intro += f" ({summary['examples']:,} texts, {summary['resamples']:,} bootstrap resamples)."
    else:
        intro += "No intervals were recorded, so differences may be due to chance."
    return Section("headline", "Result", intro, [Table("Mean ± standard deviation over seeds", head, rows)])


def _scores(summary: ComparisonSummary) -> dict[str, float]:
    """Recipe → mean on the split that recipes are compared on."""
    means = {row["recipe"]: row[summary["split"]]["mean"] for row in summary["rows"]}
    return {name: mean for name, mean in means.items() if mean is not None}


def _recipe_row(row: RecipeSummary, baseline: str, splits: Sequence[Split]) -> list[str]:
    difference, gap = row["difference"], row["gap_closed"]
    return [
        row["recipe"],
        *(_spread(row[split]) for split in splits),
        decimal(difference["mean"], "+"),
        _interval(difference["interval"]),
        "baseline" if row["recipe"] == baseline else difference["verdict"] or "–",
        _share(gap),
        str(row["seeds"]),
    ]


def _spread(scores: SeedScores) -> str:
    sd = f" ± {scores['sd']:.4f}" if scores["sd"] is not None else ""
    return f"{decimal(scores['mean'])}{sd}"


def _interval(interval: Sequence[float] | None) -> str:
    return f"{decimal(interval[0], '+')} to {decimal(interval[1], '+')}" if interval else "–"


def _share(gap: GapClosedSummary | None) -> str:
    if gap is None:
        return "–"
    low, high = (100 * end for end in gap["interval"])
    return f"{100 * gap['share']:.0f} % ({low:.0f} to {high:.0f} %)"


def _differences(summary: ComparisonSummary, sheet: StyleSheet) -> Section | None:
    differences = {row["recipe"]: row["difference"] for row in summary["rows"]}
    effects = [
        effect
        for name, difference in differences.items()
        if (effect := _effect(name, difference, difference["interval"]))
    ]
    if not effects:
        return None
    compared = f"{summary['metric']} to {summary['baseline']}"
    caption = f"Difference in {compared}: {'; '.join(map(_in_words, effects))}."
    intro = "Diamonds are means over seeds, small ticks the seeds. "
    intro += "Bars are 95 % intervals." if any(effect.interval for effect in effects) else "No intervals were recorded."
    plot = Plot(forest(sheet, caption, effects, f"difference in {compared}"), caption)
    return Section("differences", "Differences to the baseline", intro, [plot])


def _effect(name: str, scores: SeedScores, interval: Sequence[float] | None) -> Effect | None:
    """A row of a forest plot; None without a mean."""
    if scores["mean"] is None:
        return None
    values = [value for value in scores["values"] if value is not None]
    return Effect(name, scores["mean"], (interval[0], interval[1]) if interval else None, values)


def _in_words(effect: Effect) -> str:
    interval = f" ({_interval(effect.interval)})" if effect.interval else ""
    return f"{effect.name} {decimal(effect.mean, '+')}{interval}"


def _seeds(summary: ComparisonSummary, sheet: StyleSheet) -> Section:
    split, metric = summary["split"], summary["metric"]
    scores = {row["recipe"]: row[split] for row in summary["rows"]}
    effects = [effect for name, row in scores.items() if (effect := _effect(name, row, None))]
    caption = f"{split.capitalize()} {metric} of each seed (ticks) and their mean (diamonds)."
    plot = Plot(forest(sheet, caption, effects, f"{split} {metric}", zero=False), caption)
    seeds = max(len(row["values"]) for row in scores.values())
    rows = [[name, *map(decimal, row["values"]), *["–"] * (seeds - len(row["values"]))] for name, row in scores.items()]
    table = Table(f"{split.capitalize()} {metric} of each seed", ["recipe", *(f"seed {n}" for n in range(seeds))], rows)
    return Section("seeds", "Seeds", "", [plot, table])


# ---- cost ----


def _cost(summary: ComparisonSummary, sheet: StyleSheet) -> Section:
    scores = _scores(summary)
    seconds = {row["recipe"]: row["cost"]["seconds"]["student"] for row in summary["rows"] if row["recipe"] in scores}
    fastest, best = min(seconds, key=lambda name: seconds[name]), max(scores, key=lambda name: scores[name])
    caption = f"{fastest} is the fastest to train ({duration(seconds[fastest])})"
    caption += " and the best." if fastest == best else f", {best} the best ({duration(seconds[best])})."
    series = [Series(name, [seconds[name]], [score]) for name, score in scores.items()]
    axes = ("training time of a student in seconds", f"{summary['split']} {summary['metric']}")
    plot = Plot(points(sheet, caption, series, *axes, log=True), caption)
    head = ["recipe", "training time", "texts trained on", "texts scored", "candidates", "kept per text", "peak memory"]
    table = Table("Cost of each recipe", head, [_cost_row(row) for row in summary["rows"]])
    intro = "Means over seeds, for the student alone. Index, teacher and transfer sets are shared"
    shared = {name.replace("_", " "): value for name, value in summary["shared_seconds"].items() if value}
    times = ", ".join(f"{name} {duration(value)}" for name, value in shared.items())
    intro += f" and took: {times}." if times else "."
    return Section("cost", "Cost against quality", intro, [plot, table])


def _cost_row(row: RecipeSummary) -> list[str]:
    cost = row["cost"]
    return [
        row["recipe"],
        duration(cost["seconds"]["student"]),
        count(cost["training_rows"]),
        count(cost["scoring_rows"]),
        count(cost["candidates"]),
        f"{cost['kept_per_original']:.3g}",
        size(cost["peak_rss_bytes"]),
    ]


# ---- runs ----


def _runs(summary: ComparisonSummary, folder: Path, page: Path) -> Section:
    rows: list[list[str | Cell]] = []
    split, unreported = summary["split"], None
    for name, runs in summary["runs"].items():
        for run in runs:
            path = run_folder(folder, name, run["seed"])
            link = _link(path / "report.html", page, "report")
            place = path.relative_to(folder).as_posix()
            unreported = unreported or (None if link.href else place)
            rows.append([Cell(f"{name}, seed {run['seed']}"), decimal(run["student"][split]), place, link])
    blocks: list[Table | Code] = [Table("Runs", ["run", f"{split} {summary['metric']}", "folder", "report"], rows)]
    intro = ""
    if unreported:
        intro = "To add the report of a run, run this command in the comparison's folder, then write this report again."
        blocks.append(Code("Command", f"augkd report {unreported}"))
    return Section("runs", "Runs", intro, blocks)


def _link(target: Path, page: Path, text: str) -> Cell:
    """A relative link, which survives moving the folder; a dash where the target does not exist."""
    if not target.exists():
        return Cell("–")
    relative = os.path.relpath(target.resolve(), page.resolve().parent)
    return Cell(text, href=quote(relative))


# ---- several tasks ----


def average_section(summary: AverageSummary, folder: Path, page: Path) -> Section:
    """The only section of a comparison on several tasks in `folder`, for a page at `page`."""
    head = ["recipe", "mean", f"difference to {summary['baseline']}", "95 % interval", "verdict"]
    head += ["teacher gap closed", "mean rank", "better on", "worse on"]
    rows = [_average_row(row, summary) for row in summary["rows"]]
    rows.append(["teacher", decimal(summary["teacher"]), *[""] * 7])
    tasks: list[list[str | Cell]] = [
        [task, metric, _link(task_folder(folder, task) / "report.html", page, "report")]
        for task, metric in zip(summary["tasks"], summary["metrics"], strict=True)
    ]
    intro = f"Over {len(summary['tasks'])} tasks. Better on, worse on: number of tasks with that verdict against "
    intro += f"{summary['baseline']}. "
    if summary["comparisons"]:
        intro += "Intervals account for the choice of examples and seeds of these tasks, not for other tasks."
    else:
        intro += "No intervals were recorded, so differences may be due to chance."
    tables = [Table("Means over tasks", head, rows), Table("Tasks", ["task", "metric", "report"], tasks)]
    return Section("headline", "Result", intro, tables)


def _average_row(row: AverageRow, summary: AverageSummary) -> list[str]:
    difference, baseline = row["difference"], summary["baseline"]
    return [
        row["recipe"],
        decimal(row["mean"]),
        decimal(difference["mean"], "+"),
        _interval(difference["interval"]),
        "baseline" if row["recipe"] == baseline else difference["verdict"] or "–",
        "" if row["recipe"] == summary["gap_baseline"] else _share(row["gap_closed"]),
        f"{row['rank']:.2f}",
        str(row["better"]),
        str(row["worse"]),
    ]
