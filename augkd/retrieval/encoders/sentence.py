"""Sentence encoders: any sentence-transformers model, batched by tokens instead of by sentences.

The texts of one call are sorted by length and cut where the *padded* tokens fill a batch, so hardly any padding is
computed. On a CPU each batch runs on one thread and `workers` batches run at once, so no thread waits for the slowest
part of a matrix product, and the vectors do not depend on the number of cores.
"""

from __future__ import annotations

import copy
import itertools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch

from augkd.errors import RecipeError
from augkd.models.locate import BUNDLED, locate, model_fingerprint
from augkd.retrieval.encoders.bfloat16 import round_weights
from augkd.retrieval.encoders.conventions import Conventions
from augkd.retrieval.encoders.int8 import use_int8
from augkd.retrieval.encoders.sentence_model import (
    check_dim,
    device_for,
    encoder_fingerprint,
    full_width,
    length_limit,
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
_WHOLE = 1024  # texts at once through a model that is no transformer
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
        conventions: Conventions,
    ) -> None:
        self._model = model
        self._conventions = conventions
        self._dim = conventions.dim or full_width(model)
        self._prompt, self._task = conventions.document, "document"
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
        query_prompt: str | None = None,
        document_prompt: str | None = None,
        dim: int | None = None,
    ) -> SentenceEncoder:
        """Loads `model`, a folder or a Hub name, onto the GPU where there is one (int8 stays on the CPU).

        `max_length` cuts texts to that many tokens (None: the model's own limit). `precision` is float32, bfloat16,
        int8, or auto: bfloat16 where the hardware multiplies it natively, else float32. int8 (`pip install
        augkd[onnx]`) is 1.5 times as fast as bfloat16, with AMX no faster, but only 0.89 of the ten nearest neighbours
        are float32's (bfloat16: 0.996). `tokens_per_batch` counts padded tokens (None: 1024 on a CPU, 8192 on a GPU).
        `workers` is how many batches a CPU encodes at once (None: as many as torch has threads); it changes no vector.
        `cache` is a folder that keeps the int8 file (None: exported for each load, half a minute). `query_prompt` and
        `document_prompt` stand before a text ("": none), and `dim` leading dimensions are kept and normalised again
        (None: as the model's own configuration says).
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
            conventions=Conventions.of(folder, query_prompt=query_prompt, document_prompt=document_prompt, dim=dim),
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
        conventions: Conventions | None = None,  # None: the model's own
    ) -> SentenceEncoder:
        """The encoder of a model that is already `loaded` from `folder`; options as of `load`."""
        device = loaded.device.type
        resolved = resolve_precision(precision, device)
        weights = model_fingerprint(folder)
        conventions = conventions or Conventions.of(folder)
        check_dim(loaded, model, conventions.dim)
        limit_length(loaded, model, folder, max_length)
        if resolved == "int8" and not hasattr(loaded[0], "auto_model"):
            raise RecipeError(f"encoder precision is int8; '{model}' is no transformer, drop it")
        if resolved == "bfloat16":
            round_weights(loaded, device)
        if resolved == "int8":
            use_int8(loaded, weights, cache)
        elif hasattr(loaded[0], "auto_model"):
            from augkd.models.attention import use_short_text_attention

            use_short_text_attention(loaded[0].auto_model)
        return cls(
            loaded,
            name=model,
            fingerprint=encoder_fingerprint(weights, length_limit(loaded), resolved, conventions),
            precision=resolved,
            tokens_per_batch=tokens_per_batch or _TOKENS_PER_BATCH[device],
            workers=workers or (torch.get_num_threads() if device == "cpu" else 1),
            conventions=conventions,
        )

    @property
    def name(self) -> str:
        """The model's name, as the user gave it."""
        return self._name

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self._dim

    @property
    def fingerprint(self) -> str:
        """sha256 over weights, tokenizer, maximum length, precision, prompts and dimensions."""
        return self._fingerprint

    @property
    def prompts(self) -> dict[str, str]:
        """The prompts that are put before texts, by the names of their options; {} without any."""
        return self._conventions.prompts

    @property
    def queries(self) -> SentenceEncoder:
        """The same model for queries: with their prompt, and by their route where a model has two."""
        encoder = copy.copy(self)
        encoder.__dict__.pop("_prompt_tokens", None)
        encoder._prompt, encoder._task = self._conventions.query, "query"
        return encoder

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
        if not hasattr(self._model[0], "auto_model"):
            return self._encode_whole(texts, vectors, progress)
        prompted = [self._prompt + text for text in texts] if self._prompt else list(texts)
        tokens = self._model.tokenizer(prompted, truncation=True, max_length=self._model.max_seq_length)
        lengths = np.fromiter(map(len, tokens["input_ids"]), dtype=np.int64, count=len(texts))

        def fill(rows: NDArray[np.int64]) -> int:
            vectors[rows] = self._forward(tokens, rows, int(lengths[rows[-1]]))
            return len(rows)

        _ = self._prompt_tokens  # before workers ask for it
        # longest first, so that no worker is left with a long batch at the end
        batches = list(token_batches(lengths, self._tokens_per_batch))[::-1]
        on_gpu = self._model.device.type == "cuda"
        counts = map(fill, batches) if on_gpu else _on_single_threads(fill, batches, self._workers)
        for done in itertools.accumulate(counts):
            if progress is not None:
                progress(done, len(texts))
        return vectors

    def _encode_whole(
        self, texts: Sequence[str], vectors: NDArray[np.float32], progress: Steps | None
    ) -> NDArray[np.float32]:
        """Fills `vectors` with a model that is no transformer (static token vectors, two routes)."""
        for start in range(0, len(texts), _WHOLE):
            part = list(texts[start : start + _WHOLE])
            features = self._model.preprocess(part, prompt=self._prompt or None, task=self._task)
            on_device = {
                key: value.to(self._model.device) if isinstance(value, torch.Tensor) else value
                for key, value in features.items()
            }
            with torch.inference_mode():
                outputs = self._model(on_device, task=self._task)["sentence_embedding"]
            vectors[start : start + len(part)] = self._unit(outputs)
            if progress is not None:
                progress(start + len(part), len(texts))
        return vectors

    def _unit(self, vectors: torch.Tensor) -> NDArray[np.float32]:  # (n, width) → (n, dim), unit rows
        kept = vectors.float()[:, : self._dim]
        return np.asarray(torch.nn.functional.normalize(kept, dim=-1).cpu().numpy(), dtype=np.float32)

    @cached_property
    def _prompt_tokens(self) -> dict[str, Any]:
        """How many tokens of each text are its prompt's, for a pooling that leaves them out; {} without a prompt."""
        if not self._prompt:
            return {}
        length = self._model.preprocess(["a"], prompt=self._prompt).get("prompt_length")
        return {} if length is None else {"prompt_length": length}

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
            return self._unit(self._model.forward(features | self._prompt_tokens)["sentence_embedding"])


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
