"""Calibration of a teacher's probabilities on labelled texts: one temperature, which changes no prediction.

Guo et al. 2017, "On Calibration of Modern Neural Networks". LLMs that were tuned to follow instructions are
over-confident, and a student learns their confidence along with their answers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

FEWEST = 20  # labelled texts: with fewer, the temperature says more about them than about the teacher
_COLDEST, _HOTTEST = 0.05, 20.0
_BINS = 10


@dataclass(frozen=True)
class Calibration:
    """A temperature and what it changed, measured on the texts it was fitted to."""

    temperature: float
    texts: int  # labelled texts it was fitted to; 0: not fitted
    nll: tuple[float, float] | None = None  # mean negative log-likelihood of the labels, before and after
    ece: tuple[float, float] | None = None  # expected calibration error, before and after
    accuracy: float | None = None  # of the teacher on these texts


NOT_FITTED = Calibration(1.0, 0)


def fit_temperature(
    logits: NDArray[np.float64],  # (n, classes)
    labels: NDArray[np.int64],  # (n,)
) -> Calibration:
    """The temperature with the highest likelihood of the labels; 1 where there are fewer than 20 of them."""
    if len(labels) < FEWEST:
        return NOT_FITTED

    def loss(log_temperature: float) -> float:
        return negative_log_likelihood(logits / np.exp(log_temperature), labels)

    found = minimize_scalar(loss, bounds=(np.log(_COLDEST), np.log(_HOTTEST)), method="bounded")
    temperature = float(np.exp(found.x)) if found.fun < loss(0.0) else 1.0
    scaled = logits / temperature
    return Calibration(
        temperature,
        len(labels),
        (negative_log_likelihood(logits, labels), negative_log_likelihood(scaled, labels)),
        (calibration_error(logits, labels), calibration_error(scaled, labels)),
        float((logits.argmax(axis=1) == labels).mean()),
    )


def negative_log_likelihood(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """The mean over texts, in nats."""
    return float(-log_softmax(logits, axis=1)[np.arange(len(labels)), labels].mean())


def calibration_error(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Expected calibration error of the predicted class, over ten bins of equal width (Guo et al. 2017, eq. 3)."""
    probabilities = np.exp(log_softmax(logits, axis=1))
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * _BINS).astype(np.int64), _BINS - 1)
    gaps = [abs(right[bins == b].mean() - confidence[bins == b].mean()) * (bins == b).mean() for b in set(bins)]
    return float(sum(gaps))
