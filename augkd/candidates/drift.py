"""How far candidates have drifted from the examples they were made from, and which have drifted too far.

Generated text need not mean anything (the samples published with MATE-KD do not), so what is trained on is measured:
its cosine to the original in an encoder's space, the teacher's confidence, whether the teacher still predicts the same
class, and how many of the words are left. Only the distance decides; the rest is reported. For a pair the side that
moved more counts, so that the unchanged side does not hide the replaced one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from augkd.candidates.candidate import Candidate
from augkd.candidates.words import WORD
from augkd.data.target import Target, present
from augkd.errors import RecipeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from augkd.data.task import Example
    from augkd.retrieval.encoders.encoder import Encoder

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_BLOCK = 8192  # texts encoded together: 12 MB of 384 dimensions


@dataclass(frozen=True)
class Drift:
    """Measurements of m candidates; nan where there is nothing to measure (no class, no gold label)."""

    source: tuple[str, ...]  # (m,)
    cosine: NDArray[np.float32]  # (m,) to the original
    replaced: NDArray[np.float64]  # (m,) share of the original's words that are gone
    confidence: NDArray[np.float64]  # (m,) the probability of what the teacher predicts for the candidate
    agreement: NDArray[np.float64]  # (m,) of that with what it predicts for the original: 1 for the same class, else 0
    gold_agreement: NDArray[np.float64]  # (m,) of that with the example's label


@dataclass(frozen=True)
class BoundedPools:
    """The candidates within a bound on the distance, and how many were beyond it."""

    candidates: list[list[Candidate]]  # per example, in their order
    kept: NDArray[np.bool_]  # (m,) which candidates are kept
    rejected: dict[str, int]  # by source the bound applies to; 0 where it rejects none


def cosines(
    examples: Sequence[Example], pools: Sequence[Sequence[Candidate]], encoder: Encoder
) -> NDArray[np.float32]:  # (m,)
    """The cosine of each candidate to its example, pool after pool; for a pair the lower of its two sides' cosines.

    Each distinct text is encoded once. A side that was not replaced has a cosine of exactly 1.
    """
    compared = [
        (original, side)
        for example, pool in zip(examples, pools, strict=True)
        for candidate in pool
        for original, side in _sides(example, candidate)
    ]
    row_of = {text: row for row, text in enumerate(dict.fromkeys(text for both in compared for text in both))}
    vectors = _encode(list(row_of), encoder)
    values = np.ones(len(compared), dtype=np.float32)
    for number, (original, side) in enumerate(compared):
        if original != side:
            values[number] = vectors[row_of[original]] @ vectors[row_of[side]]
    sides = [_side_count(example) for example, pool in zip(examples, pools, strict=True) for _ in pool]
    starts = np.cumsum([0, *sides])[:-1]
    return np.minimum.reduceat(values, starts) if len(sides) else values


def bound_drift(
    pools: Sequence[Sequence[Candidate]],
    cosine: NDArray[np.float32],  # (m,)
    max_distance: float | None,
    sources: Collection[str],
) -> BoundedPools:
    """Leaves out the candidates of `sources` whose cosine distance (1 - cosine) to the original exceeds `max_distance`.

    None disables the bound. Raises RecipeError for a bound outside [0, 2].
    """
    if max_distance is not None and not 0 <= max_distance <= 2:
        raise RecipeError(f"max_distance is {max_distance}; give a cosine distance from 0 to 2, or leave it out")
    bounded = np.array([candidate.source in sources for pool in pools for candidate in pool], dtype=bool)
    far = np.zeros(len(bounded), dtype=bool) if max_distance is None else 1 - cosine.astype(np.float64) > max_distance
    kept = ~(bounded & far)
    flags = iter(kept.tolist())
    flagged = [[(candidate, next(flags)) for candidate in pool] for pool in pools]
    rejected = Counter(candidate.source for pool in flagged for candidate, keep in pool if not keep)
    names = sorted({candidate.source for pool in pools for candidate in pool} & set(sources))
    candidates = [[candidate for candidate, keep in pool if keep] for pool in flagged]
    return BoundedPools(candidates, kept, {name: rejected[name] for name in names})


def measure(
    examples: Sequence[Example],
    pools: Sequence[Sequence[Candidate]],
    cosine: NDArray[np.float32],  # (m,)
    original: NDArray[np.float32],  # (n, outputs) teacher logits of the examples
    candidate: NDArray[np.float32],  # (m, outputs) teacher logits of the candidates; nan where there are none
    target: Target,
) -> Drift:
    """All measurements of the candidates, pool after pool."""
    owner = np.repeat(np.arange(len(pools)), [len(pool) for pool in pools])
    owned = [(example, extra) for example, pool in zip(examples, pools, strict=True) for extra in pool]
    gold = target.encode([example.label for example in examples])
    predicted = np.where(unknown(original), target.missing, target.predictions(original).T).T
    return Drift(
        source=tuple(extra.source for _, extra in owned),
        cosine=cosine,
        replaced=np.array([replaced_share(example, extra) for example, extra in owned], dtype=np.float64),
        confidence=np.where(unknown(candidate), np.nan, target.confidence(candidate)),
        agreement=agreement(target, candidate, predicted[owner]),
        gold_agreement=agreement(target, candidate, gold[owner]),
    )


def summary(drift: Drift) -> dict[str, dict[str, dict[str, float]]]:
    """By source and measure `count`, `mean` and the quantiles `q5` … `q95`; a measure without values is left out."""
    measures = ("cosine", "replaced", "confidence", "agreement", "gold_agreement")
    sources = np.array(drift.source, dtype=object)
    by_source: dict[str, dict[str, dict[str, float]]] = {}
    for source in sorted(set(drift.source)):
        columns = {name: np.asarray(getattr(drift, name), dtype=np.float64)[sources == source] for name in measures}
        by_source[source] = {name: _spread(column) for name, column in columns.items() if not np.isnan(column).all()}
    return by_source


# ---- one measure each ----


def replaced_share(example: Example, candidate: Candidate) -> float:
    """The share of the example's words that its candidate no longer has, counted with repetition.

    Neither case nor order counts. 0 for an example without words.
    """
    before, after = Counter[str](), Counter[str]()
    for original, side in _sides(example, candidate):
        before.update(WORD.findall(original.casefold()))
        after.update(WORD.findall(side.casefold()))
    return (before - after).total() / before.total() if before else 0.0


def agreement(
    target: Target,
    logits: NDArray[np.float32],  # (m, outputs)
    expected: NDArray[Any],  # (m,) labels as `Target.encode` gives them
) -> NDArray[np.float64]:  # (m,)
    """`Target.agreement` of what the logits predict with what is expected; nan where either is unknown, or a number."""
    if target.regression:
        return np.full(len(logits), np.nan)
    agreement = target.agreement(target.predictions(logits), expected)
    return np.where(unknown(logits) | ~present(expected), np.nan, agreement)


def unknown(logits: NDArray[np.float32]) -> NDArray[np.bool_]:  # (m, outputs) → (m,)
    """Which rows the teacher does not know."""
    return np.asarray(np.isnan(logits).any(axis=1))


def _sides(example: Example, candidate: Candidate) -> list[tuple[str, str]]:
    """Each side of the original with the candidate's."""
    sides = [(example.text, candidate.text)]
    if example.text_pair is not None:
        sides.append((example.text_pair, candidate.text_pair or ""))
    return sides


def _side_count(example: Example) -> int:
    return 1 if example.text_pair is None else 2


def _encode(texts: Sequence[str], encoder: Encoder) -> NDArray[np.float32]:  # (n, dim)
    parts = [encoder.encode(texts[start : start + _BLOCK]) for start in range(0, len(texts), _BLOCK)]
    return np.concatenate(parts) if parts else np.zeros((0, 1), dtype=np.float32)


def _spread(values: NDArray[np.float64]) -> dict[str, float]:
    known = values[~np.isnan(values)]
    quantiles = np.quantile(known, QUANTILES).tolist()
    named = {f"q{round(100 * share)}": value for share, value in zip(QUANTILES, quantiles, strict=True)}
    return {"count": float(len(known)), "mean": float(known.mean()), **named}
