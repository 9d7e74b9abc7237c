"""DistillationArguments: the settings that `TrainingArguments` does not have; and how a recipe's table becomes them."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from augkd.distill.parallel import on_cpu
from augkd.distill.time_budget import EPOCHS
from augkd.recipe import TrainingOptions
from augkd.workspace.launch import launch


# transformers is not type-checked here, so its classes are Any to mypy.
@dataclass
class DistillationArguments(TrainingArguments):  # type: ignore[misc]
    """The settings of one stage of distillation: those of `transformers.TrainingArguments` and the fields below.

    `losses` and `selector` are tables as in a recipe: a name → its options. With a `time_budget`, `num_train_epochs` is
    not a limit. Losses are checked when a `DistillationTrainer` is made.
    """

    losses: dict[str, Any] = field(default_factory=lambda: {"kd": {"weight": 1.0}})  # name → weight and options
    freelb: dict[str, Any] | None = None  # options of `adversary.freelb.freelb`; None: no perturbation
    selector: dict[str, Any] = field(default_factory=lambda: {"everything": {}})  # one name → its options
    selection_temperature: float = 2.0  # softens the divergence that a selector ranks by
    refresh: int = 1  # epochs between scorings of the candidates
    candidate_weight: float = 1.0  # of all chosen candidates of an original together, against the original
    planned_epochs: int = 0  # of all stages together, for the trace of the selection; 0: those of this stage
    generator_batch_size: int = 32  # originals per gradient-ascent step of the generator
    precision: str = "auto"  # auto | float32 | bfloat16
    dropout: float | None = None  # of all dropout layers; None: their own rates
    save_every: int = 0  # steps between extra checkpoints; 0: none
    step_limit: int = 0  # optimiser steps after which training ends, if its epochs have more; 0: no limit
    patience: int = 0  # evaluations without improvement before stopping; 0: never stop early
    token_budget: int | None = None  # padded tokens per forward pass; None: what suits the device
    time_budget: float | None = None  # seconds of training in place of epochs; None: epochs count
    logs: str | None = None  # folder for TensorBoard's files; None: below `output_dir`, as `transformers` has it

    @property
    def whole_batch_size(self) -> int:
        """Originals per forward and backward pass of all processes together.

        `per_device_train_batch_size` in each; or, with `accelerator_config={"split_batches": True}`, in all.
        """
        size = int(self.per_device_train_batch_size)
        return size if self.accelerator_config.split_batches else size * int(self.world_size)

    @property
    def n_gpu(self) -> int:
        """One process trains on one GPU: `nn.DataParallel` would show each hook a part of the rows."""
        return min(1, int(super().n_gpu))

    def limited(self, originals: int) -> DistillationArguments:
        """A copy for so many originals that ends after `step_limit` steps, where all epochs have more."""
        batches = math.ceil(originals / self.whole_batch_size)
        steps_per_epoch = math.ceil(batches / self.gradient_accumulation_steps)
        limited = copy.copy(self)
        if 0 < self.step_limit < self.num_train_epochs * steps_per_epoch:
            limited.max_steps, limited.num_train_epochs = self.step_limit, self.step_limit / steps_per_epoch
        return limited

    def __post_init__(self) -> None:
        if self.time_budget is not None:
            self.num_train_epochs = EPOCHS
        if launch().count > 1 and on_cpu():
            self.use_cpu = True
        super().__post_init__()


def arguments(
    output: Path, training: TrainingOptions, seed: int, metric: str, **selection: Any
) -> DistillationArguments:
    """The arguments of a recipe's `training` table, for a training that writes its checkpoints to `output`.

    `metric` names the validation figure that picks the best checkpoint. `selection` are further fields of
    `DistillationArguments`: those about candidates, which the table does not have.
    """
    return DistillationArguments(
        output_dir=str(output),
        num_train_epochs=training.epochs,
        time_budget=training.budget,
        step_limit=training.max_steps if training.budget is None else 0,
        per_device_train_batch_size=training.batch_size,
        accelerator_config={"split_batches": True},  # the same batches however many processes share them
        gradient_accumulation_steps=training.accumulation,
        learning_rate=training.learning_rate,
        warmup_steps=training.warmup_ratio,
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        seed=seed,
        data_seed=seed,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=2,
        load_best_model_at_end=bool(training.losses),  # intermediate-layer losses alone train no outputs to validate
        metric_for_best_model=metric,
        greater_is_better=True,
        logging_steps=20,
        logging_nan_inf_filter=False,  # it hides a loss that is nan, and waits for a GPU at every step to do so
        report_to=training.trackers or "none",
        run_name="/".join(output.parts[-4:]),
        logs=str(logs_of(output)),
        disable_tqdm=True,
        losses=training.losses,
        freelb=None if training.freelb is None else training.freelb.model_dump(),
        precision=training.precision,
        dropout=training.dropout,
        save_every=training.checkpoints,
        patience=training.patience if training.losses else 0,
        **selection,
    )


def logs_of(output: Path) -> Path:
    """Where a training with this output folder logs: beside `checkpoints`, which are removed when training is done."""
    if output.name == "checkpoints":
        return output.with_name("logs")
    if output.parent.name == "checkpoints":
        return output.parent.with_name("logs") / output.name
    return output / "logs"
