"""A comparison as Markdown that can be pasted into a paper or an issue: narrow tables, and under them what they say."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from augkd.recipe.units import show_bytes, show_seconds

Value = Mapping[str, Any]


def table(value: Value) -> str:
    """Figures, costs and footnotes of `evaluation.compare.summarise`."""
    lines = [*_figures(value), "", *_costs(value), "", *_notes(value)]
    return "\n".join(lines)


def average_table(value: Value) -> str:
    """The figures over tasks of `evaluation.compare.average`, and footnotes."""
    baseline = value["baseline"]
    head = ["recipe", "mean", f"− {baseline}", "verdict", "mean rank", "better", "worse"]
    rows = [
        [
            row["recipe"],
            f"{row['mean']:.4f}",
            "" if row["recipe"] == baseline else _difference(row["difference"]),
            "baseline" if row["recipe"] == baseline else row["difference"]["verdict"] or "–",
            f"{row['rank']:.2f}",
            *(str(row[word]) for word in ("better", "worse")),
        ]
        for row in value["rows"]
    ]
    if value["teacher"] is not None:
        rows.append(["teacher", f"{value['teacher']:.4f}", "", "", "", "", ""])
    metrics = zip(value["tasks"], value["metrics"], strict=True)
    notes = [
        f"- **mean**: over {', '.join(f'{task} ({metric})' for task, metric in metrics)}; every task counts the same.",
        _average_inference(value),
        "- **mean rank**: 1 is the best recipe of a task; equal ones share their mean rank.",
        f"- **better**, **worse**: tasks on which the difference to {baseline} is shown.",
    ]
    if value["left_out"]:
        notes.append(f"- Not on every task, so not here: {', '.join(value['left_out'])}.")
    return "\n".join([*_markdown(head, rows), "", *notes])


def _average_inference(value: Value) -> str:
    """What the difference over tasks is, and what its interval is about."""
    what, count = (
        f"- **− {value['baseline']}**: mean over the tasks of the mean difference, seed by seed",
        value["comparisons"],
    )
    if not count:
        return f"{what}; no interval, as student folders lack predictions or the tasks have not the same baseline."
    together = f", for all {count} comparisons at once (max-t)" if count > 1 else ""
    return (
        f"{what}, with its {value['level']:.0%} interval{together}: examples and seeds of every task drawn anew "
        f"({value['draws']:,} resamples), the tasks as they are. It says nothing about other tasks."
    )


# ---- figures ----


def _figures(value: Value) -> list[str]:
    split, baseline = value["split"], value["baseline"]
    shown = [name for name in ("validation", "test") if name == split or value["split"] == "test"]
    head = ["recipe", *(f"{name} {value['metric']}" for name in shown), f"− {baseline}", "verdict", "lead won back"]
    rows = [
        [
            row["recipe"],
            *(_spread(row[name]) for name in shown),
            "" if row["recipe"] == baseline else _difference(row["difference"]),
            "baseline" if row["recipe"] == baseline else row["difference"]["verdict"] or "–",
            "" if row["recipe"] == value.get("lead_over") else _share(row["lead"]),
        ]
        for row in value["rows"]
    ]
    rows.append(["teacher", *(_one(value["teacher"][name]) for name in shown), "", "", ""])
    return _markdown(head, rows)


def _spread(figures: Value) -> str:
    sd = f" ± {figures['sd']:.4f}" if figures["sd"] is not None else ""
    return _one(figures["mean"]) + sd


def _difference(figures: Value) -> str:
    if figures["mean"] is None:
        return "–"
    interval = figures["interval"]
    return f"{figures['mean']:+.4f} " + ("[–]" if interval is None else f"[{interval[0]:+.4f}, {interval[1]:+.4f}]")


def _share(lead: Value | None) -> str:
    if lead is None:
        return "–"
    low, high = lead["interval"]
    return f"{lead['share']:.0%} [{low:.0%}, {high:.0%}]"


def _one(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


# ---- costs ----

_COSTS: tuple[tuple[str, Callable[[Value], str | None]], ...] = (
    ("student time", lambda cost: show_seconds(cost["seconds"]["student"] + cost["seconds"].get("assistants", 0.0))),
    ("rows trained", lambda cost: _count(cost["training_rows"])),
    ("rows scored", lambda cost: _count(cost["scoring_rows"])),
    ("generator rows", lambda cost: _count(cost.get("generator_rows", 0))),
    ("teacher rows", lambda cost: _count(cost["teacher_rows"])),
    ("candidates used", lambda cost: _kept(cost)),
    ("peak memory", lambda cost: show_bytes(cost["peak_rss_bytes"])),
)


def _costs(value: Value) -> list[str]:
    columns = [(name, [told(row["cost"]) for row in value["rows"]]) for name, told in _COSTS]
    seen = [(name, cells) for name, cells in columns if any(cells)]  # a column of nothing is left out
    names = [row["recipe"] for row in value["rows"]]
    rows = [[name, *(cells[place] or "0" for _, cells in seen)] for place, name in enumerate(names)]
    return _markdown(["recipe", *(name for name, _ in seen)], rows)


def _count(rows: float) -> str | None:
    return f"{round(rows):,}" if rows else None


def _kept(cost: Value) -> str | None:
    each = cost["candidates"] / max(1, cost["originals"]) + cost["generated_per_original"]
    return f"{cost['kept_per_original']:.3g} of {each:.3g}" if each else None


# ---- notes ----


def _notes(value: Value) -> Iterator[str]:
    seeds = max(row["seeds"] for row in value["rows"])
    examples = f", on {value['examples']:,} examples" if value["examples"] else ""
    spread = " ± the sample standard deviation" if seeds > 1 else ""
    task, split, metric = value["task"], value["split"], value["metric"]
    yield f"- **{split} {metric}** ({task}): mean{spread} over {seeds} seed{'s' if seeds > 1 else ''}{examples}."
    if split == "validation":
        yield "- The test split has no labels; validation chose the checkpoints too, so its figures are a little high."
    yield from _inference(value, seeds)
    shared = {name.replace("_", " "): seconds for name, seconds in value["shared_seconds"].items() if seconds}
    told = ", ".join(f"{name} {show_seconds(seconds)}" for name, seconds in shared.items())
    yield f"- **student time** and rows: mean of one student{_budget(value)}." + (
        f" Shared, once: {told}." if told else ""
    )
    yield (
        "- **rows**: texts through the student (trained: forward and backward; scored: forward) or the teacher. "
        "**candidates used**: kept of those there are, stored and generated, per labelled text and epoch."
    )


def _inference(value: Value, seeds: int) -> Iterator[str]:
    baseline, count = value["baseline"], value["comparisons"]
    if not count:
        yield f"- **− {baseline}**: mean difference, seed by seed; no interval, as student folders lack predictions."
        return
    what = "examples and seeds" if seeds > 1 else "examples"
    together = f", for all {count} comparisons at once (max-t)" if count > 1 else ""
    yield (
        f"- **− {baseline}**: mean difference, seed by seed, with its {value['level']:.0%} interval{together}, from a "
        f"paired bootstrap over {what} ({value['draws']:,} resamples)."
    )
    if seeds == 1:
        yield "- One seed: intervals and verdicts say nothing about other seeds."
    elif seeds < 5:
        yield f"- {seeds} seeds are few: where seeds differ as much as recipes, intervals are too short; 5 are better."
    if "lead_over" in value:
        over = value["lead_over"]
        yield (
            f"- **lead won back**: (recipe − {over}) / (teacher − {over}), with a 95 % interval of its own; "
            f"–: the teacher's lead over {over} is not shown."
        )


def _budget(value: Value) -> str:
    return "" if value["budget"] is None else f", each with {show_seconds(value['budget'])} of training"


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table; every column of figures is set to the right."""
    return [
        f"| {' | '.join(head)} |",
        "|---|" + "".join("---|" if name == "verdict" else "--:|" for name in head[1:]),
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
