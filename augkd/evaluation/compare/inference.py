"""Whether one recipe is better than another, beyond the particular examples and seeds it was measured with.

Examples and seeds are both resampled: a two-level bootstrap over examples, common to all recipes, and over seeds,
common to both sides of a difference. Resampling both at once counts their interaction more than once (Owen 2007, "The
pigeonhole bootstrap"), so the variance is put together from its parts; few seeds widen it by Student's t. Many recipes
against one baseline are many chances of a lucky result: the intervals hold simultaneously (max-t; Westfall & Young
1993). That costs less than Bonferroni because the comparisons share the baseline and the examples, and it needs no
extreme quantiles of the resamples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]

LEVEL = 0.95


@dataclass(frozen=True)
class Difference:
    """A recipe's mean over seeds minus the baseline's."""

    value: float
    interval: tuple[float, float]  # 95 %, simultaneous over all recipes of the comparison
    p: float  # of no difference, adjusted for the number of comparisons

    @property
    def verdict(self) -> str:
        """`better`, `worse` or `no difference shown`."""
        low, high = self.interval
        return "better" if low > 0 else "worse" if high < 0 else "no difference shown"


@dataclass(frozen=True)
class ResampledDifferences:
    """Mean differences of recipes to a baseline, and their bootstrap distribution."""

    value: Floats  # (recipes,)
    errors: Floats  # (recipes,) standard errors, widened where seeds are few
    resampled: Floats  # (resamples, recipes), over examples and seeds


@dataclass(frozen=True)
class GapClosed:
    """The share of the gap between plain distillation and the teacher that a recipe closes: 0 none, 1 all of it."""

    share: float
    interval: tuple[float, float]  # 95 %, of this recipe alone


def differences(
    scores: Floats,  # (recipes, seeds) on the examples as they are
    resampled: Floats,  # (resamples, recipes, seeds) on resamples of the examples
    baseline: int,
    *,
    seed: int = 0,
) -> dict[int, Difference]:
    """Every recipe but the baseline against it. With one seed the intervals cover the choice of examples only."""
    others = [row for row in range(len(scores)) if row != baseline]
    return dict(zip(others, with_intervals(resampled_differences(scores, resampled, baseline, seed=seed)), strict=True))


def resampled_differences(scores: Floats, resampled: Floats, baseline: int, *, seed: int = 0) -> ResampledDifferences:
    """Differences of all recipes but the baseline, in their order; arguments as in `differences`."""
    others = [row for row in range(len(scores)) if row != baseline]
    by_seed, over_examples = scores[others] - scores[[baseline]], resampled[:, others] - resampled[:, [baseline]]
    over_both = mean_over_resampled_seeds(over_examples, seed)
    return ResampledDifferences(by_seed.mean(axis=1), _errors(by_seed, over_examples, over_both), over_both)


def mean_over_tasks(tasks: Sequence[ResampledDifferences]) -> ResampledDifferences:
    """The mean difference over tasks of the same recipes, each task resampled independently.

    The tasks are fixed, not a sample of tasks: only examples and seeds are treated as random.
    """
    errors = np.sqrt(np.mean([task.errors**2 for task in tasks], axis=0) / len(tasks))
    value = np.mean([task.value for task in tasks], axis=0)
    return ResampledDifferences(value, errors, np.mean([task.resampled for task in tasks], axis=0))


def with_intervals(differences: ResampledDifferences) -> list[Difference]:
    """Each recipe's difference with its interval; the intervals hold simultaneously."""
    if not len(differences.value):
        return []
    spread = differences.resampled.std(axis=0)
    deviation = np.abs(differences.resampled - differences.resampled.mean(axis=0))
    max_t = np.divide(deviation, spread, out=np.zeros_like(deviation), where=spread > 0).max(axis=1)
    quantile = float(np.quantile(max_t, LEVEL))
    return [
        _difference(value, error, quantile, max_t)
        for value, error in zip(differences.value.tolist(), differences.errors.tolist(), strict=True)
    ]


