"""Which tokens a trimmed tokenizer has to keep besides those it was seen to give, one function for each kind.

WordPiece takes the longest entry that fits, Unigram the likeliest path, byte-level BPE the earliest merge; what is
needed for the same answer without the rest of the vocabulary is argued at each. `KINDS` is the list.
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
    """The tokens that stay, and the tokenizer's model in terms of their new numbers."""

    kept: set[int]
    model: Callable[[dict[int, int]], dict[str, Any]]  # old number to new → the `model` of a tokenizer.json


def refusal() -> str:
    """What can be trimmed, for a message."""
    return "WordPiece, Unigram and byte-level BPE can; export without --trim"


def wordpiece(described: Any, plain: Tokenizer, seen: set[int], texts: Texts, characters: bool) -> Vocabulary:
    """The longest entry that fits is still there, and nothing longer has come.

    A word that is unknown stays so, if each entry taken before nothing fitted is kept too: else a shorter one might be
    taken and lead on to a known end.
    """
    model = described["model"]
    places: dict[str, int] = model["vocab"]
    prefix, limit = model["continuing_subword_prefix"], model["max_input_chars_per_word"]
    kept = set(seen)
    if places.get(model["unk_token"]) in seen:
        for word in _unknown_words(plain, texts, places[model["unk_token"]]):
            kept |= _taken(word, places, prefix, limit)
    if characters:
        kept |= {place for token, place in places.items() if len(token.removeprefix(prefix)) == 1}
    return Vocabulary(kept, lambda new: {**model, "vocab": _renumbered(places, new)})


def _unknown_words(plain: Tokenizer, texts: Texts, unknown: int) -> set[str]:
    words: set[str] = set()
    for text in texts():
        encoding = plain.encode(text, add_special_tokens=False)
        if unknown in encoding.ids:
            normal = plain.normalizer.normalize_str(text) if plain.normalizer else text
            words |= {word for word, _ in plain.pre_tokenizer.pre_tokenize_str(normal)}
    return words


def _taken(word: str, places: dict[str, int], prefix: str, limit: int) -> set[int]:
    """What greedy longest match takes of a word until nothing fits."""
    taken: set[int] = set()
    start = 0
    while start < len(word) <= limit:
        lead = prefix if start else ""
        end = next((end for end in range(len(word), start, -1) if lead + word[start:end] in places), None)
        if end is None:
            break
        taken.add(places[lead + word[start:end]])
        start = end
    return taken


def unigram(described: Any, plain: Tokenizer, seen: set[int], texts: Texts, characters: bool) -> Vocabulary:
    """The likeliest path is still there, and no path has come, so none is likelier.

    A character without an entry is given ten less than the least likely entry. So every single character stays, which
    keeps those places where they are, and the least likely entry, which keeps that number what it is.
    """
    _need_characters(characters, "Unigram")
    model = described["model"]
    entries: list[list[Any]] = model["vocab"]
    singles = {place for place, (token, _) in enumerate(entries) if len(token) == 1}
    worst = min(range(len(entries)), key=lambda place: entries[place][1])
    kept = seen | singles | {worst} | ({model["unk_id"]} - {None})
    if model.get("byte_fallback"):
        kept |= {place for place, (token, _) in enumerate(entries) if len(token) == 6 and token.startswith("<0x")}

    def renumbered(new: dict[int, int]) -> dict[str, Any]:
        unknown = model["unk_id"]
        rest = [entry for place, entry in enumerate(entries) if place in new]
        return {**model, "vocab": rest, "unk_id": None if unknown is None else new[unknown]}

    return Vocabulary(kept, renumbered)


def byte_level(described: Any, plain: Tokenizer, seen: set[int], texts: Texts, characters: bool) -> Vocabulary:
    """The merge that comes first at each step is still there, and none has come, so all steps are the same.

    No merge crosses the edge of a token that is in the result, so the merges that made it are those of its own letters.
    """
    model = described["model"]
    _need_characters(characters, "byte-level BPE")
    if model.get("ignore_merges") or model.get("dropout") or model.get("continuing_subword_prefix"):
        raise ModelError("a BPE tokenizer with ignore_merges, dropout or a prefix cannot be trimmed; " + refusal())
    if not _is_byte_level(described.get("pre_tokenizer")):
        raise ModelError("a BPE tokenizer that is not byte-level cannot be trimmed exactly; " + refusal())
    places: dict[str, int] = model["vocab"]
    merges = [tuple(merge) for merge in model["merges"]]
    ranks = {merge: rank for rank, merge in enumerate(merges)}
    texts_of = {place: token for token, place in places.items()}
    used: set[int] = set()
    for place in seen & texts_of.keys():
        used |= merges_of(texts_of[place], ranks)
    kept = seen | {places[letter] for letter in pre_tokenizers.ByteLevel.alphabet() if letter in places}
    for rank in used:
        first, second = merges[rank]
        kept |= {places[first], places[second], places[first + second]}
    left = [list(merge) for rank, merge in enumerate(merges) if rank in used]
    return Vocabulary(kept, lambda new: {**model, "vocab": _renumbered(places, new), "merges": left})


def merges_of(
    token: str,
    ranks: dict[tuple[str, ...], int],  # each merge's place in the list
) -> set[int]:
    """Ranks of the merges that put a token together, the earliest that fits first, from its letters."""
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
    several = (pre_tokenizer or {}).get("pretokenizers", [pre_tokenizer or {}])
    return any(one.get("type") == "ByteLevel" for one in several)


def _need_characters(characters: bool, kind: str) -> None:
    if not characters:
        raise ModelError(f"a {kind} tokenizer is exact only with its single characters; leave --no-characters out")


def _renumbered(places: dict[str, int], new: dict[int, int]) -> dict[str, int]:
    return {token: new[place] for token, place in places.items() if place in new}


KINDS: dict[str, Callable[[Any, Tokenizer, set[int], Texts, bool], Vocabulary]] = {
    "WordPiece": wordpiece,
    "Unigram": unigram,
    "BPE": byte_level,
}
