"""What `augkd init` prints: the surveys to read, with warnings for what deserves a second look, and what to do next."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from augkd.setup.survey import MODEL_MAX_LENGTH, CorpusSurvey, Lengths, TaskSurvey, short_name

_SPECIAL_TOKENS = 3  # at most, around a pair of texts


def summary(task: TaskSurvey, corpus: CorpusSurvey | None) -> Iterator[str]:
    """The surveys as lines."""
    splits = ", ".join(f"{len(examples)} {name}" for name, examples in _splits(task).items())
    yield f"task      {short_name(task.task.name)}: {splits}"
    yield from (f"          {line}" for line in _task_lines(task))
    if corpus:
        about = "" if corpus.complete else "about "
        yield f"corpus    {corpus.dataset}: {about}{corpus.texts:,} texts in column {corpus.column!r}"
        yield from (f"          {line}" for line in _corpus_lines(corpus))


def _splits(task: TaskSurvey) -> dict[str, Any]:
    return {name: getattr(task.task, name) for name in ("train", "validation", "test")}


def _task_lines(task: TaskSurvey) -> Iterator[str]:
    yield from task.columns.reasons
    if task.label_range is not None:
        low, high = task.label_range
        yield f"regression: labels from {low:g} to {high:g}; metric: {task.task.metric}"
    else:
        counts = [f"{short_name(name, 20)} {count}" for name, count in task.class_counts.items()]
        more = f" and {len(counts) - 12} more" if counts[12:] else ""
        yield f"{task.task.target.describe()}: {', '.join(counts[:12])}{more}; metric: {task.task.metric}"
    yield _lengths_line(task.lengths)
    yield from (
        f"{option}: {_shown(value)} ({task.decided.reasons[option]})" for option, value in task.decided.options.items()
    )
    yield from (f"note: {note}" for note in task.task.notes)
    yield from (f"warning: {warning}" for warning in _warnings(task))


def _shown(value: Any) -> str:
    return ", ".join(f"{name}={file}" for name, file in value.items()) if isinstance(value, dict) else str(value)


def _lengths_line(lengths: Lengths) -> str:
    return f"words per text: median {lengths.median_words}, max {lengths.max_words}"


def _warnings(task: TaskSurvey) -> Iterator[str]:
    if task.repeated:
        conflicting = f", {task.conflicting} of them with another label" if task.conflicting else ""
        yield f"{task.repeated} of {len(task.task.train)} training texts repeat an earlier one{conflicting}"
    if task.leaked:
        yield f"{task.leaked} validation and test texts are also training texts, so scores will be too high"
    rare = [short_name(name, 20) for name, count in task.class_counts.items() if count < 10]
    if rare:
        yield f"classes with fewer than 10 training texts: {', '.join(rare[:8])}{', …' if rare[8:] else ''}"
    if task.lengths.tokens_p99 + _SPECIAL_TOKENS > MODEL_MAX_LENGTH:
        yield f"some texts are longer than the {MODEL_MAX_LENGTH} tokens that the models read, and will be truncated"


def _corpus_lines(corpus: CorpusSurvey) -> Iterator[str]:
    yield from (f"read {how}" for how in corpus.read_as)
    yield _lengths_line(corpus.lengths)
    names = ("empty", "duplicates", "too_long", "malformed")
    counts = {name.replace("_", " "): getattr(corpus.counts, name) for name in names}
    dropped = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    seen = f"{'' if corpus.complete else 'the first '}{corpus.counts.read:,} texts"
    if dropped:
        yield f"dropped from {seen}: {dropped}"
    if corpus.evaluation_texts:
        yield f"validation or test texts among {seen}: {corpus.evaluation_texts}; a run excludes these"
    if corpus.documents:
        yield "warning: its texts are much longer than the task's, so the recipe splits them into sentences"


def next_commands(out: Path) -> list[str]:
    """Commands to try with the recipe `out`, ready to paste into a shell."""
    recipe, run = shlex.quote(str(out)), f"runs/{out.stem}"
    return [
        f"augkd check {recipe}",
        f"augkd run {recipe} --out {shlex.quote(run)}",
        f"augkd transfer show {shlex.quote(f'{run}/transfer_set')} -n 3",
        f"augkd compare {recipe} --seeds 3 --out {shlex.quote(f'{run}-compare')}",
    ]


def summary_json(task: TaskSurvey, corpus: CorpusSurvey | None, recipe: str) -> dict[str, Any]:
    """The surveys and the recipe's text as values for JSON."""
    values: dict[str, Any] = {
        "task": task.task.name,
        "columns": {name: getattr(task.columns, name) for name in ("text", "text_pair", "label", "separator")},
        "reasons": list(task.columns.reasons),
        "splits": {name: len(examples) for name, examples in _splits(task).items()},
        "classes": task.class_counts,
        "label_range": task.label_range,
        "metric": task.task.metric,
        "lengths": vars(task.lengths),
        "options": task.decided.options,
        "notes": list(task.task.notes),
        "warnings": list(_warnings(task)),
        "recipe": recipe,
    }
    if corpus:
        values["corpus"] = {"texts": corpus.texts, "complete": corpus.complete, "column": corpus.column}
        values["corpus"] |= {"lengths": vars(corpus.lengths), "counts": vars(corpus.counts)}
    return values
