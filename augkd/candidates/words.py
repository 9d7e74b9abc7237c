"""What a word is, in a text and in a vocabulary, and which words are neither replaced nor inserted.

A word is a run of letters; a piece of a vocabulary is a word if the tokenizer turns its text back into that one piece.
So no tokenizer's own marks (##, Ġ, ▁) need to be known. Text without spaces between words (Chinese, Thai) is not split
into words.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from augkd.errors import ModelError

WORD = re.compile(r"[^\W\d_]+")  # letters of any script

# English words that carry a sentence's structure. Replacing one gives another question (what: who) or no sentence.
_LISTS = {
    "articles and determiners": """a an the this that these those some any each every either neither both all such
        same other another no none""",
    "pronouns": """i me my mine myself you your yours yourself yourselves he him his himself she her hers herself it
        its itself we us our ours ourselves they them their theirs themselves one""",
    "question words": "who whom whose what which when where why how whether",
    "auxiliaries": """am is are was were be been being do does did doing done have has had having can could may might
        must shall should will would ought""",
    "negation": "not never nor cannot nobody nothing nowhere",
    "conjunctions": "and or but if because while until unless although though than as so since whereas",
    "prepositions": """of in on at by for with without about against between among into onto through during before
        after above below over under to from up down out off upon within toward towards across along around behind
        beside besides beyond despite except near per via""",
    "adverbs of place, time, degree": """here there then now again once only just too very also even still yet more
        most much many few less least quite rather almost already always often""",
    "what contractions leave behind": "s t d m ll re ve n nt don didn doesn isn aren wasn weren won wouldn couldn",
}
STOP_WORDS = frozenset(word for words in _LISTS.values() for word in words.split())


@dataclass(frozen=True)
class Words:
    """The pieces of a vocabulary that are whole words."""

    names: list[str]
    ids: Tensor  # (2, words): the piece of the word after white space, and of the word attached to what precedes it


def replaceable(text: str, stop_words: Collection[str]) -> Iterator[tuple[int, int]]:
    """The spans of the words that may be replaced: letters only, no stop word, no part of `don't` or of `4th`."""
    for match in WORD.finditer(text):
        start, stop = match.span()
        if match[0].casefold() in stop_words:
            continue
        before, after = text[max(start - 2, 0) : start][::-1], text[stop : stop + 2]
        if not _continues(before) and not _continues(after):
            yield start, stop


def _continues(beyond: str) -> bool:
    """Whether the word continues in `beyond`: with a digit, a combining mark, or an apostrophe and a letter."""
    first, second = beyond[:1], beyond[1:2]
    if first in ("'", "’"):
        return second.isalpha()
    return bool(first) and (first == "_" or first.isnumeric() or unicodedata.category(first).startswith("M"))


def cased(word: str, like: str) -> str:
    """`word` with a capital initial or in capitals, as `like`; a capitalised word keeps its capital."""
    if len(like) > 1 and like.isupper():
        return word.upper()
    return word[:1].upper() + word[1:] if like[:1].isupper() else word


def whole_words(tokenizer: Any, without: Collection[str] = ()) -> Words:
    """The pieces that are whole words of letters: after `a `, their text becomes that one piece again.

    Without the words of `without`, given in lower case, and without single letters, except in scripts without case.
    Continuations (`##ing`, `ing` without Ġ or ▁) become other pieces and so drop out. Raises ModelError for a
    vocabulary without whole words.
    """
    names = [
        name.strip() for name in tokenizer.backend_tokenizer.decode_batch([[id_] for id_ in range(len(tokenizer))])
    ]
    special = set(tokenizer.all_special_ids)
    possible = [
        id_
        for id_, name in enumerate(names)
        if name.isalpha()
        and id_ not in special
        and name.casefold() not in without
        and (len(name) > 1 or name.lower() == name.upper())
    ]
    carrier = tokenizer("a", add_special_tokens=False)["input_ids"]
    after = tokenizer([f"a {names[id_]}" for id_ in possible], add_special_tokens=False, return_attention_mask=False)[
        "input_ids"
    ]
    kept = [id_ for id_, row in zip(possible, after, strict=True) if row == [*carrier, id_]]
    if not kept:
        raise ModelError(f"the vocabulary of {type(tokenizer).__name__} has no whole words; give another masked LM")
    alone = tokenizer([names[id_] for id_ in kept], add_special_tokens=False, return_attention_mask=False)["input_ids"]
    attached = [row[0] if len(row) == 1 else id_ for id_, row in zip(kept, alone, strict=True)]
    return Words([names[id_] for id_ in kept], torch.tensor([kept, attached]))
