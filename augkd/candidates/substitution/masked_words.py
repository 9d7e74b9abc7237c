"""For each word of a text the words a masked language model would put in its place.

As in TinyBERT's augmentation (Jiao et al. 2020, "TinyBERT") the model reads the text with one word masked, then the
whole text: it is asked for words like this one, not for any word that fits. All rows of many texts are forwarded
together, without autograd, and the head computes masked places only. What is one word is asked of the tokenizer, by
offsets, so WordPiece, byte-level BPE and SentencePiece vocabularies will do.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from augkd.candidates.substitution.filled_blocks import Filled, Slot, read_block, write_block
from augkd.candidates.words import Words, cased, replaceable, whole_words
from augkd.errors import RecipeError
from augkd.models.masked_lm import check, logits_at
from augkd.models.tokens import Tokens
from augkd.workspace.fingerprints import fingerprint
from augkd.workspace.progress import Steps

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BLOCK = 512  # texts whose rows are made together; rows of a TREC question: 4 of 24 tokens
_VARIANTS = 4  # times as many pieces are looked at as words are wanted: a cased vocabulary has the, The, THE, …


@dataclass(frozen=True)
class _Frame:
    """What a tokenizer puts around a pair: special tokens, and the token types of both texts and of these."""

    ids: tuple[tuple[int, ...], ...]  # before, between, after
    types: tuple[tuple[int, ...], ...]
    first: int  # token type
    second: int

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
    """A word to be asked for."""

    text: int  # position of its text
    start: int
    stop: int
    ids: list[int]
    types: list[int]
    place: int  # of the mask in `ids`


def fill(
    texts: Sequence[str],
    model: Any,
    tokenizer: Any,
    *,
    most: int,
    max_length: int,
    batch_tokens: int,
    stop_words: Collection[str],
    saved: Path | None = None,
    progress: Steps | None = None,
) -> Filled:
    """The slots of each text: its words of letters, each with up to `most` others; stop words are neither.

    `max_length` tokens hold the masked text and the whole one, half each; of a longer text the half around the word.
    `saved`, a folder for this model alone, keeps what is done of these texts: another call with it goes on from there.
    `progress` is told the texts done. Raises ModelError for a tokenizer without mask or offsets, or not the model's.
    """
    check(model, tokenizer)
    words = whole_words(tokenizer, without=stop_words)
    frame = _frame(tokenizer)
    room = (min(max_length, longest_input(model, tokenizer)) - sum(map(len, frame.ids))) // 2
    if room < 2:
        raise RecipeError(f"substitution max_length is {max_length}; the text must fit in it twice, give 16 or more")
    slots: list[list[Slot]] = []
    rows = 0
    options = [most, room, batch_tokens, sorted(stop_words)]
    for start in range(0, len(texts), _BLOCK):
        block = texts[start : start + _BLOCK]
        key = fingerprint([list(block), options])
        path = None if saved is None else saved / f"block-{start // _BLOCK:05d}.parquet"
        found = None if path is None else read_block(path, key)
        if found is None:
            masked = list(_masked(block, tokenizer, frame, room, stop_words))
            found = Filled(_slots(masked, block, model, tokenizer, words, most, batch_tokens), len(masked))
            if path is not None:
                write_block(path, key, found)
        slots += found.slots
        rows += found.rows
        if progress is not None:
            progress(start + len(block), len(texts))
    return Filled(slots, rows)


# ---- rows ----


def _masked(
    texts: Sequence[str], tokenizer: Any, frame: _Frame, room: int, stop_words: Collection[str]
) -> Iterator[_Masked]:
    """A row for every replaceable word."""
    encoded = tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    for number, text in enumerate(texts):
        ids, offsets = encoded["input_ids"][number], encoded["offset_mapping"][number]
        spans = [_trimmed(text, *offset) for offset in offsets]
        for start, stop in replaceable(text, stop_words):
            tokens = [at for at, (begin, end) in enumerate(spans) if begin < stop and end > start]
            if not tokens or spans[tokens[0]][0] < start or spans[tokens[-1]][1] > stop:
                continue  # a piece reaches beyond the word: masking it would hide more
            begin = tokens[0] - (tokens[0] > 0 and spans[tokens[0] - 1] == (start, start))  # a lone Ġ or ▁ goes too
            yield _row(number, start, stop, ids, begin, tokens[-1] + 1, tokenizer.mask_token_id, frame, room)


def _row(
    text: int, start: int, stop: int, ids: list[int], begin: int, end: int, mask: int, frame: _Frame, room: int
) -> _Masked:
    """The text with one mask for its tokens from `begin` to `end`, then the text; of both at most `room` tokens."""
    low = min(max(0, (begin + end - room) // 2), max(0, len(ids) - room))
    high = low + room
    first = [*ids[min(low, begin) : begin], mask, *ids[end:high]]
    row, types = frame.row(first, ids[low:high])
    return _Masked(text, start, stop, row, types, len(frame.ids[0]) + begin - min(low, begin))


def _trimmed(text: str, start: int, stop: int) -> tuple[int, int]:
    """A token's span without white space, which SentencePiece counts to the word after it; of a lone space its end."""
    piece = text[start:stop]
    return (stop - len(piece.lstrip()), start + len(piece.rstrip())) if piece.strip() else (stop, stop)


