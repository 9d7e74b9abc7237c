"""The resampled metrics are those of the slow loop, and the intervals made of them hold as often as they say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from augkd.errors import DataError
from augkd.evaluation import metrics
from augkd.evaluation.compare import bootstrap
from augkd.evaluation.compare.bootstrap import replicates, resamples
from augkd.evaluation.compare.inference import Difference, differences, seeds_too, share_of_lead

SLOW = {**metrics.CLASSIFICATION, **metrics.REGRESSION}


def slow(metric: str, predicted: NDArray[Any], true: NDArray[Any], draws: int, seed: int) -> NDArray[np.float64]:
    """One call of scikit-learn or SciPy for each resample and model."""
    (counts,) = resamples(len(true), draws, np.random.default_rng(seed))
    rows = [np.repeat(np.arange(len(true)), count.astype(int)) for count in counts]
    return np.array([[SLOW[metric](one[row], true[row]) for one in predicted] for row in rows])


def classes(examples: int, count: int, models: int, seed: int = 0) -> tuple[NDArray[Any], NDArray[Any]]:
    rng = np.random.default_rng(seed)
    true = rng.integers(0, count, examples)
    wrong = rng.random((models, examples)) < np.linspace(0.1, 0.9, models)[:, None]
    return np.where(wrong, rng.integers(0, count, (models, examples)), true), true


def numbers(examples: int, models: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Targets in halves, so that many are equal; predictions from good to none."""
    rng = np.random.default_rng(1)
    true = np.round(rng.normal(3, 1, examples) * 2) / 2
    noise = rng.normal(0, 1, (models, examples)) * np.linspace(0.2, 5, models)[:, None]
    return (true + noise).astype(np.float32), true.astype(np.float32)


@pytest.mark.filterwarnings("ignore:A single label was found")
@pytest.mark.parametrize("metric", ["accuracy", "f1", "matthews"])
@pytest.mark.parametrize(("examples", "count"), [(60, 2), (60, 6), (7, 4), (1, 3)])
def test_classes_are_scored_as_the_slow_loop_scores_them(metric: str, examples: int, count: int) -> None:
    predicted, true = classes(examples, count, 3)
    found = replicates(metric, predicted, true, draws=15, seed=5)
    assert found.shape == (15, 3)
    assert np.allclose(found, slow(metric, predicted, true, 15, 5), atol=1e-12)


@pytest.mark.filterwarnings("ignore:A single label was found")
@pytest.mark.parametrize("metric", ["f1", "matthews"])
def test_a_student_that_always_says_the_same_is_scored_as_the_slow_loop_scores_it(metric: str) -> None:
    true = np.array([0, 0, 0, 1, 0, 2, 0])
    predicted = np.array([[0] * 7, [1] * 7, [2] * 7])
    assert np.allclose(replicates(metric, predicted, true, draws=20), slow(metric, predicted, true, 20, 0), atol=1e-12)


@pytest.mark.parametrize("metric", ["pearson", "spearman"])
@pytest.mark.parametrize("examples", [50, 4])
def test_numbers_are_scored_as_the_slow_loop_scores_them(metric: str, examples: int) -> None:
    predicted, true = numbers(examples, 3)
    predicted[2] = 0.1  # constant
    found = replicates(metric, predicted, true, draws=40)
    assert np.allclose(found, slow(metric, predicted, true, 40, 0), atol=1e-5)  # SciPy works in the float32 it is given
    assert not found[:, 2].any()


def test_every_metric_of_augkd_can_be_resampled_and_no_other() -> None:
    assert set(bootstrap.METRICS) == set(SLOW)
    with pytest.raises(DataError, match="there is no metric 'acuracy' to resample; did you mean 'accuracy'"):
        replicates("acuracy", *classes(5, 2, 1))


def test_blocks_of_resamples_are_the_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    predicted, true = classes(30, 3, 2)
    whole = replicates("f1", predicted, true, draws=50)
    monkeypatch.setattr(bootstrap, "_BLOCK", 7 * 30)
    assert np.array_equal(replicates("f1", predicted, true, draws=50), whole)
    assert not np.array_equal(replicates("f1", predicted, true, draws=50, seed=1), whole)


