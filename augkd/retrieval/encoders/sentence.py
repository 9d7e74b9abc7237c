"""Sentence encoders: any sentence-transformers model, batched by tokens instead of by sentences.

The texts of one call are sorted by length and cut where the *padded* tokens fill a batch, so hardly any padding is
computed. On a CPU each batch runs on one thread and `workers` batches run at once, so no thread waits for the slowest
part of a matrix product, and the vectors do not depend on the number of cores.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch

from augkd.errors import RecipeError
from augkd.models.locate import BUNDLED, locate, model_fingerprint
from augkd.retrieval.encoders.bfloat16 import round_weights
from augkd.retrieval.encoders.int8 import use_int8
from augkd.retrieval.encoders.sentence_model import (
    device_for,
    encoder_fingerprint,
    limit_length,
    load_model,
    resolve_precision,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from augkd.workspace.progress import Steps

# CPU: one thread's activations should stay near its cache; larger batches gained nothing (bench_encoder.py). 71 % of
# MiniLM's time is matrix products at 220 GFLOPS a core, 15 % attention, 6 % GELU. Within 2 % nothing is gained from
# attention as bfloat16 products, GELU inside a product, one product for query, key and value, or batches of one length.
_TOKENS_PER_BATCH = {"cpu": 1024, "cuda": 8192}
_THREADS = threading.Lock()  # torch's thread count is process-wide for threads yet to start


@final
class SentenceEncoder:
    """A sentence-transformers model, read-only; make one with `SentenceEncoder.load`.

    What else is in the batch changes a vector by rounding only. Largest difference of an entry between encoding alone
    and encoding among other texts, MiniLM-L6 on questions: 1.4e-7 in float32 and 1.1e-3 in bfloat16 (tested: 1e-6,
    4e-3). In int8 the other texts do matter, by up to 0.03: the rounding step of activations is the batch's.
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
        (bfloat16: 0.996). `tokens_per_batch` counts padded tokens (None: 1024 on a CPU, 8192 on a GPU). `workers` is
        how many batches a CPU encodes at once (None: as many as torch has threads); it changes no vector. `cache` is a
        folder that keeps the int8 file (None: exported for each load, half a minute).
        Raises RecipeError for an option out of range, ModelError when the model or the extra cannot be loaded.
        """
        resolve_precision(precision, "cpu")  # a typo shows before the model is loaded
        check_at_least_one(tokens_per_batch=tokens_per_batch, workers=workers)
        folder = locate(model)
        loaded = load_model(folder, model, device_for(precision))
        return cls.of(
            loaded,
            folder,
            model,
            max_length=max_length,
            precision=precision,
            tokens_per_batch=tokens_per_batch,
            workers=workers,
            cache=cache,
        )

    @classmethod
    def of(
        cls,
        loaded: Any,  # SentenceTransformer; from here on the encoder's: its weights may be rounded in place
        folder: Path,
        model: str,
        *,
        max_length: int | None = None,
        precision: str = "auto",
        tokens_per_batch: int | None = None,
        workers: int | None = None,
        cache: Path | None = None,
    ) -> SentenceEncoder:
        """The encoder of a model that is already `loaded` from `folder`; options as of `load`."""
        device = loaded.device.type
        resolved = resolve_precision(precision, device)
        weights = model_fingerprint(folder)
        limit_length(loaded, model, folder, max_length)
        if resolved == "bfloat16":
            round_weights(loaded, device)
        if resolved == "int8":
            use_int8(loaded, weights, cache)
        return cls(
            loaded,
            name=model,
            fingerprint=encoder_fingerprint(weights, loaded.max_seq_length, resolved),
            precision=resolved,
            tokens_per_batch=tokens_per_batch or _TOKENS_PER_BATCH[device],
            workers=workers or (torch.get_num_threads() if device == "cpu" else 1),
        )

    @property
    def name(self) -> str:
        """The model's name, as the user gave it."""
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
        return self.encode_reporting(texts, None)

    def encode_reporting(
        self, texts: Sequence[str], progress: Steps | None
    ) -> NDArray[np.float32]:  # (n, dim), unit rows
        """`encode`, with `progress` called after each batch: the number of texts done and their total."""
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        if not texts:
            return vectors
        tokens = self._model.tokenizer(list(texts), truncation=True, max_length=self._model.max_seq_length)
        lengths = np.fromiter(map(len, tokens["input_ids"]), dtype=np.int64, count=len(texts))

        def fill(rows: NDArray[np.int64]) -> int:
            vectors[rows] = self._forward(tokens, rows, int(lengths[rows[-1]]))
            return len(rows)

        # longest first, so that no worker is left with a long batch at the end
        batches = list(token_batches(lengths, self._tokens_per_batch))[::-1]
        on_gpu = self._model.device.type == "cuda"
        counts = map(fill, batches) if on_gpu else _on_single_threads(fill, batches, self._workers)
        for done in itertools.accumulate(counts):
            if progress is not None:
                progress(done, len(texts))
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


def check_at_least_one(**options: int | None) -> None:
    """Raises RecipeError for an option below 1; None is left out."""
    for option, value in options.items():
        if value is not None and value < 1:
            raise RecipeError(f"encoder {option} is {value}; give at least 1, or leave it out")


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


def _on_single_threads(work: Callable[[Any], int], items: Sequence[Any], workers: int) -> Iterator[int]:
    """`work` of each of `items`, on `workers` threads that each compute alone; torch's thread count is restored."""
    with _THREADS:
        before = torch.get_num_threads()
        try:
            with ThreadPoolExecutor(min(workers, len(items)), "augkd-encode", _compute_alone) as pool:
                yield from pool.map(work, items)
        finally:
            torch.set_num_threads(before)


def _compute_alone() -> None:
    torch.set_num_threads(1)
    torch.get_num_threads()  # torch reads the process-wide count once in each thread: now, not after it is restored


def _padded(rows: Sequence[Sequence[int]], width: int, value: int, side: str) -> torch.Tensor:
    padded = np.full((len(rows), width), value, dtype=np.int64)
    for target, row in zip(padded, rows, strict=True):
        if side == "left":
            target[width - len(row) :] = row
        else:
            target[: len(row)] = row
    return torch.from_numpy(padded)
