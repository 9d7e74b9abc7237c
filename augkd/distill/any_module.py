"""Distillation of any `torch.nn.Module` into any other, on any rows that are tensors: images, audio, tables.

The losses are the ones for text (`objective.losses`) and mean the same here. The teacher is run once, before training;
a stage ends with its best weights on validation. Teacher assistants (Mirzadeh et al. 2020) are `chain`, Annealing-KD
(Jafari et al. 2021) is two stages.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from augkd.data.target import NO_CLASS
from augkd.distill.any_rows import Inputs, Rows, count, device_of, forward, logits_of, take
from augkd.distill.objective.objective import Losses, Objective
from augkd.errors import DataError, ModelError, TrainingError
from augkd.models.finite import not_finite
from augkd.workspace.progress import Steps

Validation = Callable[[nn.Module], float]  # higher is better

ANNEALING: tuple[Losses, Losses] = ({"annealed": {}}, {"ce": {}})  # the losses of its two stages


@dataclass(frozen=True)
class Stage:
    """What is learned, for how long. Each stage has its own optimiser (AdamW) and learning-rate schedule.

    `losses` maps the name of a loss to its options, the weight (1 by default; a number or a schedule) among them:
    `{"kd": {"weight": 0.5, "temperature": 2.0}, "ce": {"weight": 0.5}}`. `augkd list losses` shows all of them.
    """

    losses: Losses
    epochs: int
    learning_rate: float = 1e-3
    batch_size: int = 32
    warmup_ratio: float = 0.06  # share of the steps until the learning rate is reached; it then falls linearly to 0
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0  # 0: no clipping


@dataclass(frozen=True)
class Epoch:
    """One pass over the rows."""

    stage: int  # from 1
    number: int  # from 1, within its stage
    loss: float  # mean over the rows
    validation: float | None


@dataclass(frozen=True)
class History:
    """The course of a training, and its cost in rows forwarded."""

    epochs: tuple[Epoch, ...]
    best: tuple[int | None, ...]  # of each stage, the epoch whose weights were kept; None without a validation
    teacher_rows: int
    student_rows: int  # in training; validation is not counted


def distill_modules(
    student: nn.Module,
    teacher: nn.Module | Tensor | None,
    inputs: Inputs,
    labels: Tensor | None,
    stages: Stage | Sequence[Stage],
    *,
    seed: int,
    validation: Validation | tuple[Inputs, Tensor] | None = None,
    device: torch.device | str | None = None,
    progress: Steps | None = None,
) -> History:
    """Trains `student` in place to follow `teacher`, stage after stage.

    Args:
        student: a module that returns logits (n, outputs), or an object that has them as `.logits`.
        teacher: a module of the same kind, its logits (n, outputs) for `inputs`, or None for losses that need none.
        inputs: a tensor (n, …), a tuple of them, or a mapping of argument names to them.
        labels: (n,) class indices (-100: no label) or float targets (nan: no label); (n, outputs) floats, 0 or 1, where
            a row has several labels; None when no row has one, or no label at all.
        stages: one stage or several; each starts from the weights of the one before.
        seed: of the order of the rows and of dropout; the global seed is left alone.
        validation: a function of the student, higher is better; or inputs and labels for accuracy, of several
            labels that of all decisions (float targets: minus the mean squared error). A stage keeps its best epoch's
            weights; None: those of its last epoch.
        device: where to train; None: where the student is.
        progress: called with (steps done, steps in all) after each step.

    Raises DataError for rows that do not match, ModelError for models or settings that do not fit (a loss that is not
    finite among them), RecipeError for an unknown loss or option.
    """
    plan = [stages] if isinstance(stages, Stage) else list(stages)
    objectives = [_objective(stage) for stage in plan]
    device = torch.device(device) if device is not None else device_of(student)
    student.to(device)
    targets, teacher_rows = _teacher_logits(student, teacher, inputs, device)
    rows = Rows(inputs, targets, _labels(labels, targets))
    rows.check()
    judge = validation if callable(validation) or validation is None else _judge(*validation)
    epochs: list[Epoch] = []
    best: list[int | None] = []
    steps = [stage.epochs * math.ceil(len(targets) / stage.batch_size) for stage in plan]
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # dropout
        for number, (stage, objective) in enumerate(zip(plan, objectives, strict=True), 1):
            before = sum(steps[: number - 1])
            report = None if progress is None else _shifted(progress, before, sum(steps))
            run = _StageRun(student, stage, objective, number, seed, device, steps[number - 1], report)
            history, kept = run.train(rows, judge)
            epochs += history
            best.append(kept)
    return History(tuple(epochs), tuple(best), teacher_rows, len(targets) * sum(stage.epochs for stage in plan))


def chain(
    teacher: nn.Module | Tensor,
    students: Sequence[nn.Module],
    inputs: Inputs,
    labels: Tensor | None,
    stages: Stage | Sequence[Stage],
    **settings: Any,
) -> list[History]:
    """Trains each student from the one before it, the first from `teacher`; the last student is the result.

    The students between are teacher assistants, usually smaller and smaller (TAKD; Mirzadeh et al. 2020). All are
    trained in place with the same `stages`; `settings` are those of `distill_modules`, which also says what it raises.
    Returns one history per student.
    """
    histories = []
    for student in students:
        histories.append(distill_modules(student, teacher, inputs, labels, stages, **settings))
        teacher = student
    return histories


def annealing(stage: Stage, first: int, second: int) -> tuple[Stage, Stage]:
    """Annealing-KD's two stages (Jafari et al. 2021), of `first` and `second` epochs, otherwise as `stage`.

    The student regresses on the teacher's logits, scaled from near 0 up to 1, and then learns the labels alone.
    """
    regression, labelled = ANNEALING
    return replace(stage, losses=regression, epochs=first), replace(stage, losses=labelled, epochs=second)


@dataclass
class _StageRun:
    """One stage in training."""

    student: nn.Module
    stage: Stage
    objective: Objective
    number: int  # from 1
    seed: int
    device: torch.device
    steps: int
    progress: Callable[[int], None] | None

    def train(self, rows: Rows, judge: Validation | None) -> tuple[list[Epoch], int | None]:
        """All epochs and the best one, whose weights the student ends with; the earliest of equals."""
        stage = self.stage
        optimiser = torch.optim.AdamW(
            self.student.parameters(), lr=stage.learning_rate, weight_decay=stage.weight_decay
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, self._rate)
        epochs: list[Epoch] = []
        best, kept, weights = -math.inf, None, None
        for number in range(1, stage.epochs + 1):
            loss = self._epoch(optimiser, schedule, rows, number)
            if bad := list(not_finite(self.student)):  # the last step's loss was finite, its gradient need not be
                raise TrainingError(
                    f"{len(bad)} weights (first: {bad[0]}) are not finite after epoch {number} of stage {self.number}; "
                    f"lower the learning rate ({self.stage.learning_rate:g})"
                )
            score = None if judge is None else _score(judge, self.student)
            epochs.append(Epoch(self.number, number, loss, score))
            if score is not None and score > best:
                best, kept, weights = score, number, _copy_of_weights(self.student)
        if weights is not None:
            self.student.load_state_dict(weights)
        return epochs, kept

    def _epoch(self, optimiser: Any, schedule: Any, rows: Rows, number: int) -> float:
        """One pass over the rows; returns the mean loss."""
        total, done = 0.0, (number - 1) * math.ceil(len(rows) / self.stage.batch_size)
        for step, batch in enumerate(self._batches(len(rows), number), done):
            total += self._step(optimiser, rows, batch, step) * len(batch)
            schedule.step()
            if self.progress:
                self.progress(step + 1)
        return total / len(rows)

    def _step(self, optimiser: Any, rows: Rows, batch: Tensor, step: int) -> float:
        self.student.train()
        logits = forward(self.student, take(rows.inputs, batch, self.device))
        targets, labels = rows.targets[batch].to(self.device), rows.labels[batch].to(self.device)
        loss = self.objective(logits, targets, labels, step / self.steps).mean()
        value = float(loss.detach())
        if not math.isfinite(value):
            what = f"the loss is {value} at step {step} of stage {self.number}"
            if targets.isnan().any():
                raise ModelError(f"{what}; it needs a teacher, and none was given")
            raise TrainingError(f"{what}; lower the learning rate ({self.stage.learning_rate:g})")
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        if self.stage.max_grad_norm > 0:
            nn.utils.clip_grad_norm_(self.student.parameters(), self.stage.max_grad_norm)
        optimiser.step()
        return value

    def _batches(self, rows: int, epoch: int) -> tuple[Tensor, ...]:
        order = np.random.default_rng([self.seed, self.number, epoch]).permutation(rows)
        return torch.split(torch.from_numpy(order), self.stage.batch_size)

    def _rate(self, step: int) -> float:
        """The factor on the learning rate: up to 1 over the warm-up, then linearly down to 0."""
        warmup = math.ceil(self.stage.warmup_ratio * self.steps)
        if step < warmup:
            return (step + 1) / warmup
        return max(0.0, (self.steps - step) / max(1, self.steps - warmup))


def _objective(stage: Stage) -> Objective:
    """The stage's losses, compiled; raises before anything runs."""
    if not stage.losses:
        raise ModelError("a stage names no loss; give at least one, e.g. kd={'weight': 0.5, 'temperature': 2.0}")
    for name in ("epochs", "batch_size"):
        if getattr(stage, name) < 1:
            raise ModelError(f"{name} is {getattr(stage, name)}; give 1 or more")
    return Objective(stage.losses)