def test_a_resample_has_as_many_examples_as_there_are() -> None:
    counts = np.concatenate(list(resamples(40, 300, np.random.default_rng(0))))
    assert (counts.sum(axis=1) == 40).all()
    assert counts.mean(axis=0) == pytest.approx(np.ones(40), abs=0.25)


# ---- differences ----


def of_accuracy(right: NDArray[Any], draws: int = 2000, seed: int = 0) -> tuple[NDArray[Any], NDArray[Any]]:
    """Figures and draws of (recipes, seeds, n) truth values."""
    flat = right.reshape(-1, right.shape[-1]).astype(int)
    drawn = replicates("accuracy", flat, np.ones(right.shape[-1], dtype=int), draws=draws, seed=seed)
    return right.mean(axis=2), drawn.reshape(draws, *right.shape[:2])


def test_of_one_seed_the_interval_is_that_of_a_paired_difference_of_shares() -> None:
    rng = np.random.default_rng(0)
    first = rng.random(800) < 0.9
    second = np.where(rng.random(800) < 0.1, rng.random(800) < 0.9, first)
    one = differences(*of_accuracy(np.array([[first], [second]])), baseline=0)[1]
    apart = second.astype(float) - first
    width = 1.96 * apart.std() / np.sqrt(800)
    assert one.value == pytest.approx(apart.mean())
    assert one.interval == pytest.approx((apart.mean() - width, apart.mean() + width), abs=0.1 * width)
    assert one.p == pytest.approx(2 * stats.norm.sf(abs(apart.mean()) / width * 1.96), abs=0.03)


def test_what_an_example_does_to_both_sides_drops_out() -> None:
    rng = np.random.default_rng(0)
    hard = rng.random(500) < 0.4
    paired = np.array([[~hard], [~hard]])
    paired[1, 0, :5] = True
    apart = np.array([[~hard], [~rng.permutation(hard)]])
    narrow, wide = (differences(*of_accuracy(right), baseline=0)[1].interval for right in (paired, apart))
    assert narrow[1] - narrow[0] < (wide[1] - wide[0]) / 5


def test_seeds_alone_give_students_interval() -> None:
    figures = np.array([[0.8] * 4, [0.82, 0.86, 0.83, 0.87]])
    draws = np.broadcast_to(figures, (4000, 2, 4))  # no example matters
    one = differences(figures, draws, baseline=0)[1]
    wanted = stats.t.interval(0.95, 3, loc=0.045, scale=stats.sem(figures[1]))
    assert one.interval == pytest.approx(wanted, rel=0.2)


def test_more_comparisons_make_wider_intervals_unless_they_are_the_same_comparison() -> None:
    rng = np.random.default_rng(0)
    base, others = rng.random(400) < 0.8, rng.random((8, 1, 400)) < 0.8
    one = differences(*of_accuracy(np.array([[base], others[0]])), baseline=0)[1]
    many = differences(*of_accuracy(np.array([[base], *others])), baseline=0)[1]
    same = differences(*of_accuracy(np.array([[base], *[others[0]] * 8])), baseline=0)[1]
    width = [d.interval[1] - d.interval[0] for d in (one, many, same)]
    bonferroni = stats.norm.ppf(1 - 0.025 / 8) / stats.norm.ppf(0.975)
    assert 1.15 < width[1] / width[0] < bonferroni
    assert width[2] == pytest.approx(width[0])
    assert many.p > one.p


def test_a_recipe_that_says_what_the_baseline_says_is_no_different() -> None:
    right = np.random.default_rng(0).random((1, 3, 50)) < 0.7
    one = differences(*of_accuracy(np.concatenate([right, right])), baseline=1)[0]
    assert (one.value, one.interval, one.p, one.verdict) == (0.0, (0.0, 0.0), 1.0, "no difference shown")


def test_the_verdict_is_the_side_of_zero_that_the_interval_lies_on() -> None:
    assert Difference(0.2, (0.1, 0.3), 0.01).verdict == "better"
    assert Difference(-0.2, (-0.3, -0.1), 0.01).verdict == "worse"
    assert Difference(0.2, (-0.1, 0.5), 0.3).verdict == "no difference shown"


