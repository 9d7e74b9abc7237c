"""The teacher's logits: computed once for each distinct text and kept on disk; those of several teachers averaged.

A store is a folder of parts, each written whole and renamed, under a key that hashes weights, tokenizer, maximum length
and text. A change of any of them changes the key, so stale logits cannot be read; a killed writer loses one part.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from scipy.special import log_softmax, logsumexp

from augkd.errors import ModelError, short_repr
from augkd.workspace.locks import claimed
from augkd.workspace.part_store import PartStore, damaged_part
from augkd.workspace.progress import Steps

if TYPE_CHECKING:
    from augkd.models.classifier import Classifier, Pair

    Predict = Callable[[Sequence[list[Pair]]], Iterator[NDArray[np.float32]]]  # parts → the logits of each

_PART = 4096  # texts per part: at most a minute of a MiniLM teacher's work on two slow cores


class TeacherOutputs(Protocol):
    """A source of the teacher's logits; `rows` counts the texts forwarded to compute them."""

    @property
    def rows(self) -> int:
        """Texts forwarded so far."""

    def has(self, texts: Sequence[Pair]) -> bool:
        """Whether it can give the logits of all `texts`: numbers from elsewhere may lack some."""

    def logits(self, texts: Sequence[Pair], progress: Steps | None = None) -> NDArray[np.float32]:
        """(n, outputs) logits in the order of the task's labels; nan for a text that has none."""


class CachedTeacher:
    """A teacher model behind a store: each distinct text is forwarded once, ever."""

    def __init__(
        self,
        load: Callable[[], Classifier],
        outputs: int,
        folder: Path,
        weights: str,
        max_length: int,
        predict: Predict | None = None,
        predict_from: int = 1,
    ):
        """`load` gives the model when a text is new; `weights` is its fingerprint (weights and tokenizer).

        `predict` computes the logits elsewhere: of each part, in order, where there are at least `predict_from` parts
        (None: here, by the model of `load`).
        """
        self._load = load
        self._classifier: Classifier | None = None
        self._predict, self._predict_from = predict, predict_from
        self._outputs = outputs
        self._folder = folder / key_of(weights, max_length)
        self._store = PartStore(self._folder, "teacher_logits", {"weights": weights, "max_length": max_length})
        self._seed = f"{weights}/{max_length}"
        self.rows = 0  # texts forwarded by this object

    def has(self, texts: Sequence[Pair]) -> bool:
        """Always: the model computes what is not stored."""
        return True

    def logits(
        self, texts: Sequence[Pair], progress: Steps | None = None, predict: Predict | None = None
    ) -> NDArray[np.float32]:
        """Logits of `texts`; those not stored yet go through the teacher, shortest texts first.

        `predict` computes these in place of what else would.
        """
        keys = np.array([text_key(self._seed, text) for text in texts], dtype=np.uint64).reshape(-1, 2)
        with claimed(self._folder):
            self._store.open()
            self._add([texts[i] for i in self._missing(keys)], progress, predict)
        return self._read(keys)

    def _missing(self, keys: NDArray[np.uint64]) -> list[int]:
        """Positions of the distinct keys that are not stored."""
        stored = {key for _, found in self._found(keys) for key in found}
        first = {tuple(key): position for position, key in reversed(list(enumerate(keys.tolist())))}
        return sorted(position for key, position in first.items() if key not in stored)

    def _add(self, texts: list[Pair], progress: Steps | None, predict: Predict | None) -> None:
        texts = sorted(
            texts, key=lambda text: len(text[0]) + len(text[1] or "")
        )  # stable: a resumed run makes the same parts
        parts = [texts[begin : begin + _PART] for begin in range(0, len(texts), _PART)]
        elsewhere = self._predict if len(parts) >= self._predict_from else None
        predict = predict or elsewhere or self._predict_here
        done = 0
        for part, logits in zip(parts, predict(parts) if parts else (), strict=True):
            _check_finite(logits, part)
            self.rows += len(part)
            done += len(part)
            keys = np.array([text_key(self._seed, text) for text in part], dtype=np.uint64)
            with self._store.add() as temporary:
                save_file({"keys": keys, "logits": logits.astype(np.float32)}, temporary)
            if progress:
                progress(done, len(texts))

    def _predict_here(self, parts: Sequence[list[Pair]]) -> Iterator[NDArray[np.float32]]:
        if self._classifier is None:
            self._classifier = self._load()
        for part in parts:
            yield self._classifier.predict(part, "teacher").numpy()

    def _read(self, keys: NDArray[np.uint64]) -> NDArray[np.float32]:
        logits = np.full((len(keys), self._outputs), np.nan, dtype=np.float32)
        rows_of: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for row, key in enumerate(map(tuple, keys.tolist())):
            rows_of[key].append(row)
        for part, found in self._found(keys):
            hits = [(row, position) for key, position in found.items() for row in rows_of.get(key, ())]
            if hits:
                rows, sources = np.array(hits).T
                with safe_open(part, framework="numpy") as store:
                    logits[rows] = store.get_tensor("logits")[sources]
        return logits

    def _found(self, keys: NDArray[np.uint64]) -> Iterator[tuple[Path, dict[tuple[int, ...], int]]]:
        """Each part with the positions in it of its keys that may be among `keys` (n, 2): the first halves are equal.

        A store may have millions of keys, of which a call wants a few thousand.
        """
        wanted = np.unique(keys[:, 0])
        for part in self._parts() if len(wanted) else ():
            stored = self._keys(part)
            places = np.searchsorted(wanted, stored[:, 0]).clip(max=len(wanted) - 1)
            near = (wanted[places] == stored[:, 0]).nonzero()[0]
            yield part, dict(zip(map(tuple, stored[near].tolist()), near.tolist(), strict=True))

    def _parts(self) -> list[Path]:
        return self._store.parts()

    @staticmethod
    def _keys(part: Path) -> NDArray[np.uint64]:  # (n, 2)
        try:
            with safe_open(part, framework="numpy") as store:
                keys: NDArray[np.uint64] = store.get_tensor("keys")
        except (SafetensorError, OSError) as exc:
            raise damaged_part(part, exc) from exc
        return keys


