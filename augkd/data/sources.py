"""The raw rows of a task by split, from a folder, a file, the Hub or the built-in docstrings, before any decision.

The names of the files tell their splits; two candidates for one split are an error and are not joined.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from augkd.data.formats import Row, describe
from augkd.data.reading import AS_IT_IS, Reading
from augkd.data.tables import DOCSTRINGS, FACTS, column_names, data_files, from_hub, local_path, read_rows
from augkd.errors import DataError, did_you_mean, short_repr

SPLITS = ("train", "validation", "test")

_SPLIT_NAMES = {"train": "train|training", "validation": "validation|valid|val|dev", "test": "test"}
_SHARD = re.compile(r"-\d+-of-\d+$")


@dataclass(frozen=True)
class TaskFacts:
    """What a source states about its task: `labels.json`, or the features of a Hub data set."""

    name: str | None = None
    regression: bool | None = None  # None: not stated
    label_names: tuple[str, ...] = ()  # in index order
    text_columns: tuple[str, ...] = ()
    metric: str | None = None


@dataclass(frozen=True)
class RawTask:
    """The rows of a source and what it states about them."""

    name: str
    rows: dict[str, list[Row]]  # by split
    where: dict[str, str]  # split → what messages call it
    columns: list[str]
    facts: TaskFacts = TaskFacts()
    null: int | None = None  # the label that stands for none: -1 in Hub data sets
    names: Mapping[str, str] = field(default_factory=dict)  # split → its file or Hub split, as `splits` names it
    notes: tuple[str, ...] = ()  # how files were read that are not UTF-8 with commas


def read_task(
    dataset: str, splits: Mapping[str, str] | None, config: str | None, label: str, reading: Reading = AS_IT_IS
) -> RawTask:
    """The rows of `dataset`: `augkd:docstrings`, a file, a folder, or a name on the Hub; raises DataError.

    `splits` maps our split names to files of the folder, or to splits of the Hub data set; None reads them off the
    names. `config` and `label` are for the Hub: the configuration, and the column whose class names are read.
    `reading` is for files.
    """
    if dataset == DOCSTRINGS:
        return _read_docstrings()
    path = local_path(dataset)
    if path is None:
        return _read_hub(dataset, splits, config, label)
    if path.is_dir():
        return _read_folder(path, splits, reading)
    if splits:
        raise DataError(f"task file {path} has no splits to name; drop `splits`, or give the folder")
    return _read_files(path.name.split(".")[0], {"train": data_files(path)}, TaskFacts(), reading)


def _read_folder(folder: Path, splits: Mapping[str, str] | None, reading: Reading) -> RawTask:
    files = _named_files(folder, splits) if splits else _files_by_name(folder)
    facts = _read_facts(folder / FACTS)
    names = {split: shards[0].relative_to(folder).as_posix() for split, shards in files.items() if len(shards) == 1}
    return replace(_read_files(facts.name or folder.resolve().name, files, facts, reading), names=names)


def _read_files(name: str, files: Mapping[str, list[Path]], facts: TaskFacts, reading: Reading) -> RawTask:
    rows = {
        split: [row for file in shards for row in read_rows(file, None, reading)] for split, shards in files.items()
    }
    where = {
        split: str(shards[0]) + (f" (+{len(shards) - 1})" if shards[1:] else "") for split, shards in files.items()
    }
    read_as = {split: describe(shards[0], reading) for split, shards in files.items()}
    notes = tuple(f"{split}: read {how}" for split, how in read_as.items() if how)
    return RawTask(name, rows, where, column_names(files["train"][0], reading), facts, notes=notes)


def _named_files(folder: Path, splits: Mapping[str, str]) -> dict[str, list[Path]]:
    for split, file in splits.items():
        if not (folder / file).is_file():
            there = [path.relative_to(folder).as_posix() for path in data_files(folder)]
            raise DataError(f"task folder {folder} has no file {file!r} for {split}{did_you_mean(file, there)}")
    return {split: data_files(folder / file) for split, file in splits.items()}


def _files_by_name(folder: Path) -> dict[str, list[Path]]:
    """The files of each split by their names, several only when they are numbered shards."""
    there = data_files(folder)
    files = {}
    for split, names in _SPLIT_NAMES.items():
        matches = [file for file in there if re.match(rf"({names})(?![a-z])", file.name.lower())]
        if len(matches) > 1 and not all(_SHARD.search(file.name.split(".")[0]) for file in matches):
            raise DataError(
                f"task folder {folder} has {len(matches)} files for {split} ({', '.join(f.name for f in matches)}); "
                f"keep one, or name it: splits: {{{split}: {matches[0].name}}}"
            )
        if matches:
            files[split] = matches
    if "train" not in files:
        names = ", ".join(file.name for file in there[:5])
        raise DataError(
            f"task folder {folder} has no train file (it has: {names}); rename one or name it with `splits`"
        )
    return files


def _read_facts(path: Path) -> TaskFacts:
    if not path.exists():
        return TaskFacts()
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise DataError(f"{path} is not valid JSON ({exc}); fix or remove it") from exc
    if not isinstance(facts, dict) or not all(map(_is_list_of_names, _lists(facts))):
        raise DataError(f"{path}: label_names, text_columns and metrics must be lists of names: {short_repr(facts)}")
    label_names, text_columns, metrics = _lists(facts)
    return TaskFacts(
        name=str(facts["task"]) if facts.get("task") else None,
        regression=facts["type"] == "regression" if facts.get("type") in ("regression", "classification") else None,
        label_names=tuple(label_names),
        text_columns=tuple(text_columns),
        metric=metrics[0] if metrics else None,
    )


def _lists(facts: Mapping[str, Any]) -> list[Any]:
    return [facts.get(key) or [] for key in ("label_names", "text_columns", "metrics")]


def _is_list_of_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _read_docstrings() -> RawTask:
    from augkd.data.docstrings import task_rows

    rows: dict[str, list[Row]] = {split: [] for split in SPLITS}
    for row in task_rows():
        rows[row["split"]].append(row)
    return RawTask("docstrings", rows, {split: f"{DOCSTRINGS} {split}" for split in SPLITS}, ["text", "label", "split"])


def _read_hub(dataset: str, splits: Mapping[str, str] | None, config: str | None, label: str) -> RawTask:
    loaded = from_hub(dataset, config)
    there = list(loaded)
    chosen = dict(splits or {s: t for s, names in _SPLIT_NAMES.items() for t in there if re.fullmatch(names, t)})
    for split in {"train": "train", **chosen}.values():
        if split not in there:
            raise DataError(
                f"Hub data set {dataset!r} has no split {split!r} (it has: {', '.join(there)}); use `splits`"
            )
    features = loaded[chosen["train"]].features
    names = _class_names(features.get(label))
    rows = {split: list(loaded[theirs]) for split, theirs in chosen.items()}
    where = {split: f"Hub data set {dataset!r} split {theirs!r}" for split, theirs in chosen.items()}
    facts = TaskFacts(label_names=tuple(names or ()))
    return RawTask(
        config or dataset.rsplit("/", 1)[-1], rows, where, list(features), facts, -1 if names else None, chosen
    )


def _class_names(feature: Any) -> list[str] | None:
    """The names of a `ClassLabel`, or of a sequence of them (several labels per text)."""
    names: list[str] | None = getattr(getattr(feature, "feature", feature), "names", None)
    return names
