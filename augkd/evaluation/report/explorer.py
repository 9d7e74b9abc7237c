"""Data of the transfer-set explorer: columns, each text once, compressed, so that the page stays below 3 MB.

40,000 candidates are 9 MB as JSON objects; as columns with each text once and compressed they are about 1 MB, which the
browser decompresses in some 10 ms. A divergence is one character on a logarithmic scale of 89 levels. Above the limit
the explorer has a random sample of whole originals, and the page states how many.
"""

from __future__ import annotations

import base64
import difflib
import json
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from augkd.data.target import Target, present
from augkd.data.transfer_set import Candidates, TransferSet
from augkd.distill.trace import Trace

EPOCHS = 12  # maximum in a sparkline; of more, evenly spaced ones with the first and the last
REWRITTEN = frozenset({"generator", "substitution"})  # sources whose texts are the original's with words replaced
_ALPHABET = "".join(chr(code) for code in range(0x23, 0x7F) if chr(code) not in "\\<>&")  # 89 levels of divergence
# The scale spans the 1 % quantile to the maximum, within these limits; smaller divergences share the lowest level.
_DECADES = (1.0, 5.0)
_NONE = "!"  # not scored


def explorer_data(transfer: TransferSet, candidates: Candidates, trace: Trace | None, limit: int) -> dict[str, Any]:
    """What the page's script reads: the counts `shown` and `originals`, and `data`, base64 of deflated JSON.

    `data` has at most `limit` bytes. For that it may hold a random sample of originals (seed 0), in the transfer set's
    order.
    """
    columns = _Columns(transfer, candidates, trace)
    rows = np.arange(len(transfer))
    data = _deflated(columns.take(rows))
    order = np.random.default_rng(0).permutation(len(transfer))
    while len(data) > limit and len(rows) > 1:
        count = int(len(rows) * min(0.95, 0.98 * limit / len(data)))
        rows = np.sort(order[: max(1, count)])
        data = _deflated(columns.take(rows))
    return {"originals": len(transfer), "shown": len(rows), "data": data}


def replaced_words(original: str, text: str) -> list[int]:
    """Places of the words of `text`, split at single spaces, that an alignment does not find in the original."""
    matcher = difflib.SequenceMatcher(None, original.split(" "), text.split(" "), autojunk=False)
    return [place for tag, _, _, low, high in matcher.get_opcodes() if tag != "equal" for place in range(low, high)]


class _Columns:
    """The columns of a whole transfer set; `take` gives those of some originals."""

    def __init__(self, transfer: TransferSet, candidates: Candidates, trace: Trace | None):
        self._names = list(transfer.target.answers)
        self._text, self._pair = transfer.column("text"), transfer.column("text_pair")
        self._label = _encoded_labels(transfer.column("label"), transfer.target, self._names)
        self._teacher = _encoded_predictions(transfer.teacher(), transfer.target, self._names)
        self._candidates = candidates
        self._candidate_teacher = _encoded_predictions(candidates.teacher, transfer.target, self._names)
        self._score = [None if np.isnan(value) else round(float(value), 2) for value in candidates.score]
        self._sources = sorted(set(candidates.source))
        self._scale = _Scale(trace, len(candidates.owner)) if trace is not None and len(trace.picked) else None

    def take(self, rows: NDArray[np.int64]) -> dict[str, Any]:
        kept = np.flatnonzero(np.isin(self._candidates.owner, rows))
        texts: dict[str, int] = {}
        value: dict[str, Any] = {
            "labels": self._names,
            "sources": self._sources,
            "text": [_place(texts, self._text[row]) for row in rows],
            "pair": _pairs(texts, [self._pair[row] for row in rows]),
            "label": [self._label[row] for row in rows],
            "teacher": [self._teacher[row] for row in rows],
            "count": np.bincount(np.searchsorted(rows, self._candidates.owner[kept]), minlength=len(rows)).tolist(),
            "ctext": [_place(texts, self._candidates.text[place]) for place in kept],
            "cpair": _pairs(texts, [self._candidates.text_pair[place] for place in kept]),
            "source": [self._sources.index(self._candidates.source[place]) for place in kept],
            "score": [self._score[place] for place in kept],
            "cteacher": [self._candidate_teacher[place] for place in kept],
            "marked": self._marked(kept),
        }
        return value | {"texts": list(texts), "trace": self._scale.take(kept) if self._scale else None}

    def _marked(self, kept: NDArray[np.int64]) -> dict[str, list[int]]:
        """Position among the kept candidates → replaced words, for rewritten texts."""
        replaced: dict[str, list[int]] = {}
        for position, place in enumerate(kept.tolist()):
            if self._candidates.source[place] in REWRITTEN:
                original = self._text[self._candidates.owner[place]]
                replaced[str(position)] = replaced_words(original, self._candidates.text[place])
        return replaced