class AveragedTeacher:
    """Several teachers as one: the mean of their logits or of their probabilities (Bucila et al. 2006)."""

    def __init__(self, members: Sequence[TeacherOutputs], average: str, activation: str = "softmax"):
        """`average` is logits or probabilities; `activation` makes the latter of the former (a key of `MEANS`)."""
        self.members = list(members)
        self._average = MEANS[activation] if average == "probabilities" else _mean

    @property
    def rows(self) -> int:
        """Texts forwarded by all members."""
        return sum(member.rows for member in self.members)

    def has(self, texts: Sequence[Pair]) -> bool:
        """Whether all members have all of `texts`."""
        return all(member.has(texts) for member in self.members)

    def logits(self, texts: Sequence[Pair], progress: Steps | None = None) -> NDArray[np.float32]:
        """The average; nan for a text that a member has no logits for."""
        outputs = np.stack([member.logits(texts, progress) for member in self.members])
        return np.asarray(self._average(outputs), dtype=np.float32)


def _mean(outputs: NDArray[Any]) -> NDArray[Any]:  # (members, n, outputs) → (n, outputs)
    return np.asarray(outputs.mean(axis=0))


def _mean_softmax(outputs: NDArray[Any]) -> NDArray[Any]:  # (members, n, classes) → (n, classes)
    return np.asarray(logsumexp(log_softmax(outputs, axis=-1), axis=0) - np.log(len(outputs)))


def _mean_sigmoid(outputs: NDArray[Any]) -> NDArray[Any]:  # (members, n, labels) → (n, labels)
    classes = _mean_softmax(np.stack([np.zeros_like(outputs), outputs], axis=-1))  # no and yes
    return np.asarray(classes[..., 1] - classes[..., 0])


MEANS: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {  # of probabilities, as logits
    "softmax": _mean_softmax,
    "sigmoid": _mean_sigmoid,
    "identity": _mean,
}


def _check_finite(logits: NDArray[np.float32], texts: Sequence[Pair]) -> None:
    finite = np.isfinite(logits).all(axis=1)
    if not finite.all():
        text = short_repr(texts[int(finite.argmin())][0])
        raise ModelError(
            f"the teacher's outputs are not finite for {(~finite).sum()} of {len(texts)} texts, first {text}; "
            "its weights are damaged or its training diverged: use another checkpoint, or a lower learning rate"
        )


def known_logits(outputs: TeacherOutputs, texts: Sequence[Pair], width: int) -> NDArray[np.float32]:  # (n, width)
    """The teacher's logits of `texts`; nan in all of them where it does not know some."""
    if not outputs.has(texts):
        return np.full((len(texts), width), np.nan, dtype=np.float32)
    return outputs.logits(texts)


def key_of(weights: str, max_length: int) -> str:
    """The name of the store of one teacher at one maximum length."""
    return hashlib.sha256(f"{weights}/{max_length}".encode()).hexdigest()[:16]


def text_key(seed: str, text: Pair) -> tuple[int, int]:
    """128 bits over (teacher, tokenizer, length, text); a single text and a pair with an empty second text differ."""
    digest = hashlib.sha256(json.dumps([seed, *text]).encode()).digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:16], "little")
