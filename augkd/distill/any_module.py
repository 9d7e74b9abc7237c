"""Distillation of any `torch.nn.Module` into any other, on any rows that are tensors: pictures, sound, tables.

The losses are those of text (`objective.losses`), so each means here what it means there. The teacher is asked once,
before training; a stage ends with its best weights on validation. Teacher assistants (Mirzadeh et al. 2020) are
`chain`, Annealing-KD (Jafari et al. 2021) is two stages.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from augkd.distill.any_rows import Inputs, count, device_of, forward, logits_of, take
from augkd.distill.objective.losses import LOSSES
from augkd.errors import DataError, ModelError
from augkd.recipe import options, schedules
from augkd.workspace.progress import Steps

Losses = Mapping[str, Mapping[str, Any]]  # name → its options, `weight` among them (1 where not given)
Validation = Callable[[nn.Module], float]  # higher is better

ANNEALING: tuple[Losses, Losses] = ({"annealed": {}}, {"ce": {}})  # the losses of its two stages


@dataclass(frozen=True)
class Stage:
    """What is learnt, for how long. Each stage has an optimiser and a learning-rate schedule of its own."""

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
    """How it went, and what it cost in rows forwarded."""

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
    """Trains `student` in place; both models may return logits (n, outputs) or an object that has `.logits`.

    `teacher` is a module, its logits for `inputs`, or None for losses that need no teacher. `labels` are (n,) class
    indices (-100: none) or float targets (nan: none); None when no row has one. `validation` is a function of the
    student, or inputs and labels for accuracy (float targets: minus the mean squared error). Raises DataError,
    ModelError, or RecipeError for a loss or an option that is not there.
    """
    plan = [stages] if isinstance(stages, Stage) else list(stages)
    for stage in plan:
        _check(stage)
    place = torch.device(device) if device is not None else device_of(student)
    student.to(place)
    targets, asked = _targets(student, teacher, inputs, place)
    known = _labels(labels, targets)
    _check_rows(inputs, targets, known)
    judge = validation if callable(validation) or validation is None else _judge(*validation)
    epochs: list[Epoch] = []
    best: list[int | None] = []
    steps = [stage.epochs * math.ceil(len(targets) / stage.batch_size) for stage in plan]
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # dropout
        for number, stage in enumerate(plan, 1):
            before, total = sum(steps[: number - 1]), sum(steps)
            told = None if progress is None else _shifted(progress, before, total)
            run = _Run(student, stage, number, seed, place, steps[number - 1], told)
            found, kept = run.learn(inputs, targets, known, judge)
            epochs += found
            best.append(kept)
    rows = len(targets) * sum(stage.epochs for stage in plan)
    return History(tuple(epochs), tuple(best), asked, rows)


def chain(
    teacher: nn.Module | Tensor,
    students: Sequence[nn.Module],
    inputs: Inputs,
    labels: Tensor | None,
    stages: Stage | Sequence[Stage],
    **settings: Any,
) -> list[History]:
    """Trains each student by the one before it, the first by `teacher` (Mirzadeh et al. 2020): the last is the result.

    `settings` are those of `distill_modules`.
    """
    histories = []
    for student in students:
        histories.append(distill_modules(student, teacher, inputs, labels, stages, **settings))
        teacher = student
    return histories


def annealing(stage: Stage, first: int, second: int) -> tuple[Stage, Stage]:
    """Annealing-KD's two stages, of `first` and `second` epochs, with the other settings of `stage`.

    The student regresses on the teacher's logits, scaled from near 0 up to 1, and then learns the labels alone.
    """
    regression, labelled = ANNEALING
    return replace(stage, losses=regression, epochs=first), replace(stage, losses=labelled, epochs=second)


@dataclass
class _Run:
    """One stage on its way."""

    student: nn.Module
    stage: Stage
    number: int
    seed: int
    device: torch.device
    steps: int
    progress: Callable[[int], None] | None

    def learn(
        self, inputs: Inputs, targets: Tensor, labels: Tensor, judge: Validation | None
    ) -> tuple[list[Epoch], int | None]:
        """All epochs; the student ends with the weights of the best, the earliest of equals."""
        stage = self.stage
        optimiser = torch.optim.AdamW(
            self.student.parameters(), lr=stage.learning_rate, weight_decay=stage.weight_decay
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, self._rate)
        epochs: list[Epoch] = []
        best, kept, weights = -math.inf, None, None
        for number in range(1, stage.epochs + 1):
            total, done = 0.0, (number - 1) * math.ceil(len(targets) / stage.batch_size)
            for step, rows in enumerate(self._batches(len(targets), number), done):
                total += self._step(optimiser, inputs, targets, labels, rows, step) * len(rows)
                schedule.step()
                if self.progress:
                    self.progress(step + 1)
            score = None if judge is None else _judged(judge, self.student)
            epochs.append(Epoch(self.number, number, total / len(targets), score))
            if score is not None and score > best:
                best, kept, weights = score, number, _copied(self.student)
        if weights is not None:
            self.student.load_state_dict(weights)
        return epochs, kept

    def _step(self, optimiser: Any, inputs: Inputs, targets: Tensor, labels: Tensor, rows: Tensor, step: int) -> float:
        self.student.train()
        logits = forward(self.student, take(inputs, rows, self.device))
        taught, known = targets[rows].to(self.device), labels[rows].to(self.device)
        loss = self._objective(logits, taught, known, step / self.steps).mean()
        value = float(loss.detach())
        if not math.isfinite(value):
            why = "it needs a teacher, and none was given" if taught.isnan().any() else "lower the learning rate"
            raise ModelError(f"the loss is {value} at step {step} of stage {self.number}; {why}")
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        if self.stage.max_grad_norm > 0:
            nn.utils.clip_grad_norm_(self.student.parameters(), self.stage.max_grad_norm)
        optimiser.step()
        return value

    def _objective(self, logits: Tensor, teacher: Tensor, labels: Tensor, progress: float) -> Tensor:  # (n,)
        total = torch.zeros(len(logits), device=logits.device)
        for name, given in self.stage.losses.items():
            extra = {key: value for key, value in given.items() if key != "weight"}
            value = LOSSES[name](logits, teacher, labels, progress, **extra)
            total = total + schedules.weight(given.get("weight", 1.0), progress) * value
        return total

    def _batches(self, rows: int, epoch: int) -> tuple[Tensor, ...]:
        order = np.random.default_rng([self.seed, self.number, epoch]).permutation(rows)
        return torch.split(torch.from_numpy(order), self.stage.batch_size)

    def _rate(self, step: int) -> float:
        warm = math.ceil(self.stage.warmup_ratio * self.steps)
        if step < warm:
            return (step + 1) / warm
        return max(0.0, (self.steps - step) / max(1, self.steps - warm))


def _targets(
    student: nn.Module, teacher: nn.Module | Tensor | None, inputs: Inputs, device: torch.device
) -> tuple[Tensor, int]:
    """Teacher logits of all rows and how many rows were forwarded for them; without a teacher nan, which shows."""
    if count(inputs) == 0:
        raise DataError("there are no inputs to learn from")
    outputs = logits_of(student, take(inputs, torch.arange(1), device), device=device).shape[1]
    if teacher is None:
        return torch.full((count(inputs), outputs), torch.nan), 0
    given = teacher.detach().float().cpu() if isinstance(teacher, Tensor) else logits_of(teacher, inputs, device=device)
    if given.dim() != 2 or given.shape[1] != outputs:
        raise ModelError(f"the teacher's logits are {tuple(given.shape)}, the student has {outputs} outputs")
    return given, 0 if isinstance(teacher, Tensor) else len(given)


def _labels(labels: Tensor | None, targets: Tensor) -> Tensor:
    if labels is not None:
        return labels.float().flatten() if labels.is_floating_point() else labels.long()
    if targets.shape[1] == 1:
        return torch.full((len(targets),), torch.nan)
    return torch.full((len(targets),), -100)


def _check(stage: Stage) -> None:
    if not stage.losses:
        raise ModelError("a stage names no loss; give at least one, e.g. kd={'weight': 0.5, 'temperature': 2.0}")
    for name, given in stage.losses.items():
        options.checked("loss", name, {key: value for key, value in given.items() if key != "weight"})
        schedules.checked(given.get("weight", 1.0), f"loss '{name}' option 'weight'")
    for name in ("epochs", "batch_size"):
        if getattr(stage, name) < 1:
            raise ModelError(f"{name} is {getattr(stage, name)}; give 1 or more")


def _check_rows(inputs: Inputs, targets: Tensor, labels: Tensor) -> None:
    counts = {"inputs": count(inputs), "teacher logits": len(targets), "labels": len(labels)}
    if len(set(counts.values())) > 1:
        raise DataError("rows differ in number: " + ", ".join(f"{count} {name}" for name, count in counts.items()))
    if not labels.is_floating_point():
        wrong = labels[(labels != -100) & ((labels < 0) | (labels >= targets.shape[1]))]
        if len(wrong):
            raise DataError(f"label {int(wrong[0])} is no class of a model with {targets.shape[1]} outputs")


def _judge(inputs: Inputs, labels: Tensor) -> Validation:
    def score(student: nn.Module) -> float:
        logits = logits_of(student, inputs)
        if labels.is_floating_point():
            return -float((logits[:, 0] - labels.cpu().flatten()).square().mean())
        return float((logits.argmax(dim=1) == labels.cpu()).float().mean())

    return score


def _judged(judge: Validation, student: nn.Module) -> float:
    student.eval()
    with torch.no_grad():
        return float(judge(student))


def _copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def _shifted(progress: Steps, before: int, total: int) -> Callable[[int], None]:
    return lambda done: progress(before + done, total)
