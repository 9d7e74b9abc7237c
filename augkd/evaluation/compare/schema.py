"""The content of compare.json, for recipes × seeds on one task and for the averages over several tasks.

Typed dicts, as results.json: `augkd compare` writes them, tables and reports read them back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NotRequired

from typing_extensions import TypedDict  # pydantic cannot read typing's before Python 3.12

from augkd.evaluation.results import RunResults, Split


class SeedScores(TypedDict):
    """A metric, or a difference of it, over seeds."""

    mean: float | None
    sd: float | None  # of the sample (n - 1); None with one seed
    values: list[float | None]  # by seed


class Verdict(TypedDict):
    """How certain a difference to the baseline is; None for the baseline and where predictions are missing."""

    interval: Sequence[float] | None  # (low, high)
    p: float | None  # adjusted for the number of comparisons
    verdict: str | None  # better, worse or no difference shown


class SeedDifference(SeedScores, Verdict):
    """The difference to the baseline, seed by seed, with its verdict."""


class GapClosedSummary(TypedDict):
    """The share of the gap to the teacher that a recipe closes; 1 is all of it."""

    share: float
    interval: Sequence[float]


class RecipeCost(TypedDict):
    """What a recipe costs: means over seeds, and the maximum of peak memory."""

    teacher_rows: float
    training_rows: float
    scoring_rows: float
    generator_rows: float
    seconds: dict[str, float]  # of the stages student, assistants and transfer_set
    peak_rss_bytes: int
    candidates: int
    originals: int
    generated_per_original: int
    kept_per_original: float
    parameters: int


class RecipeSummary(TypedDict):
    """All seeds of one recipe."""

    recipe: str
    seeds: int
    validation: SeedScores
    test: SeedScores
    difference: SeedDifference
    gap_closed: GapClosedSummary | None
    cost: RecipeCost


class TeacherScores(TypedDict):
    """The metric of the teacher; of the first recipe's, where recipes have teachers of their own."""

    validation: float | None
    test: float | None


class ComparisonSummary(TypedDict):
    """compare.json of one task."""

    task: str
    metric: str
    split: Split  # that recipes are compared on: test, or validation where that was asked for or test has no labels
    examples: int | None  # labelled ones of the split; None without predictions
    baseline: str
    gap_baseline: str | None  # the recipe that the gap to the teacher is measured from; None without its predictions
    comparisons: int
    level: float
    resamples: int
    time_budget: float | None  # seconds of training for each student, in place of its epochs
    teacher: TeacherScores
    shared_seconds: dict[str, float]  # index, teacher, transfer_sets: each once
    rows: list[RecipeSummary]
    runs: dict[str, list[RunResults]]  # by recipe, one per seed
    left_out: NotRequired[list[str]]  # recipes that cannot run on the task


class AverageDifference(Verdict):
    """The mean over tasks of the differences to the baseline."""

    mean: float | None


class AverageRow(TypedDict):
    """One recipe over all tasks."""

    recipe: str
    mean: float
    difference: AverageDifference
    gap_closed: GapClosedSummary | None
    rank: float  # mean over tasks; 1 is best
    better: int  # tasks with that verdict
    worse: int


class AverageSummary(TypedDict):
    """compare.json of several tasks."""

    tasks: list[str]
    metrics: list[str]
    baseline: str
    gap_baseline: str | None  # as in ComparisonSummary
    comparisons: int
    resamples: int
    level: float
    teacher: float | None
    rows: list[AverageRow]
    left_out: list[str]  # recipes that did not run on every task
