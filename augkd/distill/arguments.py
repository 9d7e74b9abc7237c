"""DistillationArguments: what `TrainingArguments` does not know, and how a recipe's `training` table becomes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import TrainingArguments
from transformers.integrations import TensorBoardCallback

from augkd.distill.budget import EPOCHS
from augkd.recipe import TrainingOptions


# transformers is not type-checked here, so its classes are Any to mypy.
@dataclass
class DistillationArguments(TrainingArguments):  # type: ignore[misc]
    """`TrainingArguments` and what distillation adds to them."""

    losses: dict[str, Any] = field(default_factory=lambda: {"kd": {"weight": 1.0}})  # name → weight and options
    freelb: dict[str, Any] | None = None  # options of `distill.freelb.freelb`; None: no adversary
    selector: dict[str, Any] = field(default_factory=lambda: {"everything": {}})  # one name → its options
    selection_temperature: float = 2.0  # of the divergence a selector ranks by
    refresh: int = 1  # epochs between scorings of the candidates
    candidate_weight: float = 1.0  # of all chosen candidates of an original together, against the original
    planned_epochs: int = 0  # of all stages together, for the trace of the selection; 0: of this one
    generator_batch_size: int = 32  # originals of a step of the generator
    precision: str = "auto"  # auto | float32 | bfloat16
    save_every: int = 0  # extra checkpoints every so many steps
    patience: int = 0  # evaluations without improvement before stopping; 0: never
    token_budget: int | None = None  # padded tokens a forward pass; None: what suits the device
    budget: float | None = None  # seconds of training in place of epochs
    logs: str | None = None  # folder of TensorBoard's files; None: below `output_dir`, as `transformers` has it

    def __post_init__(self) -> None:
        if self.budget is not None:
            self.num_train_epochs = EPOCHS
        super().__post_init__()


def arguments(
    output: Path, training: TrainingOptions, seed: int, metric: str, **selection: Any
) -> DistillationArguments:
    """The arguments of a recipe's `training` table; `metric` picks the best checkpoint on validation."""
    return DistillationArguments(
        output_dir=str(output),
        num_train_epochs=training.epochs,
        budget=training.budget,
        per_device_train_batch_size=training.batch_size,
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
        load_best_model_at_end=bool(training.losses),  # a stage of layer losses alone says nothing of the outputs
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


def direct_logs(callbacks: Sequence[Any], logs: str | None) -> None:
    """Sends TensorBoard's files to `logs`, unless TENSORBOARD_LOGGING_DIR says where; others have places of their own.

    `transformers` itself knows only that variable and a folder below the checkpoints.
    """
    for callback in callbacks:
        if isinstance(callback, TensorBoardCallback) and logs is not None:
            callback.logging_dir = callback.logging_dir or logs
