"""The folder of a finished run with everything that cards are written from, and no model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support.manifests import complete_manifest
from support.results import complete_results

from augkd.data.transfer_set import write_rows
from augkd.recipe import Recipe, dump
from augkd.workspace.files import write_json

LABELS = ("no", "yes")


RECIPE: dict[str, Any] = {
    "task": {"dataset": "/home/ann/data/polls"},
    "teacher": {"model": "sentence-transformers/all-MiniLM-L6-v2", "epochs": 3.0},
    "student": {"layers": [0, 5]},
    "data": {
        "neighbours": {"index": {"corpus": {"dataset": "owner/reviews"}}, "k": 2},
        "select": {"minimax": {"keep": 1}},
    },
    "training": {"kd": {"weight": 0.5}, "max_length": 64},
}


def rows(pair: str | None = None, labels: tuple[str, ...] = LABELS) -> list[dict[str, Any]]:
    """Three rows of a transfer set, with two, two and no candidates."""
    logits = [0.5, -0.5] if labels else [0.5]

    def candidate(number: int, source: str) -> dict[str, Any]:
        text = {"text": f"like it {number}", "text_pair": pair}
        return {"id": str(number), **text, "source": source, "score": 0.5, "teacher_logits": logits}

    sources = (("neighbours", "neighbours"), ("neighbours", "generator"), ())
    return [
        {
            "id": f"train-{n}",
            "text": f"text {n}",
            "text_pair": pair,
            "label": (LABELS[n % 2] if labels else n / 2),
            "teacher_logits": logits,
            "candidates": [candidate(place, source) for place, source in enumerate(row_sources)],
        }
        for n, row_sources in enumerate(sources)
    ]


def finished_run(
    out: Path, recipe: dict[str, Any] = RECIPE, config: dict[str, Any] | None = None, **transfer: Any
) -> Path:
    """Writes the folder; `transfer` are options of `rows`."""
    validated = Recipe.model_validate(recipe)
    folder = out / "transfer_set"
    labels = transfer.get("labels", LABELS)
    write_rows(folder, iter(rows(**transfer)), labels)
    counts = {"originals": 3, "candidates": 4, "candidates_unique": 2, "excluded_evaluation_texts": 7, "short": 1}
    complete_manifest(folder, "transfer_set", {}, data=counts)
    config = {"model_type": "bert", "id2label": dict(enumerate(LABELS)), **(config or {})}
    write_json(out / "student" / "config.json", config)
    made_from = {"task": "a" * 64, "transfer_set": "b" * 64}
    complete_manifest(out / "student", "student", made_from, recipe=dump(validated))
    scores = {"validation": 0.75, "test": 0.8125, "parameters": 1234567}
    results = {
        "task": "polls",
        "metric": "matthews",
        "seed": 3,
        "recipe": "mine",
        "teacher": {**scores, "test": 0.9},
        "student": {**scores, "test_interval": [0.7, 0.9]},
        "data": {**counts, "kept_per_original": 1, "selector": "minimax"},
        "versions": {"augkd": "0.1.0"},
    }
    write_json(out / "results.json", complete_results(results))
    stages = {name: name for name in ("student", "transfer_set")}
    complete_manifest(out, "run", {}, recipe=dump(validated), seed=3, stages=stages)
    return out
