"""Static encoders: one vector per vocabulary entry; a text is the weighted mean of its tokens' vectors.

No model runs when a text is encoded (Model2Vec: Tulkens & van Dongen 2024). Beyond Model2Vec, pairs of tokens that are
often neighbours may have a vector of their own. How the vectors are made from a model is in distillation.py.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

from augkd.errors import ModelError
from augkd.retrieval.encoders.token_vectors import pair_keys
from augkd.workspace.files import replacing, write_text
from augkd.workspace.fingerprints import fingerprint
from augkd.workspace.folders import begin, end
from augkd.workspace.manifest_kinds import StaticEncoderManifest
from augkd.workspace.manifests import check_files, read_manifest

if TYPE_CHECKING:
    from numpy.typing import NDArray

KIND = "static_encoder"
_VECTORS, _TOKENIZER = "model.safetensors", "tokenizer.json"
_WINDOW = 65_536  # texts tokenised at once: bounds memory


@final
class StaticEncoder:
    """Vectors of tokens, and of pairs of them, read-only; made by `distillation.distill` or `load`.

    A text without a known token (empty, or in another script) gets the first axis, (1, 0, …, 0), as its vector.
    """

    def __init__(
        self,
        table: NDArray[np.float32],  # (vocabulary, dim); a row of zeros is a token that counts for nothing
        tokenizer: str,
        *,
        name: str,
        facts: Mapping[str, Any],
        pairs: Pairs | None = None,
    ) -> None:
        # one more row, of zeros, for any id beyond the entries
        self._table = torch.from_numpy(np.concatenate([table, np.zeros((1, table.shape[1]), dtype=np.float32)]))
        self._pairs = pairs or Pairs.none(table.shape[1])
        self._pair_table = torch.from_numpy(self._pairs.vectors)
        self._json = tokenizer
        self._tokenizer = plain_tokenizer(tokenizer)
        digests = [_digest(array) for array in (table, self._pairs.keys, self._pairs.vectors)]
        self._fingerprint = fingerprint([KIND, fingerprint(tokenizer), *digests])
        self.name = name
        self.facts = dict(facts)  # what it was made from, share of variance explained, numbers of entries and pairs

    @classmethod
    def load(cls, folder: Path) -> StaticEncoder:
        """A saved encoder; raises WorkspaceError or ModelError when the folder is unfinished, foreign or damaged."""
        manifest = read_manifest(folder, StaticEncoderManifest)
        check_files(folder, manifest)
        try:
            tables = load_file(folder / _VECTORS)
            encoder = cls(
                tables["vectors"],
                (folder / _TOKENIZER).read_text(encoding="utf-8"),
                name=manifest.name,
                facts=manifest.facts,
                pairs=Pairs(tables["pair_keys"], tables["pair_vectors"]),
            )
        except Exception as exc:  # tokenizers raises Exception itself
            reason = str(exc).split("\n")[0]
            raise ModelError(f"static encoder {folder} cannot be read ({reason}); distil it again") from exc
        if encoder.fingerprint != manifest.fingerprint:
            raise ModelError(f"static encoder {folder} does not match its manifest; distil it again")
        return encoder

    def save(self, folder: Path) -> None:
        """Writes safetensors, tokenizer.json and, last, manifest.json; an earlier encoder in `folder` is replaced."""
        made_from = {"fingerprint": self._fingerprint}
        begin(folder, KIND, made_from)
        with replacing(folder / _VECTORS) as temporary:
            tables = {"vectors": self._table[:-1].numpy(), "pair_vectors": self._pairs.vectors}
            save_file(tables | {"pair_keys": self._pairs.keys}, temporary)
        write_text(folder / _TOKENIZER, self._json)
        end(folder, KIND, made_from, name=self.name, fingerprint=self._fingerprint, facts=self.facts)

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

    def _sums(self, texts: Sequence[str]) -> NDArray[np.float32]:  # (texts, dim); the mean's direction is the sum's
        ids, lengths = flatten(token_ids(self._tokenizer, texts), len(self._table))
        with torch.inference_mode():
            sums = _sum(self._table, ids, lengths)
            if len(self._pairs.keys):
                owner, rows = self._pairs.find(ids, lengths, len(self._table))
                sums += _sum(self._pair_table, rows, np.bincount(owner, minlength=len(texts)))
        return np.asarray(sums.numpy(), dtype=np.float32)


@dataclass(frozen=True)
class Pairs:
    """Vectors of two tokens in a row."""

    keys: NDArray[np.int64]  # (pairs,) ascending, from `pair_keys`
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
        rows = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        known = self.keys[rows] == keys
        return owner[known], rows[known]


def plain_tokenizer(tokenizer: str) -> Tokenizer:
    """The tokenizer of this JSON, without truncation (a long text costs nothing here) or padding."""
    plain = Tokenizer.from_str(tokenizer)
    plain.no_truncation()
    plain.no_padding()
    return plain


def token_ids(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text, without special tokens."""
    return [encoding.ids for encoding in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]


def flatten(rows: Sequence[Sequence[int]], size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Token ids of all texts, one after the other, and the length of each; an id from `size` on becomes `size` - 1."""
    lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
    ids = np.fromiter(itertools.chain.from_iterable(rows), dtype=np.int64, count=int(lengths.sum()))
    return np.minimum(ids, size - 1), lengths


def _sum(table: torch.Tensor, ids: NDArray[np.int64], lengths: NDArray[np.int64]) -> torch.Tensor:
    """The sum of the rows of each text, (texts, dim)."""
    starts = torch.from_numpy(np.cumsum(lengths) - lengths)
    return torch.nn.functional.embedding_bag(torch.from_numpy(ids), table, starts, mode="sum")


def _digest(table: NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(table).data).hexdigest()
