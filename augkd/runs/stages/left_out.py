"""Texts that an LLM or people gave no output for: left out of the transfer set, counted, listed with the reason.

A teacher that is a model, or numbers, has an output for every original or the run stops; one that is asked may refuse.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from augkd.data.task import Example, Texts, texts_of
from augkd.distill.teacher.asked import asked_teachers
from augkd.distill.teacher.outputs import TeacherOutputs
from augkd.errors import DataError, ModelError
from augkd.workspace.files import write_text

Pair = tuple[str, str | None]
FILE = "left_out.jsonl"  # in the folder of a transfer set


def check_originals(
    train: Sequence[Example],
    logits: NDArray[np.float32],  # of the originals, then of all candidates
    outputs: TeacherOutputs,
    asked_about: Set[Pair],
) -> None:
    """Raises DataError where an original has no output and the teacher must have one, ModelError where none has."""
    nan = np.isnan(logits[: len(train)].sum(axis=1))  # a row is known or it is all nan
    unknown = nan & np.array([text in asked_about for text in texts_of(train)])
    if not unknown.any():
        return
    first = int(unknown.argmax())
    text = train[first].text[:60]
    asked = asked_teachers(outputs)
    if not asked:
        raise DataError(f"the teacher has no output for the labelled text '{text}'; add it")
    if nan.all():
        shown = [one for teacher in asked for one in teacher.left_out(texts_of(train[first : first + 1]))]
        reason = f": {shown[0].reason}, '{shown[0].answer[:80]}'" if shown else ""
        raise ModelError(f"the teacher has no output for any of the {len(train)} training texts, e.g. '{text}'{reason}")


def write_left_out(folder: Path, outputs: TeacherOutputs, texts: Texts) -> dict[str, Any]:
    """Lists the texts without an output in `left_out.jsonl`; facts about all `texts` for the manifest.

    Nothing for a teacher that is not asked.
    """
    asked = asked_teachers(outputs)
    if not asked:
        return {}
    listed = [one for teacher in asked for one in teacher.left_out(texts)]
    lines = (json.dumps(dataclasses.asdict(one), ensure_ascii=False) for one in listed)
    write_text(folder / FILE, "".join(f"{line}\n" for line in lines))
    return {"asked": [teacher.report(texts) for teacher in asked]}
