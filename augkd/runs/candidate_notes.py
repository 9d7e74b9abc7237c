"""What a reader must know about the candidates of a run: that there are none, or too few for the selector to choose.

A run without candidates trains and scores like any other, so that a typo in a distance bound looks like a method that
gains nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from augkd.data.transfer_set import TransferSet
from augkd.recipe import DataOptions

_FEW = 0.1  # share of the originals that may have fewer candidates than the selector keeps


def candidate_notes(options: DataOptions, transfer: TransferSet) -> Iterator[str]:
    """A sentence about missing candidates; nothing where there are enough, or where the recipe asks for none."""
    if not options.has_stored_candidates:
        return
    ((selector, settings),) = options.select.items()
    generated = options.generator.samples if options.generator else 0
    counts, keep = transfer.candidate_counts() + generated, int(settings.get("keep", 1))
    if counts.max(initial=0) == generated:
        yield (
            f"the transfer set has no candidate for any of its {len(counts)} originals: the student learns from the "
            "labelled texts alone; see the counts of excluded texts, and give a corpus of the task's kind"
        )
    elif (few := int(np.sum(counts < keep))) > _FEW * len(counts):
        wanted = f"the {keep} that {selector} keeps" if keep > 1 else "one"
        yield (
            f"{few} of {len(counts)} originals have fewer candidates than {wanted}; raise the number of candidates, "
            "relax the distance bounds or give a larger corpus"
        )
