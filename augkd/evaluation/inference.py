"""Whether one recipe is better than another, beyond the examples and the seeds it was measured with.

Both are drawn anew: a two-level bootstrap over examples, common to all recipes, and over seeds, common to both sides of
a difference. Drawing both at once counts what an example and a seed do together more than once (Owen 2007, "The
pigeonhole bootstrap"), so the variance is put together from its parts; few seeds widen it by Student's t. Many recipes
against one baseline are many chances to be lucky: the intervals hold all at once (max-t; Westfall & Young 1993), which
costs less than Bonferroni because the comparisons share baseline and examples, and needs no far quantiles of the draws.
"""

from __future__ import annotations

import math
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


def differences(
    figures: Floats,  # (recipes, seeds) the metric on the examples as they are
    draws: Floats,  # (draws, recipes, seeds) on resamples of the examples
    baseline: int,
    *,
    seed: int = 0,
) -> dict[int, Difference]:
    """Every recipe but the baseline against it. With one seed the intervals are about the examples alone."""
    others = [row for row in range(len(figures)) if row != baseline]
    if not others:
        return {}
    value = (figures[others] - figures[baseline]).mean(axis=1)
    paired, drawn = figures[others] - figures[[baseline]], draws[:, others] - draws[:, [baseline]]
    both = seeds_too(drawn, seed)
    errors = _errors(paired, drawn, both)
    spread = both.std(axis=0)
    scaled = np.divide(np.abs(both - both.mean(axis=0)), spread, out=np.zeros_like(both), where=spread > 0)
    largest = scaled.max(axis=1)
    reach = float(np.quantile(largest, LEVEL)) * errors
    found = {}
    for place, row in enumerate(others):
        away = abs(value[place]) / errors[place] if errors[place] > 0 else math.inf if value[place] else 0.0
        p = (1 + int((largest >= away).sum())) / (1 + len(largest))
        around = (float(value[place] - reach[place]), float(value[place] + reach[place]))
        found[row] = Difference(float(value[place]), around, p)
    return found


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
