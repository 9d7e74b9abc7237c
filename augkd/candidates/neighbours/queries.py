"""What is looked up in an index: one query for every place of an example where a neighbour may stand.

A single text is one place, a pair two: each side is replaced while the other is kept (Kamalloo et al. 2021, "Not Far
Away, Not So Close", report pairs and long texts as their method's weakness). In a text of several sentences each
sentence may be a place of its own: a neighbour then replaces that sentence, and the rest of the document stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from augkd.data.cleaning import normalised
from augkd.data.task import Example
from augkd.errors import DataError, RecipeError


@dataclass(frozen=True, slots=True)
class Query:
    """A text to look up, and the place that its neighbours take."""

    row: int  # of the example
    side: str  # "text" or "pair": the side of a pair that is replaced; "" for a single text; "unit" for both at once
    text: str
    wanted: int  # number of neighbours
    own: frozenset[str]  # normalised texts that may not come back
    sentence: int | None = None  # number of the sentence, where only that is replaced
    before: str = ""  # the text before and after the replaced sentence
    after: str = ""

    def fill(self, neighbour: str) -> str:
        """The side's text with `neighbour` in its place."""
        return self.before + neighbour + self.after

    @property
    def place(self) -> str:
        """The place within the example, as it ends a candidate's id: `-pair`, `-text-s2`, or nothing."""
        side = f"-{self.side}" if self.side else ""
        return side if self.sentence is None else f"{side}-s{self.sentence}"


def queries_of(row: int, example: Example, k: int, *, unit: str = "text", language: str = "en") -> Iterator[Query]:
    """The queries of one example, for `k` neighbours in all; in a pair half per side, the odd one for `text`.

    With unit `sentence` a side of several sentences is looked up sentence by sentence.
    """
    for query in _side_queries(row, example, k):
        if unit == "sentence":
            yield from _by_sentence(query, language)
        else:
            yield query


def unit_queries(row: int, example: Example, k: int) -> tuple[Query, Query]:
    """The two queries of a pair that is replaced as a whole. Raises RecipeError for a single text."""
    if example.text_pair is None:
        raise RecipeError(f"example {example.id!r} is a single text; neighbours pairs 'unit' and 'both' need pairs")
    own = frozenset({normalised(example.text), normalised(example.text_pair)})
    return Query(row, "unit", example.text, k, own), Query(row, "unit", example.text_pair, k, own)


def sentence_spans(text: str, language: str = "en") -> list[tuple[int, int]]:
    """Where the sentences of `text` start and end, without surrounding white space, by sentencex's rules."""
    import sentencex

    spans = []
    start = 0
    for segment in sentencex.segment(language, text):
        stripped = segment.strip()
        if stripped:
            first = start + segment.index(stripped)
            spans.append((first, first + len(stripped)))
        start += len(segment)
    assert start == len(text), "sentencex lost characters"
    return spans


def spread(k: int, lengths: Sequence[int]) -> list[int]:
    """`k` spread evenly over sentences of these lengths; the remainder goes to the longest, the first of equals."""
    counts = [k // len(lengths)] * len(lengths)
    longest = sorted(range(len(lengths)), key=lambda place: -lengths[place])  # stable: the first of equals
    for place in longest[: k % len(lengths)]:
        counts[place] += 1
    return counts


def group_queries(queries: Iterable[Query], examples: Sequence[Example], by: str) -> list[list[Query]]:
    """The queries to average: those of each class (`label`) or all (`task`), each side of a pair separately."""
    groups: dict[tuple[str, int], list[Query]] = {}
    for query in queries:
        group = _class_of(examples[query.row]) if by == "label" else 0
        groups.setdefault((query.side, group), []).append(query)
    return [groups[key] for key in sorted(groups)]


def check_classes(examples: Iterable[Example]) -> None:
    """Raises DataError for an example without a class, which no average of a class could serve."""
    for example in examples:
        _class_of(example)


def with_sentences(texts: Iterable[str], language: str = "en") -> Iterator[str]:
    """The texts, and the sentences of those that have several."""
    for text in texts:
        yield text
        spans = sentence_spans(text, language)
        if len(spans) > 1:
            yield from (text[start:stop] for start, stop in spans)


def _side_queries(row: int, example: Example, k: int) -> Iterator[Query]:
    if example.text_pair is None:
        yield Query(row, "", example.text, k, frozenset({normalised(example.text)}))
        return
    # a neighbour equal to the other side is excluded too: it would pair a text with itself
    own = frozenset({normalised(example.text), normalised(example.text_pair)})
    yield Query(row, "text", example.text, k - k // 2, own)
    if k > 1:
        yield Query(row, "pair", example.text_pair, k // 2, own)


def _by_sentence(query: Query, language: str) -> Iterator[Query]:
    text = query.text
    spans = sentence_spans(text, language)
    if len(spans) < 2:
        yield query
        return
    sentences = [text[start:stop] for start, stop in spans]
    own = query.own | {
        normalised(sentence) for sentence in sentences
    }  # else a sentence could come to stand there twice
    counts = spread(query.wanted, [len(sentence) for sentence in sentences])
    for number, ((start, stop), wanted) in enumerate(zip(spans, counts, strict=True)):
        if wanted:
            yield replace(
                query,
                text=text[start:stop],
                wanted=wanted,
                own=own,
                sentence=number,
                before=text[:start],
                after=text[stop:],
            )


def _class_of(example: Example) -> int:
    if isinstance(example.label, int):
        return example.label
    wrong = "no label" if example.label is None else f"the number {example.label} as label"
    raise DataError(
        f"example {example.id!r} has {wrong}; neighbours queries 'label' and 'mix' need a class for every example: "
        "use 'example' or 'task'"
    )
