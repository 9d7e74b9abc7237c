"""Which tokens a trimmed tokenizer has to keep besides those that occur, one function for each kind of tokenizer.

WordPiece takes the longest entry that matches, Unigram the likeliest segmentation, byte-level BPE the earliest merge.
Each function says why the tokens it keeps give the same tokenization without the rest of the vocabulary. `KINDS` lists
them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from tokenizers import Tokenizer, pre_tokenizers

from augkd.errors import ModelError

Texts = Callable[[], Iterable[str]]


@dataclass(frozen=True)
class Vocabulary:
    """The tokens that stay, and the tokenizer's model in terms of their new ids."""

    kept: set[int]
    model: Callable[[dict[int, int]], dict[str, Any]]  # old id → new id, to the `model` of a tokenizer.json


TRIMMABLE = "WordPiece, Unigram and byte-level BPE can; export without --trim"  # ends an error message


def wordpiece(tokenizer_json: Any, plain: Tokenizer, seen: set[int], texts: Texts, characters: bool) -> Vocabulary:
    """The longest entry that matches is kept, and no longer one is added, so known words are split as before.

    An unknown word stays unknown because the entries that greedy matching takes before it fails are kept too. Without
    them it would take shorter ones, from which the rest of the word might match.
    """
    model = tokenizer_json["model"]
    ids: dict[str, int] = model["vocab"]
    prefix, limit = model["continuing_subword_prefix"], model["max_input_chars_per_word"]
    kept = set(seen)
    if ids.get(model["unk_token"]) in seen:
        for word in _unknown_words(plain, texts, ids[model["unk_token"]]):
            kept |= _greedy_matches(word, ids, prefix, limit)
    if characters:
        kept |= {number for token, number in ids.items() if len(token.removeprefix(prefix)) == 1}
    return Vocabulary(kept, lambda new: {**model, "vocab": _renumbered(ids, new)})


def _unknown_words(plain: Tokenizer, texts: Texts, unknown: int) -> set[str]:
    words: set[str] = set()
    for text in texts():
        encoding = plain.encode(text, add_special_tokens=False)
        if unknown in encoding.ids:
            normal = plain.normalizer.normalize_str(text) if plain.normalizer else text
            words |= {word for word, _ in plain.pre_tokenizer.pre_tokenize_str(normal)}
    return words


def _greedy_matches(word: str, ids: dict[str, int], prefix: str, limit: int) -> set[int]:
    """Entries that greedy longest matching takes from a word until nothing matches."""
    taken: set[int] = set()
    start = 0
    while start < len(word) <= limit:
        lead = prefix if start else ""
        end = next((end for end in range(len(word), start, -1) if lead + word[start:end] in ids), None)
        if end is None:
            break
        taken.add(ids[lead + word[start:end]])
        start = end
    return taken


def unigram(tokenizer_json: Any, plain: Tokenizer, seen: set[int], texts: Texts, characters: bool) -> Vocabulary:
    """The likeliest segmentation is kept and none is added, so it remains the likeliest.

    A character without an entry scores 10 less than the least likely entry. Every single character is kept so that the
    same characters have no entry, and the least likely entry so that their score stays the same.
    """
    _need_characters(characters, "Unigram")
    model = tokenizer_json["model"]
    entries: list[list[Any]] = model["vocab"]
    characters_only = {number for number, (token, _) in enumerate(entries) if len(token) == 1}
    least_likely = min(range(len(entries)), key=lambda number: entries[number][1])
    kept = seen | characters_only | {least_likely} | ({model["unk_id"]} - {None})
    if model.get("byte_fallback"):
        kept |= {number for number, (token, _) in enumerate(entries) if len(token) == 6 and token.startswith("<0x")}

    def renumbered(new: dict[int, int]) -> dict[str, Any]:
        unknown = model["unk_id"]
        rest = [entry for number, entry in enumerate(entries) if number in new]
        return {**model, "vocab": rest, "unk_id": None if unknown is None else new[unknown]}

    return Vocabulary(kept, renumbered)


def byte_level(tokenizer_json: Any, plain: Tokenizer, seen: set[int], texts: Texts, characters: bool) -> Vocabulary:
    """The earliest merge at each step is kept and none is added, so all steps are the same.

    No merge crosses the border of a token in the result, so the merges that built the token follow from its own
    characters.
    """
    model = tokenizer_json["model"]
    _need_characters(characters, "byte-level BPE")
    if model.get("ignore_merges") or model.get("dropout") or model.get("continuing_subword_prefix"):
        raise ModelError("a BPE tokenizer with ignore_merges, dropout or a prefix cannot be trimmed; " + TRIMMABLE)
    if not _is_byte_level(tokenizer_json.get("pre_tokenizer")):
        raise ModelError("a BPE tokenizer that is not byte-level cannot be trimmed exactly; " + TRIMMABLE)
    ids: dict[str, int] = model["vocab"]
    merges = [tuple(merge) for merge in model["merges"]]
    ranks = {merge: rank for rank, merge in enumerate(merges)}
    tokens = {number: token for token, number in ids.items()}
    used: set[int] = set()
    for number in seen & tokens.keys():
        used |= merges_of(tokens[number], ranks)
    kept = seen | {ids[letter] for letter in pre_tokenizers.ByteLevel.alphabet() if letter in ids}
    for rank in used:
        first, second = merges[rank]
        kept |= {ids[first], ids[second], ids[first + second]}
    left = [list(merge) for rank, merge in enumerate(merges) if rank in used]
    return Vocabulary(kept, lambda new: {**model, "vocab": _renumbered(ids, new), "merges": left})


def merges_of(
    token: str,
    ranks: dict[tuple[str, ...], int],  # position of each merge in the list
) -> set[int]:
    """Ranks of the merges that build a token from its characters, applying the earliest possible one at each step."""
    parts = list(token)
    used: set[int] = set()
    while True:
        fitting = [(ranks[pair], at) for at, pair in enumerate(pairwise(parts)) if pair in ranks]
        if not fitting:
            return used
        rank, at = min(fitting)
        used.add(rank)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]


def _is_byte_level(pre_tokenizer: Any) -> bool:
    steps = (pre_tokenizer or {}).get("pretokenizers", [pre_tokenizer or {}])
    return any(step.get("type") == "ByteLevel" for step in steps)


def _need_characters(characters: bool, kind: str) -> None:
    if not characters:
        raise ModelError(f"a {kind} tokenizer is exact only with its single characters; export without --no-characters")


def _renumbered(ids: dict[str, int], new: dict[int, int]) -> dict[str, int]:
    return {token: new[number] for token, number in ids.items() if number in new}


KINDS: dict[str, Callable[[Any, Tokenizer, set[int], Texts, bool], Vocabulary]] = {
    "WordPiece": wordpiece,
    "Unigram": unigram,
    "BPE": byte_level,
}
