"""From a sentence model to the token vectors of a static encoder.

Each entry of the model's vocabulary goes through the model, and the directions of largest variance are kept: Model2Vec
(Tulkens & van Dongen 2024). Given a sample of the texts to come, the entries are also fitted to the model's vectors of
these, which matters more than all else, and pairs of tokens that are neighbours in several texts get a vector of their
own. The arithmetic is in token_vectors.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from tokenizers import Tokenizer

from augkd.errors import ModelError, RecipeError
from augkd.models.locate import BUNDLED, locate, model_fingerprint
from augkd.models.machine import release_memory
from augkd.retrieval.encoders.conventions import Conventions
from augkd.retrieval.encoders.sentence import SentenceEncoder
from augkd.retrieval.encoders.sentence_model import device_for, load_model, resolve_precision
from augkd.retrieval.encoders.static import Pairs, StaticEncoder, flatten, plain_tokenizer, token_ids
from augkd.retrieval.encoders.token_vectors import (
    fit,
    leading_directions,
    pair_counts,
    pair_keys,
    principal_components,
    rank_frequency,
    sif_weights,
    token_counts,
)
from augkd.workspace.fingerprints import fingerprint
from augkd.workspace.progress import Steps

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BATCH = 1024  # vocabulary entries through the model at once, about 3 tokens each

Report = Callable[[int], None]  # takes how many entries and texts are done


def made_from(model: str, dim: int) -> dict[str, Any]:
    """What decides token vectors, besides sample texts: fingerprint of the model, width, method."""
    return {"model": model, "dim": dim, "method": 3}  # raised when the same inputs give other vectors


def distill(
    model: str = BUNDLED,
    *,
    dim: int = 256,
    texts: Sequence[str] | None = None,
    progress: Steps | None = None,
) -> StaticEncoder:
    """A static encoder from `model`, a folder or a Hub name: half a minute for 30,000 entries on 2 cores.

    `dim` is at most the model's own width. `texts`, a sample of what will be encoded (20,000 are enough), fits the
    vectors to it; all goes through the model in its automatic precision then. `progress` counts vocabulary entries and
    texts. Share of MiniLM's ten nearest among the hundred nearest of 4,000 held-out texts, width 256: questions 0.92,
    sentences of all kinds 0.89, of reviews 0.75.
    Raises RecipeError for `dim` out of range, ModelError when the model or its fast tokenizer cannot be loaded.
    """
    folder = locate(model)
    loaded = load_model(folder, model, device_for("auto"))
    loaded.truncate_dim = None  # principal components are found among all dimensions
    _check(loaded, model, dim)
    tokenizer, entries = loaded.tokenizer.backend_tokenizer.to_str(), _entries(loaded.tokenizer)
    pairs = Pairs.none(dim)

    def report(done: int) -> None:
        if progress is not None:
            progress(done, len(entries) + len(texts or ()))

    # exact where they are the result, not where they are but what the fit begins with
    precision = resolve_precision("auto" if texts else "float32", loaded.device.type)
    vectors = _finite(_through_model(loaded, entries, precision, report), model)
    if texts:
        embeddings = _input_embeddings(loaded, entries)
        conventions = replace(Conventions.of(folder), dim=None)
        # may round the weights: the entries are through by now
        encoder = SentenceEncoder.of(loaded, folder, model, conventions=conventions)
        targets = _finite(encoder.encode_reporting(texts, lambda done, _: report(len(entries) + done)), model)
        del loaded, encoder  # the fit takes as much memory again as the model
        release_memory()
        vectors, pairs, explained = _fit_to_texts(
            vectors, embeddings, dim, plain_tokenizer(tokenizer), entries, texts, targets
        )
    else:
        vectors, explained = principal_components(vectors, dim)
        vectors = vectors * sif_weights(rank_frequency(len(entries)))[:, None]

    table = np.zeros((max(entries) + 1, dim), dtype=np.float32)
    table[entries] = _finite(vectors, model)
    _finite(pairs.vectors, model)
    del vectors
    release_memory()
    facts = {
        "made_from": made_from(model_fingerprint(folder), dim),
        "texts": fingerprint(list(texts)) if texts else None,
        "explained": explained,
        "entries": len(entries),
        "pairs": len(pairs.keys),
    }
    return StaticEncoder(table, tokenizer, name=model, facts=facts, pairs=pairs)


def _check(loaded: Any, model: str, dim: int) -> None:
    width = int(loaded.get_embedding_dimension())
    if not 1 <= dim <= width:
        raise RecipeError(f"static encoder dim is {dim}; '{model}' takes 1 to {width}")
    if getattr(loaded.tokenizer, "backend_tokenizer", None) is None:
        raise ModelError(f"'{model}' has no fast tokenizer (tokenizer.json), which a static encoder needs")


def _fit_to_texts(
    vectors: NDArray[np.float32],  # (entries, width)
    embeddings: NDArray[np.float32] | None,  # (entries, any)
    dim: int,
    tokenizer: Tokenizer,
    entries: Sequence[int],
    texts: Sequence[str],
    targets: NDArray[np.float32],  # (texts, width), the model's
) -> tuple[NDArray[np.float32], Pairs, float]:
    """Vectors of the entries, (entries, dim), vectors of pairs, and the share of the texts' variance that is kept.

    `vectors` is centred in place: at 30,000 entries each copy is 45 MB.
    """
    rows = token_ids(tokenizer, texts)
    size = max(entries) + 2  # rows of an encoder's table: the entries, and one for any id beyond
    keys, pairs = pair_counts(*pair_keys(*flatten(rows, size), size), len(texts))
    vectors -= vectors.mean(axis=0)
    entry_vectors, pair_vectors = fit(vectors, embeddings, token_counts(rows, entries), pairs, targets)
    if dim == vectors.shape[1]:
        return entry_vectors, Pairs(keys, pair_vectors), 1.0
    directions, explained = leading_directions(targets, dim)  # those that texts use, not those that entries do
    entry_vectors, pair_vectors = ((table @ directions).astype(np.float32) for table in (entry_vectors, pair_vectors))
    return entry_vectors, Pairs(keys, pair_vectors), explained


def _entries(tokenizer: Any) -> list[int]:
    """Ids of the vocabulary in order, without special and reserved entries."""
    special = set(tokenizer.all_special_ids)
    reserved = ("[unused", "<unused", "<|reserved", "<extra_id")
    return sorted(
        id_ for token, id_ in tokenizer.get_vocab().items() if id_ not in special and not token.startswith(reserved)
    )


def _finite(vectors: NDArray[np.float32], model: str) -> NDArray[np.float32]:
    """The vectors; raises ModelError where one is not finite."""
    bad = ~np.isfinite(vectors).all(axis=1)
    if bad.any():
        raise ModelError(
            f"{bad.sum()} of the {len(vectors)} token vectors made from '{model}' are not finite; its weights are "
            "damaged or its training diverged: use another model"
        )
    return vectors


class Frame(NamedTuple):
    """The special tokens that a tokenizer puts around a single text."""

    before: list[int]
    after: list[int]


def _frame(tokenizer: Any) -> Frame:
    special = set(tokenizer.all_special_ids)
    ids = tokenizer("a")["input_ids"]
    inner = [position for position, id_ in enumerate(ids) if id_ not in special]
    return Frame(ids[: inner[0]], ids[inner[-1] + 1 :])


def _through_model(
    model: Any, entries: Sequence[int], precision: str, report: Report
) -> NDArray[np.float32]:  # (entries, width)
    frame = _frame(model.tokenizer)
    vectors = np.empty((len(entries), int(model.get_embedding_dimension())), dtype=np.float32)
    autocast = torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16")
    with torch.inference_mode(), autocast:
        for start in range(0, len(entries), _BATCH):
            part = entries[start : start + _BATCH]
            ids = torch.tensor([[*frame.before, entry, *frame.after] for entry in part], device=model.device)
            features = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            vectors[start : start + len(part)] = model.forward(features)["sentence_embedding"].float().cpu().numpy()
            report(start + len(part))
    return vectors


def _input_embeddings(model: Any, entries: Sequence[int]) -> NDArray[np.float32] | None:  # (entries, any), centred
    """The embeddings that the model's first layer reads; None for a model that is no transformer."""
    transformer = getattr(model[0], "auto_model", None)
    if transformer is None:
        return None
    weight = transformer.get_input_embeddings().weight.detach().float().cpu().numpy()[np.asarray(entries)]
    weight -= weight.mean(axis=0)
    return np.asarray(weight, dtype=np.float32)
