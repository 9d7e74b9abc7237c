"""What an index asks of whatever turns its texts into vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Encoder(Protocol):
    """Turns texts into unit vectors."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:  # (n, dim), unit rows
        """The vectors of `texts`, in their order."""
        ...


class IndexEncoder(Encoder, Protocol):
    """What an index is built with: an encoder that knows its dimension and says when its vectors would change."""

    @property
    def name(self) -> str:
        """The model's, as the user gave it."""
        ...

    @property
    def dim(self) -> int:
        """Length of a vector."""
        ...

    @property
    def fingerprint(self) -> str:
        """Changes whenever the vectors could."""
        ...
