"""The question an LLM is asked about a text, and what its answer says: probabilities of the classes, or why not.

Classes are options with letters, A to Z and a to z, because a letter is one token, whose log-probability stands for the
whole class. A model may prefer a position, so the options can be asked in several orders and averaged (Zheng et al.
2024, "Large Language Models Are Not Robust Multiple Choice Selectors"). Nothing is guessed: an answer that names no
option, or two, has no probabilities.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from augkd.data.label_names import find_name
from augkd.data.target import Target
from augkd.errors import RecipeError
from augkd.recipe import PLACEHOLDERS, TeacherOptions

LETTERS = string.ascii_uppercase + string.ascii_lowercase
_QUESTION = (
    "Which one of these options describes the {what} best?\n{{options}}\n\nAnswer with the letter of one option."
)
_SINGLE = "Text: {text}\n\n" + _QUESTION.format(what="text")
_PAIR = "First text: {text}\nSecond text: {text_pair}\n\n" + _QUESTION.format(what="two texts")
_PLACEHOLDER = re.compile(r"\{(" + "|".join(PLACEHOLDERS) + r")\}")
_AROUND = string.whitespace + string.punctuation
_THOUGHTS = re.compile(r"^\s*<think>.*?</think>", re.DOTALL)
_FIRST = re.compile(r"^\W*([A-Za-z])\s*[).:\-\n]\s*(.*)$", re.DOTALL)  # "B) sports", "(B) sports", "B: because …"
_STATED = re.compile(
    r"\b(?:answer|option|choice)(?:\s+is)?\s*:?\s*\W?([A-Za-z])\W*$", re.IGNORECASE
)  # "The answer is B."
_REFUSAL = re.compile(r"^\W*(i['’]?m sorry|sorry|i can(no|['’])t|i am unable|i['’]?m unable|as an ai)\b", re.I)

Alternatives = Sequence[tuple[str, float]]  # tokens that could stand at a position, with their log-probabilities


@dataclass(frozen=True)
class Reply:
    """What a server answered."""

    text: str
    refused: bool = False  # the server says so itself
    tokens: Sequence[tuple[str, Alternatives]] = ()  # each token of the answer; () without log-probabilities
    usage: tuple[int, int] = (0, 0)  # tokens read, tokens written


@dataclass(frozen=True)
class Answer:
    """The teacher's answer about a text; `values` is None where it has none, for `reason`."""

    values: NDArray[np.float64] | None  # (classes,) log-probabilities
    reason: str = ""  # refused, unparsable, no answer, or what people wrote
    shown: str = ""  # the answer as it was given
    smoothed: bool = False  # a class without probabilities, which were made by smoothing


@dataclass(frozen=True)
class Question:
    """How texts are asked about: the prompt, the classes in the task's order, and the orders they are listed in."""

    prompt: str
    labels: tuple[str, ...]
    descriptions: Mapping[str, str]
    orders: tuple[tuple[int, ...], ...]  # each a permutation of the classes
    smoothing: float

    def text(self, text: tuple[str, str | None], order: Sequence[int]) -> str:
        """The prompt for a text with the options in this order."""
        lines = [f"{letter}) {self._option(place)}" for letter, place in zip(LETTERS, order, strict=False)]
        given = {"text": text[0], "text_pair": text[1] or "", "options": "\n".join(lines)}
        return _PLACEHOLDER.sub(lambda match: given[match[1]], self.prompt)

    def _option(self, place: int) -> str:
        label = self.labels[place]
        return f"{label}: {self.descriptions[label]}" if label in self.descriptions else label

    def read(self, reply: Reply, order: Sequence[int], logprobs: bool) -> Answer:
        """What a reply to the options in this order says."""
        if reply.refused:
            return Answer(None, "refused", reply.text)
        text = _THOUGHTS.sub("", reply.text).strip()
        chosen = self._named_option(text, order)
        if chosen is None:
            return Answer(None, "refused" if _REFUSAL.match(text) else "unparsable", reply.text)
        if logprobs and (found := _option_logprobs(reply.tokens, len(order))) is not None:
            return Answer(_in_task_order(found, order), shown=reply.text)
        return Answer(smoothed(chosen, len(order), self.smoothing), shown=reply.text, smoothed=True)

    def _named_option(self, text: str, order: Sequence[int]) -> int | None:
        """The class that an answer's text names by its letter or its own name; None unless it is exactly one."""
        bare = text.strip(_AROUND)
        names = [label.strip(_AROUND) for label in self.labels]
        if len(bare) == 1 and (letter := _letter(bare, len(order))) is not None:
            return order[letter]
        if (place := find_name(bare, names)) is not None:
            return place
        if match := _FIRST.match(text):
            letter = _letter(match[1], len(order))
            named = find_name(match[2].strip(_AROUND), names)
            if letter is not None and named in (None, order[letter]):
                return order[letter]
            return None
        stated = _STATED.search(text)
        letter = _letter(stated[1], len(order)) if stated else None
        return None if letter is None else order[letter]


