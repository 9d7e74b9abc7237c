"""Which index suits a task, told before any student is trained.

Everything is read off the teacher's outputs on an index's neighbours. How well it foretells was measured: students of
three tasks with each of three corpora (docs/results.md). What Wang et al. (NeurIPS 2022, "What Makes a 'Good' Data
Augmentation in Knowledge Distillation") found for ways to change images, a lower standard deviation of the teacher's
mean probability over draws of the augmented data, points the wrong way between corpora: texts that have nothing to do
with the task lower it most. It is told and not ranked. They draw; here it is computed exactly, so it has no seed.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from augkd.errors import DataError

DRAW = 320  # originals in one draw: five batches of 64, as in the authors' code


@dataclass(frozen=True)
class IndexScore:
    """What the teacher makes of an index's neighbours for a task; None where a figure has no meaning there."""

    coverage: float  # share of originals with at least k candidates
    distinct: int  # different candidate texts
    similarity: float | None  # mean cosine of a candidate to its original
    confidence: float | None  # mean of the largest probability; None for regression
    agreement: float | None  # share of candidates with the original's label; regression: Pearson's r with it
    entropy: float | None  # of the mean class distribution, over its maximum log(classes): 1 is balanced
    deviation: float  # of the teacher's mean probability (regression: output) over draws of 320 originals


def index_score(
    original_logits: NDArray[np.float32],  # (n, outputs)
    labels: Sequence[float | None],  # (n,) class index or target; None: the teacher's own word counts
    owner: NDArray[np.int64],  # (m,) row of the original a candidate belongs to
    candidate_logits: NDArray[np.float32],  # (m, outputs)
    similarity: NDArray[np.float32] | None,  # (m,) cosine; None where scores are not cosines (BM25)
    texts: Sequence[Hashable],  # (m,) what a candidate reads, to tell distinct ones
    *,
    k: int,
) -> IndexScore:
    """Scores the candidates one index gave; raises DataError for arrays that do not fit together.

    Averages are over candidates. Logits must be complete: drop the rows the teacher has not seen.
    """
    _check(original_logits, labels, owner, candidate_logits, similarity, texts)
    count, outputs = original_logits.shape
    classes = outputs > 1
    original, candidate = _outputs(original_logits), _outputs(candidate_logits)
    found = np.bincount(owner, minlength=count)
    return IndexScore(
        coverage=float((found >= k).mean()),
        distinct=len(set(texts)),
        similarity=_mean(similarity),
        confidence=_mean(candidate.max(axis=1)) if classes else None,
        agreement=_agreement(_known(labels, original), owner, candidate),
        entropy=_balance(candidate) if classes and len(candidate) else None,
        deviation=deviation(original, owner, candidate),
    )


def deviation(
    original: NDArray[np.float64],  # (n, outputs) probabilities, or the output of a regression
    owner: NDArray[np.int64],  # (m,)
    candidate: NDArray[np.float64],  # (m, outputs)
    draw: int = DRAW,
) -> float:
    """Standard deviation of the mean probability over draws, averaged over the classes.

    A draw is `draw` originals, each with one of its own candidates, both at random and with replacement; an original
    without a candidate stands in for it. Then the deviation of the draw's mean is that of one pair's mean over the root
    of `draw`, and the latter follows from sums. Without any candidates it is that of unaugmented data, the worst case
    in the paper: neighbours lower it as far as they disagree with their originals, towards the mean of the task.
    """
    count = np.bincount(owner, minlength=len(original)).astype(np.float64)[:, None]
    filled = np.maximum(count, 1)
    sums, squares = np.zeros_like(original), np.zeros_like(original)
    np.add.at(sums, owner, candidate)
    np.add.at(squares, owner, candidate**2)
    mean = np.where(count > 0, sums / filled, original)  # (n, outputs) of an original's candidates
    square = np.where(count > 0, squares / filled, original**2)
    pair_mean = (original + mean) / 2
    pair_square = (original**2 + 2 * original * mean + square) / 4
    variance = pair_square.mean(axis=0) - pair_mean.mean(axis=0) ** 2
    return float(np.sqrt(np.maximum(variance, 0) / draw).mean())


def rank(scores: Mapping[str, IndexScore], *, cosines: bool = True) -> list[str]:
    """Names of indexes, the most promising first.

    The mean of four ranks, each from best to worst with ties sharing theirs: similarity, agreement, coverage and
    distinct texts, more of each being better. Without `cosines`, for indexes of different encoders, or when one has no
    similarity, of the other three. Ties: higher agreement, then name. An agreement that is not known ranks last.
    """
    names = sorted(scores)
    if not names:
        return []
    agreement = {name: -np.inf if (known := scores[name].agreement) is None else known for name in names}
    figures = [agreement, {n: scores[n].coverage for n in names}, {n: float(scores[n].distinct) for n in names}]
    similarity = {name: known for name in names if (known := scores[name].similarity) is not None}
    if cosines and len(similarity) == len(names):
        figures.append(similarity)
    ranks = np.mean([rankdata([-figure[name] for name in names]) for figure in figures], axis=0)
    mean = dict(zip(names, ranks.tolist(), strict=True))
    return sorted(names, key=lambda name: (mean[name], -agreement[name], name))


def _check(
    original: NDArray[Any],
    labels: Sequence[Any],
    owner: NDArray[Any],
    candidate: NDArray[Any],
    similarity: NDArray[Any] | None,
    texts: Sequence[Any],
) -> None:
    told = [len(owner), len(candidate), len(texts)] + ([] if similarity is None else [len(similarity)])
    if len(original) == 0 or len(labels) != len(original):
        raise DataError(f"index score needs a label (or None) for each original: {len(original)}, {len(labels)} labels")
    if len(set(told)) > 1 or original.shape[1] != candidate.shape[1]:
        raise DataError(
            f"index score needs one owner, row of logits, similarity and text for each candidate: {told} given, "
            f"with {candidate.shape[1]} outputs where the originals have {original.shape[1]}"
        )
    if np.isnan(original).any() or np.isnan(candidate).any():
        raise DataError("index score needs the teacher's output for every text; drop the rows it has not seen")


def _outputs(logits: NDArray[np.float32]) -> NDArray[np.float64]:  # (n, outputs)
    """Probabilities; of a single output the output itself."""
    values = logits.astype(np.float64)
    if values.shape[1] == 1:
        return values
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _known(labels: Sequence[float | None], original: NDArray[np.float64]) -> NDArray[np.float64]:  # (n,)
    """The labels, and the teacher's word where there is none."""
    said = original[:, 0] if original.shape[1] == 1 else original.argmax(axis=1)
    return np.array([value if label is None else label for label, value in zip(labels, said, strict=True)], dtype=float)


def _agreement(labels: NDArray[np.float64], owner: NDArray[np.int64], candidate: NDArray[np.float64]) -> float | None:
    parents = labels[owner]
    if candidate.shape[1] > 1:
        return _mean(candidate.argmax(axis=1) == parents)
    if len(candidate) < 2 or np.ptp(parents) == 0 or np.ptp(candidate[:, 0]) == 0:
        return None
    return float(np.corrcoef(parents, candidate[:, 0])[0, 1])


def _balance(probabilities: NDArray[np.float64]) -> float:
    mean = probabilities.mean(axis=0)
    return float(-(mean * np.log(np.maximum(mean, 1e-300))).sum() / np.log(len(mean)))


def _mean(values: NDArray[Any] | None) -> float | None:
    return None if values is None or len(values) == 0 else float(values.mean())
