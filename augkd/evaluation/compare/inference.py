"""Whether one recipe is better than another, beyond the examples and the seeds it was measured with.

Both are drawn anew: a two-level bootstrap over examples, common to all recipes, and over seeds, common to both sides of
a difference. Drawing both at once counts what an example and a seed do together more than once (Owen 2007, "The
pigeonhole bootstrap"), so the variance is put together from its parts; few seeds widen it by Student's t. Many recipes
against one baseline are many chances to be lucky: the intervals hold all at once (max-t; Westfall & Young 1993), which
costs less than Bonferroni because the comparisons share baseline and examples, and needs no far quantiles of the draws.
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
    """A recipe's mean over seeds less the baseline's."""

    value: float
    interval: tuple[float, float]  # 95 %, for all recipes of the comparison at once
    p: float  # of no difference, adjusted for the number of comparisons

    @property
    def verdict(self) -> str:
        """`better`, `worse` or `no difference shown`."""
        low, high = self.interval
        return "better" if low > 0 else "worse" if high < 0 else "no difference shown"


@dataclass(frozen=True)
class Drawn:
    """Mean differences of recipes to a baseline, and what they are with examples and seeds drawn anew."""

    value: Floats  # (recipes,)
    errors: Floats  # (recipes,) standard errors, widened where seeds are few
    draws: Floats  # (draws, recipes)


def differences(
    figures: Floats,  # (recipes, seeds) the metric on the examples as they are
    draws: Floats,  # (draws, recipes, seeds) on resamples of the examples
    baseline: int,
    *,
    seed: int = 0,
) -> dict[int, Difference]:
    """Every recipe but the baseline against it. With one seed the intervals are about the examples alone."""
    others = [row for row in range(len(figures)) if row != baseline]
    return dict(zip(others, judged(drawn_differences(figures, draws, baseline, seed=seed)), strict=True))


def drawn_differences(figures: Floats, draws: Floats, baseline: int, *, seed: int = 0) -> Drawn:
    """Of all recipes but the baseline, in their order; arguments as of `differences`."""
    others = [row for row in range(len(figures)) if row != baseline]
    paired, drawn = figures[others] - figures[[baseline]], draws[:, others] - draws[:, [baseline]]
    both = seeds_too(drawn, seed)
    return Drawn(paired.mean(axis=1), _errors(paired, drawn, both), both)


def mean_over_tasks(tasks: Sequence[Drawn]) -> Drawn:
    """The mean difference over tasks of the same recipes, drawn independently of one another.

    The tasks are taken as they are, not as a sample of tasks: it is examples and seeds that might have been others.
    """
    errors = np.sqrt(np.mean([one.errors**2 for one in tasks], axis=0) / len(tasks))
    return Drawn(np.mean([one.value for one in tasks], axis=0), errors, np.mean([one.draws for one in tasks], axis=0))


def judged(drawn: Drawn) -> list[Difference]:
    """Each recipe's difference with its interval, which holds for all of them at once."""
    if not len(drawn.value):
        return []
    spread = drawn.draws.std(axis=0)
    away = np.abs(drawn.draws - drawn.draws.mean(axis=0))
    largest = np.divide(away, spread, out=np.zeros_like(away), where=spread > 0).max(axis=1)
    quantile = float(np.quantile(largest, LEVEL))
    return [
        _difference(value, error, quantile, largest)
        for value, error in zip(drawn.value.tolist(), drawn.errors.tolist(), strict=True)
    ]


def _difference(value: float, error: float, quantile: float, largest: Floats) -> Difference:
    away = abs(value) / error if error > 0 else math.inf if value else 0.0
    p = (1 + int((largest >= away).sum())) / (1 + len(largest))
    return Difference(value, (value - quantile * error, value + quantile * error), p)


def seeds_too(draws: Floats, seed: int) -> Floats:  # (draws, recipes, seeds) -> (draws, recipes)
    """Means over seeds drawn anew for each resample of the examples, the same seeds for all recipes."""
    count = draws.shape[2]
    weights = np.random.default_rng([seed, 1]).multinomial(count, np.full(count, 1 / count), size=len(draws)) / count
    mean: Floats = np.einsum("brs,bs->br", draws, weights)
    return mean


def _errors(paired: Floats, drawn: Floats, both: Floats) -> Floats:  # (recipes,)
    """Standard error of each mean difference, widened by Student's t over the normal quantile.

    Examples alone and seeds alone each hold the interaction of the two once; it may stay in one of them only. Drawing
    both tells how large it is.
    """
    seeds = paired.shape[1]
    of_examples: Floats = drawn.mean(axis=2).var(axis=0, ddof=1)
    if seeds == 1:
        return np.sqrt(of_examples)
    of_seeds = paired.var(axis=1, ddof=1) / seeds
    # The draws know the seeds' variance as that of a population of so many: (seeds - 1) / seeds of the sample's.
    interaction = both.var(axis=0, ddof=1) - of_examples - of_seeds * (seeds - 1) / seeds
    least = np.minimum(of_examples, of_seeds)
    variance: Floats = of_examples + of_seeds - np.clip(interaction, 0, least)
    return np.sqrt(variance) * _widening(of_examples, of_seeds, seeds)


def _widening(of_examples: Floats, of_seeds: Floats, seeds: int) -> Floats:
    """Student's quantile over the normal one, with Satterthwaite's degrees of freedom: only seeds are few."""
    whole = of_examples + of_seeds
    share = np.divide(of_seeds, whole, out=np.zeros_like(whole), where=whole > 0)
    freedom = (seeds - 1) / np.maximum(share**2, 1e-6)  # 1e-6: normal beyond a million
    tail = (1 + LEVEL) / 2
    widening: Floats = stats.t.ppf(tail, freedom) / stats.norm.ppf(tail)
    return widening


def share_of_lead(
    recipe: tuple[float, Floats],  # the metric's mean over seeds, and on the draws (draws,)
    plain: tuple[float, Floats],  # of plain distillation
    teacher: tuple[float, Floats],
) -> tuple[float, tuple[float, float]] | None:
    """(recipe - plain) / (teacher - plain) with its 95 % interval; None when the teacher's lead is not shown.

    The interval is Fieller's (1954), which is exact for a ratio of two normal figures, and finite only where the lead
    is larger than chance.
    """
    gain, lead = recipe[0] - plain[0], teacher[0] - plain[0]
    (gains, both), (_, leads) = np.cov(recipe[1] - plain[1], teacher[1] - plain[1])
    square = float(stats.norm.ppf((1 + LEVEL) / 2)) ** 2
    first = lead**2 - square * leads
    if lead <= 0 or first <= 0:
        return None
    middle, last = gain * lead - square * both, gain**2 - square * gains
    root = math.sqrt(max(0.0, middle**2 - first * last))
    return gain / lead, (float((middle - root) / first), float((middle + root) / first))
