"""results.json: what a run came to, and what it cost.

Rows are counted where the forward happens, here they are only added up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from augkd.recipe import DataOptions
from augkd.workspace.manifests import versions

_FIGURES = ("validation", "test", "test_interval", "parameters", "ensemble")
_ASSISTANT = ("validation", "test", "parameters", "rows", "seconds")


def summary(
    options: DataOptions,
    student: Mapping[str, Any],  # its manifest
    teacher: Mapping[str, Any],  # its figures
    transfer: Mapping[str, Any],  # the transfer set's manifest
    assistants: Sequence[Mapping[str, Any]],  # their manifests
    seconds: dict[str, float],  # by stage
) -> dict[str, Any]:
    """The values of results.json besides the names of task, metric, seed and recipe."""
    rows: Counter[str] = Counter(student["rows"])
    for assistant in assistants:
        rows.update(assistant["rows"])
    if assistants:
        seconds = seconds | {"assistants": sum(assistant["seconds"] for assistant in assistants)}
    values: dict[str, Any] = {
        "teacher": dict(teacher),
        "student": {name: student[name] for name in _FIGURES if name in student},
        "data": _data(options, transfer["data"]),
        "cost": {
            "teacher_rows": transfer["teacher_rows"] + rows["teacher"],
            "generator_rows": transfer["generator_rows"] + rows["generator"],
            "scoring_rows": rows["scoring"],
            "training_rows": rows["training"],
            "seconds": seconds,
            "peak_rss_bytes": student["peak_rss_bytes"],  # of the process that trained it
        },
        "versions": versions(),
    }
    if assistants:
        values["assistants"] = [{name: assistant[name] for name in _ASSISTANT} for assistant in assistants]
    return values


def _data(options: DataOptions, counts: Mapping[str, Any]) -> dict[str, Any]:
    """The transfer set's counts, what a generator adds in a step, and how many of both the selector keeps at most."""
    ((selector, given),) = options.select.items()
    generated = options.generator.samples if options.generator else 0
    each = counts["candidates"] / max(1, counts["originals"]) + generated
    kept = {"generated_per_original": generated, "kept_per_original": min(given.get("keep", each), each)}
    return {name: value for name, value in counts.items() if name != "short"} | kept | {"selector": selector}
