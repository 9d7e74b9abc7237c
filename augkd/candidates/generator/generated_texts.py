"""Texts of a trained generator, decoded: to be read, published, and trained on without the generator.

During training the generator's tokens go straight to teacher and student. Here they are decoded, so that the transfer
set shows exactly what the student saw.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from augkd.candidates.candidate import Candidate
from augkd.candidates.generator.generator import SOURCE, Generator
from augkd.data.cleaning import normalised
from augkd.data.task import Example
from augkd.models.seeds import RowRandom
from augkd.models.tokens import Tokens
from augkd.workspace.progress import Steps

_BLOCK = 64  # examples masked at once


def generate_texts(
    examples: Sequence[Example],
    generator: Generator,
    *,
    samples: int,
    max_length: int,
    seed: int,
    progress: Steps | None = None,
) -> list[list[Candidate]]:
    """Up to `samples` texts for each example: all different, and different from the example itself.

    A candidate's score is the share of tokens kept. A text longer than `max_length` tokens is cut there; a word that
    the vocabulary does not have is left out. `progress` counts examples.
    """
    tokenizer = generator.lm.tokenizer
    pools: list[list[Candidate]] = []
    for start in range(0, len(examples), _BLOCK):
        block = examples[start : start + _BLOCK]
        rng = RowRandom((seed, 5), range(start, start + len(block)))
        drawn = generator.draw(_tokens(tokenizer, block, max_length), samples, rng)
        bounds = drawn.tokens.offsets.tolist()
        rows = [drawn.tokens.ids[a:b].tolist() for a, b in itertools.pairwise(bounds)]
        for number, example in enumerate(block):
            own = slice(number * samples, (number + 1) * samples)
            pools.append(_distinct_candidates(example, tokenizer, rows[own], drawn.kept[own].tolist()))
        if progress:
            progress(start + len(block), len(examples))
    return pools


def decode_row(tokenizer: Any, ids: Sequence[int], pair: bool) -> tuple[str, str | None]:
    """The one or two texts of a row of token ids: what stands between its special tokens."""
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    sides: list[list[int]] = [[]]
    for token in ids:
        if token not in special:
            sides[-1].append(token)
        elif sides[-1]:
            sides.append([])
    texts = [tokenizer.decode(side, skip_special_tokens=True, clean_up_tokenization_spaces=True) for side in sides]
    return texts[0].strip(), texts[1].strip() if pair and len(texts) > 1 else ("" if pair else None)


def _tokens(tokenizer: Any, examples: Sequence[Example], max_length: int) -> Tokens:
    second = [example.text_pair for example in examples] if examples[0].text_pair is not None else None
    encoded = tokenizer(
        [example.text for example in examples],
        second,
        truncation="longest_first",
        max_length=max_length,
        return_token_type_ids=True,
        return_attention_mask=False,
    )
    return Tokens.of(encoded["input_ids"], encoded["token_type_ids"], max_length)


def _distinct_candidates(
    example: Example, tokenizer: Any, rows: Sequence[Sequence[int]], kept: Sequence[float]
) -> list[Candidate]:
    seen = {(normalised(example.text), normalised(example.text_pair or ""))}
    pool: list[Candidate] = []
    for ids, share in zip(rows, kept, strict=True):
        text, pair = decode_row(tokenizer, ids, example.text_pair is not None)
        key = (normalised(text), normalised(pair or ""))
        if key in seen or not key[0]:
            continue
        seen.add(key)
        pool.append(Candidate(f"g{len(pool)}", example.id, text, pair, SOURCE, share))
    return pool