def _frame(tokenizer: Any) -> _Frame:
    encoded = tokenizer("a", "a", return_token_type_ids=True)
    sides = encoded.sequence_ids(0)
    first, second = sides.index(0), sides.index(1)
    after_first, after_second = len(sides) - sides[::-1].index(0), len(sides) - sides[::-1].index(1)
    cuts = (slice(0, first), slice(after_first, second), slice(after_second, None))
    ids, types = encoded["input_ids"], encoded["token_type_ids"]
    return _Frame(
        tuple(tuple(ids[cut]) for cut in cuts), tuple(tuple(types[cut]) for cut in cuts), types[first], types[second]
    )


# ---- the model ----


def longest_input(model: Any, tokenizer: Any) -> int:
    """Tokens the model has positions for; RoBERTa's begin after the padding token's."""
    positions = getattr(model.config, "max_position_embeddings", None) or tokenizer.model_max_length
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            positions = module.num_embeddings - module.padding_idx - 1
    return int(min(positions, tokenizer.model_max_length))


def _asked(
    masked: Sequence[_Masked],
    texts: Sequence[str],
    model: Any,
    tokenizer: Any,
    words: Words,
    most: int,
    batch_tokens: int,
) -> Iterator[tuple[_Masked, NDArray[np.float32], list[int]]]:
    """Each row with the probabilities and the columns of its most probable words, in order."""
    if not masked:
        return
    device = next(model.parameters()).device
    ids = words.ids.to(device)
    tokens = Tokens.of([one.ids for one in masked], [one.types for one in masked])
    places = torch.tensor([one.place for one in masked])
    glued = torch.tensor([int(one.start == 0 or not texts[one.text][one.start - 1].isspace()) for one in masked])
    wanted = min(_VARIANTS * (most + 1), ids.shape[1])
    values, columns = torch.empty(len(masked), wanted), torch.empty(len(masked), wanted, dtype=torch.long)
    training = model.training
    model.eval()
    with torch.inference_mode():
        for rows in tokens.batches(batch_tokens):
            inputs = tokens.take(rows).padded(int(tokenizer.pad_token_id or 0))
            if getattr(model.config, "type_vocab_size", 0) < 2:
                del inputs["token_type_ids"]
            inputs = {name: value.to(device) for name, value in inputs.items()}
            where = torch.zeros_like(inputs["input_ids"], dtype=torch.bool)
            where[torch.arange(len(rows)), places[rows]] = True
            chances = logits_at(model, inputs, where).softmax(dim=-1)
            best = chances.gather(1, ids[glued[rows].to(device)]).topk(wanted)
            values[rows], columns[rows] = best.values.cpu(), best.indices.cpu()
    model.train(training)
    yield from zip(masked, values.numpy(), columns.tolist(), strict=True)


def _slots(
    masked: Sequence[_Masked],
    block: Sequence[str],
    model: Any,
    tokenizer: Any,
    words: Words,
    most: int,
    batch_tokens: int,
) -> list[list[Slot]]:
    """Of each text of the block the masked words that others can stand for."""
    slots: list[list[Slot]] = [[] for _ in block]
    for one, chances, columns in _asked(masked, block, model, tokenizer, words, most, batch_tokens):
        names = [words.names[column] for column in columns]
        slot = _slot(one, block[one.text], names, chances, most)
        if slot.words:
            slots[one.text].append(slot)
    return slots


def _slot(one: _Masked, text: str, names: Sequence[str], chances: NDArray[np.float32], most: int) -> Slot:
    """The first `most` different words that are not the original."""
    original = text[one.start : one.stop]
    chosen: dict[str, float] = {}
    seen = {original.casefold()}
    for name, chance in zip(names, chances.tolist(), strict=True):
        if name.casefold() not in seen and len(chosen) < most:
            seen.add(name.casefold())
            chosen[cased(name, original)] = chance
    return Slot(one.start, one.stop, tuple(chosen), np.array(list(chosen.values()), dtype=np.float32))