class _Scale:
    """A trace as one string per epoch: a level for each divergence; 0, 1 or - (not traced) for picked."""

    def __init__(self, trace: Trace, candidates: int):
        epochs = len(trace.picked)
        self._epochs = np.unique(np.linspace(0, epochs - 1, min(EPOCHS, epochs)).round().astype(int))
        divergence = trace.divergence[self._epochs].astype(np.float32)
        positive = divergence[divergence > 0]
        low, high = np.log10(np.quantile(positive, [0.01, 1.0])) if len(positive) else (-1.0, 0.0)
        self._high, self._decades = float(high), float(np.clip(high - low, *_DECADES))
        levels = (np.log10(np.maximum(divergence, 10 ** (high - self._decades))) - high) / self._decades + 1
        codes = np.array([ord(character) for character in _ALPHABET], dtype=np.uint8)
        places = np.nan_to_num(levels * (len(codes) - 1)).round().astype(int)
        shape = (len(self._epochs), candidates)
        self._divergence = np.full(shape, ord(_NONE), dtype=np.uint8)
        self._divergence[:, trace.candidates] = np.where(np.isnan(divergence), ord(_NONE), codes[places])
        self._picked = np.full(shape, ord("-"), dtype=np.uint8)
        self._picked[:, trace.candidates] = trace.picked[self._epochs] + ord("0")
        self._total_epochs = epochs
        self._sampled = len(trace.candidates) < trace.total

    def take(self, kept: NDArray[np.int64]) -> dict[str, Any]:
        return {
            "epochs": (self._epochs + 1).tolist(),
            "total_epochs": self._total_epochs,
            "sampled": self._sampled,
            "alphabet": _ALPHABET,
            "high": round(self._high, 4),
            "decades": round(self._decades, 4),
            "divergence": [row[kept].tobytes().decode("ascii") for row in self._divergence],
            "picked": [row[kept].tobytes().decode("ascii") for row in self._picked],
        }


def _place(texts: dict[str, int], text: str) -> int:
    return texts.setdefault(text, len(texts))


def _pairs(texts: dict[str, int], pairs: Sequence[str | None]) -> list[int] | None:
    """Places of second texts, -1 for none; None when no row has one."""
    if all(pair is None for pair in pairs):
        return None
    return [-1 if pair is None else _place(texts, pair) for pair in pairs]


def _encoded_labels(labels: Sequence[Any], target: Target, names: list[str]) -> list[float | None]:
    """Places in `names`; for regression the labels themselves. None for a missing one."""
    if target.regression:
        return [None if label is None else round(label, 3) for label in labels]
    encoded = target.encode(labels)
    places: list[float | None] = [None] * len(labels)
    known = present(encoded)
    for row, place in zip(np.flatnonzero(known), _places(target.named(encoded[known]), names), strict=True):
        places[row] = place
    return places


def _encoded_predictions(logits: NDArray[np.float32], target: Target, names: list[str]) -> list[float]:
    """101 · place in `names` + probability in per cent; for regression the output itself."""
    if target.regression:
        return [round(float(value), 3) for value in logits[:, 0]]
    if not len(logits):
        return []
    places = _places(target.named(target.predictions(logits)), names)
    return [101 * place + int(p) for place, p in zip(places, np.rint(100 * target.confidence(logits)), strict=True)]


def _places(answers: Sequence[str], names: list[str]) -> list[int]:
    """The place of each answer in `names`, which gets those it lacks; of several labels, a combination is an answer."""
    place_of = {name: place for place, name in enumerate(names)}
    places = [place_of.setdefault(answer, len(place_of)) for answer in answers]
    names[:] = place_of
    return places


def _deflated(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode("ascii")
