"""The generator's half of MATE-KD (Rashid et al., ACL 2021): every so often it climbs where teacher and student differ.

The drawn tokens are real ones, so teacher and student run on them as on any text. Only the gradient is softened: a term
that is zero, added to the word embeddings of masked places, carries it back to the generator's logits. It is asked of
autograd for the generator's parameters alone, so nobody else's gradient is touched.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from augkd.candidates.generator.generator import Generator, masked_places, replaced, soften
from augkd.distill.adversary.freelb import added
from augkd.errors import ModelError
from augkd.models.classifier import Classifier
from augkd.models.devices import budget_of
from augkd.models.seeds import rng_of
from augkd.models.tokens import Tokens
from augkd.selection import divergence
from augkd.selection.pool import Batch, Pool

NO_ROW = -1  # the place of a generated text among the candidates of the transfer set: it is in none
Forward = Callable[[Tokens], Tensor]


def cross_entropy(student: Tensor, teacher: Tensor) -> Tensor:  # (n, classes) logits → (n,)
    """H(teacher, student) = KL + H(teacher): what MATE-KD's code climbs; it also rewards making the teacher unsure."""
    return -(teacher.float().softmax(dim=-1) * student.float().log_softmax(dim=-1)).sum(dim=-1)


OBJECTIVES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "kl": divergence.kl,
    "cross_entropy": cross_entropy,
    "squared_error": divergence.squared_error,
}


@dataclass(frozen=True)
class Ascent:
    """When and how the generator climbs. `ascend` 0: never, random masking and filling."""

    ascend: int = 10  # steps in a row
    every: int = 100  # of the student's steps, the first before its first
    objective: str = "kl"
    learning_rate: float = 2e-4
    schedule: str = "constant"  # or linear: down to 0 at the end of the stage
    max_grad_norm: float = 5.0