def _difference(value: float, error: float, quantile: float, max_t: Floats) -> Difference:
    t = abs(value) / error if error > 0 else math.inf if value else 0.0
    p = (1 + int((max_t >= t).sum())) / (1 + len(max_t))
    return Difference(value, (value - quantile * error, value + quantile * error), p)


def mean_over_resampled_seeds(resampled: Floats, seed: int) -> Floats:  # (resamples, recipes, seeds) → (…, recipes)
    """Means over a resample of the seeds for each resample of the examples, the same seeds for all recipes."""
    count = resampled.shape[2]
    rng = np.random.default_rng([seed, 1])
    weights = rng.multinomial(count, np.full(count, 1 / count), size=len(resampled)) / count
    mean: Floats = np.einsum("brs,bs->br", resampled, weights)
    return mean


def _errors(
    by_seed: Floats,  # (recipes, seeds) differences
    over_examples: Floats,  # (resamples, recipes, seeds)
    over_both: Floats,  # (resamples, recipes)
) -> Floats:  # (recipes,)
    """Standard error of each mean difference, widened by Student's t over the normal quantile.

    The variance over examples and the variance over seeds each hold the interaction of the two once; it may be counted
    only once. Resampling both shows how large it is.
    """
    seeds = by_seed.shape[1]
    of_examples: Floats = over_examples.mean(axis=2).var(axis=0, ddof=1)
    if seeds == 1:
        return np.sqrt(of_examples)
    of_seeds = by_seed.var(axis=1, ddof=1) / seeds
    # Resampled seeds have the variance of a population of that many: (seeds - 1) / seeds of the sample variance.
    interaction = over_both.var(axis=0, ddof=1) - of_examples - of_seeds * (seeds - 1) / seeds
    largest = np.minimum(of_examples, of_seeds)
    variance: Floats = of_examples + of_seeds - np.clip(interaction, 0, largest)
    return np.sqrt(variance) * _widening(of_examples, of_seeds, seeds)


def _widening(of_examples: Floats, of_seeds: Floats, seeds: int) -> Floats:
    """Student's quantile over the normal one, with Satterthwaite's degrees of freedom; only seeds are few."""
    total = of_examples + of_seeds
    share = np.divide(of_seeds, total, out=np.zeros_like(total), where=total > 0)
    freedom = (seeds - 1) / np.maximum(share**2, 1e-6)  # 1e-6: normal beyond a million
    tail = (1 + LEVEL) / 2
    widening: Floats = stats.t.ppf(tail, freedom) / stats.norm.ppf(tail)
    return widening


def gap_closed(
    recipe: tuple[float, Floats],  # the metric's mean over seeds, and its values on the resamples (resamples,)
    plain: tuple[float, Floats],  # of plain distillation
    teacher: tuple[float, Floats],
) -> GapClosed | None:
    """(recipe - plain) / (teacher - plain) with its interval; None when the teacher is not shown to be better.

    The interval is Fieller's (1954): exact for a ratio of two normal variables, and finite only where the gap is larger
    than chance.
    """
    gain, gap = recipe[0] - plain[0], teacher[0] - plain[0]
    (gain_variance, covariance), (_, gap_variance) = np.cov(recipe[1] - plain[1], teacher[1] - plain[1])
    z_squared = float(stats.norm.ppf((1 + LEVEL) / 2)) ** 2
    # The interval's ends are the roots of a·r² − 2b·r + c.
    a = gap**2 - z_squared * gap_variance
    if gap <= 0 or a <= 0:
        return None
    b, c = gain * gap - z_squared * covariance, gain**2 - z_squared * gain_variance
    root = math.sqrt(max(0.0, b**2 - a * c))
    return GapClosed(gain / gap, (float((b - root) / a), float((b + root) / a)))
