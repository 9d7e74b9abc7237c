"""A comparison as Markdown for a paper or an issue: narrow tables, and notes below that explain their columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from augkd.data.markdown import markdown_text
from augkd.evaluation.compare.schema import (
    AverageDifference,
    AverageSummary,
    ComparisonSummary,
    GapClosedSummary,
    RecipeCost,
    SeedDifference,
    SeedScores,
)
from augkd.evaluation.results import Split
from augkd.recipe.units import format_bytes, format_seconds


def comparison_table(summary: ComparisonSummary) -> str:
    """Scores, costs and notes of a comparison on one task."""
    return "\n".join([*_scores(summary), "", *_costs(summary), "", *_notes(summary)])


def shown_splits(summary: ComparisonSummary) -> list[Split]:
    """The splits whose scores are shown: recipes that are chosen on validation are not judged by their test scores."""
    return ["validation", "test"] if summary["split"] == "test" else ["validation"]


def average_table(summary: AverageSummary) -> str:
    """Scores over several tasks, and notes."""
    baseline = summary["baseline"]
    head = [
        "recipe",
        "mean",
        f"− {markdown_text(baseline)}",
        "verdict",
        "teacher gap closed",
        "mean rank",
        "better",
        "worse",
    ]
    rows = [
        [
            markdown_text(row["recipe"]),
            f"{row['mean']:.4f}",
            "" if row["recipe"] == baseline else _difference(row["difference"]),
            "baseline" if row["recipe"] == baseline else row["difference"]["verdict"] or "–",
            "" if row["recipe"] == summary["gap_baseline"] else _gap_closed(row["gap_closed"]),
            f"{row['rank']:.2f}",
            str(row["better"]),
            str(row["worse"]),
        ]
        for row in summary["rows"]
    ]
    if summary["teacher"] is not None:
        rows.append(["teacher", f"{summary['teacher']:.4f}", "", "", "", "", "", ""])
    metrics = zip(map(markdown_text, summary["tasks"]), summary["metrics"], strict=True)
    notes = [
        f"- **mean**: over {', '.join(f'{task} ({metric})' for task, metric in metrics)}; all tasks weigh the same.",
        _average_inference(summary),
        *_average_gap(summary),
        "- **mean rank**: 1 is the best recipe of a task; ties share their mean rank.",
        f"- **better**, **worse**: number of tasks with that verdict against {markdown_text(baseline)}.",
    ]
    if summary["left_out"]:
        left_out = ", ".join(map(markdown_text, summary["left_out"]))
        notes.append(f"- Left out, as they did not run on every task: {left_out}.")
    return "\n".join([*_markdown(head, rows), "", *notes])


def _average_gap(summary: AverageSummary) -> Iterator[str]:
    if summary["gap_baseline"] is not None:
        plain = markdown_text(summary["gap_baseline"])
        yield (
            f"- **teacher gap closed**: (recipe − {plain}) / (teacher − {plain}), of the means over the tasks, with "
            "its own 95 % interval."
        )


def _average_inference(summary: AverageSummary) -> str:
    """What the difference over tasks is, and what its interval covers."""
    definition = (
        f"- **− {markdown_text(summary['baseline'])}**: mean over the tasks of the mean difference, paired by seed"
    )
    count = summary["comparisons"]
    if not count:
        return f"{definition}; no interval, as student folders lack predictions or the tasks have different baselines."
    together = f", simultaneous over all {count} comparisons (max-t)" if count > 1 else ""
    return (
        f"{definition}, with its {summary['level']:.0%} interval{together}, from a bootstrap over each task's examples "
        f"and seeds ({summary['resamples']:,} resamples). It covers these tasks only, not other tasks."
    )


# ---- scores ----


def _scores(summary: ComparisonSummary) -> list[str]:
    baseline, metric = summary["baseline"], summary["metric"]
    splits = shown_splits(summary)
    head = [
        "recipe",
        *(f"{split} {metric}" for split in splits),
        f"− {markdown_text(baseline)}",
        "verdict",
        "teacher gap closed",
    ]
    rows = [
        [
            markdown_text(row["recipe"]),
            *(_spread(row[split]) for split in splits),
            "" if row["recipe"] == baseline else _difference(row["difference"]),
            "baseline" if row["recipe"] == baseline else row["difference"]["verdict"] or "–",
            "" if row["recipe"] == summary["gap_baseline"] else _gap_closed(row["gap_closed"]),
        ]
        for row in summary["rows"]
    ]
    rows.append(["teacher", *(_score(summary["teacher"][split]) for split in splits), "", "", ""])
    return _markdown(head, rows)


def _spread(scores: SeedScores) -> str:
    sd = f" ± {scores['sd']:.4f}" if scores["sd"] is not None else ""
    return _score(scores["mean"]) + sd


def _difference(difference: SeedDifference | AverageDifference) -> str:
    if difference["mean"] is None:
        return "–"
    interval = difference["interval"]
    shown = "[–]" if interval is None else f"[{interval[0]:+.4f}, {interval[1]:+.4f}]"
    return f"{difference['mean']:+.4f} {shown}"


def _gap_closed(gap: GapClosedSummary | None) -> str:
    if gap is None:
        return "–"
    low, high = gap["interval"]
    return f"{gap['share']:.0%} [{low:.0%}, {high:.0%}]"


def _score(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


# ---- costs ----


def _student_time(cost: RecipeCost) -> str:
    return format_seconds(cost["seconds"]["student"] + cost["seconds"].get("assistants", 0.0))


def _count(rows: float) -> str | None:
    return f"{round(rows):,}" if rows else None


def _candidates_used(cost: RecipeCost) -> str | None:
    available = cost["candidates"] / max(1, cost["originals"]) + cost["generated_per_original"]
    return f"{cost['kept_per_original']:.3g} of {available:.3g}" if available else None


_COSTS: tuple[tuple[str, Callable[[RecipeCost], str | None]], ...] = (
    ("student time", _student_time),
    ("rows trained", lambda cost: _count(cost["training_rows"])),
    ("rows scored", lambda cost: _count(cost["scoring_rows"])),
    ("generator rows", lambda cost: _count(cost["generator_rows"])),
    ("teacher rows", lambda cost: _count(cost["teacher_rows"])),
    ("candidates used", _candidates_used),
    ("peak memory", lambda cost: format_bytes(cost["peak_rss_bytes"])),
)


def _costs(summary: ComparisonSummary) -> list[str]:
    columns = [(name, [shown(row["cost"]) for row in summary["rows"]]) for name, shown in _COSTS]
    columns = [(name, cells) for name, cells in columns if any(cells)]  # leaves out a column of nothing
    names = [markdown_text(row["recipe"]) for row in summary["rows"]]
    rows = [[name, *(cells[place] or "0" for _, cells in columns)] for place, name in enumerate(names)]
    return _markdown(["recipe", *(name for name, _ in columns)], rows)


# ---- notes ----


def _notes(summary: ComparisonSummary) -> Iterator[str]:
    seeds = max(row["seeds"] for row in summary["rows"])
    examples = f", on {summary['examples']:,} examples" if summary["examples"] else ""
    spread = " ± the sample standard deviation" if seeds > 1 else ""
    task, split, metric = markdown_text(summary["task"]), summary["split"], summary["metric"]
    yield f"- **{split} {metric}** ({task}): mean{spread} over {seeds} seed{'s' if seeds > 1 else ''}{examples}."
    if split == "validation":
        labelled = any(value is not None for row in summary["rows"] for value in row["test"]["values"])
        why = "" if labelled else "The test split has no labels. "
        yield f"- {why}Validation scores are slightly optimistic: they chose the checkpoints."
    yield from _inference(summary, seeds)
    shared = {name.replace("_", " "): seconds for name, seconds in summary["shared_seconds"].items() if seconds}
    stages = ", ".join(f"{name} {format_seconds(seconds)}" for name, seconds in shared.items())
    yield f"- **student time** and rows: mean per student{_time_budget(summary)}." + (
        f" Shared by all runs, counted once: {stages}." if stages else ""
    )
    yield (
        "- **rows**: texts through the student (trained: forward and backward; scored: forward) or the teacher. "
        "**candidates used**: kept of those available, stored and generated, per labelled text and epoch."
    )


def _inference(summary: ComparisonSummary, seeds: int) -> Iterator[str]:
    baseline, count = markdown_text(summary["baseline"]), summary["comparisons"]
    if not count:
        yield f"- **− {baseline}**: mean difference, paired by seed; no interval, as student folders lack predictions."
        return
    resampled = "examples and seeds" if seeds > 1 else "examples"
    together = f", simultaneous over all {count} comparisons (max-t)" if count > 1 else ""
    yield (
        f"- **− {baseline}**: mean difference, paired by seed, with its {summary['level']:.0%} interval{together}, "
        f"from a paired bootstrap over {resampled} ({summary['resamples']:,} resamples)."
    )
    if seeds == 1:
        yield "- With one seed, intervals and verdicts say nothing about other seeds."
    elif seeds < 5:
        yield f"- {seeds} seeds are few: intervals are too short where seeds differ as much as recipes; use 5 or more."
    if summary["gap_baseline"] is not None:
        plain = markdown_text(summary["gap_baseline"])
        yield (
            f"- **teacher gap closed**: (recipe − {plain}) / (teacher − {plain}), with its own 95 % interval; "
            f"– where the teacher is not shown to be better than {plain}."
        )


def _time_budget(summary: ComparisonSummary) -> str:
    budget = summary["time_budget"]
    return "" if budget is None else f", each trained for {format_seconds(budget)}"


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table; columns of numbers are right-aligned."""
    return [
        f"| {' | '.join(head)} |",
        "|---|" + "".join("---|" if name == "verdict" else "--:|" for name in head[1:]),
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
