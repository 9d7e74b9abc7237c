"""Static encoders: one vector per vocabulary entry, a text is their weighted mean; no model runs when encoding.

`StaticEncoder.distill` sends each entry of a model's vocabulary through the model and keeps the directions of largest
variance: Model2Vec (Tulkens & van Dongen 2024). Given a sample of the texts to come, it also fits the entries to the
model's vectors of these, which matters more than all else, and gives a vector to every pair of tokens that stood side
by side in several of them; the arithmetic is in token_vectors.py.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, final

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

from augkd.errors import ModelError, RecipeError
from augkd.models.locate import BUNDLED, locate, model_fingerprint
from augkd.retrieval.encoders.sentence import SentenceEncoder, load_model
from augkd.retrieval.encoders.token_vectors import (
    fitted,
    leading_directions,
    pair_counts,
    pair_keys,
    principal_components,
    rank_frequency,
    sif_weights,
    token_counts,
)
from augkd.workspace.files import replacing, write_text
from augkd.workspace.fingerprints import fingerprint
from augkd.workspace.folders import begin, end
from augkd.workspace.manifests import read_manifest
from augkd.workspace.progress import Steps

if TYPE_CHECKING:
    from numpy.typing import NDArray

KIND = "static_encoder"
_VECTORS, _TOKENIZER = "model.safetensors", "tokenizer.json"
_BATCH = 1024  # vocabulary entries through the model at once, about 3 tokens each
_WINDOW = 65_536  # texts tokenised at once: bounds memory
_CHUNK = 2048  # sample texts through the model between two words about it


@final
class StaticEncoder:
    """Vectors of tokens, and of pairs of them, read-only; made by `distill` or `load`.

    A text without a known token (empty, or another script) gets the first axis, (1, 0, …, 0), as its vector.
    """

    def __init__(
        self,
        table: NDArray[np.float32],  # (vocabulary, dim); a row of zeros is a token left out
        tokenizer: str,
        *,
        name: str,
        facts: Mapping[str, Any],
        pairs: Pairs | None = None,
    ) -> None:
        # one row more, of zeros, for any id beyond the entries
        self._table = torch.from_numpy(np.concatenate([table, np.zeros((1, table.shape[1]), dtype=np.float32)]))
        self._pairs = pairs or Pairs.none(table.shape[1])
        self._pair_table = torch.from_numpy(self._pairs.vectors)
        self._json = tokenizer
        self._tokenizer = _plain(tokenizer)
        digests = [_digest(array) for array in (table, self._pairs.keys, self._pairs.vectors)]
        self._fingerprint = fingerprint([KIND, fingerprint(tokenizer), *digests])
        self.name = name
        self.facts = dict(facts)  # what it was made from, share of variance explained, numbers of entries and pairs

    @classmethod
    def distill(
        cls,
        model: str = BUNDLED,
        *,
        dim: int = 256,
        texts: Sequence[str] | None = None,
        progress: Steps | None = None,
    ) -> StaticEncoder:
        """Token vectors from `model`, a folder or a Hub name: half a minute for 30,000 entries on 2 cores.

        `dim` up to the model's own width. `texts`, a sample of what will be encoded (20,000 are enough; they go through
        the model in its automatic precision), fits the vectors to it. Share of MiniLM's ten nearest among the hundred
        nearest of 4,000 held-out texts, width 256: questions 0.92, sentences of all kinds 0.89, of reviews 0.75.
        Raises RecipeError for `dim` out of range, ModelError when the model or a fast tokenizer of it is not to be had.
        """
        folder = locate(model)
        loaded = load_model(folder, model, "cuda" if torch.cuda.is_available() else "cpu")
        width = int(loaded.get_embedding_dimension())
        if not 1 <= dim <= width:
            raise RecipeError(f"static encoder dim is {dim}; '{model}' takes 1 to {width}")
        backend = getattr(loaded.tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise ModelError(f"'{model}' has no fast tokenizer (tokenizer.json), which a static encoder needs")

        tokenizer, entries = backend.to_str(), _entries(loaded.tokenizer)
        told, pairs = _counted(progress, len(entries) + len(texts or ())), Pairs.none(dim)
        vectors = _through_model(loaded, entries, told)
        if texts:
            wanted = _sample_through(model, texts, told)
            beginnings = _input_embeddings(loaded, entries)
            vectors, pairs, explained = _fitted(vectors, beginnings, dim, _plain(tokenizer), entries, texts, wanted)
        else:
            vectors, explained = principal_components(vectors, dim)
            vectors = vectors * sif_weights(rank_frequency(len(entries)))[:, None]
        table = np.zeros((max(entries) + 1, dim), dtype=np.float32)
        table[entries] = vectors
        facts = {
            "made_from": made_from(model_fingerprint(folder), dim),
            "texts": fingerprint(list(texts)) if texts else None,
            "explained": explained,
            "entries": len(entries),
            "pairs": len(pairs.keys),
        }
        return cls(table, tokenizer, name=model, facts=facts, pairs=pairs)

    @classmethod
    def load(cls, folder: Path) -> StaticEncoder:
        """A saved one; raises WorkspaceError or ModelError when the folder is unfinished, foreign or damaged."""
        manifest = read_manifest(folder, KIND)
        try:
            held = load_file(folder / _VECTORS)
            encoder = cls(
                held["vectors"],
                (folder / _TOKENIZER).read_text(encoding="utf-8"),
                name=manifest["name"],
                facts=manifest["facts"],
                pairs=Pairs(held["pair_keys"], held["pair_vectors"]),
            )
        except (OSError, KeyError, SafetensorError, ValueError) as exc:
            reason = str(exc).split("\n")[0]
            raise ModelError(f"static encoder {folder} cannot be read ({reason}); distil it again") from exc
        if encoder.fingerprint != manifest["fingerprint"]:
            raise ModelError(f"static encoder {folder} is not what its manifest names; distil it again")
        return encoder

    def save(self, folder: Path) -> None:
        """Writes safetensors, tokenizer.json and, last, manifest.json; an earlier one in `folder` is replaced."""
        sources = {"fingerprint": self._fingerprint}
        begin(folder, KIND, sources)
        with replacing(folder / _VECTORS) as temporary:
            tables = {"vectors": self._table[:-1].numpy(), "pair_vectors": self._pairs.vectors}
            save_file(tables | {"pair_keys": self._pairs.keys}, temporary)
        write_text(folder / _TOKENIZER, self._json)
        end(folder, KIND, sources, name=self.name, fingerprint=self._fingerprint, facts=self.facts)

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return int(self._table.shape[1])

    @property
    def fingerprint(self) -> str:
        """sha256 over the token vectors and the tokenizer."""
        return self._fingerprint

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:  # (n, dim), unit rows
        """The vectors of `texts`, in their order; what else is in the call changes nothing, not even by rounding."""
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        for start in range(0, len(texts), _WINDOW):
            part = texts[start : start + _WINDOW]
            vectors[start : start + len(part)] = self._sums(part)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors[lengths[:, 0] == 0, 0] = 1
        return np.asarray(vectors / np.where(lengths == 0, 1, lengths), dtype=np.float32)

    def _sums(self, texts: Sequence[str]) -> NDArray[np.float32]:  # the mean's direction is the sum's
        ids, lengths = _flat(_token_ids(self._tokenizer, texts), len(self._table))
        with torch.inference_mode():
            sums = _sum(self._table, ids, lengths)
            if len(self._pairs.keys):
                owner, places = self._pairs.find(ids, lengths, len(self._table))
                sums += _sum(self._pair_table, places, np.bincount(owner, minlength=len(texts)))
        return np.asarray(sums.numpy(), dtype=np.float32)


@dataclass(frozen=True)
class Pairs:
    """Vectors of two tokens in a row."""

    keys: NDArray[np.int64]  # (pairs,) ascending, as of `pair_keys`
    vectors: NDArray[np.float32]  # (pairs, dim)

    @classmethod
    def none(cls, dim: int) -> Pairs:
        """No pairs."""
        return cls(np.zeros(0, dtype=np.int64), np.zeros((0, dim), dtype=np.float32))

    def find(
        self, ids: NDArray[np.int64], lengths: NDArray[np.int64], size: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Text and row of every pair in these texts that has a vector; arguments as of `pair_keys`."""
        owner, keys = pair_keys(ids, lengths, size)
        places = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        known = self.keys[places] == keys
        return owner[known], places[known]


