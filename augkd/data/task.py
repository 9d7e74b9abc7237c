"""A task: labelled examples in three splits, from a folder, a file, the Hub or the built-in docstrings.

What is missing is made once, seeded, and described in `Task.notes`: splits cut from train, rows that were dropped. What
is ambiguous (a label that training never shows, half a pair) is an error, since it would only lower the score.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from augkd.data.columns import Columns, check_pairs, find_columns, text_rows
from augkd.data.label_names import settle_labels
from augkd.data.labels import Label, map_labels
from augkd.data.reading import Reading
from augkd.data.sources import SPLITS, RawTask, read_task
from augkd.data.splits import cut, subsample
from augkd.data.target import Target
from augkd.errors import DataError, RecipeError, did_you_mean, short_repr
from augkd.workspace.fingerprints import fingerprint

EMPTY_LABELS = ("missing", "none")
CUT_SHARE = 0.1  # of the training rows, for each split that is missing

_METRIC_NAMES = {
    **{"matthews_corrcoef": "matthews", "mcc": "matthews", "pearsonr": "pearson", "spearmanr": "spearman"},
    **{"f1_micro": "micro_f1", "f1_macro": "macro_f1", "map": "mAP", "mean_average_precision": "mAP"},
}


@dataclass(frozen=True, slots=True)
class Example:
    """One text or pair; `label` is a class index, the indices of several labels, or a number to regress on.

    None where only the teacher labels it.
    """

    id: str
    text: str
    text_pair: str | None = None
    label: Label | None = None


@dataclass(frozen=True)
class Task:
    """Three splits and the meaning of their labels."""

    name: str
    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]
    labels: tuple[str, ...]  # names in the order of a model's outputs; () for regression
    metric: str
    notes: tuple[str, ...]  # what was changed that the user should know
    fingerprint: str  # sha256 over the content of all splits and the labels
    multi_label: bool = False  # whether a text has any number of the labels

    @property
    def target(self) -> Target:
        """What the task predicts."""
        return Target(self.labels, self.multi_label)

    @property
    def is_pair(self) -> bool:
        return self.train[0].text_pair is not None

    def evaluation_texts(self) -> Iterator[str]:
        """Every text of validation and test, both sides of pairs, unchanged; normalise them before comparing."""
        for example in self.validation + self.test:
            yield example.text
            if example.text_pair is not None:
                yield example.text_pair


Texts = Sequence[tuple[str, str | None]]  # texts with their second texts

_Splits = dict[str, list[Example]]


def texts_of(examples: Sequence[Example]) -> list[tuple[str, str | None]]:
    """The texts and second texts of examples."""
    return [(example.text, example.text_pair) for example in examples]


def load_task(
    *,
    dataset: str,
    text: str = "text",
    text_pair: str | None = None,
    label: str | Sequence[str] = "label",
    labels: Sequence[str] | None = None,
    separator: str | None = None,
    empty_label: str = "missing",
    merge_labels: bool | None = None,
    splits: Mapping[str, str] | None = None,
    config: str | None = None,
    name: str | None = None,
    metric: str | None = None,
    regression: bool | None = None,
    max_train: int | None = None,
    encoding: str | None = None,
    delimiter: str | None = None,
    sheet: str | None = None,
    seed: int = 0,
) -> Task:
    """Reads, checks and completes a task; raises DataError, and RecipeError for an option out of range.

    `splits` maps our split names to files of the folder (or splits of a Hub data set) and is the complete list: a split
    it leaves out is cut from train. `regression=None` decides by the labels. A text may have several labels: a list,
    a string of names with a `separator` between them, or a column of 0 and 1 for each (`label` names all of them); an
    `empty_label` is then `missing`, or `none` of them. `merge_labels` says whether labels that differ in white space or
    in how accents are encoded only are one; None raises DataError for such labels. `encoding`, `delimiter` and `sheet`
    are those of `Reading`.
    """
    _check_options(labels, splits, regression, max_train)
    _check_label_options(label, separator, empty_label, labels, regression)
    reading = Reading(encoding, delimiter, sheet)
    raw = read_task(dataset, splits, config, label if isinstance(label, str) else label[0], reading)
    notes = list(raw.notes)
    class_names = tuple(labels) if labels is not None else raw.facts.label_names
    if not isinstance(label, str):
        class_names = tuple(label)
    if regression is None and labels is None:
        regression = raw.facts.regression
    columns = find_columns(raw, text, text_pair, label, notes, separator, empty_label == "none")
    examples, target = _labelled_examples(raw, columns, class_names, regression, merge_labels, notes)

    _check_unlabelled(examples, target, raw.where, notes)
    _cut_missing_splits(examples, raw.where["train"], target, seed, notes)
    if max_train is not None and max_train < len(examples["train"]):
        notes.append(f"train: {max_train} of {len(examples['train'])} rows taken (max_train, seed {seed})")
        examples["train"] = _subsample(examples["train"], max_train, target, seed)
    _check_train(examples["train"], target, raw.where["train"])

    metric = metric or raw.facts.metric or target.metrics[0]
    content = {split: [[e.id, e.text, e.text_pair, e.label] for e in examples[split]] for split in SPLITS}
    return Task(
        name=name or raw.name,
        train=tuple(examples["train"]),
        validation=tuple(examples["validation"]),
        test=tuple(examples["test"]),
        labels=target.labels,
        metric=_METRIC_NAMES.get(metric, metric),
        notes=tuple(notes),
        fingerprint=fingerprint({"labels": target.labels, **content}),
        multi_label=target.multi_label,
    )


def with_labelled(task: Task, size: int | None, seed: int = 0) -> Task:
    """The task with `size` labelled training examples, in the proportions of the classes; None: the task as it is.

    Training examples without a label stay, and so does the fingerprint: it is that of the whole task. Raises
    RecipeError when there are fewer labelled texts, or more classes, than `size`.
    """
    if size is None:
        return task
    labelled = [row for row, example in enumerate(task.train) if example.label is not None]
    if size > len(labelled):
        raise RecipeError(
            f"data.labelled is {size}, but task {task.name} has {len(labelled)} labelled training texts; "
            f"give at most {len(labelled)}, or leave it out for all"
        )
    if size < len(task.labels):
        raise RecipeError(
            f"data.labelled is {size}, but task {task.name} has {len(task.labels)} classes; "
            f"give at least {len(task.labels)}, so that each has a text"
        )
    strata = task.target.strata([task.train[row].label for row in labelled])
    kept = {labelled[place] for place in subsample(strata, size, seed)}
    train = (example for row, example in enumerate(task.train) if example.label is None or row in kept)
    return replace(task, train=tuple(train))


def _check_options(
    labels: Sequence[str] | None, splits: Mapping[str, str] | None, regression: bool | None, max_train: int | None
) -> None:
    for key in splits or {}:
        if key not in SPLITS:
            raise RecipeError(f"task splits has no split {key!r}{did_you_mean(key, SPLITS)}")
    if splits is not None and "train" not in splits:
        raise RecipeError(f"task splits {short_repr(dict(splits))} lacks 'train'; name the training split too")
    if max_train is not None and max_train < 2:
        raise RecipeError(f"task max_train is {max_train}; give at least 2, or leave it out for all rows")
    if labels is not None and regression:
        raise RecipeError(f"task labels {short_repr(list(labels))} with regression: true; give one of the two")
    if labels is not None and len(set(labels)) < max(2, len(labels)):
        raise RecipeError(f"task labels {short_repr(list(labels))} must be two or more different names")


def _check_label_options(
    label: str | Sequence[str],
    separator: str | None,
    empty_label: str,
    labels: Sequence[str] | None,
    regression: bool | None,
) -> None:
    if empty_label not in EMPTY_LABELS:
        raise RecipeError(f"task empty_label is {empty_label!r}{did_you_mean(empty_label, EMPTY_LABELS)}")
    if separator is not None and not separator.strip():
        raise RecipeError(f"task separator is {separator!r}; give the character between labels, such as '|'")
    if isinstance(label, str):
        return
    if len(set(label)) < max(2, len(label)):
        raise RecipeError(f"task label {short_repr(list(label))} must name two or more different columns")
    if labels is not None or separator is not None or regression:
        raise RecipeError("task label names a column of 0 and 1 for each label; drop labels, separator and regression")


def _labelled_examples(
    raw: RawTask,
    columns: Columns,
    class_names: tuple[str, ...],  # () where the labels decide
    regression: bool | None,
    merge_labels: bool | None,
    notes: list[str],
) -> tuple[_Splits, Target]:
    """The examples of each split that the data has, and the target their labels mean."""
    rows = {split: text_rows(raw, split, columns, notes) for split in raw.rows}
    check_pairs(rows, columns, raw.where)
    written = {split: [(row.number, row.label) for row in split_rows] for split, split_rows in rows.items()}
    settled = settle_labels(written, raw.where, class_names, regression, merge_labels, notes)
    labels, target = map_labels(settled, raw.where, class_names, regression)
    examples = {
        split: [
            Example(row.id, row.text, row.text_pair, label)
            for row, label in zip(rows[split], labels[split], strict=True)
        ]
        for split in rows
    }
    return examples, target


# ---- checks and completion ----


def _check_unlabelled(examples: _Splits, target: Target, where: Mapping[str, str], notes: list[str]) -> None:
    """Train may lack labels, evaluation may not, unless no training row has one."""
    advice = "; or set empty_label: none if an empty label is none of them" if target.multi_label else ""
    missing = {split: [e.id for e in split_examples if e.label is None] for split, split_examples in examples.items()}
    if len(missing["train"]) == len(examples["train"]):
        return
    if missing["train"]:
        notes.append(
            f"train: {len(missing['train'])} of {len(examples['train'])} rows have no label, only the teacher's outputs"
        )
    for split in SPLITS[1:]:
        if missing.get(split):
            raise DataError(
                f"{where[split]}: {len(missing[split])} of {len(examples[split])} {split} rows have no label "
                f"(first: {missing[split][0]}); label them, or name only the labelled splits with `splits`{advice}"
            )


def _cut_missing_splits(examples: _Splits, where: str, target: Target, seed: int, notes: list[str]) -> None:
    """Cuts the splits that are missing from train, in place."""
    missing = [split for split in SPLITS if split not in examples]
    train = examples["train"]
    if not missing:
        return
    labelled = any(example.label is not None for example in train)
    strata = [
        None if labelled and example.label is None else stratum
        for example, stratum in zip(train, target.strata([e.label for e in train]), strict=True)
    ]
    if not labelled:
        strata = [0] * len(train)  # a None would keep every row in train
    texts = [" ".join(f"{e.text}\0{e.text_pair or ''}".casefold().split()) for e in train]
    parts = cut(strata, texts, len(missing), CUT_SHARE, seed)
    for split, rows in zip(missing, parts, strict=True):
        if not rows:
            raise DataError(f"{where}: {len(train)} rows are too few to cut {split} from; give a {split} file")
        examples[split] = [train[row] for row in rows]
        notes.append(f"{split}: cut from train, {len(rows)} of {len(train)} rows (seed {seed})")
    held_out = {row for rows in parts for row in rows}
    examples["train"] = [example for row, example in enumerate(train) if row not in held_out]


def _subsample(train: list[Example], size: int, target: Target, seed: int) -> list[Example]:
    return [train[row] for row in subsample(target.strata([e.label for e in train]), size, seed)]


def _check_train(train: list[Example], target: Target, where: str) -> None:
    if len(train) < 2:
        raise DataError(f"{where}: {len(train)} training example; give at least 2")
    counts = Counter(example.label for example in train if example.label is not None)
    if not target.regression and len(counts) == 1:
        (label,) = counts
        raise DataError(
            f"{where}: every training label is {target.decode(label)!r}; give rows of at least one other class"
        )