def test_the_same_seed_gives_the_same_interval() -> None:
    right = np.random.default_rng(0).random((3, 3, 100)) < 0.7
    assert differences(*of_accuracy(right), baseline=0) == differences(*of_accuracy(right), baseline=0)
    assert differences(*of_accuracy(right), baseline=0, seed=1) != differences(*of_accuracy(right), baseline=0)


def world(seeds: int, spread: float, rng: np.random.Generator, gains: tuple[float, ...]) -> NDArray[np.bool_]:
    """What students of recipes × seeds get right of 300 examples: by example, recipe on it, seed, and luck."""
    shape = (len(gains), seeds, 300)
    levels = [(1, 1, 300), (shape[0], 1, 300), (shape[0], seeds, 1), shape]
    scales = (2.5, 1.0, spread, 1.0)
    noise = sum(scale * rng.normal(size=level) for scale, level in zip(scales, levels, strict=True))
    total = np.sqrt(sum(scale**2 for scale in scales))
    return noise < stats.norm.ppf(np.array(gains))[:, None, None] * total


def coverage(seeds: int, spread: float, repeats: int, examples_only: bool = False) -> float:
    """How often the intervals of two comparisons both hold the true differences."""
    rng, gains, held = np.random.default_rng(0), (0.85, 0.88, 0.86), 0
    for number in range(repeats):
        figures, draws = of_accuracy(world(seeds, spread, rng, gains), draws=300, seed=number)
        if examples_only:  # as if the seeds at hand were all there are
            figures, draws = figures.mean(axis=1, keepdims=True), draws.mean(axis=2, keepdims=True)
        found = differences(figures, draws, baseline=0)
        held += all(
            found[row].interval[0] <= gains[row] - gains[0] <= found[row].interval[1] for row in range(1, len(gains))
        )
    return held / repeats


def test_the_intervals_hold_all_at_once_about_as_often_as_they_say() -> None:
    assert 0.91 <= coverage(seeds=3, spread=0.2, repeats=200) <= 0.995


def test_intervals_over_examples_alone_would_not() -> None:
    assert coverage(seeds=3, spread=0.5, repeats=100, examples_only=True) < 0.75
    assert coverage(seeds=3, spread=0.5, repeats=100) > 0.82


# ---- the teacher's lead ----


def test_the_share_of_the_lead_has_the_interval_of_fieller() -> None:
    rng = np.random.default_rng(0)
    plain, teacher, recipe = (mean + 0.01 * rng.normal(size=5000) for mean in (0.8, 0.9, 0.86))
    share = share_of_lead((0.86, recipe), (0.8, plain), (0.9, teacher))
    assert share is not None
    assert share[0] == pytest.approx(0.6)
    grid = np.linspace(-1, 3, 4001)
    gains, leads = recipe - plain, teacher - plain
    apart = np.array([abs(0.06 - ratio * 0.1) / np.std(gains - ratio * leads, ddof=1) for ratio in grid])
    inside = grid[apart <= stats.norm.ppf(0.975)]
    assert share[1] == pytest.approx((inside[0], inside[-1]), abs=0.002)


@pytest.mark.parametrize("teacher", [0.79, 0.805])
def test_no_share_is_told_of_a_lead_that_is_not_shown(teacher: float) -> None:
    rng = np.random.default_rng(0)
    draws = {mean: mean + 0.01 * rng.normal(size=1000) for mean in (0.8, 0.86, teacher)}
    assert share_of_lead((0.86, draws[0.86]), (0.8, draws[0.8]), (teacher, draws[teacher])) is None


def test_drawn_seeds_are_the_same_for_all_recipes() -> None:
    draws = np.random.default_rng(0).random((50, 1, 3))
    both = seeds_too(np.concatenate([draws, draws + 1], axis=1), seed=3)
    assert np.allclose(both[:, 1] - both[:, 0], 1)
    assert not np.allclose(both[:, 0], draws[:, 0].mean(axis=1))
