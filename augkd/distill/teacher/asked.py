"""A teacher that is asked about texts and answers when it can: an LLM behind an API, or people.

Unlike a model's, its outputs cost money or time and may be missing: a refusal, an answer that names no class, a text
nobody has labelled. Such a text has no logits (nan), is left out of the transfer set, and is listed with the reason.
The probabilities are calibrated on the labelled texts, which are asked about first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from augkd.distill.teacher.calibration import NOT_FITTED, Calibration, fit_temperature
from augkd.distill.teacher.outputs import AveragedTeacher, TeacherOutputs
from augkd.distill.teacher.prompt import Answer
from augkd.workspace.progress import Steps

Pair = tuple[str, str | None]

NO_ANSWER = "no answer"


class AnswerSource(Protocol):
    """Where the answers come from."""

    @property
    def asked(self) -> int:
        """Texts asked about by this process."""
        ...

    def fetch(self, texts: Sequence[Pair], progress: Steps | None = None) -> None:
        """Gets the answers about these texts, where that can be done now; raises where one must not be missing."""
        ...

    def answers(self, texts: Sequence[Pair]) -> list[Answer | None]:
        """The stored answers about these texts; None for a text without."""
        ...

    def usage(self, texts: Sequence[Pair]) -> tuple[int, int]:
        """Tokens read and written for these texts, whenever that was; zeros where nothing is counted."""
        ...


@dataclass(frozen=True)
class LeftOut:
    """A text without an output of the teacher."""

    text: str
    text_pair: str | None
    reason: str  # refused, unparsable, no answer, or what people wrote
    answer: str  # as it was given


class AskedTeacher:
    """The logits of a teacher that is asked: calibrated log-probabilities, nan where it has none."""

    def __init__(
        self,
        source: AnswerSource,
        classes: int,
        labelled: Sequence[tuple[Pair, int]],  # texts with their class, to calibrate on
        evaluates: bool = True,
    ):
        """`evaluates`: whether texts may be asked about for nothing but the teacher's own scores."""
        self.source, self._classes, self._labelled, self._evaluates = source, classes, labelled, evaluates

    @property
    def rows(self) -> int:
        """Texts asked about so far."""
        return self.source.asked

    def has(self, texts: Sequence[Pair]) -> bool:
        """Whether all of `texts` have an answer with probabilities; asks about them where that was allowed."""
        if self._evaluates:
            self.source.fetch(texts)
        return all(answer is not None and answer.values is not None for answer in self.source.answers(texts))

    def logits(self, texts: Sequence[Pair], progress: Steps | None = None) -> NDArray[np.float32]:
        """Calibrated log-probabilities of `texts`; nan for a text that is left out."""
        self.source.fetch([*(text for text, _ in self._labelled), *texts], progress)
        return np.asarray(self._values(texts) / self.calibration.temperature, dtype=np.float32)

    @cached_property
    def calibration(self) -> Calibration:
        """The temperature; computed once, from the answers about the labelled texts."""
        if not self._labelled:
            return NOT_FITTED
        self.source.fetch([text for text, _ in self._labelled])
        values = self._values([text for text, _ in self._labelled])
        known = ~np.isnan(values).any(axis=1)
        labels = np.array([label for _, label in self._labelled], dtype=np.int64)
        return fit_temperature(values[known], labels[known])

    def left_out(self, texts: Sequence[Pair]) -> list[LeftOut]:
        """The distinct texts that have no output, and why."""
        distinct = list(dict.fromkeys(texts))
        listed = []
        for text, answer in zip(distinct, self.source.answers(distinct), strict=True):
            if answer is None or answer.values is None:
                reason, shown = (answer.reason, answer.shown) if answer else (NO_ANSWER, "")
                listed.append(LeftOut(*text, reason, shown))
        return listed

    def report(self, texts: Sequence[Pair]) -> dict[str, Any]:
        """What became of `texts`, in numbers, for the manifest: answers, reasons, tokens, calibration."""
        distinct = list(dict.fromkeys(texts))
        answers = self.source.answers(distinct)
        reasons = Counter(a.reason if a else NO_ANSWER for a in answers if a is None or a.values is None)
        tokens = self.source.usage(distinct)
        return {
            "texts": len(distinct),
            "answered": len(distinct) - sum(reasons.values()),
            "smoothed": sum(answer is not None and answer.smoothed for answer in answers),
            "left_out": dict(sorted(reasons.items())),
            "prompt_tokens": tokens[0],
            "completion_tokens": tokens[1],
            "calibration": asdict(self.calibration),
        }

    def _values(self, texts: Sequence[Pair]) -> NDArray[np.float64]:  # (n, classes)
        values = np.full((len(texts), self._classes), np.nan)
        for row, answer in zip(values, self.source.answers(texts), strict=True):
            if answer is not None and answer.values is not None:
                row[:] = answer.values
        return values


def asked_teachers(outputs: TeacherOutputs) -> list[AskedTeacher]:
    """The teachers among these that are asked: one, members of an ensemble, or none."""
    if isinstance(outputs, AskedTeacher):
        return [outputs]
    members = outputs.members if isinstance(outputs, AveragedTeacher) else []
    return [teacher for member in members for teacher in asked_teachers(member)]