class Wrapped(NamedTuple):
    """What a tokenizer puts around a single text."""

    before: list[int]
    after: list[int]


def made_from(model: str, dim: int) -> dict[str, Any]:
    """What decides token vectors, besides sample texts: fingerprint of the model, width, method."""
    return {"model": model, "dim": dim, "method": 2}  # raised when the same inputs give other vectors


def _fitted(
    vectors: NDArray[np.float32],  # (entries, width)
    embeddings: NDArray[np.float32] | None,  # (entries, any)
    dim: int,
    tokenizer: Tokenizer,
    entries: Sequence[int],
    texts: Sequence[str],
    wanted: NDArray[np.float32],  # (texts, width), the model's
) -> tuple[NDArray[np.float32], Pairs, float]:
    rows = _token_ids(tokenizer, texts)
    size = max(entries) + 2  # rows of an encoder's table: the entries, and one for any id beyond
    keys, pairs = pair_counts(*pair_keys(*_flat(rows, size), size), len(texts))
    alone = vectors - vectors.mean(axis=0)
    moved, of_pairs = fitted(alone, embeddings, token_counts(rows, entries), pairs, wanted)
    if dim == vectors.shape[1]:
        return moved, Pairs(keys, of_pairs), 1.0
    directions, explained = leading_directions(wanted, dim)  # those that texts use, not those that entries do
    turned = [(one @ directions).astype(np.float32) for one in (moved, of_pairs)]
    return turned[0], Pairs(keys, turned[1]), explained


