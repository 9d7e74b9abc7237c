"""LayerObjective: the intermediate-layer losses of a recipe with their weights, projections and needs.

The projections (CKD's; one linear map, as TinyBERT's W, where widths differ) train with the student but belong to this
module, so a saved student has none of them. The student is projected to the teacher's width, never the teacher: with a
learned map on both sides the two could agree on vectors that carry nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from augkd.distill.objective.layer_losses import (
    LAYER_LOSSES,
    VECTORS,
    alp_attention,
    bucket_spans,
    perplexity,
    pkd_layers,
)
from augkd.distill.objective.layer_states import Needs, Pooling, Shape, States
from augkd.distill.objective.objective import Losses, Term, compile_terms
from augkd.errors import ModelError, RecipeError
from augkd.models.layer_map import layer_map
from augkd.models.seeds import rng_of


class LayerObjective(nn.Module):
    """All intermediate-layer losses of a recipe, for one student and one teacher."""

    def __init__(
        self,
        losses: Losses,
        student: Shape,
        teacher: Shape,
        *,
        pooling: Pooling = "cls",
        seed: int = 0,
    ):
        """Raises ModelError when the two shapes do not fit a loss, RecipeError for an unknown loss or option."""
        super().__init__()
        self.terms = compile_terms("intermediate-layer loss", LAYER_LOSSES, losses)
        self.student, self.teacher, self.pooling = student, teacher, pooling
        self._names = {term.name for term in self.terms}
        self._seed = seed
        self._check()
        layers = {layer for term in self.terms for layer in self._vector_layers(term)}
        self._needs = Needs(tuple(sorted(layers)), pooling, self._compares_tokens, self._scored_layers())

        rng = torch.Generator().manual_seed(seed)
        widened = student.width != teacher.width and bool(self._names - {"ckd", "attention"})
        self.widen = _linear(student.width, teacher.width, rng) if widened else nn.Identity()
        ckd = self.term("ckd")
        spans = self._spans(ckd) if ckd else ()
        self.concatenations = nn.ModuleList(_linear(student.width, len(span) * teacher.width, rng) for span in spans)

    def term(self, name: str) -> Term | None:
        """The compiled loss of that name; None when the recipe does not use it."""
        return next((term for term in self.terms if term.name == name), None)

    def needs(self) -> Needs:
        """The teacher's states that the losses use."""
        return self._needs

    def student_needs(self) -> Needs:
        """The student's states that the losses use."""
        every = tuple(range(self.student.layers))
        vectors = every if VECTORS & self._names else ()
        scored = every if "attention" in self._names else ()
        return Needs(vectors, self.pooling, self._compares_tokens, scored)

    def forward(
        self, student: States, teacher: States, progress: float, epoch: int = 0
    ) -> tuple[Tensor, dict[str, Tensor]]:  # (n,), name → (n,)
        """The weighted sum of the losses of each row, and metrics to log, one value per row without gradient.

        RAIL's layers depend on (seed, epoch) alone.
        """
        device = next(t.device for t in (student.vectors, *student.tokens, *student.scores) if t is not None)
        metrics: dict[str, Tensor] = {}
        weighted = []
        with torch.autocast(device.type, enabled=False):  # a squared difference of close vectors loses most of its bits
            inputs = self._inputs(student, teacher, device)
            for term in self.terms:
                value = self._value(term, inputs, progress, epoch)
                weighted.append(term.weight.at(progress) * value)
                metrics[f"structure/{term.name}"] = value.detach()
                if term.name == "alp":
                    metrics |= _alp_perplexity(inputs.wide, inputs.teacher_vectors, term.options)
        return torch.stack(weighted).sum(dim=0), metrics

    def _inputs(self, student: States, teacher: States, device: torch.device) -> _Inputs:
        vectors = None if student.vectors is None else student.vectors.float()
        return _Inputs(
            vectors=vectors,
            wide=None if vectors is None else self.widen(vectors),
            tokens=[self.widen(state.float()) for state in student.tokens],
            scores=_floats(student.scores),
            mask=student.mask,
            teacher_vectors=None if teacher.vectors is None else self._full(teacher.vectors.to(device).float()),
            teacher_tokens=_floats(teacher.tokens),
            teacher_scores=_floats(teacher.scores),
        )

    def _value(self, term: Term, inputs: _Inputs, progress: float, epoch: int) -> Tensor:  # (n,)
        if term.name == "attention":
            return term.loss(inputs.scores, inputs.teacher_scores, inputs.mask, progress)
        if term.name not in VECTORS:
            return term.loss(inputs.tokens, inputs.teacher_tokens, inputs.mask, progress)
        assert inputs.vectors is not None
        assert inputs.teacher_vectors is not None
        student = self._concatenated(inputs.vectors) if term.name == "ckd" else inputs.wide
        return term.loss(student, inputs.teacher_vectors, progress, rng_of(self._seed, epoch))

    @property
    def _compares_tokens(self) -> bool:
        return bool(self._names - VECTORS - {"attention"})

    def _scored_layers(self) -> tuple[int, ...]:
        attention = self.term("attention")
        return self._mapped_layers(attention) if attention else ()

    def _vector_layers(self, term: Term) -> Sequence[int]:
        if term.name == "pkd":
            return pkd_layers(term.options.get("layers", "skip"), self.teacher.layers, self.student.layers)
        return range(self.teacher.layers) if term.name in VECTORS else ()

    def _mapped_layers(self, term: Term) -> tuple[int, ...]:
        return layer_map(term.options.get("layers", "uniform"), self.teacher.layers, self.student.layers)

    def _spans(self, term: Term) -> tuple[range, ...]:
        buckets = term.options.get("buckets", "all" if term.name == "alp" else "disjoint")
        return bucket_spans(buckets, self.teacher.layers, self.student.layers)

    def _check(self) -> None:
        """Raises ModelError now for what would fail at the first step."""
        if not self.terms:
            raise RecipeError("structure names no intermediate-layer loss; give at least one, e.g. alp: {weight: 1.0}")
        for term in self.terms:
            if term.name in ("alp", "ckd"):
                self._spans(term)
            if term.name == "hidden":
                self._mapped_layers(term)
        if "rail" in self._names and self.student.layers > self.teacher.layers:
            raise ModelError(f"rail draws {self.student.layers} teacher layers, but there are {self.teacher.layers}")
        if "attention" in self._names and self.student.heads != self.teacher.heads:
            raise ModelError(
                f"attention compares head by head, but the student has {self.student.heads} heads and the teacher "
                f"{self.teacher.heads}; use hidden, or a student with {self.teacher.heads}"
            )

    def _concatenated(self, vectors: Tensor) -> list[Tensor]:  # (n, m, d) → m times (n, |A(j)|·d of the teacher)
        return [project(layer) for project, layer in zip(self.concatenations, vectors.unbind(1), strict=True)]

    def _full(self, vectors: Tensor) -> Tensor:  # (n, needed layers, d) → (n, L, d)
        """Teacher vectors at the positions of their layers; nan for layers that are not needed, so that a use shows."""
        needed = self._needs.layers
        assert vectors.shape[1:] == (len(needed), self.teacher.width), f"{tuple(vectors.shape)} for layers {needed}"
        if len(needed) == self.teacher.layers:
            return vectors
        full = vectors.new_full((len(vectors), self.teacher.layers, self.teacher.width), torch.nan)
        full[:, list(needed)] = vectors
        return full


