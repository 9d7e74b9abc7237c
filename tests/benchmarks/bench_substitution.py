"""Substitution against the published implementation: one forward pass per word, unbatched, all logits, with autograd.

Both fill the same words of the same texts with the bundled encoder and a random head (speed does not depend on the
weights), alternating block by block, so that a change of the machine's speed affects both. Times are processor times,
which other programs hardly affect; the vocabulary's table of words is built once and reported separately. Run:
OMP_NUM_THREADS=1 python tests/benchmarks/bench_substitution.py FILE.parquet [texts] [tokens per batch]
"""

from __future__ import annotations

import sys
import time
from typing import Any

import pyarrow.parquet as pq
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

from augkd.candidates.substitution.masked_words import fill
from augkd.candidates.words import STOP_WORDS, replaceable, whole_words
from augkd.models.devices import token_budget_of
from augkd.models.locate import BUNDLED, locate

BLOCKS = 2


def main() -> None:
    """Prints the words per processor second of both, and their ratios."""
    path, count = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 150
    texts = list(dict.fromkeys(pq.read_table(path)["text"].to_pylist()))[:count]
    torch.manual_seed(0)
    model = AutoModelForMaskedLM.from_pretrained(locate(BUNDLED)).eval()
    tokenizer = AutoTokenizer.from_pretrained(locate(BUNDLED))
    token_budget = token_budget_of(torch.device("cpu"), int(sys.argv[3]) if len(sys.argv) > 3 else None)

    started = time.process_time()
    whole_words(tokenizer, without=STOP_WORDS)
    table = time.process_time() - started
    ours, theirs, words = [], [], 0
    for number in range(BLOCKS):
        block = texts[number::BLOCKS]
        started = time.process_time()
        filled = fill(
            block, model, tokenizer, most=15, max_length=128, batch_tokens=token_budget, stop_words=STOP_WORDS
        )
        middle = time.process_time()
        published(block, model, tokenizer)
        theirs.append(time.process_time() - middle)
        ours.append(middle - started - table)
        words += filled.rows
    ratios = sorted(other / own for own, other in zip(ours, theirs, strict=True))
    print(f"{words} words of {len(texts)} texts; the table of words took {table:.2f} s, once")
    print(f"batched {words / sum(ours):.0f} words/s, published {words / sum(theirs):.0f} words/s")
    listed = ", ".join(f"{ratio:.1f}" for ratio in ratios)
    print(f"ratio of each block: {listed}; of the sums {sum(theirs) / sum(ours):.1f}")


def published(texts: list[str], model: Any, tokenizer: Any) -> list[list[str]]:
    """Up to fifteen pieces for each word, as TinyBERT's program finds them: a forward pass, a graph and a sort each."""
    pieces = []
    for text in texts:
        for start, stop in replaceable(text, STOP_WORDS):
            masked = f"{text[:start]}{tokenizer.mask_token}{text[stop:]}"
            inputs = tokenizer(masked, text, return_tensors="pt")
            place = inputs["input_ids"][0].tolist().index(tokenizer.mask_token_id)
            best = model(**inputs).logits[0, place].argsort(descending=True)[:15].tolist()
            pieces.append([piece for piece in tokenizer.convert_ids_to_tokens(best) if not piece.startswith("##")])
    return pieces


if __name__ == "__main__":
    main()