class Adversary:
    """Generator and live teacher beside a student: fills pools, and climbs in between."""

    def __init__(
        self, generator: Generator, teacher: Classifier, ascent: Ascent, *, samples: int = 1, seed: int = 0
    ) -> None:
        self.generator, self.teacher, self.ascent = generator, teacher, ascent
        self.samples = samples
        self._seed = seed
        self.steps = 0  # of ascent, since the beginning
        self.teacher.model.eval().requires_grad_(False)
        self._parameters = [p for p in generator.lm.model.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(self._parameters, lr=ascent.learning_rate, weight_decay=0.0)

    @torch.no_grad()
    def pool(self, batch: Batch, rng: torch.Generator, budget: int | None = None) -> Pool:
        """New texts for a batch's originals, with the teacher's word on them; score: the share of tokens kept."""
        drawn = self.generator.draw(batch.tokens, self.samples, rng)
        owner = torch.repeat_interleave(torch.arange(len(batch.tokens)), self.samples)
        teacher = self.teacher.logits(drawn.tokens, "teacher", budget).cpu()
        return Pool(drawn.tokens, owner, drawn.kept, teacher, torch.full((len(owner),), NO_ROW))

    def due(self, step: int) -> bool:
        """Whether to ascend before the student's step number `step`, from 0."""
        return self.ascent.ascend > 0 and step % self.ascent.every == 0

    def ascend(
        self,
        student: nn.Module,
        forward: Forward,
        texts: Callable[[torch.Generator], Tokens],
        progress: float = 0.0,
        budget: int | None = None,
    ) -> list[float]:
        """`ascend` steps on the originals that `texts` draws; returns the mean divergence before each of them.

        `forward` runs `student` with gradients, under `budget`. The student is in eval mode meanwhile: what climbs is
        the divergence that selection measures.
        """
        training = student.training
        student.eval()
        values = []
        for _ in range(self.ascent.ascend):
            rng = rng_of(self._seed, 4, self.steps)
            values.append(self._step(student, forward, texts(rng), rng, progress, budget))
            self.steps += 1
        student.train(training)
        return values

    def _step(
        self,
        student: nn.Module,
        forward: Forward,
        tokens: Tokens,
        rng: torch.Generator,
        progress: float,
        budget: int | None,
    ) -> float:
        places = masked_places(tokens, self.generator.lm.special(), self.generator.rate, rng)
        if not len(places):
            return 0.0
        logits = self.generator.logits(tokens, places, "ascent")
        ids, soft = soften(logits, self.generator.temperature, rng)
        drawn = replaced(tokens, places, ids.cpu())

        with straight_through(student, drawn, places, soft, budget):
            seen = forward(drawn)
        with straight_through(self.teacher.model, drawn, places, soft, budget):
            told = self.teacher.logits(drawn, "ascent", budget)
        classes = seen.shape[-1] > 1  # KL of one output is always 0
        value = OBJECTIVES[self.ascent.objective if classes else "squared_error"](seen, told).mean()

        gradients = torch.autograd.grad(-value, self._parameters, allow_unused=True)  # a pooler is not on the way
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient
        nn.utils.clip_grad_norm_(self._parameters, self.ascent.max_grad_norm)
        for group in self._optimizer.param_groups:
            left = 1 - progress if self.ascent.schedule == "linear" else 1.0
            group["lr"] = self.ascent.learning_rate * left
        self._optimizer.step()
        self._optimizer.zero_grad()
        return float(value.detach())

    def state(self) -> dict[str, Tensor]:
        """Weights and moments, as tensors of their own."""
        state = {"steps": torch.tensor(self.steps)}
        for name, parameter in self.generator.lm.model.named_parameters():  # tied ones once
            state[f"weight.{name}"] = parameter.detach().cpu().contiguous()
            for key, value in self._optimizer.state.get(parameter, {}).items():
                state[f"{key}.{name}"] = value.detach().cpu().contiguous()
        return state

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Goes on from `state`."""
        self.steps = int(state["steps"])
        for name, parameter in self.generator.lm.model.named_parameters():
            parameter.copy_(state[f"weight.{name}"])
            moments = {key: state.get(f"{key}.{name}") for key in ("step", "exp_avg", "exp_avg_sq")}
            if moments["step"] is not None:
                self._optimizer.state[parameter] = {
                    key: value if key == "step" else value.to(parameter.device)
                    for key, value in moments.items()
                    if value is not None
                }

    @property
    def rows(self) -> dict[str, int]:
        """Rows through the generator and, in the loop, through the teacher."""
        return {"generator": sum(self.generator.lm.rows.values()), "teacher": sum(self.teacher.rows.values())}


class _Through(torch.autograd.Function):
    """Zero forwards; backwards the gradient that `soft @ embedding` would have."""

    @staticmethod
    def forward(ctx: Any, soft: Tensor, embedding: Tensor) -> Tensor:
        ctx.save_for_backward(embedding)
        return soft.new_zeros(len(soft), embedding.shape[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (embedding,) = ctx.saved_tensors
        return gradients[0].to(embedding.dtype) @ embedding.T, None


def straight_through(
    model: Any,
    tokens: Tokens,
    places: Tensor,  # (p,) positions in tokens.ids, ascending
    soft: Tensor,  # (p, vocabulary)
    budget: int | None = None,
) -> Any:
    """A context in which `models.run(model, tokens, …, budget)` carries gradients to `soft`; its outputs are the same.

    Raises ModelError for a model whose word embedding is no plain table.
    """
    table = getattr(model, "module", model).get_input_embeddings()
    if not isinstance(table, nn.Embedding):
        raise ModelError(
            f"{type(model).__name__} has no table of word embeddings, so no generator can be trained on it"
        )
    device = table.weight.device
    width = min(soft.shape[1], table.num_embeddings)
    zero: Tensor = _Through.apply(  # type: ignore[no-untyped-call]
        soft[:, :width].to(device), table.weight.detach()[:width]
    )
    number = torch.full((len(tokens.ids),), -1)
    number[places] = torch.arange(len(places))
    deltas = [_spread(zero, number, tokens, rows) for rows in tokens.batches(budget_of(device, budget))]
    return added(model, deltas)


def _spread(values: Tensor, number: Tensor, tokens: Tokens, rows: Tensor) -> Tensor:  # (rows, length, width)
    """`values[number[i]]` where token i of the group stands, zero where its number is -1."""
    lengths = tokens.lengths[rows]
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    held = torch.full(mask.shape, -1)
    held[mask] = number[(tokens.offsets[rows][:, None] + torch.arange(mask.shape[1]))[mask]]
    rows_, columns = (held >= 0).nonzero(as_tuple=True)
    spread = values.new_zeros(*mask.shape, values.shape[-1])
    where = (rows_.to(values.device), columns.to(values.device))
    return spread.index_put(where, values[held[rows_, columns].to(values.device)])
