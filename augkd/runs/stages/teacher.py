"""Who teaches: a checkpoint, a trunk fine-tuned here, numbers from elsewhere, or the average of several of them.

The transfer set asks for logits and does not care which it is. Layers, and a student made of them, need one model.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from augkd.data.transfer_set import in_memory
from augkd.distill.arguments import arguments
from augkd.distill.dataset import DistillationDataset
from augkd.distill.stages import train_stages
from augkd.distill.teacher.outputs import AveragedTeacher, CachedTeacher, GivenTeacher, TeacherOutputs
from augkd.errors import DataError, ModelError
from augkd.evaluation.judge import Judge
from augkd.models.classifier import Classifier, from_layers, load_backbone, load_classifier
from augkd.models.locate import locate, model_fingerprint
from augkd.recipe import Recipe, TeacherOptions, TrainingOptions, dumped
from augkd.runs.stages.transfer_set import original_row
from augkd.workspace.files import write_json
from augkd.workspace.fingerprints import file_fingerprint, fingerprint
from augkd.workspace.folders import begin, end
from augkd.workspace.locks import claimed
from augkd.workspace.manifests import finished
from augkd.workspace.progress import Progress

if TYPE_CHECKING:
    from augkd.data.task import Task

FolderOf = Callable[[str, str], Path]  # (stage, identity) → where it lies


@dataclass(frozen=True)
class Teacher:
    """One teacher of a recipe. `number` tells the members of an ensemble apart; 0 for a single one."""

    options: TeacherOptions
    task: Task
    labels: tuple[str, ...]
    metric: str
    training: TrainingOptions  # of the student: length, precision and checkpoints are the same for both
    folder_of: FolderOf
    progress: Progress
    number: int = 0

    def folder(self) -> Path | None:
        """The folder of the weights, fine-tuned where the recipe says so; None without a model."""
        if self.options.model is None:
            return None
        backbone = locate(self.options.model)
        if self.options.epochs == 0:
            return backbone
        if all(example.label is None for example in self.task.train):
            raise DataError(f"task {self.task.name} has no labels to fine-tune a teacher on; set teacher.epochs: 0")
        made = {
            "backbone": model_fingerprint(backbone),
            "task": self.task.fingerprint,
            "teacher": dumped(self.options) | {"model": None},
            "max_length": self.training.max_length,
            "precision": self.training.precision,
        }
        stage = f"teacher-{self.number}" if self.number else "teacher"
        folder = self.folder_of(stage, fingerprint(made))
        with claimed(folder):
            if not finished(folder, "teacher", made):
                started = time.perf_counter()
                begin(folder, "teacher", made)
                rows = self._fine_tune(folder, stage)
                shutil.rmtree(folder / "checkpoints", ignore_errors=True)
                end(folder, "teacher", made, rows=rows, seconds=time.perf_counter() - started)
        return folder

    def classifier(self) -> Classifier:
        """The model; recipes that need one are refused when there is none."""
        folder = self.folder()
        assert folder is not None, "the recipe's check refuses this"
        given = None if self.options.epochs else self.options.labels
        return load_classifier(str(folder), self.labels, self.training.max_length, given, self.training.precision)

    def outputs(self) -> tuple[TeacherOutputs, str]:
        """The teacher as a source of logits, and a fingerprint that changes when they could."""
        if self.options.ensemble is not None:
            members = [self._member(number, given) for number, given in enumerate(self.options.ensemble, 1)]
            sources, prints = zip(*(member.outputs() for member in members), strict=True)
            how = self.options.average if self.labels else "logits"
            return AveragedTeacher(sources, how), fingerprint([how, *prints])
        if self.options.logits is not None:
            path, options = Path(self.options.logits), self.options
            source = GivenTeacher(path, options.column, self.labels, options.labels, options.missing == "drop")
            return source, fingerprint([file_fingerprint(path), dumped(options) | {"logits": None}])
        folder = self.folder()
        assert folder is not None
        given = None if self.options.epochs else self.options.labels
        weights = fingerprint([model_fingerprint(folder), self.labels, given, self.training.precision])
        return self.cached(self.classifier, weights), weights

    def cached(self, load: Callable[[], Classifier], weights: str) -> CachedTeacher:
        """A model behind the store of logits; `weights` is its fingerprint."""
        store = self.folder_of("teacher_logits", "all")
        return CachedTeacher(load, len(self.labels) or 1, store, weights, self.training.max_length)

    def _member(self, number: int, options: TeacherOptions) -> Teacher:
        fields = (self.task, self.labels, self.metric, self.training, self.folder_of, self.progress)
        return Teacher(options, *fields, number=10 * self.number + number)

    def _fine_tune(self, folder: Path, stage: str) -> dict[str, int]:
        options, training = self.options, self.training
        model = load_backbone(str(options.model), self.labels, training.max_length, options.seed, training.precision)
        if options.layers is not None:
            model = from_layers(model, options.layers)
        settings: dict[str, Any] = {
            "ce": {},
            "epochs": options.epochs,
            "learning_rate": options.learning_rate,
            "batch_size": options.batch_size,
            **{name: getattr(training, name) for name in ("max_length", "precision", "checkpoints", "report_to")},
        }
        rows = [original_row(e, np.zeros(len(self.labels) or 1), [], self.labels) for e in self.task.train]
        data = DistillationDataset(model, in_memory(rows, self.labels))
        judge = Judge(self.task, self.metric, not self.labels, _nobody)
        told = arguments(folder / "checkpoints", TrainingOptions.model_validate(settings), options.seed, self.metric)
        trained = train_stages(
            model,
            [told],
            data,
            lambda classifier: {self.metric: judge.validation(classifier)},
            lambda done, total: self.progress(stage, done, total),
        )
        model.save(folder)
        write_json(folder / "log.json", trained.log)
        return trained.rows


def teacher_labels(task: Task, recipe: Recipe) -> tuple[str, ...]:
    """Class names for a task without labels: the teacher's own."""
    labelled = any(e.label is not None for e in (*task.train, *task.validation, *task.test))
    if labelled or recipe.task.regression:
        return ()
    if recipe.teacher.labels is not None:
        return tuple(recipe.teacher.labels)
    if recipe.teacher.model is None:
        raise ModelError(
            f"task {task.name} has no labels; name the columns of teacher.logits with teacher.labels: [...]"
        )
    from transformers import AutoConfig

    id2label = AutoConfig.from_pretrained(locate(recipe.teacher.model)).id2label
    return tuple(id2label[place] for place in range(len(id2label)))


def _nobody(texts: Any) -> Any:
    raise DataError("the validation split has no labels to choose the teacher's checkpoint by; label some")
