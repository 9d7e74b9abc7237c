"""How much memory the process of an index build takes beside FAISS: Python with its libraries, and the encoder.

Estimated from the recipe's encoder table and the size of the model's files, so that a resumed build, a shard and a
merge all come to the same number and choose the same index. Measured on a CPU (Linux, Python 3.11, MiniLM, 326,354
questions): Python, torch, transformers, sentence-transformers and FAISS 600 MB; the encoder's peak 980 MB for
sentences, 1,250 MB while static vectors are fitted to 20,000 texts. CUDA adds its own libraries.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from augkd.errors import ModelError
from augkd.models.locate import locate
from augkd.recipe.index import STATIC_DIM

_LIBRARIES = 600 * 10**6
_CHUNK = 80 * 10**6  # one chunk of texts with its tokens and vectors
_ENTRIES, _WIDTH = 30_000, 384  # of a model whose configuration does not tell: BERT's vocabulary, MiniLM's width


@dataclass(frozen=True)
class Overhead:
    """Memory of the build's process beside FAISS, in bytes."""

    held: int = 0  # while FAISS works: Python, its libraries and the encoder
    peak: int = 0  # before that, at most: while an encoder is fitted, while a chunk is encoded


NO_OVERHEAD = Overhead()


def overhead_of(recipe: Mapping[str, Any] | None) -> Overhead:
    """The overhead of an index recipe's process; of the libraries alone for an encoder that no recipe describes."""
    options = (recipe or {}).get("encoder")
    if options is None:
        return Overhead(_LIBRARIES, _LIBRARIES + _CHUNK)
    try:
        folder = locate(options["model"])
    except ModelError:  # an index made of the caller's own encoder, under a name that only the caller knows
        return overhead_of(None)
    weights = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    if options["kind"] != "static":
        # the weights, a copy in bfloat16, and the forms that oneDNN multiplies with
        return Overhead(_LIBRARIES + 2 * weights, _LIBRARIES + 4 * weights + _CHUNK)
    entries, width = _shape(folder)
    vectors = 4 * (options.get("dim") or STATIC_DIM) * entries
    # tables of the entries: the model's, its input embeddings, those in work; of the texts: targets and residuals;
    # and one block of features in float64
    fit = 4 * width * (3 * entries + 8 * options["sample"]) + 24 * 8192 * width
    return Overhead(_LIBRARIES + 3 * vectors + 2 * weights, _LIBRARIES + 3 * weights + fit)


def _shape(folder: Path) -> tuple[int, int]:
    """Entries of the vocabulary and width of the layers, from the model's configuration."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return int(config["vocab_size"]), int(config["hidden_size"])
    except (OSError, ValueError, KeyError, TypeError):
        return _ENTRIES, _WIDTH
