"""LayerObjective: the chosen layer losses with their weights, their projections, and what they need to see.

The projections (CKD's; one linear map, as TinyBERT's W, where widths differ) train with the student but belong to this
module, so a saved student has none of them. The student is projected to the teacher's width, never the teacher: with a
learned map on both sides the two could agree on nothing at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
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
from augkd.errors import ModelError, RecipeError, did_you_mean
from augkd.models.layer_map import layer_map
from augkd.recipe import schedules

Pooling = Literal["cls", "mean"]


@dataclass(frozen=True)
class Shape:
    """What layer losses need to know of a model."""

    layers: int
    width: int
    heads: int

    @classmethod
    def of(cls, model: Any) -> Shape:
        """Read from a transformers model's configuration; raises ModelError for one without layers to match."""
        config = model.config
        if not all(hasattr(config, name) for name in ("num_hidden_layers", "hidden_size", "num_attention_heads")):
            raise ModelError(f"{type(model).__name__} has no transformer layers to match; leave out structure")
        return cls(config.num_hidden_layers, config.hidden_size, config.num_attention_heads)


@dataclass(frozen=True)
class Needs:
    """What one of the two models has to show: the smallest of it."""

    layers: tuple[int, ...]  # pooled vectors of these layers (0-based, ascending); () for none
    pooling: Pooling
    tokens: bool  # the states of every token
    attention: tuple[int, ...]  # attention scores of these layers; () for none

    @property
    def live(self) -> bool:
        """Whether a store of vectors is not enough: tokens and scores are too large to keep."""
        return self.tokens or bool(self.attention)


@dataclass(frozen=True)
class States:
    """What one forward pass of n rows showed of a model's layers, float32 or as computed."""

    vectors: Tensor | None = None  # (n, layers asked for, d)
    tokens: tuple[Tensor, ...] = ()  # embeddings, then each layer: (n, t, d)
    scores: tuple[Tensor, ...] = ()  # each layer (n, heads, t, t), empty where it was not asked for
    mask: Tensor | None = None  # (n, t), 1 for real tokens


