"""The teacher: a checkpoint, a backbone fine-tuned here, numbers from elsewhere, or the average of several of them.

The transfer set asks for logits and does not care which it is. Intermediate-layer losses, and a student made of the
teacher's layers, need one model.
"""

from __future__ import annotations

import shutil
import time
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from augkd.data.given_transfer_set import locate_transfer_set
from augkd.data.task import Task
from augkd.data.transfer_set import TransferSet
from augkd.distill.teacher.outputs import AveragedTeacher, CachedTeacher, GivenTeacher, TeacherOutputs
from augkd.errors import DataError, ModelError
from augkd.models.locate import locate, model_fingerprint
from augkd.models.pretrained import load_config
from augkd.recipe import Recipe, TeacherOptions, dump
from augkd.runs.context import RunContext
from augkd.workspace.fingerprints import file_fingerprint, fingerprint
from augkd.workspace.folders import begin, end
from augkd.workspace.locks import claimed
from augkd.workspace.manifests import finished

if TYPE_CHECKING:
    from augkd.models.classifier import Classifier


class Tutor(Protocol):
    """Who teaches a student: the recipe's teacher, or the assistant that was trained before it."""

    @property
    def outputs(self) -> TeacherOutputs:
        """Its logits of any text, stored."""
        ...

    @property
    def fingerprint(self) -> str:
        """Changes whenever the logits could."""
        ...

    @property
    def model(self) -> Classifier:
        """The model behind the logits, loaded once."""
        ...


class Teacher:
    """The teacher of a recipe, or a member of its ensemble; each part is made or loaded when it is first asked for."""

    def __init__(self, context: RunContext, options: TeacherOptions | None = None, number: int = 0):
        """`number` tells the members of an ensemble apart; 0 for a single teacher."""
        self._context = context
        self.options = options or context.recipe.teacher
        self._number = number

    @cached_property
    def folder(self) -> Path | None:
        """The folder of the weights, fine-tuned where the recipe asks for it; None without a model."""
        options, context = self.options, self._context
        if options.model is None:
            return None
        backbone = locate(options.model)
        if options.epochs == 0:
            return backbone
        if all(example.label is None for example in context.task.train):
            raise DataError(f"task {context.task.name} has no labels to fine-tune a teacher on; set teacher.epochs: 0")
        made_from = {
            "backbone": model_fingerprint(backbone),
            "task": context.task.fingerprint,
            "teacher": dump(options) | {"model": None},
            "max_length": context.recipe.training.max_length,
            "precision": context.recipe.training.precision,
        }
        folder = context.folders.of(self.stage, fingerprint(made_from))
        with claimed(folder):
            if not finished(folder, "teacher", made_from):
                from augkd.runs.stages.fine_tuning import fine_tune  # transformers takes seconds to import

                started = time.perf_counter()
                begin(folder, "teacher", made_from)
                rows = fine_tune(context, options, self.stage, folder)
                shutil.rmtree(folder / "checkpoints", ignore_errors=True)
                end(folder, "teacher", made_from, rows=rows, seconds=time.perf_counter() - started)
        return folder

    @property
    def stage(self) -> str:
        """The name of its stage."""
        return f"teacher-{self._number}" if self._number else "teacher"

    @cached_property
    def members(self) -> list[Teacher]:
        """The teachers of an ensemble; this one itself where it is a single one."""
        if self.options.ensemble is None:
            return [self]
        numbered = enumerate(self.options.ensemble, 1)
        return [Teacher(self._context, options, 10 * self._number + number) for number, options in numbered]

    @cached_property
    def model(self) -> Classifier:
        """The classifier; a recipe that needs one is rejected when there is none."""
        from augkd.models.classifier import load_classifier

        assert self.folder is not None, "the recipe's own check sees to this"
        training, labels = self._context.recipe.training, self._context.target.labels
        return load_classifier(str(self.folder), labels, training.max_length, self._output_names, training.precision)

    @cached_property
    def fingerprint(self) -> str:
        """Changes whenever the logits could."""
        options = self.options
        if options.ensemble is not None:
            return fingerprint([self._average, *(member.fingerprint for member in self.members)])
        if self._context.recipe.data.transfer_set is not None:
            return file_fingerprint(locate_transfer_set(self._context.recipe.data.transfer_set) / "data")
        if options.logits is not None:
            return fingerprint([file_fingerprint(Path(options.logits)), dump(options) | {"logits": None}])
        assert self.folder is not None
        precision = self._context.recipe.training.precision
        names = self._output_names
        return fingerprint([model_fingerprint(self.folder), self._context.target.labels, names, precision])

    @cached_property
    def outputs(self) -> TeacherOutputs:
        """Its logits of any text; a model's are stored."""
        options, labels = self.options, self._context.target.labels
        if options.ensemble is not None:
            return AveragedTeacher([member.outputs for member in self.members], self._average)
        if self._context.recipe.data.transfer_set is not None:
            given = TransferSet.open(locate_transfer_set(self._context.recipe.data.transfer_set))
            return GivenTeacher(given.folder / "data", "teacher_logits", labels, given.labels, drop=False)
        if options.logits is not None:
            drop = options.missing == "drop"
            return GivenTeacher(Path(options.logits), options.column, labels, options.labels, drop)
        return stored_outputs(self._context, self)

    @property
    def _average(self) -> str:
        return "logits" if self._context.target.regression else self.options.average

    @property
    def _output_names(self) -> list[str] | None:
        """Names for the outputs of a checkpoint that does not know them; one fine-tuned here has the task's."""
        return None if self.options.epochs else self.options.labels


def stored_outputs(context: RunContext, tutor: Tutor) -> CachedTeacher:
    """The logits of a model behind a store on disk; the model is loaded when a text is new."""
    store = context.folders.of("teacher_logits", "all")
    length = context.recipe.training.max_length
    return CachedTeacher(lambda: tutor.model, context.target.outputs, store, tutor.fingerprint, length)


def teacher_labels(task: Task, recipe: Recipe) -> tuple[str, ...]:
    """Class names for a task without labels: the teacher's own."""
    labelled = any(e.label is not None for e in (*task.train, *task.validation, *task.test))
    if labelled or recipe.task.regression:
        return ()
    if recipe.teacher.labels is not None:
        return tuple(recipe.teacher.labels)
    if recipe.teacher.network is None:
        raise ModelError(f"task {task.name} has no labels; name the classes of the teacher with teacher.labels: [...]")

    id2label = load_config(locate(recipe.teacher.network), recipe.teacher.network).id2label
    return tuple(id2label[place] for place in range(len(id2label)))