@dataclass(frozen=True)
class _Inputs:
    """The states of both models in float32, as the losses take them."""

    vectors: Tensor | None  # (n, m, d of the student)
    wide: Tensor | None  # (n, m, d), the vectors at the teacher's width
    tokens: list[Tensor]  # at the teacher's width
    scores: list[Tensor]
    mask: Tensor | None
    teacher_vectors: Tensor | None  # (n, L, d)
    teacher_tokens: list[Tensor]
    teacher_scores: list[Tensor]


@torch.no_grad()
def _alp_perplexity(student: Any, teacher: Any, options: Mapping[str, Any]) -> dict[str, Tensor]:
    values = perplexity(alp_attention(student, teacher, **options))
    return {f"structure/alp_perplexity_{layer}": value for layer, value in enumerate(values.unbind(1))}


def _linear(inputs: int, outputs: int, rng: torch.Generator) -> nn.Linear:
    """A linear map drawn from `rng`, uniform in ±1/√inputs like torch's own, which draws from the global seed."""
    layer = nn.Linear(inputs, outputs, device="meta").to_empty(device="cpu")  # meta: the global seed is not touched
    bound = inputs**-0.5
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound, generator=rng)
        layer.bias.uniform_(-bound, bound, generator=rng)
    return layer


def _floats(states: Sequence[Tensor]) -> list[Tensor]:
    return [state.float() for state in states]
