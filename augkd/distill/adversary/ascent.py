"""The generator's half of MATE-KD (Rashid et al., ACL 2021): it learns texts on which teacher and student differ.

The drawn tokens are real ones, so teacher and student run on them as on any text. Only the gradient is softened: a term
that is zero, added to the word embeddings of masked positions, carries it back to the generator's logits. Autograd is
asked for the generator's parameters alone, so no other gradient is touched.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from augkd.candidates.generator.generator import Generator, masked_positions, replace_tokens, soften
from augkd.distill.adversary.freelb import added_to_embeddings
from augkd.distill.parallel import ALONE, Ranks
from augkd.errors import ModelError, TrainingError
from augkd.models.classifier import Classifier
from augkd.models.devices import token_budget_of, uses_bf16
from augkd.models.finite import not_finite
from augkd.models.rounded import RoundedWeights
from augkd.models.seeds import RowRandom, rng_of
from augkd.models.tokens import RowGroups, Tokens
from augkd.models.trimmed_embedding import full_table
from augkd.selection import divergence
from augkd.selection.pool import Batch, Pool

NO_ROW = -1  # the row of a generated text: it is none of the transfer set's candidates


def cross_entropy(student: Tensor, teacher: Tensor) -> Tensor:  # (n, classes) logits → (n,)
    """H(teacher, student) = KL + H(teacher): MATE-KD's released code ascends it; it also rewards an unsure teacher."""
    return -(teacher.float().softmax(dim=-1) * student.float().log_softmax(dim=-1)).sum(dim=-1)


def binary_cross_entropy(student: Tensor, teacher: Tensor) -> Tensor:  # (n, labels) logits → (n,)
    """H(teacher, student) of each label's yes and no, summed over the labels."""
    return cross_entropy(divergence.yes_no(student), divergence.yes_no(teacher)).sum(dim=-1)


OBJECTIVES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "kl": divergence.kl,
    "cross_entropy": cross_entropy,
    "squared_error": divergence.squared_error,
}
_BY_ACTIVATION: dict[
    str, dict[str, Callable[[Tensor, Tensor], Tensor]]
] = {  # what the divergence of a recipe is for the outputs of a target
    "softmax": OBJECTIVES,
    "sigmoid": OBJECTIVES | {"kl": divergence.binary_kl, "cross_entropy": binary_cross_entropy},
    "identity": dict.fromkeys(OBJECTIVES, divergence.squared_error),  # KL of one output is always 0
}


@dataclass(frozen=True)
class Ascent:
    """When and how the generator is trained. `ascend` 0: never; texts are masked and filled in at random."""

    ascend: int = 10  # gradient-ascent steps in a row
    every: int = 100  # steps of the student; the first time before its first step
    objective: str = "kl"  # a key of OBJECTIVES
    learning_rate: float = 2e-4
    schedule: str = "constant"  # or "linear": down to 0 at the end of the stage
    max_grad_norm: float = 5.0


