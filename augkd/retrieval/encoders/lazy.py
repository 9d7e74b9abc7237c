"""An encoder whose model is loaded when the first text is encoded.

A finished index is opened by comparing fingerprints, and often only its manifest is wanted. An encoder's fingerprint
can be computed from files and options alone, so its weights wait until they are needed, and are loaded once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, final

import numpy as np

from augkd.errors import ModelError
from augkd.retrieval.encoders.encoder import IndexEncoder, encode

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from augkd.workspace.progress import Steps


@final
class LazyEncoder:
    """The encoder that `load` returns; everything but its name and fingerprint makes it load."""

    def __init__(self, name: str, fingerprint: str, load: Callable[[], IndexEncoder]) -> None:
        self.name = name
        self.fingerprint = fingerprint
        self._load = load

    @cached_property
    def loaded(self) -> IndexEncoder:
        """The encoder itself; raises ModelError when its files have changed since the fingerprint was taken."""
        encoder = self._load()
        if encoder.fingerprint != self.fingerprint:
            raise ModelError(f"encoder '{self.name}' has changed on disk since it was opened; run the command again")
        return encoder

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self.loaded.dim

    @property
    def prompts(self) -> dict[str, str]:
        """The prompts that are put before texts; {} without any."""
        return dict(getattr(self.loaded, "prompts", {}))

    @property
    def queries(self) -> LazyEncoder:
        """The encoder for queries, loaded with the first of them."""

        def load() -> IndexEncoder:
            encoder: IndexEncoder = getattr(self.loaded, "queries", self.loaded)
            return encoder

        return LazyEncoder(self.name, self.fingerprint, load)

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:  # (n, dim), unit rows
        """The vectors of `texts`, in their order."""
        return self.loaded.encode(texts)

    def encode_reporting(self, texts: Sequence[str], progress: Steps) -> NDArray[np.float32]:  # (n, dim), unit rows
        """`encode`, with progress in texts where the encoder can report it."""
        return encode(self.loaded, texts, progress)
