"""Text to unit vectors: what an index is built from and searched with.

`Encoder` is the one Protocol of the retrieval stage. `SentenceEncoder` runs any sentence-transformers model, but
batches by tokens instead of by sentences: texts of one call are sorted by length and cut where the *padded* tokens
fill a batch, so hardly any padding is computed. Vectors leave here normalised.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, final

import numpy as np
import torch

from augkd.checkpoints import BUNDLED, locate, model_fingerprint
from augkd.errors import ModelError, RecipeError, did_you_mean, shown
from augkd.workspace import fingerprint

if TYPE_CHECKING:
    from numpy.typing import NDArray

PRECISIONS = ("auto", "bfloat16", "float32")
# CPU: MiniLM-L6 in bfloat16 on 2 cores did 334, 501, 573, 533, 490 questions/s at 512, 1024, 2048, 4096, 8192 tokens
_TOKENS_PER_BATCH = {"cpu": 2048, "cuda": 8192}


class Encoder(Protocol):
    """Turns texts into unit vectors."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:  # (n, dim), unit rows
        """The vectors of `texts`, in their order."""
        ...


class IndexEncoder(Encoder, Protocol):
    """What an index is built with: an encoder that knows its dimension and says when its vectors would change."""

    @property
    def dim(self) -> int:
        """Length of a vector."""
        ...

    @property
    def fingerprint(self) -> str:
        """Changes whenever the vectors could."""
        ...


@final
class SentenceEncoder:
    """A sentence-transformers model, read-only; make one with `SentenceEncoder.load`."""

    def __init__(self, model: Any, *, name: str, fingerprint: str, precision: str, tokens_per_batch: int) -> None:
        self._model = model
        self._fingerprint = fingerprint
        self._tokens_per_batch = tokens_per_batch
        self.name = name
        self.precision = precision  # resolved: bfloat16 or float32

    @classmethod
    def load(
        cls,
        model: str = BUNDLED,
        *,
        max_length: int | None = None,
        precision: str = "auto",
        tokens_per_batch: int | None = None,
    ) -> SentenceEncoder:
        """Loads `model`, a folder or a Hub name, onto the GPU where there is one.

        `max_length` cuts texts to that many tokens (None: the model's own limit). `precision` is float32, bfloat16, or
        auto: bfloat16 where the hardware multiplies it natively, else float32. `tokens_per_batch` counts padded tokens
        (None: 2048 on a CPU, 8192 on a GPU).
        """
        device = "cuda" if torch.cuda.is_available() else "cpu"
        resolved = resolve_precision(precision, device)
        if tokens_per_batch is None:
            tokens_per_batch = _TOKENS_PER_BATCH[device]
        if tokens_per_batch < 1:
            raise RecipeError(f"encoder tokens_per_batch is {tokens_per_batch}; give at least 1, or leave it out")

        folder = locate(model)
        loaded = _load(str(folder), model, device)
        _limit_length(loaded, model, max_length)

        made_from = [model_fingerprint(folder), loaded.max_seq_length, resolved]
        return cls(
            loaded,
            name=model,
            fingerprint=fingerprint(made_from),
            precision=resolved,
            tokens_per_batch=tokens_per_batch,
        )

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return int(self._model.get_embedding_dimension())

    @property
    def fingerprint(self) -> str:
        """sha256 over weights, tokenizer, maximum length and precision."""
        return self._fingerprint

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:  # (n, dim), unit rows
        """The vectors of `texts`, in their order. Batch mates change a vector by rounding only."""
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        if not texts:
            return vectors
        tokens = self._model.tokenizer(list(texts), truncation=True, max_length=self._model.max_seq_length)
        lengths = np.fromiter(map(len, tokens["input_ids"]), dtype=np.int64, count=len(texts))

        with torch.inference_mode(), self._autocast():
            for rows in token_batches(lengths, self._tokens_per_batch):
                vectors[rows] = self._forward(tokens, rows, int(lengths[rows[-1]]))
        return vectors

    def _autocast(self) -> torch.autocast:
        return torch.autocast(
            self._model.device.type, dtype=torch.bfloat16, enabled=self.precision == "bfloat16", cache_enabled=True
        )

    def _forward(self, tokens: Mapping[str, Any], rows: NDArray[np.int64], width: int) -> NDArray[np.float32]:
        tokenizer = self._model.tokenizer
        padding = {"input_ids": tokenizer.pad_token_id or 0}
        features = {
            key: _padded([values[row] for row in rows], width, padding.get(key, 0), tokenizer.padding_side).to(
                self._model.device
            )
            for key, values in tokens.items()
        }
        vectors = self._model.forward(features)["sentence_embedding"].float()
        return np.asarray(torch.nn.functional.normalize(vectors, dim=-1).cpu().numpy(), dtype=np.float32)


def token_batches(
    lengths: NDArray[np.int64],  # (n,) tokens of each text
    tokens_per_batch: int,
) -> Iterator[NDArray[np.int64]]:
    """Rows in order of length, cut so that rows x longest stays within `tokens_per_batch` (or is one row)."""
    order = np.argsort(lengths, kind="stable")  # stable: the same texts always make the same batches
    start = 0
    while start < len(order):
        widths = np.maximum(lengths[order[start : start + tokens_per_batch]], 1)
        padded = widths * np.arange(1, len(widths) + 1)  # increasing, as the rows are sorted
        stop = start + max(1, int(np.searchsorted(padded, tokens_per_batch, side="right")))
        yield order[start:stop]
        start = stop


def resolve_precision(precision: str, device: str) -> str:
    """`precision`, with auto turned into bfloat16 where `device` multiplies it natively, else float32."""
    if precision not in PRECISIONS:
        raise RecipeError(f"encoder precision is {shown(precision)}{did_you_mean(str(precision), PRECISIONS)}")
    if precision != "auto":
        return precision
    native = torch.cuda.is_bf16_supported() if device == "cuda" else _cpu_has_bfloat16()
    return "bfloat16" if native else "float32"


def _cpu_has_bfloat16() -> bool:
    # private in torch, hence guarded; without native support bfloat16 is emulated and several times slower
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, check)()) for check in checks if hasattr(torch.cpu, check))


def _load(folder: str, name: str, device: str) -> Any:
    from sentence_transformers import SentenceTransformer  # several seconds to import

    try:
        loaded = SentenceTransformer(folder, device=device, local_files_only=True)
    except Exception as exc:  # a damaged folder fails in any of three libraries, each with its own exceptions
        reason = str(exc).strip().split("\n")[0][:160]
        raise ModelError(f"encoder '{name}' cannot be loaded from {folder}: {reason}; give another model") from exc
    return loaded.eval()


def _limit_length(model: Any, name: str, max_length: int | None) -> None:
    config = getattr(getattr(model[0], "auto_model", None), "config", None)
    positions = getattr(config, "max_position_embeddings", None)
    wanted = max_length or model.max_seq_length or positions or 512
    if max_length is not None and (max_length < 3 or (positions and max_length > positions)):
        raise RecipeError(f"encoder max_length is {max_length}; '{name}' takes 3 to {positions or 'any'} tokens")
    model.max_seq_length = wanted


def _padded(rows: Sequence[Sequence[int]], width: int, value: int, side: str) -> torch.Tensor:
    filled = np.full((len(rows), width), value, dtype=np.int64)
    for target, row in zip(filled, rows, strict=True):
        if side == "left":
            target[width - len(row) :] = row
        else:
            target[: len(row)] = row
    return torch.from_numpy(filled)