def _teacher_logits(
    student: nn.Module, teacher: nn.Module | Tensor | None, inputs: Inputs, device: torch.device
) -> tuple[Tensor, int]:  # (n, outputs), rows forwarded for them
    """The teacher's logits of all rows; nan without a teacher, so that a loss which uses them is nan."""
    if count(inputs) == 0:
        raise DataError("there are no inputs to learn from")
    outputs = logits_of(student, take(inputs, torch.arange(1), device), device=device).shape[1]
    if teacher is None:
        return torch.full((count(inputs), outputs), torch.nan), 0
    if isinstance(teacher, Tensor):
        logits, rows = teacher.detach().float().cpu(), 0
    else:
        logits = logits_of(teacher, inputs, device=device)
        rows = len(logits)
    if logits.dim() != 2 or logits.shape[1] != outputs:
        raise ModelError(f"the teacher's logits are {tuple(logits.shape)}, the student has {outputs} outputs")
    return logits, rows


def _labels(labels: Tensor | None, targets: Tensor) -> Tensor:  # (n,)
    if labels is not None and labels.is_floating_point():
        several = labels.dim() == 2 and labels.shape[1] == targets.shape[1] > 1
        return labels.float() if several else labels.float().flatten()
    if labels is not None:
        return labels.long()
    return torch.full((len(targets),), torch.nan if targets.shape[1] == 1 else NO_CLASS)


def _judge(inputs: Inputs, labels: Tensor) -> Validation:
    def score(student: nn.Module) -> float:
        logits = logits_of(student, inputs)
        if labels.dim() == 2 and logits.shape[1] > 1:
            return float(((logits > 0) == (labels.cpu() > 0.5)).float().mean())
        if labels.is_floating_point():
            return -float((logits[:, 0] - labels.cpu().flatten()).square().mean())
        return float((logits.argmax(dim=1) == labels.cpu()).float().mean())

    return score


def _score(judge: Validation, student: nn.Module) -> float:
    student.eval()
    with torch.no_grad():
        return float(judge(student))


def _copy_of_weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def _shifted(progress: Steps, before: int, total: int) -> Callable[[int], None]:
    return lambda done: progress(before + done, total)
