"""The interface between an index and the model that turns its texts into vectors.

Searching needs only `Encoder.encode`. Building also needs to know the dimension, and a fingerprint that decides whether
a finished index is used again. An encoder that takes long can report how far it is, which never changes its vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from augkd.workspace.progress import Steps


class Encoder(Protocol):
    """Turns texts into unit vectors."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:  # (n, dim), unit rows
        """The vectors of `texts`, in their order."""
        ...


class IndexEncoder(Encoder, Protocol):
    """An encoder that an index can be built with."""

    @property
    def name(self) -> str:
        """The model's name, as the user gave it."""
        ...

    @property
    def dim(self) -> int:
        """Length of a vector."""
        ...

    @property
    def fingerprint(self) -> str:
        """Changes whenever the vectors could."""
        ...


@runtime_checkable
class ReportingEncoder(Encoder, Protocol):
    """An encoder that reports its progress while it works on one call."""

    def encode_reporting(self, texts: Sequence[str], progress: Steps) -> NDArray[np.float32]:  # (n, dim), unit rows
        """The bytes that `encode` returns; `progress` gets the number of texts done and their total."""
        ...


@runtime_checkable
class TwoSided(Encoder, Protocol):
    """An encoder that turns queries into other vectors than documents: `encode` is that of documents."""

    @property
    def queries(self) -> Encoder:
        """The encoder of queries."""
        ...


def for_queries(encoder: Encoder) -> Encoder:
    """The encoder of queries; the encoder itself where it does not tell them from documents."""
    return encoder.queries if isinstance(encoder, TwoSided) else encoder


def encode(encoder: Encoder, texts: Sequence[str], progress: Steps | None = None) -> NDArray[np.float32]:
    """`encoder.encode(texts)`, with progress in texts: as it goes where the encoder can, else once at the end."""
    if progress is not None and isinstance(encoder, ReportingEncoder):
        return encoder.encode_reporting(texts, progress)
    vectors = encoder.encode(texts)
    if progress is not None:
        progress(len(texts), len(texts))
    return vectors
