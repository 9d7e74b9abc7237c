"""Which index suits a task, estimated before any student is trained.

Everything follows from the teacher's outputs on an index's neighbours. How well the ranking predicts students was
measured on three tasks with each of three corpora (docs/results.md). The criterion of Wang et al. (NeurIPS 2022, "What
Makes a 'Good' Data Augmentation in Knowledge Distillation") for image augmentations, a low standard deviation of the
teacher's mean probability over samples of the augmented data, points the wrong way between corpora: texts unrelated to
the task lower it most. So it is reported but not ranked. They sample; here it is computed exactly and has no seed.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from augkd.data.target import Target, present
from augkd.errors import DataError

SAMPLE = 320  # originals in one sample: five batches of 64, as in the authors' code


@dataclass(frozen=True)
class IndexScore:
    """Statistics of an index's neighbours for a task; None where one is undefined."""

    coverage: float  # share of originals with at least k candidates
    distinct: int  # number of distinct candidate texts
    similarity: float | None  # mean cosine of a candidate to its original
    confidence: float | None  # mean probability of the prediction; None for regression
    agreement: float | None  # with the original's label, mean of `Target.agreement`; regression: Pearson's r with it
    entropy: float | None  # of the mean class distribution, over its maximum log(classes): 1 is balanced
    deviation: float  # of the teacher's mean probability (regression: output) over samples of 320 originals


def index_score(
    target: Target,
    original_logits: NDArray[np.float32],  # (n, outputs)
    labels: NDArray[Any],  # (n,) as `Target.encode` gives them; the teacher's prediction replaces a missing one
    owner: NDArray[np.int64],  # (m,) row of the original a candidate belongs to
    candidate_logits: NDArray[np.float32],  # (m, outputs)
    similarity: NDArray[np.float32] | None,  # (m,) cosine; None where scores are not cosines (BM25)
    texts: Sequence[Hashable],  # (m,) of the candidates, to count distinct ones
    *,
    k: int,
) -> IndexScore:
    """Scores the candidates of one index; averages are over candidates.

    Raises DataError for arrays whose sizes do not match and for missing logits.
    """
    _check(original_logits, labels, owner, candidate_logits, similarity, texts)
    original, candidate = target.probabilities(original_logits), target.probabilities(candidate_logits)
    known = np.where(present(labels), labels.T, target.predictions(original_logits).T).T
    per_original = np.bincount(owner, minlength=len(original))
    return IndexScore(
        coverage=float((per_original >= k).mean()),
        distinct=len(set(texts)),
        similarity=_mean(similarity),
        confidence=None if target.regression else _mean(target.confidence(candidate_logits)),
        agreement=_agreement(target, known[owner], candidate_logits),
        entropy=None if target.regression or not len(candidate) else _balance(candidate),
        deviation=deviation(original, owner, candidate),
    )


def deviation(
    original: NDArray[np.float64],  # (n, outputs) probabilities, or the output of a regression
    owner: NDArray[np.int64],  # (m,)
    candidate: NDArray[np.float64],  # (m, outputs)
    sample: int = SAMPLE,
) -> float:
    """Standard deviation of the mean probability over samples of the augmented data, averaged over the classes.

    A sample is `sample` originals, each with one of its own candidates, both drawn at random with replacement; an
    original without candidates is paired with itself. So the deviation of the sample's mean is that of one pair's mean
    divided by the root of `sample`, and the latter follows from sums. Without any candidates it is that of unaugmented
    data, the worst case in the paper: neighbours lower it as far as they differ from their originals, towards the mean
    of the task.
    """
    count = np.bincount(owner, minlength=len(original)).astype(np.float64)[:, None]
    divisor = np.maximum(count, 1)
    sums, squares = np.zeros_like(original), np.zeros_like(original)
    np.add.at(sums, owner, candidate)
    np.add.at(squares, owner, candidate**2)
    mean = np.where(count > 0, sums / divisor, original)  # (n, outputs) over an original's candidates
    square = np.where(count > 0, squares / divisor, original**2)
    pair_mean = (original + mean) / 2
    pair_square = (original**2 + 2 * original * mean + square) / 4
    variance = pair_square.mean(axis=0) - pair_mean.mean(axis=0) ** 2
    return float(np.sqrt(np.maximum(variance, 0) / sample).mean())


def rank(scores: Mapping[str, IndexScore], *, cosines: bool = True) -> list[str]:
    """Names of indexes, the most promising first.

    Sorted by the mean of four ranks: of similarity, agreement, coverage and distinct texts, each from largest to
    smallest, where equal values share their mean rank. Similarity is left out without `cosines`, which is for indexes
    of different encoders, and when an index has none. Ties: higher agreement, then name. An unknown agreement ranks
    last.
    """
    names = sorted(scores)
    if not names:
        return []
    agreement = {name: -np.inf if (known := scores[name].agreement) is None else known for name in names}
    criteria = [agreement, {n: scores[n].coverage for n in names}, {n: float(scores[n].distinct) for n in names}]
    similarity = {name: known for name in names if (known := scores[name].similarity) is not None}
    if cosines and len(similarity) == len(names):
        criteria.append(similarity)
    ranks = np.mean([rankdata([-values[name] for name in names]) for values in criteria], axis=0)
    mean = dict(zip(names, ranks.tolist(), strict=True))
    return sorted(names, key=lambda name: (mean[name], -agreement[name], name))


def _check(
    original: NDArray[Any],
    labels: NDArray[Any],
    owner: NDArray[Any],
    candidate: NDArray[Any],
    similarity: NDArray[Any] | None,
    texts: Sequence[Any],
) -> None:
    sizes = [len(owner), len(candidate), len(texts)] + ([] if similarity is None else [len(similarity)])
    if len(original) == 0 or len(labels) != len(original):
        raise DataError(
            f"index score needs one label for each original: {len(original)} originals, {len(labels)} labels"
        )
    if len(set(sizes)) > 1 or original.shape[1] != candidate.shape[1]:
        raise DataError(
            f"index score needs an owner, a row of logits, a text and a similarity for each candidate: {sizes} given, "
            f"with {candidate.shape[1]} outputs where the originals have {original.shape[1]}"
        )
    if np.isnan(original).any() or np.isnan(candidate).any():
        raise DataError("index score needs the teacher's output for every text; drop the rows without one")


def _agreement(
    target: Target,
    labels: NDArray[Any],  # (m,) of each candidate's original
    candidate: NDArray[np.float32],  # (m, outputs) logits
) -> float | None:
    predicted = target.predictions(candidate)
    if not target.regression:
        return _mean(target.agreement(predicted, labels))
    if len(candidate) < 2 or np.ptp(labels) == 0 or np.ptp(predicted) == 0:
        return None
    return float(np.corrcoef(labels, predicted)[0, 1])


def _balance(probabilities: NDArray[np.float64]) -> float:
    mean = probabilities.mean(axis=0)
    mean = mean / mean.sum()  # several labels need not sum to 1
    return float(-(mean * np.log(np.maximum(mean, 1e-300))).sum() / np.log(len(mean)))


def _mean(values: NDArray[Any] | None) -> float | None:
    return None if values is None or len(values) == 0 else float(values.mean())
