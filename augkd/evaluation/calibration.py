"""The content of a student's calibration.json: from which confidence it answers, and how often it is then right.

It belongs to the weights it was measured with: a student that was trained again has none. `pytorch` and float32 ONNX
share one, since their outputs are the same to a thousandth; INT8 has its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from augkd.data.target import Target
from augkd.errors import WorkspaceError
from augkd.evaluation.risk_control import Threshold, choose_threshold
from augkd.workspace.checksums import read_checked, write_signed

FILE = "calibration.json"
_REMEDY = "remove it and run augkd calibrate again"
POINTS = 100  # of the risk-coverage curve

Form = Literal["pytorch", "int8"]
Against = Literal["teacher", "labels"]


@dataclass(frozen=True)
class ClassCoverage:
    """How many texts of a class (by the reference) there are, how many are answered, and how many of those rightly."""

    texts: int
    answered: int
    agreed: int


@dataclass(frozen=True)
class Calibration:
    """A promise about a student's answers, and the figures behind it."""

    against: Against  # what the student agrees with
    agreement: float  # promised of the answered texts
    confidence: float  # of the promise
    source: str  # where the texts are from
    texts: int
    temperature: float
    threshold: float | None  # confidence from which the student answers; None: it never does
    tested: int  # texts that tested the threshold; the others chose which ones to test
    answered: int  # of the tested ones
    agreed: int
    lower_bound: float | None  # of the agreement, at this confidence
    classes: dict[str, ClassCoverage]  # over all texts
    curve: list[tuple[float, float, float]]  # (threshold, share answered, share of those agreed), over all texts

    @property
    def coverage(self) -> float:
        """The share of the tested texts that the student answers."""
        return self.answered / self.tested


def calibration(
    target: Target,
    logits: NDArray[Any],  # (n, outputs) of the student
    reference: NDArray[Any],  # as `Target.predictions` gives it
    *,
    agreement: float,
    confidence: float,
    against: Against,
    source: str,
) -> Calibration:
    """Chooses the threshold and measures what it means; raises what `choose_threshold` raises."""
    found = choose_threshold(target, logits, reference, agreement=agreement, confidence=confidence)
    sure = target.confidence(logits, found.temperature)
    right = target.same(target.predictions(logits), reference)
    return Calibration(
        against=against,
        agreement=agreement,
        confidence=confidence,
        source=source,
        texts=len(logits),
        temperature=found.temperature,
        threshold=found.value,
        tested=found.tested,
        answered=found.answered,
        agreed=found.agreed,
        lower_bound=found.lower_bound,
        classes=_by_class(target, reference, right, _answers(sure, found)),
        curve=_curve(sure, right),
    )


def _answers(sure: NDArray[np.float64], found: Threshold) -> NDArray[np.bool_]:
    return np.zeros(len(sure), dtype=bool) if found.value is None else sure >= found.value


def _by_class(
    target: Target, reference: NDArray[Any], right: NDArray[np.bool_], answered: NDArray[np.bool_]
) -> dict[str, ClassCoverage]:
    members = target.members(reference)
    return {
        name: ClassCoverage(int(own.sum()), int((own & answered).sum()), int((own & answered & right).sum()))
        for name, own in zip(target.labels, members.T, strict=True)
    }


def _curve(sure: NDArray[np.float64], right: NDArray[np.bool_]) -> list[tuple[float, float, float]]:
    """Points from few answers to all of them, each at a confidence that some text has."""
    order = np.argsort(-sure, kind="stable")
    ranked, share = sure[order], np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    ends = np.flatnonzero(np.r_[np.diff(ranked) != 0, True])  # equally sure texts are answered together
    chosen = ends[np.unique(np.linspace(0, len(ends) - 1, min(POINTS, len(ends))).round().astype(int))]
    return [(float(ranked[end]), (int(end) + 1) / len(order), float(share[end])) for end in chosen]


# ---- on disk ----


def write_calibration(student: Path, weights: str, form: Form, value: Calibration) -> None:
    """Adds the calibration of one form to the student's folder; those of other weights are dropped."""
    path = student / FILE
    before = read_checked(path, _REMEDY) if path.exists() else {}
    forms = dict(before["forms"]) if before.get("weights") == weights else {}
    write_signed(path, {"weights": weights, "forms": forms | {form: asdict(value)}})


def read_calibrations(student: Path, weights: str | None = None) -> dict[Form, Calibration]:
    """The calibrations in a student's folder, by form; {} where there are none, or of other weights than these.

    Raises WorkspaceError for a file that augkd did not write.
    """
    path = student / FILE
    if not path.exists():
        return {}
    value = read_checked(path, _REMEDY)
    try:
        if weights is not None and value["weights"] != weights:
            return {}
        return {form: _read(entry) for form, entry in value["forms"].items()}
    except (KeyError, TypeError, AttributeError) as exc:
        raise WorkspaceError(f"{path} is not a calibration of augkd ({exc}); run augkd calibrate again") from exc


def _read(entry: Mapping[str, Any]) -> Calibration:
    classes = {name: ClassCoverage(**counts) for name, counts in entry["classes"].items()}
    curve = [(float(value), float(share), float(agreed)) for value, share, agreed in entry["curve"]]
    return Calibration(**{**entry, "classes": classes, "curve": curve})
