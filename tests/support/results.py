"""Complete results.json and compare.json for folders made by hand, of which a test gives what it is about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_SCORES = {"validation": 0.5, "test": 0.5}
_RESULTS: dict[str, Any] = {
    **{"task": "polls", "metric": "accuracy", "seed": 0, "recipe": "kd", "versions": {"augkd": "0.1.0"}},
    "teacher": {**_SCORES, "parameters": 100},
    "student": {**_SCORES, "test_interval": None, "parameters": 10},
    "data": {
        **{"originals": 3, "candidates": 0, "candidates_unique": 0, "excluded_evaluation_texts": 0},
        **{"outside_teacher_bounds": 0, "too_far_from_original": 0},
        **{"generated_per_original": 0, "kept_per_original": 0.0, "selector": "everything"},
    },
    "cost": {
        **{"teacher_rows": 0, "generator_rows": 0, "scoring_rows": 0, "training_rows": 0},
        **{"seconds": {"student": 1.0}, "peak_rss_bytes": 1},
    },
}
_SPREAD = {"mean": 0.5, "sd": None, "values": [0.5]}
_ROW: dict[str, Any] = {
    **{"recipe": "kd", "seeds": 1, "validation": _SPREAD, "test": _SPREAD, "gap_closed": None},
    "difference": {**_SPREAD, "interval": None, "p": None, "verdict": None},
    "cost": {
        **{"teacher_rows": 0.0, "training_rows": 0.0, "scoring_rows": 0.0, "generator_rows": 0.0},
        **{"seconds": {"student": 1.0}, "peak_rss_bytes": 1, "candidates": 0, "originals": 3},
        **{"generated_per_original": 0, "kept_per_original": 0.0, "parameters": 10},
    },
}
_COMPARISON: dict[str, Any] = {
    **{"task": "polls", "metric": "accuracy", "split": "test", "examples": None, "baseline": "kd"},
    **{"gap_baseline": None, "comparisons": 0, "level": 0.95, "resamples": 100, "time_budget": None},
    **{"teacher": _SCORES, "shared_seconds": {}, "rows": [], "runs": {}},
}


def complete_results(given: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a results.json with `given` in it."""
    return _over(_RESULTS, given)


def complete_comparison(given: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a compare.json on one task with `given` in it, its rows and runs completed too."""
    rows = [_over(_ROW, row) for row in given.get("rows", [])]
    runs = {
        name: [complete_results({"recipe": name, **run}) for run in own] for name, own in given.get("runs", {}).items()
    }
    return _over(_COMPARISON, given) | {"rows": rows, "runs": runs}


def _over(whole: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    inner = {
        name: _over(whole[name], value)
        for name, value in given.items()
        if isinstance(value, dict) and isinstance(whole.get(name), dict)
    }
    return {**whole, **given, **inner}
