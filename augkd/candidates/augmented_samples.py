"""Candidates from a file that Minimax-kNN or Glitter wrote, by the id of the example each belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from augkd.candidates.candidate import Candidate
from augkd.data.augmented_samples import read_augmented_samples
from augkd.data.cleaning import normalised
from augkd.data.task import Example
from augkd.errors import DataError

SOURCE = "augmented_samples"


def read_candidates(path: Path, examples: Sequence[Example], evaluation: set[str]) -> tuple[list[list[Candidate]], int]:
    """The candidates of each example, in file order, and how many distinct texts of `evaluation` were withheld.

    `evaluation` holds normalised texts. Raises DataError when no id of the file is that of an example.
    """
    samples = read_augmented_samples(path)
    if not any(example.id in samples for example in examples):
        raise DataError(f"{path}: no guid is the id of a training example (e.g. '{examples[0].id}'); align the ids")
    withheld: set[str] = set()
    pools = []
    for example in examples:
        pool = []
        for rank, (text, pair) in enumerate(samples.get(example.id, [])):
            if {normalised(text), normalised(pair or "")} & evaluation:
                withheld.add(normalised(text))
            elif (text, pair) != (example.text, example.text_pair):
                pool.append(Candidate(f"s{rank}", example.id, text, pair, SOURCE, 1.0 / (1 + rank)))
        pools.append(pool)
    return pools, len(withheld)
