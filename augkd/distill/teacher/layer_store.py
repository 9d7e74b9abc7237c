"""The teacher's layer vectors of each distinct text, in fp16, so that layers are matched without a live teacher.

They are stored while the teacher labels, in the same pass, or later, of texts that were labelled before.

A store is a folder of parts, each written whole and renamed, under a key that hashes the teacher's weights and
tokenizer, the maximum length, the layers and the pooling; only what a recipe needs is kept. Rows are looked up by text
once, when a data set is made, and then read by number from mapped files. 12 layers of 768 take 18 kB per text.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Container, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor

from augkd.distill.objective.layer_states import Needs, logits_and_vectors
from augkd.distill.teacher.outputs import text_key
from augkd.errors import ModelError, WorkspaceError, short_repr
from augkd.models.classifier import Classifier, Pair
from augkd.workspace.disk import free_bytes
from augkd.workspace.fingerprints import fingerprint
from augkd.workspace.locks import claimed
from augkd.workspace.part_store import PartStore, damaged_part
from augkd.workspace.progress import Steps

_PART = 4096  # texts per part: 75 MB for 12 layers of 768, the most that a kill loses
_KEY_BYTES = 16
Announce = Callable[[int, int], None]  # (texts, bytes) that will be written


class LayerStore:
    """Vectors of the layers and the pooling of `needs`; each distinct text is forwarded once, ever."""

    def __init__(
        self,
        load: Callable[[], Classifier],
        needs: Needs,
        width: int,
        folder: Path,
        weights: str,
        max_length: int,
    ):
        """`load` gives the teacher when a text is new; `weights` is its fingerprint (weights and tokenizer).

        Raises ModelError when `needs` names token states or attention scores.
        """
        if needs.live or not needs.layers:
            raise ModelError("only layer vectors can be stored; token and attention losses need a live teacher")
        self._load = load
        self._classifier: Classifier | None = None
        self._needs, self._width = needs, width
        self._made_from = {
            "weights": weights,
            "max_length": max_length,
            "layers": list(needs.layers),
            "pooling": needs.pooling,
        }
        self.folder = folder / fingerprint(self._made_from)[:16]
        self._store = PartStore(self.folder, "teacher_layers", self._made_from)
        self._seed = f"{weights}/{max_length}"
        self._maps: list[NDArray[np.float16]] = []
        self._starts = np.zeros(1, dtype=np.int64)
        self.rows = 0  # texts forwarded by this object

    def bytes_needed(self, texts: int) -> int:
        """Bytes on disk that this number of texts takes."""
        return texts * bytes_of_a_text(len(self._needs.layers), self._width)

    def positions(
        self, texts: Sequence[Pair], announce: Announce | None = None, progress: Steps | None = None
    ) -> Tensor:  # (n,) long
        """The row number of each text, for `read`; texts not stored yet go through the teacher first.

        `announce(texts, bytes)` is called before anything is written. Raises WorkspaceError when the disk has too
        little space, ModelError when a vector does not fit fp16.
        """
        with claimed(self.folder):
            self._store.open()
            stored = self._stored()
            new = self._new(texts, stored)
            if new:
                self._make_room(len(new), announce)
                self._write(new, len(stored), progress)
                stored = self._stored()
            self._open()
        return torch.tensor([stored[text_key(self._seed, text)] for text in texts], dtype=torch.long)

    def logits(
        self, parts: Sequence[list[Pair]], announce: Announce | None = None
    ) -> Iterator[NDArray[np.float32]]:  # each (texts of the part, outputs)
        """The teacher's logits of each part of texts, whose vectors are stored on the way.

        `announce` and the errors are those of `positions`.
        """
        with claimed(self.folder):
            self._store.open()
            stored = set(self._stored())
            new = self._new([text for part in parts for text in part], stored)
            if new:
                self._make_room(len(new), announce)
        for part in parts:
            logits, vectors = self._forward(part)
            if missing := self._new(part, stored):
                rows = {text: row for row, text in enumerate(part)}
                stored |= missing.keys()
                with claimed(self.folder):
                    self._add(list(missing), vectors[[rows[text] for text in missing.values()]], len(stored))
            yield logits

    def read(self, positions: Tensor) -> Tensor:  # (n,) → (n, layers, d) float16
        """The vectors of rows that `positions` gave, in that order; reads no other row."""
        rows = positions.numpy()
        vectors = np.empty((len(rows), len(self._needs.layers), self._width), dtype=np.float16)
        parts = np.searchsorted(self._starts, rows, side="right") - 1
        for part in np.unique(parts):
            inside = parts == part
            vectors[inside] = self._maps[part][rows[inside] - self._starts[part]]
        return torch.from_numpy(vectors)

    def _stored(self) -> dict[tuple[int, int], int]:
        """Key → row number, over all parts."""
        keys = [_keys(part) for part in self._parts()]
        flat = np.concatenate(keys).tolist() if keys else []
        return {(first, second): row for row, (first, second) in enumerate(flat)}

    def _make_room(self, texts: int, announce: Announce | None) -> None:
        needed, free = self.bytes_needed(texts), free_bytes(self.folder)
        if announce:
            announce(texts, needed)
        if needed > free:
            raise WorkspaceError(
                f"teacher layers of {texts} texts take {needed / 1e9:.1f} GB, {self.folder} has {free / 1e9:.1f} GB "
                "free; match fewer layers (pkd), keep fewer neighbours, or choose another --out"
            )

    def _new(self, texts: Sequence[Pair], stored: Container[tuple[int, int]]) -> dict[tuple[int, int], Pair]:
        """The distinct texts whose keys are not among the stored ones, by their keys."""
        keyed = ((text_key(self._seed, text), text) for text in texts)
        return {key: text for key, text in keyed if key not in stored}

    def _write(self, new: dict[tuple[int, int], Pair], stored: int, progress: Steps | None) -> None:
        # stable: a resumed run makes the same parts
        items = sorted(new.items(), key=lambda item: len(item[1][0]) + len(item[1][1] or ""))
        for begin in range(0, len(items), _PART):
            part = items[begin : begin + _PART]
            _, vectors = self._forward([text for _, text in part])
            self._add([key for key, _ in part], vectors, stored + begin + len(part))
            if progress:
                progress(begin + len(part), len(items))

    def _add(self, keys: list[tuple[int, int]], vectors: NDArray[np.float16], texts: int) -> None:
        """Writes a part; `texts` are all that are stored with it."""
        with self._store.add(self.bytes_needed(len(keys)), texts=texts, width=self._width) as temporary:
            save_file({"keys": np.array(keys, dtype=np.uint64), "vectors": vectors}, temporary)

    def _forward(self, texts: list[Pair]) -> tuple[NDArray[np.float32], NDArray[np.float16]]:
        """Logits and vectors of texts."""
        if self._classifier is None:
            self._classifier = self._load()
        logits, vectors = logits_and_vectors(self._classifier, self._classifier.tokens(texts), self._needs)
        assert vectors.shape[1:] == (len(self._needs.layers), self._width)
        self.rows += len(texts)
        # min with nan is nan, and nan < limit is false
        fits = (vectors.abs().amax(dim=(1, 2)) <= torch.finfo(torch.float16).max).tolist()
        if not all(fits):
            text = texts[fits.index(False)][0]
            raise ModelError(f"a teacher layer vector of {short_repr(text)} is not finite or above fp16's 65504")
        return logits.numpy(), vectors.half().numpy()

    def _open(self) -> None:
        self._maps = [_mapped(part) for part in self._parts()]
        self._starts = np.cumsum([0, *map(len, self._maps)])

    def _parts(self) -> list[Path]:
        return self._store.parts()


def bytes_of_a_text(layers: int, width: int) -> int:
    """Bytes on disk of the vectors of one text."""
    return layers * width * 2 + _KEY_BYTES


def _keys(part: Path) -> NDArray[np.uint64]:  # (n, 2)
    try:
        with safe_open(part, framework="numpy") as store:
            keys: NDArray[np.uint64] = store.get_tensor("keys")
    except (SafetensorError, OSError) as exc:
        raise damaged_part(part, exc) from exc
    return keys


def _mapped(part: Path) -> NDArray[np.float16]:  # (n, layers, d)
    """The vectors of a part, mapped: a safetensors file is a length, a JSON header, then plain arrays."""
    with part.open("rb") as stream:
        (size,) = struct.unpack("<Q", stream.read(8))
        entry = json.loads(stream.read(size))["vectors"]
    start = 8 + size + entry["data_offsets"][0]
    return np.memmap(part, dtype=np.float16, mode="r", offset=start, shape=tuple(entry["shape"]))
