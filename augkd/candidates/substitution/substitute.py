"""Candidates by substitution: words of an example replaced by what a masked language model would say instead.

TinyBERT's augmentation (Jiao et al. 2020, "TinyBERT"): a word is replaced with probability p by one of its M likeliest
stand-ins, uniformly, N times over. It differs from the published code in three ways. A word of several pieces is
masked as one and filled in context, where they look up GloVe vectors, so nothing needs downloading. Stop words are no
stand-ins: "the definition of the" is no question. Of a pair one side is replaced and the other stays as it is; theirs
pairs every second sentence with the last of the augmented first ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from augkd.candidates.candidate import Candidate
from augkd.candidates.substitution.filled_blocks import Slot
from augkd.candidates.substitution.masked_words import fill
from augkd.candidates.words import STOP_WORDS, WORD
from augkd.errors import RecipeError, did_you_mean, shown
from augkd.models.devices import budget_of
from augkd.workspace.progress import Steps

if TYPE_CHECKING:
    from augkd.data.task import Example

__all__ = ["SOURCE", "STOP_WORDS", "Substituted", "substitute"]

SOURCE = "substitution"
PAIRS = ("each", "both")
_SIDES = {"each": (("text",), ("pair",)), "both": (("text", "pair"),)}  # sides replaced, draw by draw in turn


@dataclass(frozen=True)
class Substituted:
    """The candidates, and what they cost."""

    candidates: list[list[Candidate]]  # per example, in the order drawn
    rows: int  # forwarded by the masked LM: one for each word that may be replaced in each distinct text
    short: int  # examples with fewer than n: draws that change nothing, or that were drawn before, do not count


def substitute(
    examples: Sequence[Example],
    model: Any,
    tokenizer: Any,
    *,
    n: int = 8,
    probability: float = 0.4,
    most: int = 15,
    max_length: int = 128,
    batch_tokens: int | None = None,
    pairs: str = "each",
    stop_words: Collection[str] = STOP_WORDS,
    seed: int,
    saved: Path | None = None,
    progress: Steps | None = None,
) -> Substituted:
    """`n` draws for each example: every word that is no stop word replaced with `probability` by one of `most` others.

    `model` is any masked LM of transformers, `tokenizer` its own. Published are probability 0.4, most 15, and n of 10
    (MNLI, QQP), 20 (SST-2, QNLI) or 30 (CoLA, MRPC, RTE, STS-B). Draws that repeat one another or the original are left
    out, so an example may get fewer. Of a pair, `each` replaces words of one side in turn, `both` of both at once.
    `max_length` tokens hold a text twice; words of a longer one see the text around them. `batch_tokens` counts padded
    tokens (None: what suits the device). `stop_words` in lower case. `saved`, a folder for this model alone, keeps the
    words found so far: after an interruption the same call goes on. `progress` is told the distinct texts done.

    A candidate's score, in [0, 1], is the mean over its words of 1 for a word kept and the model's probability for a
    word put in. An example's draws depend on `seed` and its id, not on the other examples.
    Raises RecipeError for an option out of range, ModelError when model and tokenizer cannot fill masks.
    """
    _check(n, probability, most, max_length, batch_tokens, pairs)
    texts = list(dict.fromkeys(side for example in examples for side in _sides(example).values()))
    filled = fill(
        texts,
        model,
        tokenizer,
        most=most,
        max_length=max_length,
        batch_tokens=budget_of(next(model.parameters()).device, batch_tokens),
        stop_words=stop_words,
        saved=saved,
        progress=progress,
    )
    slots = dict(zip(texts, filled.slots, strict=True))
    candidates = [list(_drawn(example, slots, n, probability, pairs, seed)) for example in examples]
    return Substituted(candidates, filled.rows, sum(len(found) < n for found in candidates))


def _drawn(
    example: Example, slots: dict[str, list[Slot]], n: int, probability: float, pairs: str, seed: int
) -> Iterator[Candidate]:
    """The different texts of `n` draws."""
    rng = generator_of(seed, example.id)
    sides = _sides(example)
    turns = _SIDES[pairs] if len(sides) == 2 else (("text",),)
    words = sum(len(WORD.findall(text)) for text in sides.values())
    met = {tuple(sides.values())}
    for number in range(n):
        new, lost = dict(sides), 0.0
        for side in turns[number % len(turns)]:
            new[side], less = replaced(sides[side], slots[sides[side]], probability, rng)
            lost += less
        if tuple(new.values()) not in met:
            met.add(tuple(new.values()))
            place = "".join(f"-{side}" for side in turns[number % len(turns)]) if len(sides) == 2 else ""
            yield Candidate(
                f"w{number}{place}", example.id, new["text"], new.get("pair"), SOURCE, 1 - lost / max(words, 1)
            )


def replaced(text: str, slots: Sequence[Slot], probability: float, rng: np.random.Generator) -> tuple[str, float]:
    """One draw, and its cost: the sum over the words put in of 1 minus their probability."""
    if not slots:
        return text, 0.0
    hit = rng.random(len(slots)) < probability
    picks = rng.integers(0, [len(slot.words) for slot in slots])
    parts, at, lost = [], 0, 0.0
    for slot, chosen, pick in zip(slots, hit.tolist(), picks.tolist(), strict=True):
        if chosen:
            parts += [text[at : slot.start], slot.words[pick]]
            at = slot.stop
            lost += 1 - float(slot.chances[pick])
    return "".join([*parts, text[at:]]), lost


def generator_of(seed: int, id_: str) -> np.random.Generator:
    """The random numbers of one example, whatever examples there are besides."""
    digest = hashlib.sha256(f"{seed}/{id_}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))


def _sides(example: Example) -> dict[str, str]:
    """The texts of an example by the name of their side."""
    return {"text": example.text} | ({} if example.text_pair is None else {"pair": example.text_pair})


def _check(n: int, probability: float, most: int, max_length: int, batch_tokens: int | None, pairs: str) -> None:
    for name, value in (("n", n), ("most", most), ("max_length", max_length), ("batch_tokens", batch_tokens)):
        if value is not None and value < 1:
            raise RecipeError(f"substitution {name} is {value}; give at least 1")
    if not 0 < probability <= 1:
        raise RecipeError(f"substitution probability is {probability}; give a number above 0, at most 1")
    if pairs not in PAIRS:
        raise RecipeError(f"substitution pairs is {shown(pairs)}{did_you_mean(str(pairs), PAIRS)}")
