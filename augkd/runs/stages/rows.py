"""The rows of a transfer set, from originals, candidates and logits; what has no logits is left out.

A candidate whose original is left out becomes a row of its own, without a label: its logits were computed, or paid for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from augkd.candidates.candidate import Candidate
from augkd.data.target import Target
from augkd.data.task import Example
from augkd.data.transfer_set import original_row


@dataclass
class RowCounts:
    """How many rows and candidates were written."""

    originals: int = 0
    candidates: int = 0
    texts: set[tuple[str, str | None]] = field(default_factory=set)  # distinct candidates


def transfer_rows(
    train: Sequence[Example],
    pools: Sequence[Sequence[Candidate]],
    logits: NDArray[np.float32],  # originals, then all candidates; nan where there are none
    target: Target,
    counts: RowCounts,
) -> Iterator[dict[str, Any]]:
    """One row for each original that has logits, with its candidates that have some; `counts` is filled on the way."""
    start, own = len(train), {(example.text, example.text_pair) for example in train}
    for row, (example, pool) in enumerate(zip(train, pools, strict=True)):
        has = [
            (candidate, values)
            for candidate, values in zip(pool, logits[start : start + len(pool)], strict=True)
            if not np.isnan(values).any()
        ]
        start += len(pool)
        if np.isnan(logits[row]).any():
            for candidate, values in has:
                text = (candidate.text, candidate.text_pair)
                if text not in own:
                    own.add(text)
                    counts.originals += 1
                    alone = Example(f"{example.id}-{candidate.id}", *text)
                    yield original_row(alone, values, [], target)
            continue
        counts.originals += 1
        counts.candidates += len(has)
        counts.texts |= {(candidate.text, candidate.text_pair) for candidate, _ in has}
        candidates = [dataclasses.asdict(candidate) | {"teacher_logits": values.tolist()} for candidate, values in has]
        yield original_row(example, logits[row], candidates, target)
