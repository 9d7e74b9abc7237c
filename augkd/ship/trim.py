"""Vocabulary trimming: a student without the tokens that its texts never use.

It is exact on those texts: the same tokens under smaller ids, and so the same logits, bit for bit. For that, more than
the tokens that occur has to stay, and what else depends on the kind of tokenizer (`tokenizer_kinds`). Every text is
tokenized again with the saved tokenizer, and a difference is an error.
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

from augkd.errors import ModelError, short_repr
from augkd.models.classifier import Classifier
from augkd.models.pretrained import load_tokenizer
from augkd.ship.tokenizer_kinds import KINDS, TRIMMABLE, Vocabulary
from augkd.workspace.files import write_json

_BATCH = 4096  # texts tokenized at once
Texts = Callable[[], Iterable[str]]


@dataclass(frozen=True)
class TrimmedVocabulary:
    """The tokens that stayed: `kept[new id]` is the old id."""

    kept: NDArray[np.int64]  # (tokens,) ascending
    before: int  # number of tokens before


def trim(
    classifier: Classifier,  # changed in place: its embedding matrix loses rows
    texts: Texts,  # called twice: to collect the tokens that occur, and to verify
    folder: Path,  # becomes a save_pretrained folder of the trimmed student
    *,
    characters: bool = True,  # keep every single character: new words are split into them, not read as unknown
) -> TrimmedVocabulary:
    """Trims a student to the tokens of `texts` and saves it.

    Raises ModelError for a kind of tokenizer that cannot be trimmed exactly.
    """
    tokenizer = classifier.tokenizer
    tokenizer_json = json.loads(_plain(tokenizer).to_str())
    vocabulary = _vocabulary(tokenizer_json, texts, tokenizer, classifier.model.config, characters)
    kept = np.array(sorted(vocabulary.kept), dtype=np.int64)
    if kept[-1] >= classifier.model.get_input_embeddings().weight.shape[0]:
        raise ModelError(f"the tokenizer has a token {kept[-1]} that the model has no vector for; save them together")

    _trim_model(classifier.model, kept)
    classifier.save(folder)
    _rewrite_tokenizer(folder, tokenizer, vocabulary, kept)
    _verify(_plain(tokenizer), _plain(load_tokenizer(folder, str(folder))), kept, texts)
    return TrimmedVocabulary(kept, len(tokenizer))


def _plain(tokenizer: Any) -> Tokenizer:
    """A copy of the backend tokenizer without truncation and padding."""
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(f"{type(tokenizer).__name__} has no tokenizer.json to trim; {TRIMMABLE}")
    plain = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    plain.no_truncation()
    plain.no_padding()
    return plain


# ---- which tokens stay ----


def _vocabulary(tokenizer_json: Any, texts: Texts, tokenizer: Any, config: Any, characters: bool) -> Vocabulary:
    kind = tokenizer_json["model"].get("type")
    if kind not in KINDS:
        raise ModelError(f"a tokenizer of kind {short_repr(kind)} cannot be trimmed exactly; {TRIMMABLE}")
    plain = _plain(tokenizer)
    fixed = {token["id"] for token in tokenizer_json["added_tokens"]} | set(tokenizer.all_special_ids)
    fixed |= {value for value in _token_ids(config).values() if value < len(tokenizer)}
    seen = {int(token) for token in np.flatnonzero(_seen(plain, texts, len(tokenizer)))}
    return KINDS[kind](tokenizer_json, plain, seen | fixed, texts, characters)


def _seen(plain: Tokenizer, texts: Texts, size: int) -> NDArray[np.bool_]:  # (size,)
    seen = np.zeros(size, dtype=bool)
    for batch in _batches(texts()):
        for encoding in plain.encode_batch_fast(batch, add_special_tokens=False):
            seen[encoding.ids] = True
    return seen


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(texts)
    while batch := list(islice(rest, _BATCH)):
        yield batch


# ---- the model ----


def _trim_model(model: Any, kept: NDArray[np.int64]) -> None:
    table = model.get_input_embeddings()
    new_ids = _new_ids(kept)
    padding = None if table.padding_idx is None else new_ids[table.padding_idx]
    rows = table.weight.detach()[torch.from_numpy(kept)].clone()
    model.set_input_embeddings(nn.Embedding(len(rows), rows.shape[1], padding, _weight=rows))
    for name, token in _token_ids(model.config).items():
        if token in new_ids:
            setattr(model.config, name, new_ids[token])
    model.config.vocab_size = len(kept)


def _new_ids(kept: NDArray[np.int64]) -> dict[int, int]:  # old id → new id
    return {int(old): new for new, old in enumerate(kept)}


def _token_ids(config: Any) -> dict[str, int]:
    """Settings of a model that are token ids; `separator` belongs to the BiLSTM and static students."""
    return {
        name: value
        for name, value in config.to_dict().items()
        if (name.endswith("_token_id") or name == "separator") and isinstance(value, int)
    }


# ---- the tokenizer's files ----


def _rewrite_tokenizer(folder: Path, tokenizer: Any, vocabulary: Vocabulary, kept: NDArray[np.int64]) -> None:
    new_ids = _new_ids(kept)
    names = set(getattr(tokenizer, "vocab_files_names", {}).values()) - {"tokenizer.json"}
    for name in (*names, "vocab.txt", "vocab.json", "merges.txt"):
        (folder / name).unlink(missing_ok=True)  # older formats of the whole vocabulary
    saved = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    saved["model"] = vocabulary.model(new_ids)
    for token in saved["added_tokens"]:
        token["id"] = new_ids[token["id"]]
    if saved.get("padding"):
        saved["padding"]["pad_id"] = new_ids[saved["padding"]["pad_id"]]
    _renumber_template(saved.get("post_processor"), new_ids)
    write_json(folder / "tokenizer.json", saved)

    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    if "added_tokens_decoder" in settings:
        added = settings["added_tokens_decoder"].items()
        settings["added_tokens_decoder"] = {str(new_ids[int(old)]): token for old, token in added}
        write_json(path, settings)


def _renumber_template(processor: Any, new_ids: dict[int, int]) -> None:
    """Gives the tokens around a text their new ids, in each of the formats that tokenizers has for them."""
    for inner in (processor or {}).get("processors", []):
        _renumber_template(inner, new_ids)
    for special in (processor or {}).get("special_tokens", {}).values():
        special["ids"] = [new_ids[token] for token in special["ids"]]
    for name in ("sep", "cls"):
        if isinstance((processor or {}).get(name), list):
            text, token = processor[name]
            processor[name] = [text, new_ids[token]]


# ---- verification ----


def _verify(before: Tokenizer, after: Tokenizer, kept: NDArray[np.int64], texts: Texts) -> None:
    for text, old, new in _encoded_by_both(before, after, texts):
        if old != kept[new].tolist():
            raise ModelError(
                f"the trimmed tokenizer splits {short_repr(text)} differently from the whole one; this tokenizer "
                "cannot be trimmed exactly, export without --trim"
            )


def _encoded_by_both(before: Tokenizer, after: Tokenizer, texts: Texts) -> Iterator[tuple[str, list[int], list[int]]]:
    """Each text with its token ids from both tokenizers, special tokens included."""
    for batch in _batches(texts()):
        pairs = zip(before.encode_batch_fast(batch), after.encode_batch_fast(batch), strict=True)
        for text, (old, new) in zip(batch, pairs, strict=True):
            yield text, old.ids, new.ids