class LayerObjective(nn.Module):
    """All layer losses of a recipe, for one student and one teacher."""

    def __init__(
        self,
        losses: Mapping[str, Mapping[str, Any]],
        student: Shape,
        teacher: Shape,
        *,
        pooling: Pooling = "cls",
        seed: int = 0,
    ):
        """`losses`: name → options, `weight` (1.0; a number or a schedule) among them.

        Raises ModelError when the two shapes do not fit a loss, RecipeError for an unknown one.
        """
        super().__init__()
        for name in losses:
            if name not in LAYER_LOSSES:
                raise RecipeError(f"there is no layer loss '{name}'{did_you_mean(name, LAYER_LOSSES)}")
        self.losses = {name: dict(given) for name, given in losses.items()}
        self.student, self.teacher, self.pooling = student, teacher, pooling
        self._seed = seed
        self._check()
        layers = {layer for name in losses for layer in self._vector_layers(name)}
        self._needs = Needs(tuple(sorted(layers)), pooling, self._tokens, self._scored(teacher.layers))

        rng = torch.Generator().manual_seed(seed)
        widened = student.width != teacher.width and bool(set(losses) - {"ckd", "attention"})
        self.widen = _linear(student.width, teacher.width, rng) if widened else nn.Identity()
        spans = self._spans("ckd") if "ckd" in losses else ()
        self.concatenations = nn.ModuleList(_linear(student.width, len(span) * teacher.width, rng) for span in spans)

    def needs(self) -> Needs:
        """What the teacher has to show."""
        return self._needs

    def student_needs(self) -> Needs:
        """What the student has to show."""
        vectors = tuple(range(self.student.layers)) if VECTORS & set(self.losses) else ()
        scored = tuple(range(self.student.layers)) if "attention" in self.losses else ()
        return Needs(vectors, self.pooling, self._tokens, scored)

    def forward(
        self, student: States, teacher: States, progress: float, epoch: int = 0
    ) -> tuple[Tensor, dict[str, Tensor]]:  # (n,), name → (n,)
        """The weighted sum of the losses of each row, and what to log of it, a value a row without gradient.

        RAIL's layers depend on (seed, epoch) alone.
        """
        device = next(t.device for t in (student.vectors, *student.tokens, *student.scores) if t is not None)
        metrics: dict[str, Tensor] = {}
        rows = []
        with torch.autocast(device.type, enabled=False):  # a squared difference of near vectors has few bits to lose
            vectors = None if student.vectors is None else student.vectors.float()
            wide = None if vectors is None else self.widen(vectors)
            tokens = [self.widen(state.float()) for state in student.tokens]
            theirs = None if teacher.vectors is None else self._full(teacher.vectors.to(device).float())
            for name, given in self.losses.items():
                options = {key: value for key, value in given.items() if key != "weight"}
                rng = torch.Generator().manual_seed(_mix(self._seed, epoch))
                loss: Callable[..., Tensor] = LAYER_LOSSES[name]
                if name in VECTORS:
                    assert vectors is not None
                    assert theirs is not None
                    mine = self._concatenated(vectors) if name == "ckd" else wide
                    value = loss(mine, theirs, progress, rng, **options)
                elif name == "attention":
                    value = loss(_floats(student.scores), _floats(teacher.scores), student.mask, progress, **options)
                else:
                    value = loss(tokens, _floats(teacher.tokens), student.mask, progress, **options)
                rows.append(schedules.weight(given.get("weight", 1.0), progress) * value)
                metrics[f"structure/{name}"] = value.detach()
                if name == "alp":
                    metrics |= _alp_perplexity(wide, theirs, options)
        return torch.stack(rows).sum(dim=0), metrics

    @property
    def _tokens(self) -> bool:
        return bool(set(self.losses) - VECTORS - {"attention"})

    def _scored(self, layers: int) -> tuple[int, ...]:
        if "attention" not in self.losses:
            return ()
        return layer_map(self.losses["attention"].get("layers", "uniform"), layers, self.student.layers)

    def _vector_layers(self, name: str) -> Sequence[int]:
        if name == "pkd":
            return pkd_layers(self.losses[name].get("layers", "skip"), self.teacher.layers, self.student.layers)
        return range(self.teacher.layers) if name in VECTORS else ()

    def _spans(self, name: str) -> tuple[range, ...]:
        buckets = self.losses[name].get("buckets", "all" if name == "alp" else "disjoint")
        return bucket_spans(buckets, self.teacher.layers, self.student.layers)

    def _check(self) -> None:
        """Raises ModelError now for what would fail at the first step."""
        if not self.losses:
            raise RecipeError("structure names no layer loss; give at least one, e.g. alp: {weight: 1.0}")
        for name in set(self.losses) & {"alp", "ckd"}:
            self._spans(name)
        if "hidden" in self.losses:
            layer_map(self.losses["hidden"].get("layers", "uniform"), self.teacher.layers, self.student.layers)
        if "rail" in self.losses and self.student.layers > self.teacher.layers:
            raise ModelError(f"rail draws {self.student.layers} teacher layers, but there are {self.teacher.layers}")
        if "attention" in self.losses and self.student.heads != self.teacher.heads:
            raise ModelError(
                f"attention compares head by head, but the student has {self.student.heads} heads and the teacher "
                f"{self.teacher.heads}; use hidden, or a student with {self.teacher.heads}"
            )

    def _concatenated(self, vectors: Tensor) -> list[Tensor]:  # (n, m, d) → m times (n, |A(j)|·d of the teacher)
        return [project(mine) for project, mine in zip(self.concatenations, vectors.unbind(1), strict=True)]

    def _full(self, vectors: Tensor) -> Tensor:  # (n, layers needed, d) → (n, L, d)
        """Teacher vectors in their places; a layer nobody asked for is nan, so that using it shows."""
        needed = self._needs.layers
        assert vectors.shape[1:] == (len(needed), self.teacher.width), f"{tuple(vectors.shape)} for layers {needed}"
        if len(needed) == self.teacher.layers:
            return vectors
        full = vectors.new_full((len(vectors), self.teacher.layers, self.teacher.width), torch.nan)
        full[:, list(needed)] = vectors
        return full


@torch.no_grad()
def _alp_perplexity(student: Any, teacher: Any, options: Mapping[str, Any]) -> dict[str, Tensor]:
    values = perplexity(alp_attention(student, teacher, **options))
    return {f"structure/alp_perplexity_{layer}": value for layer, value in enumerate(values.unbind(1))}


def _linear(inputs: int, outputs: int, rng: torch.Generator) -> nn.Linear:
    """A linear map drawn from `rng`, uniform in ±1/√inputs as torch's own, which draws from the global seed."""
    layer = nn.Linear(inputs, outputs, device="meta").to_empty(device="cpu")  # meta: the global seed is not touched
    bound = inputs**-0.5
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound, generator=rng)
        layer.bias.uniform_(-bound, bound, generator=rng)
    return layer


def _floats(states: Sequence[Tensor]) -> list[Tensor]:
    return [state.float() for state in states]


def _mix(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
