"""How far candidates have drifted from the examples they were made from, and which have gone too far.

Generated text need not mean anything (the samples published with MATE-KD do not), so what is trained on is measured:
how near it is in an encoder's space, how sure the teacher is of it, whether the teacher still sees the same class, and
how many of the words are left. Only the distance decides; the rest is told. A pair is as far as the side that moved
more, so that the side kept does not hide the one replaced.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from augkd.candidates.candidate import Candidate
from augkd.candidates.words import WORD
from augkd.errors import RecipeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from augkd.data.task import Example
    from augkd.retrieval.encoders.encoder import Encoder

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_BLOCK = 8192  # texts encoded together: 12 MB of 384 dimensions


@dataclass(frozen=True)
class Drift:
    """What was measured of m candidates; nan where there is nothing to measure (no class, no gold label)."""

    source: tuple[str, ...]  # (m,)
    cosine: NDArray[np.float32]  # (m,) to the original
    replaced: NDArray[np.float64]  # (m,) share of the original's words that are gone
    confidence: NDArray[np.float64]  # (m,) the teacher's highest probability on the candidate
    agreement: NDArray[np.float64]  # (m,) 1 where the teacher sees the class that it sees in the original, else 0
    gold_agreement: NDArray[np.float64]  # (m,) 1 where the teacher sees the example's own label, else 0


@dataclass(frozen=True)
class Bounded:
    """The candidates near enough, and how many were not."""

    candidates: list[list[Candidate]]  # per example, in the order given
    kept: NDArray[np.bool_]  # (m,) of those given
    rejected: dict[str, int]  # by source: those it applies to, also where it rejects none


def cosines(
    examples: Sequence[Example], pools: Sequence[Sequence[Candidate]], encoder: Encoder
) -> NDArray[np.float32]:  # (m,)
    """The cosine of each candidate to its example, pools one after another; of a pair the lower of its two sides'.

    Each distinct text is encoded once. A side that was kept has exactly 1.
    """
    compared = [
        (original, side)
        for example, pool in zip(examples, pools, strict=True)
        for candidate in pool
        for original, side in _sides(example, candidate)
    ]
    places = {text: place for place, text in enumerate(dict.fromkeys(text for both in compared for text in both))}
    vectors = _encoded(list(places), encoder)
    values = np.ones(len(compared), dtype=np.float32)
    for at, (original, side) in enumerate(compared):
        if original != side:
            values[at] = vectors[places[original]] @ vectors[places[side]]
    sides = [_side_count(example) for example, pool in zip(examples, pools, strict=True) for _ in pool]
    starts = np.cumsum([0, *sides])[:-1]
    return np.minimum.reduceat(values, starts) if len(sides) else values


def within(
    pools: Sequence[Sequence[Candidate]],
    cosine: NDArray[np.float32],  # (m,)
    max_distance: float | None,
    sources: Collection[str],
) -> Bounded:
    """Leaves out the candidates of `sources` whose cosine distance (1 - cosine) to the original is above the bound.

    None bounds nothing. Raises RecipeError for a bound that is not in [0, 2].
    """
    if max_distance is not None and not 0 <= max_distance <= 2:
        raise RecipeError(f"max_distance is {max_distance}; give a cosine distance from 0 to 2, or leave it out")
    held = np.array([candidate.source in sources for pool in pools for candidate in pool], dtype=bool)
    far = np.zeros(len(held), dtype=bool) if max_distance is None else 1 - cosine.astype(np.float64) > max_distance
    kept = ~(held & far)
    flags = iter(kept.tolist())
    judged = [[(candidate, next(flags)) for candidate in pool] for pool in pools]
    gone = Counter(candidate.source for pool in judged for candidate, keep in pool if not keep)
    names = sorted({candidate.source for pool in pools for candidate in pool} & set(sources))
    left = [[candidate for candidate, keep in pool if keep] for pool in judged]
    return Bounded(left, kept, {name: gone[name] for name in names})


def measure(
    examples: Sequence[Example],
    pools: Sequence[Sequence[Candidate]],
    cosine: NDArray[np.float32],  # (m,)
    original: NDArray[np.float32],  # (n, outputs) the teacher's logits of the examples
    candidate: NDArray[np.float32],  # (m, outputs) of the candidates; nan where the teacher does not know one
) -> Drift:
    """Everything about the candidates, pools one after another."""
    owner = np.repeat(np.arange(len(pools)), [len(pool) for pool in pools])
    labels = [None if example.label is None or original.shape[1] == 1 else int(example.label) for example in examples]
    gold = np.array([np.nan if label is None else label for label in labels], dtype=np.float64)
    pairs = [(example, one) for example, pool in zip(examples, pools, strict=True) for one in pool]
    return Drift(
        source=tuple(one.source for _, one in pairs),
        cosine=cosine,
        replaced=np.array([replaced_share(example, one) for example, one in pairs], dtype=np.float64),
        confidence=confidence(candidate),
        agreement=agreement(candidate, classes(original)[owner]),
        gold_agreement=agreement(candidate, gold[owner]),
    )


def summary(drift: Drift) -> dict[str, dict[str, dict[str, float]]]:
    """By source and measure: `count`, `mean` and quantiles `q5` … `q95` of the values there are; without any, none."""
    names = ("cosine", "replaced", "confidence", "agreement", "gold_agreement")
    source = np.array(drift.source, dtype=object)
    told: dict[str, dict[str, dict[str, float]]] = {}
    for one in sorted(set(drift.source)):
        values = {name: np.asarray(getattr(drift, name), dtype=np.float64)[source == one] for name in names}
        told[one] = {name: _spread(some) for name, some in values.items() if not np.isnan(some).all()}
    return told


# ---- one measure each ----


def replaced_share(example: Example, candidate: Candidate) -> float:
    """The share of the example's words that its candidate no longer has, as often as they stood there, cases alike.

    Order does not count. 0 for an example without words.
    """
    had, has = Counter[str](), Counter[str]()
    for original, side in _sides(example, candidate):
        had.update(WORD.findall(original.casefold()))
        has.update(WORD.findall(side.casefold()))
    return (had - has).total() / had.total() if had else 0.0


def confidence(logits: NDArray[np.float32]) -> NDArray[np.float64]:  # (m, outputs) -> (m,)
    """The highest probability; nan for one output (regression)."""
    if logits.shape[1] == 1:
        return np.full(len(logits), np.nan)
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return np.asarray(1 / np.exp(shifted).sum(axis=1))


def classes(logits: NDArray[np.float32]) -> NDArray[np.float64]:  # (m, outputs) -> (m,)
    """The class with the highest logit; nan for one output, or where the logits are nan."""
    if logits.shape[1] == 1:
        return np.full(len(logits), np.nan)
    return np.where(np.isnan(logits).any(axis=1), np.nan, logits.argmax(axis=1))


def agreement(
    logits: NDArray[np.float32],  # (m, outputs)
    wanted: NDArray[np.float64],  # (m,) classes, nan: none
) -> NDArray[np.float64]:  # (m,)
    """1 where the highest logit is the wanted class's, 0 where another's, nan where either is unknown."""
    seen = classes(logits)
    return np.where(np.isnan(seen) | np.isnan(wanted), np.nan, seen == wanted)


def _sides(example: Example, candidate: Candidate) -> list[tuple[str, str]]:
    """The sides of the original with those of the candidate."""
    sides = [(example.text, candidate.text)]
    if example.text_pair is not None:
        sides.append((example.text_pair, candidate.text_pair or ""))
    return sides


def _side_count(example: Example) -> int:
    return 1 if example.text_pair is None else 2


def _encoded(texts: Sequence[str], encoder: Encoder) -> NDArray[np.float32]:  # (n, dim)
    parts = [encoder.encode(texts[start : start + _BLOCK]) for start in range(0, len(texts), _BLOCK)]
    return np.concatenate(parts) if parts else np.zeros((0, 1), dtype=np.float32)


def _spread(values: NDArray[np.float64]) -> dict[str, float]:
    known = values[~np.isnan(values)]
    quantiles = np.quantile(known, QUANTILES).tolist()
    named = {f"q{round(100 * share)}": value for share, value in zip(QUANTILES, quantiles, strict=True)}
    return {"count": float(len(known)), "mean": float(known.mean()), **named}
