"""Resampled metrics equal those of a slow loop, and the intervals have the coverage they claim."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from augkd.errors import DataError
from augkd.evaluation import metrics
from augkd.evaluation.compare import bootstrap
from augkd.evaluation.compare.bootstrap import bootstrap_scores, resample_counts
from augkd.evaluation.compare.inference import Difference, differences, gap_closed, mean_over_resampled_seeds


def slow(metric: str, predicted: NDArray[Any], true: NDArray[Any], resamples: int, seed: int) -> NDArray[np.float64]:
    """One call of scikit-learn or SciPy for each resample and model."""
    (counts,) = resample_counts(len(true), resamples, np.random.default_rng(seed))
    rows = [np.repeat(np.arange(len(true)), count.astype(int)) for count in counts]
    return np.array([[metrics.METRICS[metric](model[row], true[row]) for model in predicted] for row in rows])


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
def test_metrics_of_classes_equal_those_of_the_slow_loop(metric: str, examples: int, count: int) -> None:
    predicted, true = classes(examples, count, 3)
    scores = bootstrap_scores(metric, predicted, true, resamples=15, seed=5)
    assert scores.shape == (15, 3)
    assert np.allclose(scores, slow(metric, predicted, true, 15, 5), atol=1e-12)


@pytest.mark.filterwarnings("ignore:A single label was found")
@pytest.mark.parametrize("metric", ["f1", "matthews"])
def test_metrics_of_a_constant_prediction_equal_those_of_the_slow_loop(metric: str) -> None:
    true = np.array([0, 0, 0, 1, 0, 2, 0])
    predicted = np.array([[0] * 7, [1] * 7, [2] * 7])
    assert np.allclose(
        bootstrap_scores(metric, predicted, true, resamples=20), slow(metric, predicted, true, 20, 0), atol=1e-12
    )


@pytest.mark.parametrize("metric", ["micro_f1", "macro_f1", "mAP"])
@pytest.mark.parametrize(("examples", "labels"), [(60, 4), (7, 3), (1, 2)])
def test_metrics_of_several_labels_equal_those_of_the_slow_loop(metric: str, examples: int, labels: int) -> None:
    rng = np.random.default_rng(2)
    true = (rng.random((examples, labels)) < 0.3).astype(np.float32)
    predicted = np.round(rng.normal(size=(3, examples, labels)) + true, 1).astype(np.float32)  # with ties
    scores = bootstrap_scores(metric, predicted, true, resamples=15, seed=5)
    assert scores.shape == (15, 3)
    assert np.allclose(scores, slow(metric, predicted, true, 15, 5), atol=1e-12)


@pytest.mark.parametrize("metric", ["pearson", "spearman"])
@pytest.mark.parametrize("examples", [50, 4])
def test_metrics_of_numbers_equal_those_of_the_slow_loop(metric: str, examples: int) -> None:
    predicted, true = numbers(examples, 3)
    predicted[2] = 0.1  # constant
    scores = bootstrap_scores(metric, predicted, true, resamples=40)
    assert np.allclose(
        scores, slow(metric, predicted, true, 40, 0), atol=1e-5
    )  # SciPy computes in the float32 of its input
    assert not scores[:, 2].any()


def test_every_metric_can_be_resampled_and_no_other() -> None:
    assert set(bootstrap.RESAMPLED_METRICS) == set(metrics.METRICS)
    with pytest.raises(DataError, match="there is no metric 'acuracy' to resample; did you mean 'accuracy'"):
        bootstrap_scores("acuracy", *classes(5, 2, 1))


def test_the_block_size_does_not_change_the_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    predicted, true = classes(30, 3, 2)
    whole = bootstrap_scores("f1", predicted, true, resamples=50)
    monkeypatch.setattr(bootstrap, "_BLOCK", 7 * 30)
    assert np.array_equal(bootstrap_scores("f1", predicted, true, resamples=50), whole)
    assert not np.array_equal(bootstrap_scores("f1", predicted, true, resamples=50, seed=1), whole)


def test_a_resample_has_as_many_examples_as_the_test_set() -> None:
    counts = np.concatenate(list(resample_counts(40, 300, np.random.default_rng(0))))
    assert (counts.sum(axis=1) == 40).all()
    assert counts.mean(axis=0) == pytest.approx(np.ones(40), abs=0.25)


# ---- differences ----


def accuracies(right: NDArray[Any], resamples: int = 2000, seed: int = 0) -> tuple[NDArray[Any], NDArray[Any]]:
    """Scores and resampled scores of (recipes, seeds, n) truth values."""
    flat = right.reshape(-1, right.shape[-1]).astype(int)
    resampled = bootstrap_scores("accuracy", flat, np.ones(right.shape[-1], dtype=int), resamples=resamples, seed=seed)
    return right.mean(axis=2), resampled.reshape(resamples, *right.shape[:2])


def test_with_one_seed_the_interval_is_that_of_a_paired_difference_of_proportions() -> None:
    rng = np.random.default_rng(0)
    first = rng.random(800) < 0.9
    second = np.where(rng.random(800) < 0.1, rng.random(800) < 0.9, first)
    difference = differences(*accuracies(np.array([[first], [second]])), baseline=0)[1]
    apart = second.astype(float) - first
    width = 1.96 * apart.std() / np.sqrt(800)
    assert difference.value == pytest.approx(apart.mean())
    assert difference.interval == pytest.approx((apart.mean() - width, apart.mean() + width), abs=0.1 * width)
    assert difference.p == pytest.approx(2 * stats.norm.sf(abs(apart.mean()) / width * 1.96), abs=0.03)


def test_the_difficulty_of_an_example_for_both_sides_cancels_out() -> None:
    rng = np.random.default_rng(0)
    hard = rng.random(500) < 0.4
    paired = np.array([[~hard], [~hard]])
    paired[1, 0, :5] = True
    apart = np.array([[~hard], [~rng.permutation(hard)]])
    narrow, wide = (differences(*accuracies(right), baseline=0)[1].interval for right in (paired, apart))
    assert narrow[1] - narrow[0] < (wide[1] - wide[0]) / 5


def test_variance_over_seeds_alone_gives_students_t_interval() -> None:
    scores = np.array([[0.8] * 4, [0.82, 0.86, 0.83, 0.87]])
    resampled = np.broadcast_to(scores, (4000, 2, 4))  # no variation over examples
    difference = differences(scores, resampled, baseline=0)[1]
    expected = stats.t.interval(0.95, 3, loc=0.045, scale=stats.sem(scores[1]))
    assert difference.interval == pytest.approx(expected, rel=0.2)


def test_more_comparisons_widen_the_intervals_unless_they_are_the_same_comparison() -> None:
    rng = np.random.default_rng(0)
    base, others = rng.random(400) < 0.8, rng.random((8, 1, 400)) < 0.8
    single = differences(*accuracies(np.array([[base], others[0]])), baseline=0)[1]
    many = differences(*accuracies(np.array([[base], *others])), baseline=0)[1]
    same = differences(*accuracies(np.array([[base], *[others[0]] * 8])), baseline=0)[1]
    width = [d.interval[1] - d.interval[0] for d in (single, many, same)]
    bonferroni = stats.norm.ppf(1 - 0.025 / 8) / stats.norm.ppf(0.975)
    assert 1.15 < width[1] / width[0] < bonferroni
    assert width[2] == pytest.approx(width[0])
    assert many.p > single.p


def test_a_recipe_with_the_baseline_s_predictions_is_no_different() -> None:
    right = np.random.default_rng(0).random((1, 3, 50)) < 0.7
    difference = differences(*accuracies(np.concatenate([right, right])), baseline=1)[0]
    assert (difference.value, difference.interval, difference.p, difference.verdict) == (
        0.0,
        (0.0, 0.0),
        1.0,
        "no difference shown",
    )


def test_the_verdict_is_the_side_of_zero_that_the_interval_lies_on() -> None:
    assert Difference(0.2, (0.1, 0.3), 0.01).verdict == "better"
    assert Difference(-0.2, (-0.3, -0.1), 0.01).verdict == "worse"
    assert Difference(0.2, (-0.1, 0.5), 0.3).verdict == "no difference shown"


def test_the_same_seed_gives_the_same_interval() -> None:
    right = np.random.default_rng(0).random((3, 3, 100)) < 0.7
    assert differences(*accuracies(right), baseline=0) == differences(*accuracies(right), baseline=0)
    assert differences(*accuracies(right), baseline=0, seed=1) != differences(*accuracies(right), baseline=0)


def world(seeds: int, spread: float, rng: np.random.Generator, gains: tuple[float, ...]) -> NDArray[np.bool_]:
    """Which of 300 examples students of recipes × seeds get right: effects of example, recipe on it, seed, noise."""
    shape = (len(gains), seeds, 300)
    levels = [(1, 1, 300), (shape[0], 1, 300), (shape[0], seeds, 1), shape]
    scales = (2.5, 1.0, spread, 1.0)
    noise = sum(scale * rng.normal(size=level) for scale, level in zip(scales, levels, strict=True))
    total = np.sqrt(sum(scale**2 for scale in scales))
    return noise < stats.norm.ppf(np.array(gains))[:, None, None] * total


def coverage(seeds: int, spread: float, repeats: int, examples_only: bool = False) -> float:
    """How often the intervals of two comparisons both contain the true differences."""
    rng, gains, covered = np.random.default_rng(0), (0.85, 0.88, 0.86), 0
    for number in range(repeats):
        scores, resampled = accuracies(world(seeds, spread, rng, gains), resamples=300, seed=number)
        if examples_only:  # as if there were no other seeds
            scores, resampled = scores.mean(axis=1, keepdims=True), resampled.mean(axis=2, keepdims=True)
        by_recipe = differences(scores, resampled, baseline=0)
        covered += all(
            by_recipe[row].interval[0] <= gains[row] - gains[0] <= by_recipe[row].interval[1]
            for row in range(1, len(gains))
        )
    return covered / repeats


def test_the_intervals_have_about_their_nominal_simultaneous_coverage() -> None:
    assert 0.91 <= coverage(seeds=3, spread=0.2, repeats=200) <= 0.995


def test_intervals_over_examples_alone_would_have_less_than_their_nominal_coverage() -> None:
    assert coverage(seeds=3, spread=0.5, repeats=100, examples_only=True) < 0.75
    assert coverage(seeds=3, spread=0.5, repeats=100) > 0.82


# ---- the teacher gap closed ----


def test_the_gap_closed_has_fieller_s_interval() -> None:
    rng = np.random.default_rng(0)
    plain, teacher, recipe = (mean + 0.01 * rng.normal(size=5000) for mean in (0.8, 0.9, 0.86))
    gap = gap_closed((0.86, recipe), (0.8, plain), (0.9, teacher))
    assert gap is not None
    assert gap.share == pytest.approx(0.6)
    grid = np.linspace(-1, 3, 4001)
    gains, gaps = recipe - plain, teacher - plain
    apart = np.array([abs(0.06 - ratio * 0.1) / np.std(gains - ratio * gaps, ddof=1) for ratio in grid])
    inside = grid[apart <= stats.norm.ppf(0.975)]
    assert gap.interval == pytest.approx((inside[0], inside[-1]), abs=0.002)


@pytest.mark.parametrize("teacher", [0.79, 0.805])
def test_no_gap_closed_is_given_where_the_teacher_is_not_shown_to_be_better(teacher: float) -> None:
    rng = np.random.default_rng(0)
    resampled = {mean: mean + 0.01 * rng.normal(size=1000) for mean in (0.8, 0.86, teacher)}
    assert gap_closed((0.86, resampled[0.86]), (0.8, resampled[0.8]), (teacher, resampled[teacher])) is None


def test_resampled_seeds_are_the_same_for_all_recipes() -> None:
    scores = np.random.default_rng(0).random((50, 1, 3))
    means = mean_over_resampled_seeds(np.concatenate([scores, scores + 1], axis=1), seed=3)
    assert np.allclose(means[:, 1] - means[:, 0], 1)
    assert not np.allclose(means[:, 0], scores[:, 0].mean(axis=1))
