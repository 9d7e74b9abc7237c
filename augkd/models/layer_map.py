"""Which teacher layer each student layer corresponds to: the named rules of the literature, or an explicit list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from augkd.errors import ModelError, did_you_mean, short_repr

MAPS = ("middle", "uniform", "first", "last", "distilbert")


def layer_map(choice: str | Sequence[int], teacher_layers: int, student_layers: int) -> tuple[int, ...]:
    """The teacher layer of each student layer (0-based, ascending), to initialise it from or to match.

    `middle`: the middle layer of each of m equal parts, the lower of two. `uniform`: the last layer of each (TinyBERT).
    `first`, `last`: consecutive layers. `distilbert`: evenly spaced from layer 0 to layer L - 1; 6 of 12 are 0, 2, 4,
    7, 9, 11. An explicit list may be in any order. Raises ModelError when a layer does not exist or the student is
    deeper than the teacher.
    """
    deepest, m = teacher_layers - 1, student_layers
    if not isinstance(choice, str):
        return _explicit(choice, teacher_layers, student_layers)
    if choice not in MAPS:
        raise ModelError(f"there is no layer map {short_repr(choice)}{did_you_mean(choice, MAPS)}")
    if not 1 <= m <= teacher_layers:
        raise ModelError(
            f"layer map '{choice}' needs 1 to {teacher_layers} student layers, as many as the teacher has; got {m}"
        )
    if choice == "first":
        return tuple(range(m))
    if choice == "last":
        return tuple(range(teacher_layers - m, teacher_layers))
    if choice == "middle":  # of a part with edges a and b: (a + b - 1) / 2
        return tuple(((2 * j + 1) * teacher_layers - m) // (2 * m) for j in range(m))
    if choice == "uniform":
        return tuple((j + 1) * teacher_layers // m - 1 for j in range(m))
    steps = max(1, m - 1)  # a student of one layer takes layer 0
    return tuple((2 * j * deepest + steps) // (2 * steps) for j in range(m))  # j·(L-1)/(m-1), halves rounded up


def layer_positions(
    layers: Sequence[int] | Mapping[Any, int],
    total: int,  # layers of the model that they are taken from
    key: str = "student.layers",  # for messages
) -> list[int]:
    """The 0-based layers that a student keeps: as listed, or by a rule and a number, like {"uniform": 3}.

    Raises ModelError when a layer does not exist.
    """
    if isinstance(layers, Mapping):
        if len(layers) != 1:
            raise ModelError(f"{key} is {dict(layers)}; give one rule, like {{uniform: 2}}, or a list of positions")
        ((rule, count),) = layers.items()
        return list(layer_map(rule, total, count))
    unknown = [layer for layer in layers if not 0 <= layer < total]
    if unknown or not layers:
        owner = "backbone" if key == "teacher.layers" else "teacher"
        raise ModelError(f"{key} is {list(layers)}; the {owner} has layers 0 to {total - 1}")
    return list(layers)


def _explicit(choice: Sequence[int], teacher_layers: int, student_layers: int) -> tuple[int, ...]:
    if len(choice) != student_layers or not all(0 <= layer < teacher_layers for layer in choice):
        raise ModelError(
            f"layers {list(choice)}: name {student_layers}, one for each student layer, "
            f"among the teacher's 0 to {teacher_layers - 1}"
        )
    return tuple(choice)
