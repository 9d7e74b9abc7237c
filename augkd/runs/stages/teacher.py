"""The teacher: a checkpoint, a backbone fine-tuned here, numbers from elsewhere, an LLM, people, or several of them.

The transfer set asks for logits and does not care which it is. Intermediate-layer losses, and a student made of the
teacher's layers, need one model.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from augkd.data.target import Target
from augkd.data.task import Task, texts_of
from augkd.data.transfer_set import TransferSet
from augkd.distill.teacher.answer_store import FILE, AnswerStore
from augkd.distill.teacher.asked import AskedTeacher
from augkd.distill.teacher.chat import ChatEndpoint
from augkd.distill.teacher.endpoint import EndpointSource
from augkd.distill.teacher.given import GivenTeacher
from augkd.distill.teacher.imported import ImportedAnswers
from augkd.distill.teacher.outputs import AveragedTeacher, CachedTeacher, TeacherOutputs
from augkd.distill.teacher.prompt import question_for
from augkd.distill.teacher.ray import TeacherFiles, predict_on
from augkd.errors import DataError, ModelError, RecipeError
from augkd.models.locate import locate, model_fingerprint
from augkd.models.pretrained import load_config
from augkd.recipe import Recipe, TeacherOptions, dump
from augkd.runs.context import RunContext
from augkd.workspace.fingerprints import file_fingerprint, fingerprint
from augkd.workspace.folders import begin, end
from augkd.workspace.locks import claimed
from augkd.workspace.manifests import finished

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from augkd.models.classifier import Classifier, Pair


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

    @property
    def files(self) -> TeacherFiles:
        """That model as workers of a cluster load it."""
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
        if options.network is None:
            return None
        backbone = locate(options.network)
        if options.epochs == 0:
            return backbone
        if all(example.label is None for example in context.task.train):
            raise DataError(f"task {context.task.name} has no labels to fine-tune a teacher on; set teacher.epochs: 0")
        made_from = {
            "backbone": model_fingerprint(backbone),
            "task": context.task.fingerprint,
            "teacher": _without_asking(options) | {"model": None},
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
                end(folder, "teacher", made_from, rows=rows, seconds=time.perf_counter() - started)
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # last: a kill here costs no training
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

        own = self.files
        return load_classifier(str(own.folder), own.target, own.max_length, own.output_names, own.precision)

    @property
    def files(self) -> TeacherFiles:
        """The classifier on disk, and how it is loaded."""
        assert self.folder is not None, "the recipe's own check sees to this"
        training = self._context.recipe.training
        names = None if self._output_names is None else tuple(self._output_names)
        return TeacherFiles(self.folder, self._context.target, training.max_length, names, training.precision)

    @cached_property
    def fingerprint(self) -> str:
        """Changes whenever the logits could."""
        options = self.options
        if options.ensemble is not None:
            return fingerprint([self._average, *(member.fingerprint for member in self.members)])
        if (given := self._context.given_transfer_set) is not None:
            return file_fingerprint(given / "data")
        if options.logits is not None:
            return fingerprint([file_fingerprint(Path(options.logits)), _without_asking(options) | {"logits": None}])
        if options.network is None:
            return self._asking_fingerprint()
        assert self.folder is not None
        precision = self._context.recipe.training.precision
        names = self._output_names
        return fingerprint([model_fingerprint(self.folder), self._context.target.labels, names, precision])

    @property
    def identity(self) -> str:
        """The fingerprint, but for the answers that people gave so far: what is chosen stays chosen as they come."""
        return self._asking_identity() if self.options.kind == "answers" else self.fingerprint

    @cached_property
    def outputs(self) -> TeacherOutputs:
        """Its logits of any text; a model's are stored."""
        options, target = self.options, self._context.target
        if options.ensemble is not None:
            return AveragedTeacher([member.outputs for member in self.members], self._average, target.activation)
        if (folder := self._context.given_transfer_set) is not None:
            given = TransferSet.open(folder)
            return GivenTeacher(given.folder / "data", "teacher_logits", target, given.labels, drop=False)
        if options.logits is not None:
            drop = options.missing == "drop"
            return GivenTeacher(Path(options.logits), options.column, target, options.labels, drop)
        if options.network is None:
            return self._asked()
        return stored_outputs(self._context, self)

    @property
    def answers(self) -> Path:
        """The folder of the answers of a teacher that is asked: the recipe's, or the run's."""
        return Path(self.options.answers or self._context.folders.of("teacher_answers", "all"))

    def _asked(self) -> AskedTeacher:
        """An LLM or people, calibrated on the labelled texts that the student sees."""
        options, target, endpoint = self.options, self._context.target, self.options.endpoint
        store = AnswerStore(self.answers)
        examples = [example for example in self._context.originals if example.label is not None]
        own = dict(zip(texts_of(examples), target.encode([e.label for e in examples]).tolist(), strict=True))
        labelled = list(own.items()) if options.calibrate else []
        if endpoint is None:
            if target.problem_type != "single_label_classification":
                raise RecipeError("teacher.answers holds one class per text; give another teacher for this task")
            people = ImportedAnswers(options, target.labels, store, own)
            imported = [pair for pair in labelled if people.imported(pair[0])]
            return AskedTeacher(people, target.outputs, imported, evaluates=False)
        asked = question_for(options, target, self._context.task.is_pair)
        source = EndpointSource(options, asked, store, lambda: ChatEndpoint(endpoint, str(options.model)))
        return AskedTeacher(source, target.outputs, labelled, endpoint.evaluate)

    def _asking_fingerprint(self) -> str:
        """What decides the outputs of a teacher that is asked."""
        settings, file = [self._asking_identity(), self.options.missing], self.answers / FILE
        if self.options.endpoint is None and file.exists():
            settings.append(file_fingerprint(file))
        return fingerprint(settings)

    def _asking_identity(self) -> str:
        options, labels = self.options, self._context.target.labels
        settings: list[object] = [labels, options.labels, options.smoothing, options.calibrate]
        if options.endpoint is not None:
            endpoint = options.endpoint
            settings += [options.model, options.prompt, options.descriptions]
            settings += [endpoint.probabilities, endpoint.permutations, endpoint.parameters]
        return fingerprint(settings)

    @property
    def _average(self) -> str:
        return "logits" if self._context.target.regression else self.options.average

    @property
    def _output_names(self) -> list[str] | None:
        """Names for the outputs of a checkpoint that does not know them; one fine-tuned here has the task's."""
        return None if self.options.epochs else self.options.labels


