"""Fine-tuning of a teacher on the labels of a task.

Imported when a teacher has to be trained and not before: `transformers` takes seconds to import, which a run whose
stages are finished does not need.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from augkd.data.transfer_set import in_memory, original_row
from augkd.distill.arguments import arguments
from augkd.distill.dataset import DistillationDataset
from augkd.distill.stages import train_stages
from augkd.errors import DataError
from augkd.evaluation.judge import Judge
from augkd.models.classifier import load_backbone
from augkd.models.layers import from_layers
from augkd.models.outputs import record_thresholds
from augkd.recipe import TeacherOptions, TrainingOptions
from augkd.runs.context import RunContext, named_if_it_diverges
from augkd.workspace.files import write_json


def fine_tune(context: RunContext, options: TeacherOptions, stage_name: str, folder: Path) -> dict[str, int]:
    """Fine-tunes the teacher of `options` on the task into `folder`; the rows forwarded, by purpose."""
    training = context.recipe.training
    target = context.target
    model = load_backbone(str(options.model), target, training.max_length, options.seed, training.precision)
    if options.layers is not None:
        model = from_layers(model, options.layers, "teacher.layers")
    settings: dict[str, Any] = {
        "ce": {},
        "epochs": options.epochs,
        "learning_rate": options.learning_rate,
        "batch_size": options.batch_size,
        **{name: getattr(training, name) for name in ("max_length", "precision", "checkpoints", "report_to")},
    }
    stage = TrainingOptions.model_validate(settings)
    rows = [original_row(e, np.zeros(target.outputs), [], target) for e in context.task.train]
    judge = Judge(context.task, context.metric, target, _no_teacher)
    with named_if_it_diverges(stage_name):
        trained = train_stages(
            model,
            [arguments(folder / "checkpoints", stage, options.seed, context.metric)],
            DistillationDataset(model, in_memory(rows, target)),
            lambda classifier: {context.metric: judge.validation(classifier)},
            partial(context.progress, stage_name),
        )
    record_thresholds(model.model.config, judge.fitted(model))
    model.save(folder)
    write_json(folder / "log.json", trained.log)
    return trained.rows


def _no_teacher(texts: Any) -> Any:
    raise DataError("the validation split has no labels to choose the teacher's checkpoint by; label some")
