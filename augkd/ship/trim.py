"""Vocabulary trimming: a student without the tokens that its texts never use.

Exact on those texts: the same tokens, under smaller numbers, and so the same logits, bit for bit. What has to stay for
that is more than the tokens seen, and differs by tokenizer; each kind below says why it is enough, and the whole text
is tokenized again with the saved tokenizer before anyone relies on it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import nn
from transformers import AutoTokenizer

from augkd.errors import ModelError, shown
from augkd.models.classifier import Classifier
from augkd.ship.tokenizer_kinds import KINDS, Vocabulary, refusal
from augkd.workspace.files import write_json

_BATCH = 4096  # texts tokenized at once
Texts = Callable[[], Iterable[str]]


@dataclass(frozen=True)
class Trimming:
    """What is left of a vocabulary: `kept[new]` is a token's old number."""

    kept: NDArray[np.int64]  # (tokens,) ascending
    before: int  # tokens there were


def trim(
    classifier: Classifier,  # changed: it loses the rows of its embeddings
    texts: Texts,  # called twice: to see which tokens occur, and to compare
    folder: Path,  # a save_pretrained folder of the trimmed student
    *,
    characters: bool = True,  # keep every single character, so that new words fall apart instead of becoming unknown
) -> Trimming:
    """Trims a student to the tokens of `texts` and saves it.

    Raises ModelError for a tokenizer of a kind that cannot be trimmed exactly.
    """
    tokenizer = classifier.tokenizer
    described = json.loads(_plain(tokenizer).to_str())
    vocabulary = _vocabulary(described, texts, tokenizer, classifier.model.config, characters)
    kept = np.array(sorted(vocabulary.kept), dtype=np.int64)
    if kept[-1] >= classifier.model.get_input_embeddings().weight.shape[0]:
        raise ModelError(f"the tokenizer has token {kept[-1]} and the model no vector for it; save them together")

    _trim_model(classifier.model, kept)
    classifier.model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _rewrite_tokenizer(folder, tokenizer, described, vocabulary, kept)
    _check(_plain(tokenizer), _plain(AutoTokenizer.from_pretrained(folder)), kept, texts)
    return Trimming(kept, len(tokenizer))


def _plain(tokenizer: Any) -> Tokenizer:
    """A copy of what tokenizes, without truncation and padding."""
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(f"{type(tokenizer).__name__} has no tokenizer.json to trim; {refusal()}")
    plain = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    plain.no_truncation()
    plain.no_padding()
    return plain


# ---- which tokens stay ----


def _vocabulary(described: Any, texts: Texts, tokenizer: Any, config: Any, characters: bool) -> Vocabulary:
    kind = described["model"].get("type")
    if kind not in KINDS:
        raise ModelError(f"a tokenizer of kind {shown(kind)} cannot be trimmed exactly; {refusal()}")
    plain = _plain(tokenizer)
    fixed = {token["id"] for token in described["added_tokens"]} | set(tokenizer.all_special_ids)
    fixed |= {value for value in _token_ids(config).values() if value < len(tokenizer)}
    seen = {int(token) for token in np.flatnonzero(_seen(plain, texts, len(tokenizer)))}
    return KINDS[kind](described, plain, seen | fixed, texts, characters)


def _seen(plain: Tokenizer, texts: Texts, size: int) -> NDArray[np.bool_]:  # (size,)
    seen = np.zeros(size, dtype=bool)
    for some in _batches(texts()):
        for encoding in plain.encode_batch_fast(some, add_special_tokens=False):
            seen[encoding.ids] = True
    return seen


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(texts)
    while some := list(islice(rest, _BATCH)):
        yield some


# ---- the model ----


def _trim_model(model: Any, kept: NDArray[np.int64]) -> None:
    table = model.get_input_embeddings()
    places = {int(old): new for new, old in enumerate(kept)}
    padding = None if table.padding_idx is None else places[table.padding_idx]
    rows = table.weight.detach()[torch.from_numpy(kept)].clone()
    model.set_input_embeddings(nn.Embedding(len(rows), rows.shape[1], padding, _weight=rows))
    for name, token in _token_ids(model.config).items():
        if token in places:
            setattr(model.config, name, places[token])
    model.config.vocab_size = len(kept)


def _token_ids(config: Any) -> dict[str, int]:
    """The settings of a model that are numbers of tokens; `separator` is a BiLSTM's or static student's."""
    every = config.to_dict()
    return {
        name: value
        for name, value in every.items()
        if (name.endswith("_token_id") or name == "separator") and isinstance(value, int)
    }


# ---- the tokenizer's files ----


def _rewrite_tokenizer(
    folder: Path, tokenizer: Any, described: Any, vocabulary: Vocabulary, kept: NDArray[np.int64]
) -> None:
    places = {int(old): new for new, old in enumerate(kept)}
    names = set(getattr(tokenizer, "vocab_files_names", {}).values()) - {"tokenizer.json"}
    for name in (*names, "vocab.txt", "vocab.json", "merges.txt"):
        (folder / name).unlink(missing_ok=True)  # the whole vocabulary in an older form
    model = vocabulary.model(places)
    written = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    written["model"] = model
    for token in written["added_tokens"]:
        token["id"] = places[token["id"]]
    if written.get("padding"):
        written["padding"]["pad_id"] = places[written["padding"]["pad_id"]]
    _renumber_template(written.get("post_processor"), places)
    write_json(folder / "tokenizer.json", written)

    settings = folder / "tokenizer_config.json"
    told = json.loads(settings.read_text(encoding="utf-8"))
    if "added_tokens_decoder" in told:
        told["added_tokens_decoder"] = {str(places[int(i)]): token for i, token in told["added_tokens_decoder"].items()}
        write_json(settings, told)


def _renumber_template(processor: Any, places: dict[int, int]) -> None:
    """Gives the tokens that are put around a text their new numbers, in each of the forms tokenizers has for it."""
    for inner in (processor or {}).get("processors", []):
        _renumber_template(inner, places)
    for special in (processor or {}).get("special_tokens", {}).values():
        special["ids"] = [places[token] for token in special["ids"]]
    for name in ("sep", "cls"):
        if isinstance((processor or {}).get(name), list):
            text, token = processor[name]
            processor[name] = [text, places[token]]


# ---- the proof ----


def _check(before: Tokenizer, after: Tokenizer, kept: NDArray[np.int64], texts: Texts) -> None:
    for text, was, now in _both(before, after, texts):
        if was != kept[now].tolist():
            raise ModelError(
                f"the trimmed tokenizer reads {shown(text)} otherwise than the whole one; this tokenizer cannot be "
                "trimmed exactly, export without --trim"
            )


def _both(before: Tokenizer, after: Tokenizer, texts: Texts) -> Iterator[tuple[str, list[int], list[int]]]:
    """Each text with its tokens by both, special tokens included."""
    for some in _batches(texts()):
        pairs = zip(before.encode_batch_fast(some), after.encode_batch_fast(some), strict=True)
        for text, (was, now) in zip(some, pairs, strict=True):
            yield text, was.ids, now.ids
