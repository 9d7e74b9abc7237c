"""Objective: the losses of a recipe, compiled once into one function of a batch's logits.

Names are looked up, options checked and bound, and weights parsed into schedules at construction: a mistake shows
before the first step, and a step only computes. Losses on logits and intermediate-layer losses share this compilation;
both become a tuple of terms.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from augkd.distill.objective.losses import LABELLED, LOSSES
from augkd.recipe import options, schedules
from augkd.recipe.schedules import Schedule

Losses = Mapping[str, Mapping[str, Any]]  # name → options, with `weight` (default 1.0; a number or a schedule)


@dataclass(frozen=True)
class Term:
    """One loss of an objective, with the weight it has over the training."""

    name: str
    loss: Callable[..., Tensor]  # its options are bound
    weight: Schedule
    options: Mapping[str, Any]  # without the weight


def compile_terms(kind: str, functions: Mapping[str, Callable[..., Tensor]], losses: Losses) -> tuple[Term, ...]:
    """The terms of `losses`, all of one family of `recipe.options` (`kind`) whose functions are `functions`.

    Raises RecipeError for an unknown loss, an unknown option or a value out of range.
    """
    return tuple(_term(kind, functions, name, given) for name, given in losses.items())


def _term(kind: str, functions: Mapping[str, Callable[..., Tensor]], name: str, given: Mapping[str, Any]) -> Term:
    values = options.check_member(kind, name, {key: value for key, value in given.items() if key != "weight"})
    weight = schedules.parse(given.get("weight", 1.0), f"{kind} '{name}' option 'weight'")
    return Term(name, partial(functions[name], **values), weight, values)


class Objective:
    """The weighted sum of a recipe's losses on logits, one value per row; 0 everywhere when there are none."""

    def __init__(self, losses: Losses):
        """Raises RecipeError for an unknown loss, an unknown option or a value out of range."""
        self.terms = compile_terms("loss", LOSSES, losses)

    @property
    def uses_unlabelled_rows(self) -> bool:
        """Whether a row without a label contributes: losses on the hard label are 0 for it."""
        return any(term.name not in LABELLED for term in self.terms)

    def __call__(
        self,
        logits: Tensor,  # (n, outputs) of the student
        teacher: Tensor,  # (n, outputs) logits
        labels: Tensor,  # (n,) class indices (`NO_CLASS`: none) or numbers (nan: none)
        progress: float,  # share of the training that is done, in [0, 1]
    ) -> Tensor:  # (n,)
        """The loss of each row, on the device of `logits`."""
        teacher, labels = teacher.to(logits.device), labels.to(logits.device)
        total = torch.zeros(len(logits), device=logits.device)
        for term in self.terms:
            total = total + term.weight.at(progress) * term.loss(logits, teacher, labels, progress)
        return total
