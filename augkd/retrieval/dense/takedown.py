"""Which texts of an index a takedown list means, found before any of them is removed.

A removal cannot be undone, so that what it will remove can be shown first, and what was asked for without being there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from augkd.data.cleaning import clean, identity
from augkd.retrieval.texts import TextStore

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CUT = 4  # characters at the end of a truncated text's key that its next characters could have changed


@dataclass(frozen=True, eq=False)
class Takedown:
    """The texts of an index that will be removed, and those asked for that it does not hold."""

    rows: NDArray[np.int64]  # of `texts`, ascending
    texts: tuple[str, ...]  # as the index holds them
    missing: tuple[str, ...]  # as they were asked for


Confirm = Callable[[Takedown], bool]


class Wanted:
    """The texts of a takedown list, by the key that decides what equals them."""

    def __init__(self, texts: Iterable[str], exact: bool = False) -> None:
        self._key: Callable[[str], str] = clean if exact else identity
        self._asked = {self._key(text): text for text in texts}

    def __contains__(self, text: str) -> bool:
        return self._key(text) in self._asked

    def begins_any(self, text: str) -> bool:
        """Whether a dropped text is one of these, or, if it was cut, the beginning of one."""
        if not text.endswith("…"):
            return text in self
        beginning = self._key(text[:-1])[:-_CUT]
        return any(key.startswith(beginning) for key in self._asked)

    def find(self, store: TextStore) -> Takedown:
        """The texts of `store` that are equal to one of these."""
        rows: list[int] = []
        texts: list[str] = []
        start = 0
        for part in store.parts():
            found = [place for place, text in enumerate(part) if text in self]
            rows += [start + place for place in found]
            texts += [part[place] for place in found]
            start += len(part)
        missing = self._missing({self._key(text) for text in texts})
        return Takedown(np.array(rows, dtype=np.int64), tuple(texts), missing)

    def _missing(self, present: Collection[str]) -> tuple[str, ...]:
        return tuple(text for key, text in self._asked.items() if key not in present)
