"""People, or a batch job, as the source of answers: texts go out with an id, labels or probabilities come back.

Answers may be partial and may come in any order and in several files; the last one about a text counts. They are kept
as they were given, and become probabilities when they are read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import log_softmax

from augkd.distill.teacher.answer_store import AnswerStore, answer_key
from augkd.distill.teacher.asked import Pair
from augkd.distill.teacher.prompt import Answer, smoothed
from augkd.errors import DataError, did_you_mean, short_repr
from augkd.recipe import TeacherOptions
from augkd.workspace.line_log import append_lines, read_lines
from augkd.workspace.locks import claimed
from augkd.workspace.progress import Steps

REQUESTED = "requested.jsonl"  # ids and texts that were handed out, so that an answer needs no text
_VALUES = ("label", "probabilities", "logits", "left_out")


def text_id(text: Pair) -> str:
    """The id under which a text is handed out: the same in every run."""
    return answer_key(*text)[:16]


class ImportedAnswers:
    """Answers that were imported into a folder."""

    asked = 0  # nothing is asked by a process

    def __init__(
        self,
        options: TeacherOptions,
        labels: Sequence[str],
        store: AnswerStore,
        own: Mapping[Pair, int] | None = None,  # texts with a class of their own, which is their answer unless one came
    ):
        self._options, self._labels, self._store, self._own = options, tuple(labels), store, own or {}
        self.waiting: list[Pair] = []  # texts whose answers were missing when they were needed

    def fetch(self, texts: Sequence[Pair], progress: Steps | None = None) -> None:
        """Raises DataError where a text has no answer, unless those are left out (`teacher.missing: drop`)."""
        missing = self.missing(texts)
        if missing and self._options.missing == "error":
            self.waiting = missing
            raise DataError(
                f"{len(missing)} texts have no answer in {self._store.folder}, e.g. {short_repr(missing[0][0])}; "
                "`augkd label next` writes them to a file, `augkd label import` reads the answers; "
                "teacher.missing: drop leaves them out",
            )

    def missing(self, texts: Sequence[Pair]) -> list[Pair]:
        """The distinct texts without an answer."""
        return [text for text in dict.fromkeys(texts) if text not in self._own and not self.imported(text)]

    def imported(self, text: Pair) -> bool:
        """Whether an answer about this text was imported."""
        self._store.refresh()
        return self._store.get(text_id(text)) is not None

    def answers(self, texts: Sequence[Pair]) -> list[Answer | None]:
        """The imported answers; None for a text without."""
        self._store.refresh()
        return [self._answer(text, self._store.get(text_id(text))) for text in texts]

    def usage(self, texts: Sequence[Pair]) -> tuple[int, int]:
        """Nothing is counted."""
        return 0, 0

    def _answer(self, text: Pair, record: Mapping[str, Any] | None) -> Answer | None:
        if record is None and text in self._own:
            return Answer(smoothed(self._own[text], len(self._labels), self._options.smoothing), smoothed=True)
        if record is None:
            return None
        if "left_out" in record:
            return Answer(None, str(record["left_out"]), "")
        if "label" in record:
            place = self._place(record["label"])
            values = smoothed(place, len(self._labels), self._options.smoothing)
            return Answer(values, shown=str(record["label"]), smoothed=True)
        (name,) = (name for name in ("probabilities", "logits") if name in record)
        given = np.array([record[name][label] for label in self._labels], dtype=np.float64)
        values = np.log(np.clip(given, 1e-9, None)) if name == "probabilities" else given
        return Answer(log_softmax(values), shown=json.dumps(record[name]))

    def _place(self, label: str) -> int:
        if label not in self._labels:
            raise DataError(f"{self._store.folder} has an answer '{label}'{did_you_mean(label, self._labels)}")
        return self._labels.index(label)


@dataclass
class Imported:
    """What a file of answers held."""

    answers: int = 0
    left_out: int = 0
    replaced: int = 0  # answers that differ from an earlier one about the same text
    empty: list[str] = field(default_factory=list)  # ids of rows without an answer


def hand_out(folder: Path, texts: Sequence[Pair], path: Path) -> None:
    """Writes the texts to `path` as JSONL with their ids and an empty label, and remembers what was handed out."""
    rows = [{"id": text_id(text), "text": text[0], **_second(text)} for text in texts]
    folder.mkdir(parents=True, exist_ok=True)
    with claimed(folder):
        known = requested_texts(folder)
        append_lines(folder / REQUESTED, [row for row in rows if row["id"] not in known])
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as stream:
        stream.writelines(_line(row | {"label": None}) for row in rows)


def import_answers(folder: Path, path: Path, labels: Sequence[str], order: Sequence[str] | None) -> Imported:
    """Adds the answers of a JSONL file; `order` names the values of its lists (none: `labels`).

    Nothing is added where a row is wrong: raises DataError with its line.
    """
    known, counts = requested_texts(folder), Imported()
    store = AnswerStore(folder)
    records = [
        record
        for number, row in _rows(path)
        if (record := _record(f"{path}:{number}", row, known, labels, order or labels, counts)) is not None
    ]
    with claimed(folder):
        store.refresh()
        for record in records:
            before = store.get(record["key"])
            if before is not None and dict(before) == record:
                continue
            counts.replaced += before is not None
            store.add(record)
    return counts


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise DataError(f"answers {path} cannot be read as UTF-8 text: {exc}") from exc
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as exc:
            raise DataError(f"{path}:{number} is not JSON ({exc}); write one object per line") from exc
        if not isinstance(row, dict):
            raise DataError(f'{path}:{number} is {short_repr(row)}; write an object like {{"id": …, "label": …}}')
        yield number, row


def _record(
    where: str,
    row: Mapping[str, Any],
    known: Mapping[str, Pair],
    labels: Sequence[str],
    order: Sequence[str],
    counts: Imported,
) -> dict[str, Any] | None:
    """The record to store; None for a row without an answer."""
    text = _text(where, row, known)
    given = [name for name in _VALUES if row.get(name) is not None]
    record = {"key": text_id(text), "text": text[0], "text_pair": text[1]}
    if not given:
        counts.empty.append(record["key"] or "")
        return None
    if len(given) > 1:
        raise DataError(f"{where} has {' and '.join(given)}; give one of them")
    (name,) = given
    if name == "left_out":
        counts.left_out += 1
        return record | {name: str(row[name])}
    counts.answers += 1
    if name == "label":
        label = str(row[name])
        if label not in labels:
            raise DataError(f"{where} has the label {short_repr(row[name])}{did_you_mean(label, labels)}")
        return record | {name: label}
    return record | {name: _by_label(where, name, row[name], labels, order)}


def _text(where: str, row: Mapping[str, Any], known: Mapping[str, Pair]) -> Pair:
    given, text = row.get("id"), row.get("text")
    if isinstance(text, str):
        pair = (text, row.get("text_pair"))
        if given is not None and given in known and known[given] != pair:
            raise DataError(f"{where}: the text of id {given} is not the one that was handed out; leave it unchanged")
        return pair
    if given not in known:
        raise DataError(f"{where} has no text, and its id {short_repr(given)} was not handed out; give the text")
    return known[str(given)]


def _by_label(where: str, name: str, value: Any, labels: Sequence[str], order: Sequence[str]) -> dict[str, float]:
    """Numbers by label; raises DataError unless there is one finite number for each."""
    if isinstance(value, list) and len(value) == len(order):
        value = dict(zip(order, value, strict=True))
    if not isinstance(value, dict) or set(value) != set(labels):
        raise DataError(f"{where} has the {name} {short_repr(value)}; give a number for each of {', '.join(labels)}")
    numbers = {label: value[label] for label in labels}
    for number in numbers.values():
        finite = isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number)
        if not finite or (name == "probabilities" and not 0 <= number <= 1):
            raise DataError(
                f"{where} has {short_repr(number)} among its {name}; give finite numbers, probabilities 0 to 1"
            )
    if name == "probabilities" and abs(sum(numbers.values()) - 1) > 0.02:
        raise DataError(f"{where} has probabilities that add up to {sum(numbers.values()):.3f}; they must add up to 1")
    return {label: float(number) for label, number in numbers.items()}


def requested_texts(folder: Path) -> dict[str, Pair]:
    """The texts that were handed out, by id."""
    rows, _ = read_lines(folder / REQUESTED, remedy="remove that line and run `augkd label next` again")
    return {row["id"]: (row["text"], row.get("text_pair")) for row in rows}


def _second(text: Pair) -> dict[str, str]:
    return {} if text[1] is None else {"text_pair": text[1]}


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(dict(row), ensure_ascii=False) + "\n"
