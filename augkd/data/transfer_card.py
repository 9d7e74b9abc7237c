"""The card of a transfer set: what is in it, where its texts come from, on what terms it may be used.

Texts of a corpus are other people's. So the card never guesses a licence, says what was kept out, and warns of what a
corpus may hold. Its head also tells `datasets` where the rows are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import yaml

TAGS = ["augkd", "knowledge-distillation"]
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_SOURCES = {
    "neighbours": "retrieved from an index of unlabelled text",
    "augmented_samples": "read from a file of augmented samples",
    "generator": "written by a masked language model trained against the student",
    "substitution": "words replaced by a masked language model",
}


def sources_of(table: pa.Table) -> dict[str, int]:
    """Candidates of a transfer set by where they come from."""
    found = Counter(pc.list_flatten(table["candidates"].combine_chunks()).field("source").to_pylist())
    return dict(sorted(found.items()))


def transfer_card(
    table: pa.Table,  # of a transfer set
    labels: Sequence[str],  # () for regression
    title: str,
    lines: Sequence[str] = (),  # what is to be said of its making, a line each
    terms: Mapping[str, Any] | None = None,  # license, data_license, language of `CardOptions`
) -> str:
    """README.md of a transfer set, head and body."""
    terms = terms or {}
    rows, sources = table.num_rows, sources_of(table)
    head: dict[str, Any] = {"configs": [{"config_name": "default", "data_files": [_SPLIT]}], "pretty_name": title}
    head |= {key: value for key in ("language",) if (value := terms.get(key))}
    head |= {"license": terms["data_license"]} if terms.get("data_license") else {}
    head |= {"task_categories": ["text-classification"], "size_categories": [size_of(rows)], "tags": TAGS}
    return "\n".join(
        [
            front_matter(head),
            f"# Transfer set: {title}",
            "",
            "Labelled texts, other texts found or written for each of them, and a teacher's logits for all.",
            "It was made with augkd, to train a small student model by knowledge distillation.",
            "",
            "```python",
            "from datasets import load_dataset",
            "",
            'rows = load_dataset("this folder or repository", split="train")',
            "```",
            "",
            "## What is in it",
            "",
            *(f"- {line}" for line in (f"labelled texts: {rows}", *_told(sources), *lines)),
            f"- {_labels(table, labels)}",
            "",
            *_schema(labels),
            "",
            "## What was kept out",
            "",
            "Texts equal to a validation or test text of the task, by letters and digits alone, and near copies of one",
            "are no candidates. Other test sets were not looked at: the corpus may hold their texts.",
            "",
            "## Terms and care",
            "",
            licence_line(terms.get("data_license"), "the labelled texts and the corpus that the candidates come from"),
            "A corpus may hold names, opinions and other personal or offensive matter; nothing was taken out for that.",
            "The teacher's logits are a model's guesses, not labels that people gave.",
            "",
        ]
    )


_SPLIT = {"split": "train", "path": "data/*.parquet"}


def front_matter(values: Mapping[str, Any]) -> str:
    """The head of a card: YAML between two lines of dashes, keys in the order given."""
    return f"---\n{yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True)}---\n"


def licence_line(given: str | None, what: str) -> str:
    """What a card says of the licence: the given one, or that it is not known."""
    if given:
        return f"Licence: {given}."
    return f"Licence: unknown. It follows from the terms of {what}; settle them before you share this."


def size_of(rows: int) -> str:
    """The Hub's name for a number of rows."""
    return next((name for most, name in _SIZES if rows < most), "n>1M")


def _told(sources: Mapping[str, int]) -> list[str]:
    if not sources:
        return ["candidates: none"]
    return [f"candidates, {_SOURCES.get(name, name)} (`{name}`): {count}" for name, count in sources.items()]


def _labels(table: pa.Table, labels: Sequence[str]) -> str:
    given = Counter(table["label"].to_pylist())
    if labels:
        return "labels: " + ", ".join(f"{name} {given[name]}" for name in labels) + _without(given[None])
    known = [value for value in given if value is not None]
    limits = f" from {min(known):g} to {max(known):g}" if known else ""
    return f"labels: numbers{limits}{_without(given[None])}"


def _without(count: int) -> str:
    return f"; without a label: {count}" if count else ""


def _schema(labels: Sequence[str]) -> list[str]:
    kind = "name of the class" if labels else "number"
    order = f", in the order {', '.join(labels)}" if labels else ", one number"
    return [
        "| column | holds |",
        "|---|---|",
        "| `id` | the row's name in the task |",
        "| `text`, `text_pair` | the labelled text, and its second part where the task has pairs |",
        f"| `label` | {kind}, as people gave it |",
        f"| `teacher_logits` | list of float32{order} |",
        "| `candidates` | list of `id, text, text_pair, source, score, teacher_logits` |",
    ]
