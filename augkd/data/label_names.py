"""When two names are one label: in a task's data, and among the outputs of a teacher.

Names that look the same (white space, invisible characters, composed and decomposed accents) are hardly ever two
classes, but counting them as one is the user's decision. Case can be a difference (`us`, `US`), so it is disregarded
only where nothing else fits and nothing else could be meant.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from augkd.data.cleaning import clean
from augkd.errors import DataError

Written = Mapping[str, Sequence[tuple[int, Any]]]  # split → (row number, label as written, a list, or None)

_COMMA = re.compile(r"\s*([+-]?\d+),(\d+)\s*")
_NUMBER = re.compile(r"\s*[+-]?\d+([.,]\d+)?\s*")
_SEPARATOR = re.compile("[|;,]")
_SHOWN = 4  # names in a message


def find_name(label: str, names: Sequence[str], labels: Sequence[str] = ()) -> int | None:
    """The place of `label` among `names`: its own, else the only one that differs in case, spacing or composition.

    A name that is another of `labels` is never taken for this one. None where there is no such name, or several.
    """
    places = [place for place, name in enumerate(names) if name == label]
    if not places:
        others = set(labels)
        places = [place for place, name in enumerate(names) if _folded(name) == _folded(label) and name not in others]
    return places[0] if len(places) == 1 else None


def _folded(name: str) -> str:
    return clean(clean(name).casefold())


def settle_labels(
    values: Written,
    where: Mapping[str, str],  # split → what messages call it
    given: Sequence[str],  # class names that the user or the data set states
    regression: bool | None,
    merge: bool | None,  # whether names that look the same are one label; None: not decided
    notes: list[str],
) -> Written:
    """The labels as they are meant: decimal commas as points, one spelling for each name; notes what was changed.

    Raises DataError for what could be meant in two ways.
    """
    values = _lists_of_one(values, notes)
    if not given:
        values = _decimal_commas(values, where, regression, notes)
    return values if regression else _settled_names(values, where, given, merge, notes)


def _lists_of_one(values: Written, notes: list[str]) -> Written:
    """Names as lists of one where other rows have lists, as Label Studio exports them.

    Not a name with what may be a separator in it, unless a list has the same: it may be several.
    """
    written = [value for rows in values.values() for _, value in rows]
    listed = {name for value in written if isinstance(value, list) for name in value if isinstance(name, str)}
    alone = {v for v in written if isinstance(v, str) and (v in listed or not _SEPARATOR.search(v))}
    if not alone or not any(isinstance(value, list) for value in written):
        return values
    count = sum(isinstance(value, str) and value in alone for value in written)
    notes.append(
        f"labels: {count:,} of {len(written):,} rows have a name where others have a list; read as a list of one"
    )
    return {
        split: [(n, [v] if isinstance(v, str) and v in alone else v) for n, v in rows] for split, rows in values.items()
    }


def _settled_names(
    values: Written,
    where: Mapping[str, str],
    given: Sequence[str],
    merge: bool | None,
    notes: list[str],
) -> Written:
    """The labels with one spelling for names that look the same, where `merge` says so."""
    first = {name: f"{where[split]} row {number}" for split, number, name in reversed(list(_names(values)))}
    spellings: dict[str, list[str]] = defaultdict(list)
    for name in sorted({*first, *given}):
        spellings[clean(name)].append(name)
    doubled = {shown: names for shown, names in spellings.items() if len(names) > 1}
    if doubled and not all(_NUMBER.fullmatch(name) for name in first):
        if merge is None:
            raise _undecided(doubled, len(spellings), len({*first, *given}), first)
        if merge:
            values = _renamed(
                values, {name: _chosen(s, names, given) for s, names in doubled.items() for name in names}
            )
            notes.append(
                f"labels: {_listed(doubled)} merged: {len({*first, *given})} spellings of {len(spellings)} labels"
            )
    _note_case([_chosen(shown, names, given) for shown, names in spellings.items()], notes)
    return values


def _names(values: Written) -> Iterator[tuple[str, int, str]]:  # split, row, label
    for split, rows in values.items():
        for number, value in rows:
            for name in value if isinstance(value, list) else (value,):
                if isinstance(name, str):
                    yield split, number, name


def _undecided(doubled: Mapping[str, Sequence[str]], labels: int, names: int, first: Mapping[str, str]) -> DataError:
    spelled = next(iter(doubled.values()))
    other = next((name for name in reversed(spelled) if name in first), spelled[-1])
    return DataError(
        f"{first.get(other, 'labels')}: label {other!a} looks like {next(n for n in spelled if n != other)!a}, "
        f"and so {names} labels are only {labels} ({_listed(doubled)}); make them one with merge_labels: true "
        "(--merge-labels of init), or keep them apart with merge_labels: false"
    )


def _chosen(shown: str, names: Sequence[str], given: Sequence[str]) -> str:
    return next((name for name in names if name in given), shown if len(names) > 1 else names[0])


def _renamed(values: Written, names: Mapping[str, str]) -> Written:
    def rename(value: Any) -> Any:
        if isinstance(value, list):
            return [rename(name) for name in value]
        return names.get(value, value) if isinstance(value, str) else value

    return {split: [(number, rename(value)) for number, value in rows] for split, rows in values.items()}


def _note_case(names: Iterable[str], notes: list[str]) -> None:
    alike: dict[str, list[str]] = defaultdict(list)
    for name in names:
        alike[_folded(name)].append(name)
    for group in alike.values():
        if len(group) > 1:
            notes.append(
                f"labels {', '.join(map(repr, sorted(group)))} differ in case only; each is a class of its own"
            )


def _listed(doubled: Mapping[str, Sequence[str]]) -> str:
    shown = ["/".join(f"{name!a}" for name in names) for names in list(doubled.values())[:_SHOWN]]
    return ", ".join(shown) + (", …" if len(doubled) > _SHOWN else "")


def _decimal_commas(values: Written, where: Mapping[str, str], regression: bool | None, notes: list[str]) -> Written:
    """The labels with decimal points where all are numbers and some have a decimal comma, as Excel writes in Europe."""
    names = [(split, number, name) for split, number, name in _names(values)]
    commas = {name: match for *_, name in names if (match := _COMMA.fullmatch(name))}
    if regression is False or not commas or not all(_NUMBER.fullmatch(name) for *_, name in names):
        return values
    shown = min(commas, key=lambda name: (len(name), name))
    if all(len(match[2]) == 3 for match in commas.values()):
        split, number, name = next(item for item in names if item[2] in commas)
        raise DataError(
            f"{where[split]} row {number}: label {name!r} may be {name.replace(',', '.')} or {name.replace(',', '')}; "
            "write it with a point, or without the comma"
        )
    notes.append(
        f"labels: decimal commas read as points ({shown} is {shown.replace(',', '.')}); "
        "if these are lists of labels, set task.separator: ','; if they are names, task.regression: false"
    )
    return _renamed(values, {name: name.replace(",", ".") for name in commas})
