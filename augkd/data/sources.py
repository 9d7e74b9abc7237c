"""The raw rows of a task by split, from a folder, a file, the Hub or the built-in docstrings; nothing decided yet.

Which file is which split is read off the names; two candidates for one split are refused and not joined.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from augkd.data.tables import Row, column_names, data_files, from_hub, local_path, read_rows
from augkd.errors import DataError, did_you_mean, shown

DOCSTRINGS = "augkd:docstrings"
SPLITS = ("train", "validation", "test")

_SPLIT_NAMES = {"train": "train|training", "validation": "validation|valid|val|dev", "test": "test"}
_SHARD = re.compile(r"-\d+-of-\d+$")


@dataclass
class RawTask:
    """What a source gives before anything is decided."""

    name: str
    rows: dict[str, list[Row]]
    where: dict[str, str]  # how a split is called in messages
    columns: list[str]
    facts: Row = field(default_factory=dict)  # labels.json, or the same keys from a Hub dataset
    null: int | None = None  # a label that means none: -1 in Hub datasets


def read_task(dataset: str, splits: Mapping[str, str] | None, config: str | None, label: str) -> RawTask:
    if dataset == DOCSTRINGS:
        return _read_docstrings()
    path = local_path(dataset)
    if path is None:
        return _read_hub(dataset, splits, config, label)
    if not path.is_dir():
        if splits:
            raise DataError(f"task file {path} has no splits to name; drop `splits`, or give the folder")
        files = {"train": data_files(path)}
    else:
        files = _named_files(path, splits) if splits else _found_files(path)
    rows = {split: [row for file in some for row in read_rows(file)] for split, some in files.items()}
    where = {split: str(some[0]) + (f" (+{len(some) - 1})" if some[1:] else "") for split, some in files.items()}
    facts = _read_facts(path / "labels.json") if path.is_dir() else {}
    name = str(facts.get("task") or (path.resolve().name if path.is_dir() else path.name.split(".")[0]))
    return RawTask(name, rows, where, column_names(files["train"][0]), facts)


def _named_files(folder: Path, splits: Mapping[str, str]) -> dict[str, list[Path]]:
    for split, file in splits.items():
        if not (folder / file).is_file():
            there = [found.relative_to(folder).as_posix() for found in data_files(folder)]
            raise DataError(f"task folder {folder} has no file {file!r} for {split}{did_you_mean(file, there)}")
    return {split: data_files(folder / file) for split, file in splits.items()}


def _found_files(folder: Path) -> dict[str, list[Path]]:
    found = data_files(folder)
    files = {}
    for split, names in _SPLIT_NAMES.items():
        mine = [file for file in found if re.match(rf"({names})(?![a-z])", file.name.lower())]
        if len(mine) > 1 and not all(_SHARD.search(file.name.split(".")[0]) for file in mine):
            raise DataError(
                f"task folder {folder} has {len(mine)} files for {split} ({', '.join(f.name for f in mine)}); "
                f"keep one, or name it: splits: {{{split}: {mine[0].name}}}"
            )
        if mine:
            files[split] = mine
    if "train" not in files:
        there = ", ".join(file.name for file in found[:5])
        raise DataError(
            f"task folder {folder} has no train file (it has: {there}); rename one or name it with `splits`"
        )
    return files


def _read_facts(path: Path) -> Row:
    if not path.exists():
        return {}
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise DataError(f"{path} is not JSON ({exc}); mend or remove it") from exc
    lists = [facts.get(key) or [] for key in ("label_names", "text_columns", "metrics")] if type(facts) is dict else [0]
    if not all(isinstance(some, list) and all(isinstance(item, str) for item in some) for some in lists):
        raise DataError(f"{path}: label_names, text_columns and metrics must be lists of names: {shown(facts)}")
    return dict(facts)


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
                f"Hub dataset {dataset!r} has no split {split!r} (it has: {', '.join(there)}); use `splits`"
            )
    features = loaded[chosen["train"]].features
    names = getattr(features.get(label), "names", None)
    rows = {split: list(loaded[theirs]) for split, theirs in chosen.items()}
    where = {split: f"Hub dataset {dataset!r} split {theirs!r}" for split, theirs in chosen.items()}
    name = config or dataset.rsplit("/", 1)[-1]
    return RawTask(name, rows, where, list(features), {"label_names": names}, null=-1 if names else None)
