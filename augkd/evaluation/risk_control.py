"""When a student may answer: the confidence above which it agrees with a reference often enough, with a bound.

Looking at many thresholds and taking the best would promise too much. So the texts are divided. Some of them fit the
temperature and put the thresholds into an order, from the one that is likeliest to hold towards more answers; the
others test them in that order, each with the exact binomial test at the full level, until the first that fails
(fixed-sequence testing; Angelopoulos et al. 2021, "Learn then Test"; the order from other texts: Laufer-Goldshtein et
al. 2023, "Efficiently Controlling Multiple Risks with Pareto Testing"). The last one that passed is the threshold: with
the promised confidence, the student's true agreement above it is at least what was asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, binom

from augkd.data.target import Target
from augkd.distill.teacher.calibration import fit_temperature
from augkd.errors import DataError

ORDERING_SHARE = 0.25  # of the texts; the others test
STEPS = 20  # thresholds tried, at most; with 40 the test halves of three tasks kept the promise a little less often
FEWEST = 20  # texts in either part: with fewer no order means anything


@dataclass(frozen=True)
class Threshold:
    """A confidence from which a student answers; None: no threshold passed, so it never does."""

    value: float | None
    temperature: float
    tested: int  # texts that tested
    answered: int  # of those, above the threshold; 0 where none passed
    agreed: int  # of those answered
    lower_bound: float | None  # of the agreement above the threshold, at the promised confidence


def choose_threshold(
    target: Target,
    logits: NDArray[Any],  # (n, outputs) of the student
    reference: NDArray[Any],  # (n,) or (n, labels): what it should agree with, as `Target.predictions` gives it
    *,
    agreement: float,
    confidence: float,
    seed: int = 0,
) -> Threshold:
    """The threshold above which the student's agreement is at least `agreement`, at that confidence.

    Raises DataError for numbers, which have no confidence, for shares outside (0, 1) and for too few texts.
    """
    _check(target, len(logits), agreement, confidence)
    order = np.random.default_rng(seed).permutation(len(logits))
    ordering, testing = np.split(order, [round(ORDERING_SHARE * len(order))])
    temperature = temperature_of(target, logits[ordering], reference[ordering])
    sure = target.confidence(logits, temperature)
    right = target.same(target.predictions(logits), reference)

    level = 1 - confidence
    sequence = _sequence(sure[ordering], right[ordering], len(testing), agreement)
    passed, answered, agreed = None, 0, 0
    for value in sequence:
        above = sure[testing] >= value
        n, k = int(above.sum()), int(right[testing][above].sum())
        if binom.sf(k - 1, n, agreement) > level:  # P(k or more agree) if the agreement were just too low
            break
        passed, answered, agreed = float(value), n, k
    bound = None if passed is None else float(beta.ppf(level, agreed, answered - agreed + 1))
    return Threshold(passed, temperature, len(testing), answered, agreed, bound)


def temperature_of(target: Target, logits: NDArray[Any], reference: NDArray[Any]) -> float:
    """The temperature with the highest likelihood of the reference; of several labels, of all of their decisions."""
    values = np.asarray(logits, dtype=np.float64)
    if target.activation == "sigmoid":
        values = np.stack([np.zeros_like(values), values], axis=-1).reshape(-1, 2)  # no and yes of each label
    return fit_temperature(values, np.asarray(reference, dtype=np.int64).ravel()).temperature


def fewest_texts(agreement: float, confidence: float) -> int:
    """How many answered texts must all agree before the bound can be reached at all."""
    return int(np.ceil(np.log(1 - confidence) / np.log(agreement)))


def _sequence(
    sure: NDArray[np.float64], right: NDArray[np.bool_], tested: int, agreement: float
) -> NDArray[np.float64]:  # thresholds, falling: ever more texts are answered
    """The thresholds to test, from the one whose test is likeliest to pass, judged on texts that do not test."""
    grid = np.unique(np.quantile(sure, np.linspace(0, 1, STEPS + 1), method="inverted_cdf"))[::-1]
    counts = np.array([(sure >= value).sum() for value in grid])
    agreed = np.array([right[sure >= value].sum() for value in grid])
    estimate = (agreed + 0.5) / (counts + 1)
    expected = np.floor(counts * (tested / len(sure)))
    surprise = binom.logsf(np.ceil(estimate * expected) - 1, expected, agreement)
    return np.asarray(grid[int(surprise.argmin()) :], dtype=np.float64)


def _check(target: Target, texts: int, agreement: float, confidence: float) -> None:
    if target.regression:
        raise DataError("a number has no confidence; only students of classes or labels can be calibrated")
    for name, value in (("agreement", agreement), ("confidence", confidence)):
        if not 0 < value < 1:
            raise DataError(f"{name} is {value:g}; give a share between 0 and 1, such as 0.95")
    testing = texts - round(ORDERING_SHARE * texts)
    needed = fewest_texts(agreement, confidence)
    if texts - testing < FEWEST or testing < needed:
        raise DataError(
            f"{texts} texts are too few to promise an agreement of {agreement:g} with a confidence of {confidence:g}: "
            f"{needed} must be answered without a disagreement, and a quarter of the texts only fits the temperature; "
            f"give at least {max(4 * FEWEST, int(np.ceil(needed / (1 - ORDERING_SHARE))))}, ask for less, or name more "
            "texts with --data"
        )
