"""What every source of extra texts returns: a text and the example it belongs to.

It has a module of its own because sources do not import one another.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Candidate:
    """An extra text and the example it belongs to."""

    id: str  # unique among the candidates of its example and source
    owner: str  # id of the example
    text: str
    text_pair: str | None
    source: str  # e.g. "neighbours"
    score: float  # how close it is to the example, as its source measures it; higher is closer
