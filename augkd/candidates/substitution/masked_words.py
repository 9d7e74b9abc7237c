"""For each word of a text the words that a masked language model predicts in its place.

As in TinyBERT's augmentation (Jiao et al. 2020, "TinyBERT") the model reads the text with one word masked, followed by
the whole text, so it predicts words like this one rather than any word that fits. The rows of many texts are forwarded
together, without autograd, and the head computes masked positions only. Words are matched to tokens by their offsets,
so WordPiece, byte-level BPE and SentencePiece vocabularies all work.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from augkd.candidates.substitution.filled_blocks import FilledTexts, Slot, read_block, write_block
from augkd.candidates.words import Words, cased, replaceable, whole_words
from augkd.errors import RecipeError
from augkd.models.masked_lm import check_masked_lm, logits_at
from augkd.models.tokens import RowGroups, Tokens, takes_token_types
from augkd.workspace.fingerprints import fingerprint
from augkd.workspace.progress import Steps

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BLOCK = 512  # texts forwarded together; a TREC question makes 4 rows of 24 tokens
_VARIANTS = 4  # pieces considered per word wanted: a cased vocabulary has the, The, THE, …


@dataclass(frozen=True)
class _PairTemplate:
    """How a tokenizer lays out a pair: its special tokens, and the token types of these and of both texts."""

    ids: tuple[tuple[int, ...], ...]  # special tokens before, between and after the texts
    types: tuple[tuple[int, ...], ...]  # their token types
    first: int  # token type of the first text
    second: int  # and of the second

    def row(self, first: Sequence[int], second: Sequence[int]) -> tuple[list[int], list[int]]:
        """Ids and token types of a pair."""
        before, between, after = self.ids
        types = [
            *self.types[0],
            *[self.first] * len(first),
            *self.types[1],
            *[self.second] * len(second),
            *self.types[2],
        ]
        return [*before, *first, *between, *second, *after], types


@dataclass(frozen=True)
class _Masked:
    """A row with one word masked."""

    text: int  # position of its text in the block
    start: int  # of the word, in characters
    stop: int
    ids: list[int]
    types: list[int]
    position: int  # of the mask in `ids`


def fill(
    texts: Sequence[str],
    model: Any,
    tokenizer: Any,
    *,
    top_k: int,
    max_length: int,
    batch_tokens: int,
    stop_words: Collection[str],
    saved: Path | None = None,
    progress: Steps | None = None,
) -> FilledTexts:
    """The slots of each text: its words of letters, each with up to `top_k` alternatives; stop words are neither.

    `max_length` tokens hold the masked text and the whole one, half each; of a longer text, the part around the word.
    `saved`, a folder for this model alone, keeps the blocks done so far, and a later call resumes from them.
    `progress` counts texts. Raises ModelError for a tokenizer without mask token or offset mapping, or not the model's.
    """
    check_masked_lm(model, tokenizer)
    words = whole_words(tokenizer, without=stop_words)
    template = _pair_template(tokenizer)
    room = (min(max_length, longest_input(model, tokenizer)) - sum(map(len, template.ids))) // 2
    if room < 2:
        raise RecipeError(f"substitution max_length is {max_length}; the text must fit in it twice; give 16 or more")
    slots: list[list[Slot]] = []
    rows = 0
    options = [top_k, room, batch_tokens, sorted(stop_words)]
    for start in range(0, len(texts), _BLOCK):
        block = texts[start : start + _BLOCK]
        key = fingerprint([list(block), options])
        path = None if saved is None else saved / f"block-{start // _BLOCK:05d}.parquet"
        filled = None if path is None else read_block(path, key)
        if filled is None:
            masked = list(_masked(block, tokenizer, template, room, stop_words))
            filled = FilledTexts(_slots(masked, block, model, tokenizer, words, top_k, batch_tokens), len(masked))
            if path is not None:
                write_block(path, key, filled)
        slots += filled.slots
        rows += filled.rows
        if progress is not None:
            progress(start + len(block), len(texts))
    return FilledTexts(slots, rows)


# ---- rows ----


def _masked(
    texts: Sequence[str], tokenizer: Any, template: _PairTemplate, room: int, stop_words: Collection[str]
) -> Iterator[_Masked]:
    """A row for every replaceable word."""
    encoded = tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    for place, text in enumerate(texts):
        ids, offsets = encoded["input_ids"][place], encoded["offset_mapping"][place]
        spans = [_trimmed(text, *offset) for offset in offsets]
        for start, stop in replaceable(text, stop_words):
            tokens = [number for number, (begin, end) in enumerate(spans) if begin < stop and end > start]
            if not tokens or spans[tokens[0]][0] < start or spans[tokens[-1]][1] > stop:
                continue  # a piece extends beyond the word: masking it would hide more
            begin = tokens[0] - (tokens[0] > 0 and spans[tokens[0] - 1] == (start, start))  # with a lone Ġ or ▁
            yield _row(place, start, stop, ids, begin, tokens[-1] + 1, tokenizer.mask_token_id, template, room)


def _row(
    text: int,
    start: int,
    stop: int,
    ids: list[int],
    begin: int,
    end: int,
    mask: int,
    template: _PairTemplate,
    room: int,
) -> _Masked:
    """The text with one mask for its tokens from `begin` to `end`, then the text; each of at most `room` tokens."""
    low = min(max(0, (begin + end - room) // 2), max(0, len(ids) - room))
    high = low + room
    first = [*ids[min(low, begin) : begin], mask, *ids[end:high]]
    row, types = template.row(first, ids[low:high])
    return _Masked(text, start, stop, row, types, len(template.ids[0]) + begin - min(low, begin))


def _trimmed(text: str, start: int, stop: int) -> tuple[int, int]:
    """A token's span without the white space that SentencePiece adds to the word after it; of a lone space its end."""
    piece = text[start:stop]
    return (stop - len(piece.lstrip()), start + len(piece.rstrip())) if piece.strip() else (stop, stop)