def _without_asking(options: TeacherOptions) -> dict[str, Any]:
    """The options that decide what a model or a file of numbers gives."""
    own = ("endpoint", "prompt", "descriptions", "answers", "smoothing", "calibrate")
    return {name: value for name, value in dump(options).items() if name not in own}


def stored_outputs(context: RunContext, tutor: Tutor) -> CachedTeacher:
    """The logits of a model behind a store on disk; the model is loaded when a text is new."""
    store = context.folders.of("teacher_logits", "all")
    length, cluster = context.recipe.training.max_length, context.cluster

    def predict(parts: Sequence[list[Pair]]) -> Iterator[NDArray[np.float32]]:
        assert cluster is not None
        return predict_on(cluster, tutor.files, parts)

    outputs, weights = context.target.outputs, tutor.fingerprint
    if cluster is None:
        return CachedTeacher(lambda: tutor.model, outputs, store, weights, length)
    least = 1 if cluster.gpus else 2  # a single part would wait for one worker, which is no faster without a GPU
    return CachedTeacher(lambda: tutor.model, outputs, store, weights, length, predict, least)


def teacher_target(task: Task, recipe: Recipe) -> Target:
    """What is predicted where the task has no labels: what the teacher predicts."""
    labelled = any(e.label is not None for e in (*task.train, *task.validation, *task.test))
    if labelled or recipe.task.regression:
        return Target()
    if recipe.teacher.network is None and recipe.teacher.labels is not None:
        return Target(tuple(recipe.teacher.labels))
    if recipe.teacher.network is None:
        raise ModelError(f"task {task.name} has no labels; name the classes of the teacher with teacher.labels: [...]")

    target = Target.of_config(load_config(locate(recipe.teacher.network), recipe.teacher.network).to_dict())
    return replace(target, labels=tuple(recipe.teacher.labels), thresholds=()) if recipe.teacher.labels else target
