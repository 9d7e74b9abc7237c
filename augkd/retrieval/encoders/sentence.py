"""Text to unit vectors: what an index is built from and searched with.

`Encoder` is the one Protocol of the retrieval stage. `SentenceEncoder` runs any sentence-transformers model, but
batches by tokens instead of by sentences: texts of one call are sorted by length and cut where the *padded* tokens
fill a batch, so hardly any padding is computed. On a CPU every batch runs on one thread and `workers` batches run at
once, so nothing waits for the slowest part of a matrix and the vectors do not depend on the number of cores.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch

from augkd.errors import ModelError, RecipeError, did_you_mean, shown
from augkd.models.devices import uses_bf16
from augkd.models.locate import BUNDLED, locate, model_fingerprint
from augkd.retrieval.encoders.int8 import use_int8
from augkd.workspace.fingerprints import fingerprint

if TYPE_CHECKING:
    from numpy.typing import NDArray

PRECISIONS = ("auto", "bfloat16", "float32", "int8")
# CPU: one thread's activations should stay near its cache; larger batches gained nothing (bench_encoder.py). 71 % of
# MiniLM's time is matrix products at 220 GFLOPS a core, 15 % attention, 6 % GELU. Within 2 % nothing is gained from
# attention as bfloat16 products, GELU inside a product, one product for query, key and value, or batches of one length.
_TOKENS_PER_BATCH = {"cpu": 1024, "cuda": 8192}
_THREADS = threading.Lock()  # torch's thread count is process-wide for threads yet to start


@final
class SentenceEncoder:
    """A sentence-transformers model, read-only; make one with `SentenceEncoder.load`.

    What else is in the batch changes a vector by rounding only. Largest difference of an entry between encoding alone
    and encoding in a crowd, MiniLM-L6 on questions: 1.4e-7 in float32 and 1.1e-3 in bfloat16 (tested: 1e-6, 4e-3).
    In int8 it does depend on the crowd, by up to 0.03: the rounding step of activations is the batch's.
    """

    def __init__(
        self,
        model: Any,
        *,
        name: str,
        fingerprint: str,
        precision: str,
        tokens_per_batch: int,
        workers: int,
    ) -> None:
        self._model = model
        self._fingerprint = fingerprint
        self._tokens_per_batch = tokens_per_batch
        self._workers = workers
        self._name = name
        self.precision = precision  # resolved: bfloat16, float32 or int8

    @classmethod
    def load(
        cls,
        model: str = BUNDLED,
        *,
        max_length: int | None = None,
        precision: str = "auto",
        tokens_per_batch: int | None = None,
        workers: int | None = None,
        cache: Path | None = None,
    ) -> SentenceEncoder:
        """Loads `model`, a folder or a Hub name, onto the GPU where there is one (int8 stays on the CPU).

        `max_length` cuts texts to that many tokens (None: the model's own limit). `precision` is float32, bfloat16,
        int8, or auto: bfloat16 where the hardware multiplies it natively, else float32. int8 (`pip install
        augkd[onnx]`) is 1.5 times as fast as bfloat16, but only 0.89 of the ten nearest neighbours are float32's
        (bfloat16: 0.996). `tokens_per_batch` counts padded tokens (None: 1024 on a CPU, 8192 on a GPU); `workers` are
        the CPU batches in work at once (None: as many as torch has threads); it changes no vector. `cache` is a folder
        that keeps the int8 file (None: made anew, half a minute).
        Raises RecipeError for an option out of range, ModelError when the model or the extra cannot be loaded.
        """
        device = "cuda" if torch.cuda.is_available() and precision != "int8" else "cpu"
        resolved = resolve_precision(precision, device)
        if tokens_per_batch is None:
            tokens_per_batch = _TOKENS_PER_BATCH[device]
        if workers is None:
            workers = torch.get_num_threads() if device == "cpu" else 1
        for option, value in (("tokens_per_batch", tokens_per_batch), ("workers", workers)):
            if value < 1:
                raise RecipeError(f"encoder {option} is {value}; give at least 1, or leave it out")

        folder = locate(model)
        weights = model_fingerprint(folder)
        loaded = load_model(folder, model, device)
        _limit_length(loaded, model, max_length)
        if resolved == "bfloat16":
            _round_weights(loaded, device)
        if resolved == "int8":
            use_int8(loaded, weights, cache)
        return cls(
            loaded,
            name=model,
            fingerprint=fingerprint([weights, loaded.max_seq_length, resolved]),
            precision=resolved,
            tokens_per_batch=tokens_per_batch,
            workers=workers,
        )

    @property
    def name(self) -> str:
        """The model, as it was given."""
        return self._name

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return int(self._model.get_embedding_dimension())

    @property
    def fingerprint(self) -> str:
        """sha256 over weights, tokenizer, maximum length and precision."""
        return self._fingerprint

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:  # (n, dim), unit rows
        """The vectors of `texts`, in their order; the same texts give the same bytes, whatever `workers`."""
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        if not texts:
            return vectors
        tokens = self._model.tokenizer(list(texts), truncation=True, max_length=self._model.max_seq_length)
        lengths = np.fromiter(map(len, tokens["input_ids"]), dtype=np.int64, count=len(texts))

        def fill(rows: NDArray[np.int64]) -> None:
            vectors[rows] = self._forward(tokens, rows, int(lengths[rows[-1]]))

        batches = token_batches(lengths, self._tokens_per_batch)
        if self._model.device.type == "cuda":
            for rows in batches:
                fill(rows)
        else:
            # longest first, so that no worker is left with a long batch at the end
            _on_single_threads(fill, list(batches)[::-1], self._workers)
        return vectors

    def _forward(self, tokens: Mapping[str, Any], rows: NDArray[np.int64], width: int) -> NDArray[np.float32]:
        tokenizer = self._model.tokenizer
        padding = {"input_ids": tokenizer.pad_token_id or 0}
        features = {
            key: _padded([values[row] for row in rows], width, padding.get(key, 0), tokenizer.padding_side).to(
                self._model.device
            )
            for key, values in tokens.items()
        }
        # both are states of the calling thread. Autocast finds the weights in bfloat16 already: it casts activations
        device, in_bfloat16 = self._model.device.type, self.precision == "bfloat16"
        with torch.inference_mode(), torch.autocast(device, dtype=torch.bfloat16, enabled=in_bfloat16):
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


def _on_single_threads(work: Callable[[Any], None], items: Sequence[Any], workers: int) -> None:
    """Calls `work` on each of `items`, on `workers` threads of which each computes alone; torch is left as found."""
    with _THREADS:
        before = torch.get_num_threads()
        try:
            with ThreadPoolExecutor(min(workers, len(items)), "augkd-encode", _compute_alone) as pool:
                for _ in pool.map(work, items):
                    pass
        finally:
            torch.set_num_threads(before)


def _compute_alone() -> None:
    torch.set_num_threads(1)
    torch.get_num_threads()  # torch reads the process-wide count once in each thread: now, not after it is set back


def _round_weights(model: torch.nn.Module, device: str) -> None:
    """Keeps linear layers' weights in bfloat16; all else stays float32 (normalising in bfloat16 cost recall 0.004)."""
    packs = device == "cpu" and _can_pack()
    for parent in list(model.modules()):
        for name, module in parent.named_children():
            if isinstance(module, torch.nn.Linear):
                setattr(parent, name, _PackedLinear(module) if packs else module.to(torch.bfloat16))


def _can_pack() -> bool:
    # private in torch, hence guarded; unpacked weights give the same vectors but for rounding
    wanted = ("_is_mkldnn_bf16_supported", "_reorder_linear_weight", "_linear_pointwise")
    return all(hasattr(torch.ops.mkldnn, op) for op in wanted) and torch.ops.mkldnn._is_mkldnn_bf16_supported()


class _PackedLinear(torch.nn.Module):
    """A linear layer whose bfloat16 weights lie as oneDNN multiplies them: what torch.compile would use, 1.1x."""

    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach().to(torch.bfloat16))
        self.bias = None if linear.bias is None else linear.bias.detach().to(torch.bfloat16)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:  # (…, width) -> (…, outputs), bfloat16
        outputs: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            inputs.to(torch.bfloat16), self.weight, self.bias, "none", [], ""
        )
        return outputs


def resolve_precision(precision: str, device: str) -> str:
    """`precision`, with auto turned into bfloat16 where `device` multiplies it natively, else float32."""
    if precision not in PRECISIONS:
        raise RecipeError(f"encoder precision is {shown(precision)}{did_you_mean(str(precision), PRECISIONS)}")
    if precision != "auto":
        return precision
    return "bfloat16" if uses_bf16(precision, torch.device(device)) else "float32"


def load_model(folder: Path, name: str, device: str) -> Any:
    """The SentenceTransformer in `folder`, ready to be asked; `name` is what the user called it, for the ModelError."""
    from sentence_transformers import SentenceTransformer  # several seconds to import

    try:
        loaded = SentenceTransformer(str(folder), device=device, local_files_only=True)
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