class Adversary:
    """Generator and live teacher beside a student: fills pools, and trains the generator between steps."""

    def __init__(
        self, generator: Generator, teacher: Classifier, ascent: Ascent, *, samples: int = 1, seed: int = 0
    ) -> None:
        """`samples` texts are generated per original of a batch. Puts the teacher in eval mode, without gradients."""
        self.generator, self.teacher, self.ascent = generator, teacher, ascent
        self.samples = samples
        self._seed = seed
        self.steps = 0  # gradient-ascent steps since the beginning
        self.teacher.model.eval().requires_grad_(False)
        self._parameters = [p for p in generator.lm.model.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(self._parameters, lr=ascent.learning_rate, weight_decay=0.0, fused=True)
        embedding, head = generator.lm.model.get_input_embeddings(), generator.lm.model.get_output_embeddings()
        # a batch has few of the tokens, and the gradient of a head that shares the table is dense
        embedding.sparse = getattr(embedding, "weight", None) is head.weight
        self._teacher_weights = RoundedWeights(teacher.model, teacher.precision)
        self._generator_weights: RoundedWeights | None = None  # None: to be rounded, since they have changed

    @torch.no_grad()
    def pool(self, batch: Batch, rng: RowRandom, token_budget: int | None = None) -> Pool:
        """New texts for a batch's originals with the teacher's logits; their score is the share of tokens kept."""
        if self._generator_weights is None:
            self._generator_weights = RoundedWeights(self.generator.lm.model, self.generator.lm.precision)
        with self._generator_weights.used():
            drawn = self.generator.draw(batch.tokens, self.samples, rng)
        owner = torch.repeat_interleave(torch.arange(len(batch.tokens)), self.samples)
        with self._teacher_weights.used():
            teacher = self.teacher.logits(drawn.tokens, "teacher", token_budget, without_padding=True).cpu()
        return Pool(drawn.tokens, owner, drawn.kept, teacher, torch.full((len(owner),), NO_ROW))

    def is_due(self, step: int) -> bool:
        """Whether to ascend before the student's step `step`, counted from 0."""
        return self.ascent.ascend > 0 and step % self.ascent.every == 0

    def ascend(
        self,
        student: Classifier,
        originals: Tokens,
        batch_size: int,
        progress: float = 0.0,
        token_budget: int | None = None,
        ranks: Ranks = ALONE,
    ) -> list[float]:
        """Takes `ascend` steps, each on `batch_size` drawn originals; returns the mean divergence before each of them.

        Each rank takes its share of the originals; the generator learns from the gradient of their mean. The student
        is in eval mode meanwhile, so that what rises is the divergence that selection measures.
        """
        training = student.model.training
        student.model.eval()
        softened = Softened.of(student)
        self._generator_weights = None
        divergences = []
        for _ in range(self.ascent.ascend):
            drawn = torch.randperm(len(originals), generator=rng_of(self._seed, 4, self.steps))[:batch_size]
            shortest_first = originals.lengths[drawn].argsort(stable=True)  # as they are forwarded
            rows = ranks.share(drawn[shortest_first].tolist())
            rng = RowRandom((self._seed, 4, self.steps), rows)
            value = self._sum(softened, originals.take(torch.tensor(rows, dtype=torch.long)), rng, token_budget)
            divergences.append(self._ascend(value / len(drawn), progress, ranks))
            self.steps += 1
        if any(not_finite(self.generator.lm.model)):
            raise self._diverged(f"its weights are not finite after gradient-ascent step {self.steps}")
        student.model.train(training)
        return divergences

    def _sum(
        self, student: Softened, tokens: Tokens, rng: RowRandom, token_budget: int | None
    ) -> Tensor:  # () with a gradient to the generator
        """The sum of the rows' divergences after a draw; 0 without a token to mask."""
        of_token = torch.repeat_interleave(torch.arange(len(tokens)), tokens.lengths)
        positions = masked_positions(tokens, self.generator.lm.special(), self.generator.rate, rng.uniform(of_token))
        if not len(positions):
            return torch.zeros(())
        logits = self.generator.logits(tokens, positions, "ascent")
        noise = rng.uniform(of_token[positions], logits.shape[-1])
        ids, soft = soften(logits, self.generator.temperature, noise)
        drawn = replace_tokens(tokens, positions, ids.cpu())
        student_logits = student.logits(drawn, positions, soft, token_budget)
        with self._teacher_weights.used():
            teacher_logits = self._softened_teacher.logits(drawn, positions, soft, token_budget)
        return self._divergence(student_logits, teacher_logits).sum()

    @cached_property
    def _softened_teacher(self) -> Softened:
        return Softened.of(self.teacher)

    def _divergence(self, student: Tensor, teacher: Tensor) -> Tensor:  # (n, outputs) logits → (n,)
        return _BY_ACTIVATION[self.teacher.target.activation][self.ascent.objective](student, teacher)

    def _ascend(self, value: Tensor, progress: float, ranks: Ranks) -> float:
        """One step of the optimiser up the gradient of the sum of `value` over the ranks; returns that sum."""
        number = float(ranks.sum(value.detach().cpu()))
        if not math.isfinite(number):
            raise self._diverged(f"the divergence of gradient-ascent step {self.steps + 1} is {number:g}")
        gradients: Sequence[Tensor | None] = [None] * len(self._parameters)
        if value.requires_grad:
            gradients = torch.autograd.grad(-value, self._parameters, allow_unused=True)  # a pooler takes no part
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient
        ranks.sum_gradients(self._parameters)
        if any(parameter.grad is not None for parameter in self._parameters):
            self._update(progress)
        return number

    def _update(self, progress: float) -> None:
        """One step of the generator's optimiser."""
        nn.utils.clip_grad_norm_(self._parameters, self.ascent.max_grad_norm)
        for group in self._optimizer.param_groups:
            factor = 1 - progress if self.ascent.schedule == "linear" else 1.0
            group["lr"] = self.ascent.learning_rate * factor
        self._optimizer.step()
        self._optimizer.zero_grad()

    def _diverged(self, what: str) -> TrainingError:
        rate = self.ascent.learning_rate
        return TrainingError(f"the generator diverged: {what}; lower data.generator.learning_rate ({rate:g})")

    def state(self) -> dict[str, Tensor]:
        """The generator's weights and the optimiser's moments, as tensors of their own."""
        state = {"steps": torch.tensor(self.steps)}
        for name, parameter in self.generator.lm.model.named_parameters():  # tied ones once
            state[f"weight.{name}"] = parameter.detach().cpu().contiguous()
            for key, value in self._optimizer.state.get(parameter, {}).items():
                state[f"{key}.{name}"] = value.detach().cpu().contiguous()
        return state

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continues from `state`."""
        self.steps = int(state["steps"])
        self._generator_weights = None
        for name, parameter in self.generator.lm.model.named_parameters():
            parameter.copy_(state[f"weight.{name}"])
            moments = {key: state.get(f"{key}.{name}") for key in ("step", "exp_avg", "exp_avg_sq")}
            if moments["step"] is not None:
                self._optimizer.state[parameter] = {
                    key: value.to(parameter.device) for key, value in moments.items() if value is not None
                }

    @property
    def rows(self) -> dict[str, int]:
        """Rows forwarded through the generator and through the live teacher."""
        return {"generator": sum(self.generator.lm.rows.values()), "teacher": sum(self.teacher.rows.values())}


class _Through(torch.autograd.Function):
    """Zero in the forward pass; in the backward pass the gradient that `soft @ table` would have, in its precision."""

    @staticmethod
    def forward(ctx: Any, soft: Tensor, table: Tensor) -> Tensor:
        ctx.save_for_backward(table)
        return soft.new_zeros(len(soft), table.shape[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (table,) = ctx.saved_tensors
        return gradients[0].to(table.dtype) @ table.T, None


@dataclass(frozen=True)
class Softened:
    """A classifier for drawn tokens: the logits of a text as it is, with a gradient to the softened choice of each."""

    classifier: Classifier
    table: Tensor  # (vocabulary, width) word vectors, as they are now, in the precision of the classifier's products

    @classmethod
    def of(cls, classifier: Classifier) -> Softened:
        """Raises ModelError for a model whose word embedding is not a plain table."""
        model = getattr(classifier.model, "module", classifier.model)
        table = full_table(model.get_input_embeddings())
        if table is None:
            raise ModelError(
                f"{type(model).__name__} has no table of word embeddings, so no generator can be trained against it"
            )
        in_bf16 = uses_bf16(classifier.precision, table.device)
        return cls(classifier, table.to(torch.bfloat16) if in_bf16 else table)

    def logits(
        self,
        tokens: Tokens,
        positions: Tensor,  # (p,) positions in tokens.ids, ascending
        soft: Tensor,  # (p, vocabulary)
        token_budget: int | None = None,
    ) -> Tensor:  # (n, outputs)
        """The logits of `tokens`, unchanged, but with a gradient to `soft` (the straight-through estimator)."""
        groups = RowGroups.of(tokens, token_budget_of(self.classifier.device, token_budget))
        width = min(soft.shape[1], len(self.table))
        zero: Tensor = _Through.apply(  # type: ignore[no-untyped-call]
            soft[:, :width].to(self.table.device), self.table[:width]
        )
        number = torch.full((len(tokens.ids),), -1)
        number[positions] = torch.arange(len(positions))
        spread = [_spread(zero, number, tokens, rows) for rows in groups]
        with added_to_embeddings(self.classifier.model, spread):
            return self.classifier.logits(tokens, "ascent", groups=groups, without_padding=True)


def _spread(values: Tensor, number: Tensor, tokens: Tokens, rows: Tensor) -> Tensor:  # (rows, length, width)
    """`values[number[i]]` at token i of the group, zero where its number is -1."""
    mask = tokens.mask(rows)
    numbers = torch.full(mask.shape, -1)
    numbers[mask] = number[(tokens.offsets[rows][:, None] + torch.arange(mask.shape[1]))[mask]]
    masked_rows, columns = (numbers >= 0).nonzero(as_tuple=True)
    spread = values.new_zeros(*mask.shape, values.shape[-1])
    where = (masked_rows.to(values.device), columns.to(values.device))
    return spread.index_put(where, values[numbers[masked_rows, columns].to(values.device)])