def question_for(options: TeacherOptions, target: Target, pairs: bool) -> Question:
    """The question for a task; raises RecipeError where prompt, labels or descriptions do not fit the task."""
    labels = target.labels
    if target.problem_type != "single_label_classification":
        raise RecipeError(f"teacher.endpoint chooses one class, but the task predicts {target.describe()}")
    if len(labels) > len(LETTERS):
        raise RecipeError(
            f"teacher.endpoint has a letter for at most {len(LETTERS)} classes; the task has {len(labels)}"
        )
    if options.labels is not None and sorted(options.labels) != sorted(labels):
        raise RecipeError(f"teacher.labels is {options.labels}; the task's labels are {list(labels)}")
    for label in options.descriptions or {}:
        if label not in labels:
            raise RecipeError(f"teacher.descriptions names '{label}'; the task's labels are {', '.join(labels)}")
    prompt = options.prompt or (_PAIR if pairs else _SINGLE)
    if pairs and "{text_pair}" not in prompt:
        raise RecipeError("teacher.prompt lacks {text_pair}; the task has pairs of texts")
    listed = options.labels or list(labels)  # the first order
    first = [list(labels).index(label) for label in listed]
    assert options.endpoint is not None
    orders = rotations(first, options.endpoint.permutations)
    return Question(prompt, tuple(labels), options.descriptions or {}, orders, options.smoothing)


def rotations(first: Sequence[int], count: int) -> tuple[tuple[int, ...], ...]:
    """At most `count` distinct rotations, evenly spaced: over all of them, each option has each position once."""
    shifts = sorted({round(number * len(first) / count) % len(first) for number in range(count)})
    return tuple(tuple(first[shift:]) + tuple(first[:shift]) for shift in shifts)


def averaged(answers: Sequence[Answer]) -> Answer:
    """The mean probabilities of the answers to several orders; those without probabilities are left out."""
    usable = [answer for answer in answers if answer.values is not None]
    if not usable or len(answers) == 1:
        return answers[0]
    probabilities = [np.exp(answer.values) for answer in usable if answer.values is not None]
    shown = " | ".join(answer.shown for answer in usable)
    return Answer(np.log(np.mean(probabilities, axis=0)), "", shown, any(answer.smoothed for answer in usable))


def smoothed(place: int, classes: int, smoothing: float) -> NDArray[np.float64]:  # (classes,)
    """Log-probabilities of a class that came without any: `smoothing` is spread evenly over all classes."""
    values = np.full(classes, smoothing / classes)
    values[place] += 1 - smoothing
    return np.asarray(np.log(values))


def _letter(text: str, options: int) -> int | None:
    """The number of the option with this letter; with up to 26 options, small letters count as capitals."""
    place = LETTERS.find(text.upper() if options <= 26 else text)
    return place if 0 <= place < options else None


def _option_logprobs(tokens: Sequence[tuple[str, Alternatives]], options: int) -> NDArray[np.float64] | None:
    """(options,) log-probabilities at the first token that is not blank; None where that token is no option.

    Tokens that differ in spaces or punctuation are one letter (`B`, ` B`, `(B`). An option that is not among the
    alternatives gets an equal share of the probability that they leave, but no more than the least of theirs.
    """
    for token, alternatives in tokens:
        if not token.strip():
            continue
        if not _is_option(token, options):
            return None
        mass = np.zeros(options)
        for other, logprob in alternatives or [(token, 0.0)]:
            if _is_option(other, options):
                mass[_letter(other.strip(_AROUND), options)] += np.exp(logprob)
        return _completed(mass, sum(float(np.exp(logprob)) for _, logprob in alternatives))
    return None


def _completed(mass: NDArray[np.float64], listed: float) -> NDArray[np.float64] | None:
    """Normalised log-probabilities of options of which some may not have been listed."""
    absent = mass == 0
    if absent.all():
        return None
    if absent.any():
        mass[absent] = max(min((1 - listed) / absent.sum(), mass[~absent].min()), 1e-9)
    return np.asarray(np.log(mass / mass.sum()))


def _is_option(token: str, options: int) -> bool:
    bare = token.strip(_AROUND)
    return len(bare) == 1 and _letter(bare, options) is not None


def _in_task_order(values: NDArray[np.float64], order: Sequence[int]) -> NDArray[np.float64]:
    ordered = np.empty_like(values)
    ordered[list(order)] = values
    return ordered
