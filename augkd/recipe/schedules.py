"""Schedules of a weight or factor, over the share of a training that is done and never over a count of epochs.

A loss's weight is a number or a schedule, `{linear: {from: 0, to: 1, start: 0.0, end: 0.5}}`, `{cosine: …}` or
`{step: {at: 0.5, before: 1, after: 0}}`; all three go from one value to another between two points of the training.
Φ is the factor that Annealing-KD puts on the teacher's logits (Jafari et al. 2021). No torch here, since checking a
recipe must not import it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from augkd.errors import RecipeError, did_you_mean, short_repr
from augkd.recipe import options
from augkd.recipe.options import Option

_WEIGHT, _SHARE = ">= 0", ">= 0, <= 1"
_RAMP = (
    Option("from", "float", _WEIGHT, 0.0),
    Option("to", "float", _WEIGHT, 1.0),
    Option("start", "float", _SHARE, 0.0),
    Option("end", "float", _SHARE, 1.0),
)
_STEP = (
    Option("at", "float", _SHARE, 0.5),
    Option("before", "float", _WEIGHT, 1.0),
    Option("after", "float", _WEIGHT, 0.0),
)
SHAPES: dict[str, tuple[Option, ...]] = {"linear": _RAMP, "cosine": _RAMP, "step": _STEP}
_CURVES: dict[str, Callable[[float], float]] = {  # share of the way in time → share of the way in value
    "linear": lambda share: share,
    "cosine": lambda share: (1 - math.cos(math.pi * share)) / 2,
    "step": lambda share: share,
}


@dataclass(frozen=True)
class Schedule:
    """A value that is `first` until `start`, `last` from `end` on, and follows `shape` in between."""

    shape: str  # linear | cosine | step
    first: float
    last: float
    start: float  # share of the training, in [0, 1]
    end: float

    def at(self, progress: float) -> float:
        """The value at `progress` in [0, 1]."""
        if progress >= self.end:
            return self.last
        if progress <= self.start:
            return self.first
        share = _CURVES[self.shape]((progress - self.start) / (self.end - self.start))
        return self.first + share * (self.last - self.first)


def parse(value: Any, what: str) -> Schedule:
    """The schedule of `value`, constant for a number; raises RecipeError, whose message begins with `what`."""
    if not isinstance(value, Mapping):
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise RecipeError(
                f"{what} is {short_repr(value)}; give a number or a schedule, e.g. {{linear: {{to: 0.5}}}}"
            )
        options.check_value(what, Option("weight", "float", _WEIGHT, 1.0), value)
        return Schedule("step", float(value), float(value), 0.0, 0.0)
    if len(value) != 1:
        raise RecipeError(f"{what} is {short_repr(dict(value))}; give exactly one of {', '.join(SHAPES)}")
    ((shape, table),) = value.items()
    if shape not in SHAPES:
        raise RecipeError(f"{what}: there is no schedule {short_repr(shape)}{did_you_mean(str(shape), SHAPES)}")
    if not isinstance(table, Mapping):
        example = f"{{{shape}: {{{_example(shape)}}}}}"
        raise RecipeError(f"{what}: {shape} is {short_repr(table)}; give a table, e.g. {example}")
    return _schedule(what, shape, options.check_options(f"{what}: {shape}", SHAPES[shape], table))


def phi(epoch: int, epochs: int, tau_max: int) -> float:
    """Φ at the start of `epoch` (from 0): t/τ with t = 1 + ⌊epoch·τ/epochs⌋, at most 1.

    The released code increments t every ⌊epochs/τ⌋ epochs, which goes past 1 where τ does not divide epochs and divides
    by zero where τ is larger.
    """
    return min(1 + epoch * tau_max // epochs, tau_max) / tau_max


def phi_at(progress: float, tau_max: int) -> float:
    """Φ at `progress` in [0, 1]: 1/τ, 2/τ, … 1, each for one τ-th of the training.

    It equals `phi` at the start of every epoch, and throughout the epoch where τ divides the number of epochs. Where it
    does not, some increments fall inside an epoch, so that 1 is reached even when τ is larger than that number.
    """
    # 1e-9: 0.07·100 is 7.000000000000001, 0.29·100 is 28.999999999999996; a step is at least 1e-8 of any training
    return min(1 + math.floor(progress * tau_max + 1e-9), tau_max) / tau_max


def _schedule(what: str, shape: str, table: Mapping[str, Any]) -> Schedule:
    """The schedule of a table whose options are checked, one at a time."""
    values = {option.name: float(table.get(option.name, option.default)) for option in SHAPES[shape]}
    if shape == "step":
        return Schedule(shape, values["before"], values["after"], values["at"], values["at"])
    if values["start"] >= values["end"]:
        start, end = values["start"], values["end"]
        raise RecipeError(f"{what}: {shape} has start {start:g} and end {end:g}; start must be smaller")
    return Schedule(shape, values["from"], values["to"], values["start"], values["end"])


def _example(shape: str) -> str:
    return ", ".join(f"{option.name}: {option.default:g}" for option in SHAPES[shape])
