"""What every source makes: an extra text and the example it was made from.

Sources take the type from here, because they do not import one another.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Candidate:
    """An extra text, and the id of the example it was made from."""

    id: str
    owner: str
    text: str
    text_pair: str | None
    source: str
    score: float
