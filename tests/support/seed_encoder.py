"""An encoder that needs no model, and corpora of numbered lines."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from augkd.data.corpus import CorpusSource

DIM = 16


class SeedEncoder:
    """A random unit vector per text, drawn from the text itself; may be interrupted, or killed, after some calls."""

    name, dim, fingerprint = "seed", DIM, "seed-16"

    def __init__(self, fail_after: int | None = None, kill: bool = False) -> None:
        self.calls, self.fail_after, self.kill = 0, fail_after, kill

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        if self.calls == self.fail_after:
            if self.kill:
                os.kill(os.getpid(), signal.SIGKILL)
            raise KeyboardInterrupt
        self.calls += 1
        rows = [np.random.default_rng(list(text.encode())).standard_normal(DIM) for text in texts]
        vectors = np.array(rows, dtype=np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def lines(folder: Path, name: str, numbers: Sequence[int]) -> CorpusSource:
    """A corpus file of one text per number."""
    path = folder / name
    path.write_text("".join(f"line number {number}\n" for number in numbers))
    return CorpusSource(str(path))


def files_of(folder: Path) -> dict[str, bytes]:
    """The content of every file below `folder`, by relative path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
