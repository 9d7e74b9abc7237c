"""Candidates by substitution: words of an example replaced by predictions of a masked language model.

TinyBERT's augmentation (Jiao et al. 2020, "TinyBERT"): each word is replaced with probability p by one of its M most
probable alternatives, drawn uniformly, N times over. This differs from the published code in three ways. A word of
several pieces is masked as one and predicted in context, where they look up GloVe vectors, so nothing is downloaded.
Stop words are not used as alternatives: "the definition of the" is no question. One side of a pair is replaced and the
other kept; their code pairs every second sentence with the last of the augmented first ones.
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
from augkd.errors import RecipeError, did_you_mean, short_repr
from augkd.models.devices import token_budget_of
from augkd.workspace.progress import Steps

if TYPE_CHECKING:
    from augkd.data.task import Example

SOURCE = "substitution"
PAIRS = ("each", "both")
_SIDES = {"each": (("text",), ("pair",)), "both": (("text", "pair"),)}  # sides to replace; draws take turns


@dataclass(frozen=True)
class Substitutions:
    """The candidates, and the rows forwarded for them."""

    candidates: list[list[Candidate]]  # per example, in the order drawn
    rows: int  # forwarded by the masked LM: one for each replaceable word of each distinct text
    short: int  # examples with fewer than n candidates: draws that change nothing or repeat another do not count


def substitute(
    examples: Sequence[Example],
    model: Any,
    tokenizer: Any,
    *,
    n: int = 8,
    probability: float = 0.4,
    top_k: int = 15,
    max_length: int = 128,
    batch_tokens: int | None = None,
    pairs: str = "each",
    stop_words: Collection[str] = STOP_WORDS,
    seed: int,
    saved: Path | None = None,
    progress: Steps | None = None,
) -> Substitutions:
    """`n` draws for each example: each word but stop words is replaced with `probability` by one of `top_k` others.

    `model` is any masked LM of transformers, `tokenizer` its own. Published values are probability 0.4, top_k 15, and n
    10 (MNLI, QQP), 20 (SST-2, QNLI) or 30 (CoLA, MRPC, RTE, STS-B). Draws that repeat one another or the original are
    left out, so an example may get fewer. In a pair, `each` replaces words of one side at a time, `both` of both sides.
    `max_length` tokens hold a text twice; in a longer text a word is predicted from the text around it. `batch_tokens`
    is the token budget of a forward pass (None: what suits the device). `stop_words` are in lower case. `saved`, a
    folder for this model alone, keeps the words predicted so far, and after an interruption the same call resumes.
    `progress` counts distinct texts.

    A candidate's score, in [0, 1], is the mean over its words of 1 for a word kept and the model's probability for a
    word inserted. An example's draws depend on `seed` and its id, not on the other examples.
    Raises RecipeError for an option out of range, ModelError when model and tokenizer cannot fill masks.
    """
    _check(n, probability, top_k, max_length, batch_tokens, pairs)
    texts = list(dict.fromkeys(side for example in examples for side in _sides(example).values()))
    filled = fill(
        texts,
        model,
        tokenizer,
        top_k=top_k,
        max_length=max_length,
        batch_tokens=token_budget_of(next(model.parameters()).device, batch_tokens),
        stop_words=stop_words,
        saved=saved,
        progress=progress,
    )
    slots = dict(zip(texts, filled.slots, strict=True))
    candidates = [list(_draws(example, slots, n, probability, pairs, seed)) for example in examples]
    return Substitutions(candidates, filled.rows, sum(len(pool) < n for pool in candidates))


def _draws(
    example: Example, slots: dict[str, list[Slot]], n: int, probability: float, pairs: str, seed: int
) -> Iterator[Candidate]:
    """The different texts of `n` draws."""
    rng = rng_of_example(seed, example.id)
    sides = _sides(example)
    turns = _SIDES[pairs] if len(sides) == 2 else (("text",),)
    words = sum(len(WORD.findall(text)) for text in sides.values())
    seen = {tuple(sides.values())}
    for number in range(n):
        turn = turns[number % len(turns)]
        new, cost = dict(sides), 0.0
        for side in turn:
            new[side], added = replace_words(sides[side], slots[sides[side]], probability, rng)
            cost += added
        if tuple(new.values()) not in seen:
            seen.add(tuple(new.values()))
            id_ = f"w{number}" + ("".join(f"-{side}" for side in turn) if len(sides) == 2 else "")
            yield Candidate(id_, example.id, new["text"], new.get("pair"), SOURCE, 1 - cost / max(words, 1))


def replace_words(text: str, slots: Sequence[Slot], probability: float, rng: np.random.Generator) -> tuple[str, float]:
    """One draw, and its cost: the sum over the words inserted of 1 minus their probability."""
    if not slots:
        return text, 0.0
    chosen = rng.random(len(slots)) < probability
    picks = rng.integers(0, [len(slot.words) for slot in slots])
    parts, end, cost = [], 0, 0.0
    for slot, replace, pick in zip(slots, chosen.tolist(), picks.tolist(), strict=True):
        if replace:
            parts += [text[end : slot.start], slot.words[pick]]
            end = slot.stop
            cost += 1 - float(slot.probabilities[pick])
    return "".join([*parts, text[end:]]), cost


def rng_of_example(seed: int, id_: str) -> np.random.Generator:
    """The random numbers of one example, independent of the other examples."""
    digest = hashlib.sha256(f"{seed}/{id_}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))


def _sides(example: Example) -> dict[str, str]:
    """The texts of an example by the name of their side."""
    return {"text": example.text} | ({} if example.text_pair is None else {"pair": example.text_pair})


def _check(n: int, probability: float, top_k: int, max_length: int, batch_tokens: int | None, pairs: str) -> None:
    for name, value in (("n", n), ("top_k", top_k), ("max_length", max_length), ("batch_tokens", batch_tokens)):
        if value is not None and value < 1:
            raise RecipeError(f"substitution {name} is {value}; give at least 1")
    if not 0 < probability <= 1:
        raise RecipeError(f"substitution probability is {probability}; give a number above 0, at most 1")
    if pairs not in PAIRS:
        raise RecipeError(f"substitution pairs is {short_repr(pairs)}{did_you_mean(str(pairs), PAIRS)}")