def _pair_template(tokenizer: Any) -> _PairTemplate:
    encoded = tokenizer("a", "a", return_token_type_ids=True)
    sides = encoded.sequence_ids(0)
    first, second = sides.index(0), sides.index(1)
    after_first, after_second = len(sides) - sides[::-1].index(0), len(sides) - sides[::-1].index(1)
    cuts = (slice(0, first), slice(after_first, second), slice(after_second, None))
    ids, types = encoded["input_ids"], encoded["token_type_ids"]
    return _PairTemplate(
        tuple(tuple(ids[cut]) for cut in cuts), tuple(tuple(types[cut]) for cut in cuts), types[first], types[second]
    )


# ---- the model ----


def longest_input(model: Any, tokenizer: Any) -> int:
    """Tokens the model has positions for; RoBERTa's start after the padding token's."""
    positions = getattr(model.config, "max_position_embeddings", None) or tokenizer.model_max_length
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            positions = module.num_embeddings - module.padding_idx - 1
    return int(min(positions, tokenizer.model_max_length))


def _predictions(
    masked: Sequence[_Masked],
    texts: Sequence[str],
    model: Any,
    tokenizer: Any,
    words: Words,
    top_k: int,
    batch_tokens: int,
) -> Iterator[tuple[_Masked, NDArray[np.float32], list[int]]]:
    """Each row with the probabilities of its most probable words and their positions in `words`, in order."""
    if not masked:
        return
    device = next(model.parameters()).device
    ids = words.ids.to(device)
    tokens = Tokens.of([row.ids for row in masked], [row.types for row in masked])
    positions = torch.tensor([row.position for row in masked])
    attached = torch.tensor([int(row.start == 0 or not texts[row.text][row.start - 1].isspace()) for row in masked])
    wanted = min(_VARIANTS * (top_k + 1), ids.shape[1])
    values, columns = torch.empty(len(masked), wanted), torch.empty(len(masked), wanted, dtype=torch.long)
    training = model.training
    model.eval()
    with torch.inference_mode():
        for rows in RowGroups.of(tokens, batch_tokens):
            inputs = tokens.take(rows).padded(int(tokenizer.pad_token_id or 0))
            if not takes_token_types(model):
                del inputs["token_type_ids"]
            inputs = {name: value.to(device) for name, value in inputs.items()}
            where = torch.zeros_like(inputs["input_ids"], dtype=torch.bool)
            where[torch.arange(len(rows)), positions[rows]] = True
            probabilities = logits_at(model, inputs, where).softmax(dim=-1, dtype=torch.float32)
            best = probabilities.gather(1, ids[attached[rows].to(device)]).topk(wanted)
            values[rows], columns[rows] = best.values.cpu(), best.indices.cpu()
    model.train(training)
    yield from zip(masked, values.numpy(), columns.tolist(), strict=True)


def _slots(
    masked: Sequence[_Masked],
    block: Sequence[str],
    model: Any,
    tokenizer: Any,
    words: Words,
    top_k: int,
    batch_tokens: int,
) -> list[list[Slot]]:
    """The masked words of each text of the block for which there are alternatives."""
    slots: list[list[Slot]] = [[] for _ in block]
    for row, probabilities, columns in _predictions(masked, block, model, tokenizer, words, top_k, batch_tokens):
        names = [words.names[column] for column in columns]
        slot = _slot(row, block[row.text], names, probabilities, top_k)
        if slot.words:
            slots[row.text].append(slot)
    return slots


def _slot(row: _Masked, text: str, names: Sequence[str], probabilities: NDArray[np.float32], top_k: int) -> Slot:
    """The first `top_k` different words that are not the original."""
    original = text[row.start : row.stop]
    chosen: dict[str, float] = {}
    seen = {original.casefold()}
    for name, probability in zip(names, probabilities.tolist(), strict=True):
        if name.casefold() not in seen and len(chosen) < top_k:
            seen.add(name.casefold())
            chosen[cased(name, original)] = probability
    return Slot(row.start, row.stop, tuple(chosen), np.array(list(chosen.values()), dtype=np.float32))