def _flat(rows: Sequence[Sequence[int]], size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Token ids of all texts below `size`, which its last stands in for, and the number of each text's."""
    lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
    ids = np.fromiter(itertools.chain.from_iterable(rows), dtype=np.int64, count=int(lengths.sum()))
    return np.minimum(ids, size - 1), lengths


def _sum(table: torch.Tensor, ids: NDArray[np.int64], lengths: NDArray[np.int64]) -> torch.Tensor:
    """The sum of the rows of each text, (texts, dim)."""
    starts = torch.from_numpy(np.cumsum(lengths) - lengths)
    return torch.nn.functional.embedding_bag(torch.from_numpy(ids), table, starts, mode="sum")


def _plain(tokenizer: str) -> Tokenizer:
    plain = Tokenizer.from_str(tokenizer)
    plain.no_truncation()  # a long text costs nothing here
    plain.no_padding()
    return plain


def _token_ids(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    return [found.ids for found in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]


def _entries(tokenizer: Any) -> list[int]:
    """Ids of the vocabulary in order, without special and reserved entries."""
    special = set(tokenizer.all_special_ids)
    reserved = ("[unused", "<unused", "<|reserved", "<extra_id")
    return sorted(
        id_ for token, id_ in tokenizer.get_vocab().items() if id_ not in special and not token.startswith(reserved)
    )


def _wrapping(tokenizer: Any) -> Wrapped:
    special = set(tokenizer.all_special_ids)
    ids = tokenizer("a")["input_ids"]
    inner = [place for place, id_ in enumerate(ids) if id_ not in special]
    return Wrapped(ids[: inner[0]], ids[inner[-1] + 1 :])


def _through_model(model: Any, entries: Sequence[int], told: Callable[[int], None]) -> NDArray[np.float32]:
    before, after = _wrapping(model.tokenizer)
    vectors = []
    with torch.inference_mode():
        for start in range(0, len(entries), _BATCH):
            part = entries[start : start + _BATCH]
            ids = torch.tensor([[*before, entry, *after] for entry in part], device=model.device)
            features = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            vectors.append(model.forward(features)["sentence_embedding"].float().cpu().numpy())
            told(len(part))
    return np.concatenate(vectors)


def _sample_through(model: str, texts: Sequence[str], told: Callable[[int], None]) -> NDArray[np.float32]:
    encoder, vectors = SentenceEncoder.load(model), []
    for start in range(0, len(texts), _CHUNK):
        vectors.append(encoder.encode(texts[start : start + _CHUNK]))
        told(len(vectors[-1]))
    return np.concatenate(vectors)


def _counted(progress: Steps | None, total: int) -> Callable[[int], None]:
    """Told of each part that is done, it tells `progress` of all."""
    done = 0

    def told(more: int) -> None:
        nonlocal done
        done += more
        if progress is not None:
            progress(done, total)

    return told


def _input_embeddings(model: Any, entries: Sequence[int]) -> NDArray[np.float32] | None:  # (entries, any), centred
    """What the model begins with; None for a model that is no transformer."""
    transformer = getattr(model[0], "auto_model", None)
    if transformer is None:
        return None
    weight = transformer.get_input_embeddings().weight.detach().float().cpu().numpy()[np.asarray(entries)]
    return np.asarray(weight - weight.mean(axis=0), dtype=np.float32)


def _digest(table: NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(table).data).hexdigest()
