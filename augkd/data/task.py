"""Labelled examples in three splits, from a folder, a file, the Hub or the built-in docstrings.

Whatever is missing is made once, seeded, and said in `Task.notes`: splits that were cut, rows that were dropped. What
is ambiguous (a label that training never shows, a pair with one side) is refused: it would only lower the score.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from augkd.data.labels import Label, map_labels
from augkd.data.sources import SPLITS, RawTask, read_task
from augkd.data.splits import cut, subsample
from augkd.data.tables import Row, read_rows
from augkd.errors import DataError, RecipeError, did_you_mean, shown
from augkd.workspace.fingerprints import fingerprint

CUT = 0.1  # of the training rows, for each split that is missing

_METRICS = {"matthews_corrcoef": "matthews", "mcc": "matthews", "pearsonr": "pearson", "spearmanr": "spearman"}


@dataclass(frozen=True, slots=True)
class Example:
    """One text or pair; `label` is a class index, a number to regress on, or None where only a teacher knows."""

    id: str
    text: str
    text_pair: str | None = None
    label: Label | None = None


@dataclass(frozen=True)
class Task:
    """Three splits and what their labels mean."""

    name: str
    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]
    labels: tuple[str, ...]  # class names in index order; () for regression
    metric: str
    notes: tuple[str, ...]  # what was done that the user should know
    fingerprint: str  # sha256 over the content of all splits and the labels

    @property
    def regression(self) -> bool:
        return not self.labels

    @property
    def is_pair(self) -> bool:
        return self.train[0].text_pair is not None

    @property
    def num_outputs(self) -> int:
        return len(self.labels) or 1

    def evaluation_texts(self) -> Iterator[str]:
        """Every text of validation and test as it is, both sides of pairs; fold them before comparing."""
        for example in self.validation + self.test:
            yield example.text
            if example.text_pair is not None:
                yield example.text_pair


Texts = Sequence[tuple[str, str | None]]


def texts_of(examples: Sequence[Example]) -> list[tuple[str, str | None]]:
    """Texts (and second texts) of examples."""
    return [(example.text, example.text_pair) for example in examples]


def load_task(
    *,
    dataset: str,
    text: str = "text",
    text_pair: str | None = None,
    label: str = "label",
    labels: Sequence[str] | None = None,
    splits: Mapping[str, str] | None = None,
    config: str | None = None,
    name: str | None = None,
    metric: str | None = None,
    regression: bool | None = None,
    max_train: int | None = None,
    seed: int = 0,
) -> Task:
    """Reads, checks and completes a task.

    `splits` maps our split names to files of the folder (or Hub splits) and is then the whole list: a split it leaves
    out is cut from train. `regression=None` decides by the labels.
    """
    _check_options(labels, splits, regression, max_train)
    raw = read_task(dataset, splits, config, label)
    notes: list[str] = []
    text, text_pair, asked = _text_columns(raw, text, text_pair)
    label_column = _label_column(raw, label, notes)
    examples, values = {}, {}
    for split in raw.rows:
        examples[split], values[split] = _examples(raw, split, text, text_pair, label_column, notes)
    if text_pair and (asked or any(e.text_pair is not None for some in examples.values() for e in some)):
        _check_pairs(examples, text_pair, raw.where)

    given = tuple(labels) if labels is not None else tuple(raw.facts.get("label_names") or ())
    if regression is None and labels is None and raw.facts.get("type") in ("regression", "classification"):
        regression = raw.facts["type"] == "regression"
    mapped, names = map_labels(values, raw.where, given, regression)
    done = {s: [replace(e, label=v) for e, v in zip(examples[s], mapped[s], strict=True)] for s in examples}
    _check_unlabelled(done, raw.where, notes)
    _cut_missing(done, raw.where["train"], bool(names), seed, notes)
    if max_train is not None and max_train < len(done["train"]):
        notes.append(f"train: {max_train} of {len(done['train'])} rows taken (max_train, seed {seed})")
        done["train"] = _subsample(done["train"], max_train, bool(names), seed)
    _check_train(done["train"], names, raw.where["train"])

    default = (raw.facts.get("metrics") or [None])[0] or ("pearson" if regression or not names else "accuracy")
    content = {s: [[e.id, e.text, e.text_pair, e.label] for e in done[s]] for s in SPLITS}
    return Task(
        name=name or raw.name,
        train=tuple(done["train"]),
        validation=tuple(done["validation"]),
        test=tuple(done["test"]),
        labels=names,
        metric=_METRICS.get(metric or default, metric or default),
        notes=tuple(notes),
        fingerprint=fingerprint({"labels": names, **content}),
    )


def read_augmented_samples(path: Path) -> dict[str, list[tuple[str, str | None]]]:
    """The candidates of a Minimax-kNN / Glitter file, in file order, by the ids `load_task` gives train rows."""
    rows = list(read_rows(path, ("id", "guid", "augmented_samples")))
    if not any("augmented_samples" in row for row in rows):
        raise DataError(f"{path} has no column 'augmented_samples'; give a Minimax-kNN or Glitter file")
    found = {}
    for number, (key, row) in enumerate(zip(_ids(rows, "train"), rows, strict=True), 1):
        samples = row.get("augmented_samples") or []
        if not isinstance(samples, list):
            raise DataError(f"{path} row {number}: augmented_samples is {shown(samples)}; give a list")
        found[key] = [_sample(sample, f"{path} row {number}") for sample in samples]
    return found


def _sample(sample: Any, where: str) -> tuple[str, str | None]:
    if isinstance(sample, str):
        return sample, None
    text = sample.get("text_a", sample.get("text")) if isinstance(sample, dict) else None
    if not isinstance(text, str):
        raise DataError(f"{where}: augmented sample {shown(sample)} is no text; give a string or an object with text_a")
    return text, sample.get("text_b", sample.get("text_pair")) or None


def _check_options(
    labels: Sequence[str] | None, splits: Mapping[str, str] | None, regression: bool | None, max_train: int | None
) -> None:
    for key in splits or {}:
        if key not in SPLITS:
            raise RecipeError(f"task splits has no split {key!r}{did_you_mean(key, SPLITS)}")
    if splits is not None and "train" not in splits:
        raise RecipeError(f"task splits {shown(dict(splits))} lacks 'train'; name the training split too")
    if max_train is not None and max_train < 2:
        raise RecipeError(f"task max_train is {max_train}; give at least 2, or leave it out for all rows")
    if labels is not None and regression:
        raise RecipeError(f"task labels {shown(list(labels))} with regression: true; give one of the two")
    if labels is not None and len(set(labels)) < max(2, len(labels)):
        raise RecipeError(f"task labels {shown(list(labels))} must be two or more different names")


# ---- columns ----


def _text_columns(raw: RawTask, text: str, text_pair: str | None) -> tuple[str, str | None, bool]:
    """The text column, the pair column, and whether the user named the latter."""
    listed = list(raw.facts.get("text_columns") or ())
    if not listed and "text" not in raw.columns and "text_a" in raw.columns:
        listed = [name for name in ("text_a", "text_b") if name in raw.columns]  # Minimax-kNN / Glitter
    pair = text_pair
    if text == "text" and listed:
        text = listed[0]
        pair = pair or (listed[1] if len(listed) > 1 else None)
    if pair is None and "text_pair" in raw.columns:
        pair = "text_pair"
    for option, column in (("text", text), ("text_pair", pair)):
        if column is not None and column not in raw.columns:
            raise _no_column(raw, option, column)
    return text, pair, text_pair is not None


def _label_column(raw: RawTask, label: str, notes: list[str]) -> str | None:
    if label in raw.columns:
        return label
    if label != "label":
        raise _no_column(raw, "label", label)
    notes.append("no label column: the task has no labels of its own, only a teacher's")
    return None


def _no_column(raw: RawTask, option: str, column: str) -> DataError:
    close = did_you_mean(column, raw.columns)
    advice = close if close.endswith("?") else f"; name one with `{option}`"
    return DataError(f"{raw.where['train']} has no column {column!r} (it has: {', '.join(raw.columns)}){advice}")


def _examples(
    raw: RawTask, split: str, text: str, pair: str | None, label: str | None, notes: list[str]
) -> tuple[list[Example], list[tuple[int, Any]]]:
    """The rows of a split that have a text, not yet labelled, and for each its row number and label as read."""
    examples, values = [], []
    rows = raw.rows[split]
    for number, (key, row) in enumerate(zip(_ids(rows, split), rows, strict=True), 1):
        where = f"{raw.where[split]} row {number}"
        content = _text(row.get(text), where, text)
        if not content.strip():
            continue
        other = _text(row.get(pair), where, pair) if pair else ""
        examples.append(Example(key, content, other if other.strip() else None))
        values.append((number, _label(row.get(label), raw.null) if label else None))
    if not examples:
        raise DataError(f"{raw.where[split]}: split {split} has no text in column {text!r} ({len(rows)} rows); fill it")
    if len(examples) < len(rows):
        notes.append(f"{split}: {len(rows) - len(examples)} of {len(rows)} rows dropped, their text is empty")
    return examples, values


def _ids(rows: Sequence[Row], split: str) -> list[str]:
    """Column `id`, else `guid`, where every row has its own; else `train-0`, `train-1`, …"""
    for column in ("id", "guid"):
        keys = [str(row[column]) for row in rows if row.get(column) not in (None, "")]
        if len(set(keys)) == len(rows):
            return keys
    return [f"{split}-{number}" for number in range(len(rows))]


def _text(value: Any, where: str, column: str | None) -> str:
    if isinstance(value, list | dict):
        raise DataError(f"{where}: column {column!r} is {shown(value)}, not a text; name another column")
    return "" if value is None else str(value)


def _label(value: Any, null: int | None) -> Any:
    empty = isinstance(value, str) and not value.strip()
    return None if empty or (null is not None and value == null) else value


# ---- checks and completion ----


def _check_pairs(examples: dict[str, list[Example]], column: str, where: Mapping[str, str]) -> None:
    for split, some in examples.items():
        lone = [example.id for example in some if example.text_pair is None]
        if lone:
            raise DataError(
                f"{where[split]}: pair column {column!r} is empty in {len(lone)} of {len(some)} rows "
                f"(first: {lone[0]}); fill or remove these rows"
            )


def _check_unlabelled(done: dict[str, list[Example]], where: Mapping[str, str], notes: list[str]) -> None:
    missing = {split: [e.id for e in some if e.label is None] for split, some in done.items()}
    if len(missing["train"]) == len(done["train"]):
        return
    if missing["train"]:
        notes.append(f"train: {len(missing['train'])} of {len(done['train'])} rows have no label, only a teacher's")
    for split in SPLITS[1:]:
        if missing.get(split):
            raise DataError(
                f"{where[split]}: {len(missing[split])} of {len(done[split])} {split} rows have no label "
                f"(first: {missing[split][0]}); label them, or name only the labelled splits with `splits`"
            )


def _cut_missing(done: dict[str, list[Example]], where: str, classes: bool, seed: int, notes: list[str]) -> None:
    missing = [split for split in SPLITS if split not in done]
    train = done["train"]
    if not missing:
        return
    labelled = any(example.label is not None for example in train)
    strata = [None if labelled and e.label is None else (e.label if classes else 0) for e in train]
    if not labelled:
        strata = [0] * len(train)  # a None would keep every row in train
    texts = [" ".join(f"{e.text}\0{e.text_pair or ''}".casefold().split()) for e in train]
    parts = cut(strata, texts, len(missing), CUT, seed)
    for split, rows in zip(missing, parts, strict=True):
        if not rows:
            raise DataError(f"{where}: {len(train)} rows are too few to cut {split} from; give a {split} file")
        done[split] = [train[row] for row in rows]
        notes.append(f"{split}: {len(rows)} of {len(train)} training rows cut off for it (seed {seed})")
    gone = {row for rows in parts for row in rows}
    done["train"] = [example for row, example in enumerate(train) if row not in gone]


def _subsample(train: list[Example], size: int, classes: bool, seed: int) -> list[Example]:
    return [train[row] for row in subsample([e.label if classes else 0 for e in train], size, seed)]


def _check_train(train: list[Example], names: tuple[str, ...], where: str) -> None:
    if len(train) < 2:
        raise DataError(f"{where}: {len(train)} training example; give at least 2")
    found = Counter(example.label for example in train if example.label is not None)
    if names and len(found) == 1:
        only = names[int(next(iter(found)))]
        raise DataError(f"{where}: every training label is {only!r}; give rows of at least one other class")
