"""One recipe on its way through the stages: index, teacher, transfer set, student, results.

A stage is a folder with a manifest whose `made_from` holds the fingerprints of everything it depends on, so a changed
learning rate retrains the student and nothing else. Every artefact is opened once and kept. A teacher assistant
(Mirzadeh et al. 2020) is a lesson like the student's own: it is taught by the one before it, and teaches the next.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from augkd.data.task import Task, texts_of, with_labelled
from augkd.data.transfer_set import TransferSet
from augkd.distill.parallel import ranks
from augkd.distill.teacher.outputs import TeacherOutputs, known_logits
from augkd.distill.teacher.ray import TeacherFiles
from augkd.evaluation.metrics import metric_of, score
from augkd.evaluation.results import RunResults, TeacherResults
from augkd.evaluation.thresholds import with_thresholds
from augkd.models.cluster import Cluster
from augkd.models.locate import model_fingerprint, parameter_count
from augkd.recipe import Recipe, dump, load_transfer_set_recipe
from augkd.retrieval.retriever import Retriever
from augkd.runs.candidate_notes import candidate_notes
from augkd.runs.cards import write_cards
from augkd.runs.context import RunContext, StageFolders
from augkd.runs.disk_plan import check_disk
from augkd.runs.label_checks import check_labelling
from augkd.runs.model_checks import check_models
from augkd.runs.results import RunRecord, run_results
from augkd.runs.stages.index import IndexStage
from augkd.runs.stages.labels import LabelRounds
from augkd.runs.stages.masked_lm import MaskedLMStage
from augkd.runs.stages.student import StudentStage
from augkd.runs.stages.teacher import Teacher, Tutor, stored_outputs, teacher_target
from augkd.runs.stages.transfer_set import make_transfer_set
from augkd.runs.task import read_task
from augkd.workspace.fingerprints import fingerprint
from augkd.workspace.launch import launch, nothing_finished
from augkd.workspace.locks import locked
from augkd.workspace.manifest_kinds import MaskedLMManifest, StudentManifest, TeacherManifest, TransferSetManifest
from augkd.workspace.manifests import MANIFEST, read_manifest
from augkd.workspace.progress import Progress, silent
from augkd.workspace.run_folder import relative_stages

if TYPE_CHECKING:
    from augkd.models.classifier import Classifier


@dataclass(frozen=True)
class SharedStages:
    """What every student of a run uses: its teacher, index and masked language models."""

    teacher: Teacher
    index: IndexStage
    masked_lms: MaskedLMStage


class Lesson:
    """One student: its transfer set, labelled by its tutor, and its training. Finished, it can be a tutor itself."""

    def __init__(self, context: RunContext, stages: SharedStages, assistants: tuple[Lesson, ...]):
        """`assistants` were taught before it, the last of them is its tutor; without any, the teacher is."""
        self.context, self._stages, self._assistants = context, stages, assistants
        self.tutor: Tutor = assistants[-1] if assistants else stages.teacher

    @cached_property
    def transfer_set(self) -> TransferSet:
        """Originals and candidates with the logits of the tutor; in several processes, the first one makes it."""
        for assistant in self._assistants:
            assistant.train()  # all processes train it, before the first labels with it
        folder = ranks().from_first(lambda: self._made_transfer_set().folder)
        if not folder.exists():
            raise nothing_finished("transfer set", folder)
        return TransferSet.open(folder)

    def _made_transfer_set(self) -> TransferSet:
        stages, rounds = self._stages, None
        if self.context.recipe.data.label_budget is not None and not self._assistants:  # an assistant labels for free
            rounds = LabelRounds(self._stage, stages.teacher)
        return make_transfer_set(self.context, self.tutor, stages.index, stages.masked_lms, rounds)

    @cached_property
    def student(self) -> StudentManifest:
        """The manifest of the trained student, with its scores."""
        return self._stage.make(self.transfer_set)

    def prepare(self) -> None:
        """Makes what comes before the student and trains none, as the rounds of a label budget do."""
        data = self.context.recipe.data
        if data.label_budget is None or self._assistants:
            _ = self.transfer_set
            return
        _ = self.tutor.outputs
        if data.neighbours is not None:
            _ = self._stages.index.retriever

    def train(self) -> StudentManifest:
        """Makes the student; returns its manifest."""
        return self.student

    @property
    def folder(self) -> Path:
        """Where the student lies."""
        return self._stage.folder

    @cached_property
    def model(self) -> Classifier:
        """The trained student."""
        self.train()
        return self._stage.load()

    @property
    def files(self) -> TeacherFiles:
        """The trained student as workers of a cluster load it."""
        self.train()
        return self._stage.files

    @cached_property
    def fingerprint(self) -> str:
        """Changes whenever the student's outputs could."""
        self.train()
        return fingerprint([model_fingerprint(self.folder), self.context.target.labels])

    @cached_property
    def outputs(self) -> TeacherOutputs:
        """The student's logits of any text, stored."""
        return stored_outputs(self.context, self)

    @cached_property
    def _stage(self) -> StudentStage:
        stages = self._stages
        return StudentStage(self.context, stages.teacher, self.tutor, self._assistants, stages.masked_lms)


class Run:
    """One recipe in one folder. Finished stages are used again; a run that was stopped continues."""

    def __init__(
        self,
        recipe: Recipe,
        out: Path,
        shared: Path | None = None,
        progress: Progress = silent,
        name: str = "recipe",
        cluster: Cluster | None = None,
    ):
        """`shared` is where stages that do not depend on the seed go (default: `out`); `name` goes into the results.

        The workers of `cluster` encode and search the index and label for the teacher (None: this machine does all).

        Raises DataError for a task that cannot be read, RecipeError for losses that the task cannot have.
        """
        self.context = _context(recipe, StageFolders(Path(out), shared), progress, name, cluster)
        index = IndexStage(self.context)
        self._stages = SharedStages(Teacher(self.context), index, MaskedLMStage(self.context, index))

    @property
    def recipe(self) -> Recipe:
        """The recipe."""
        return self.context.recipe

    @property
    def task(self) -> Task:
        """The task."""
        return self.context.task

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names in the order of the outputs; () for regression."""
        return self.context.target.labels

    def results(self) -> RunResults:
        """Makes all stages that are not finished; returns and writes results.json.

        Those of a finished run stay as they are. Processes launched together (torchrun) train the students together;
        the first one makes and writes everything else. Raises WorkspaceError, which names it, for a damaged file of a
        stage, ProcessLostError where another process has ended.
        """
        out, shared = self.context.folders.out, self.context.folders.shared
        with locked(out):
            ranks().from_first(lambda: check_disk(self.recipe, self.context.student_task, out, shared is not None))
            student = self.student()
            return ranks().from_first(lambda: self._written_results(student))

    def _written_results(self, student: StudentManifest) -> RunResults:
        """The results of a run whose stages are finished, written unless they are there."""
        out, transfer = self.context.folders.out, self.transfer_set().folder
        record = RunRecord(out, student, dump(self.recipe), relative_stages(out, self._stage_folders(transfer)))
        results = record.read()
        if results is None:
            results = self._results(student, read_manifest(transfer, TransferSetManifest))
            if notes := self.notes():
                results["notes"] = notes
            record.write(results)
        write_cards(out, transfer)
        return results

    def prepare(self) -> None:
        """Makes the stages that need no student: index, teacher, its logits, the generator's model."""
        self._lessons[0].prepare()
        if self.recipe.data.generator:
            self._stages.masked_lms.folder(self.recipe.data.generator)

    @property
    def index(self) -> Retriever:
        """The index of the recipe, built or opened."""
        return self._stages.index.retriever

    @property
    def teacher(self) -> Teacher:
        """The recipe's teacher; with assistants, the student learns from the last of them instead."""
        return self._stages.teacher

    def transfer_set(self) -> TransferSet:
        """Originals and candidates with the logits of the student's tutor, made unless they are there."""
        return self._lessons[-1].transfer_set

    def notes(self) -> list[str]:
        """What a reader must know about the transfer set: that it has no candidates, or too few."""
        return list(candidate_notes(self.recipe.data, self.transfer_set()))

    def student(self) -> StudentManifest:
        """The manifest of the student, trained unless it is there; its scores are in it."""
        return self._lessons[-1].student

    @cached_property
    def _lessons(self) -> tuple[Lesson, ...]:
        """The assistants', one after another, then the student's."""
        lessons: tuple[Lesson, ...] = ()
        for number in range(1, len(self.recipe.assistants) + 1):
            lessons += (Lesson(self.context.assistant(number), self._stages, lessons),)
        return (*lessons, Lesson(self.context, self._stages, lessons))

    # -- results -----------------------------------------------------------------------------------------------------

    def _results(self, student: StudentManifest, transfer: TransferSetManifest) -> RunResults:
        context, stages, generator = self.context, self._stages, self.recipe.data.generator
        seconds = {"index": stages.index.seconds, "transfer_set": transfer.seconds, "student": student.seconds}
        if stages.teacher.folder and self.recipe.teacher.epochs > 0:
            seconds["teacher"] = read_manifest(stages.teacher.folder, TeacherManifest).seconds
        if generator and generator.adapt:
            seconds["masked_lm"] = read_manifest(stages.masked_lms.folder(generator), MaskedLMManifest).seconds
        assistants = [lesson.student for lesson in self._lessons[:-1]]
        return run_results(context, student, self._teacher_results(), transfer, assistants, seconds)

    def _teacher_results(self) -> TeacherResults:
        """The teacher's scores and size; None where it does not know the texts, or they have no labels."""
        task, teacher, target = self.task, self._stages.teacher, self.context.target
        scores: dict[str, float | None] = {}
        for split, examples in (("validation", task.validation), ("test", task.test)):
            labels = [example.label for example in examples]
            logits = known_logits(teacher.outputs, texts_of(examples), target.outputs)
            known = None not in labels and not np.isnan(logits).any()
            if known and split == "validation":
                target = with_thresholds(target, self.context.metric, logits, labels)
            scores[split] = score(self.context.metric, target, logits, labels) if known else None
        parameters = parameter_count(teacher.folder) if teacher.folder else None
        return {"validation": scores["validation"], "test": scores["test"], "parameters": parameters}

    def _stage_folders(self, transfer: Path) -> dict[str, Path]:
        """Where each stage lies."""
        data, stages = self.recipe.data, self._stages
        folders = {"transfer_set": transfer, "student": self._lessons[-1].folder}
        folders |= {teacher.stage: teacher.folder for teacher in stages.teacher.members if teacher.folder}
        folders |= {f"assistant-{number}": lesson.folder for number, lesson in enumerate(self._lessons[:-1], 1)}
        if data.neighbours:
            folders["index"] = self.index.folder
        if data.generator:
            folders["masked_lm"] = stages.masked_lms.folder(data.generator)
            folders["generator"] = self.context.folders.out / "generator"
        return folders


def distill_transfer_set(
    transfer_set: TransferSet | Path | str,
    student: str,
    out: Path,
    recipe: str | None = None,
    overrides: Iterable[str] = (),
    progress: Progress = silent,
) -> RunResults:
    """Trains `student` (a folder or Hub name) from a finished transfer set (open, a folder, or a Hub name) into `out`.

    No teacher, index or corpus is needed. Selection, losses and schedule are those of `recipe`, a file or a shipped
    name; without one, it is vanilla KD for 4 epochs on all candidates. Raises DataError when the transfer set cannot be
    had, RecipeError for a recipe or an override that does not fit it.
    """
    given = str(transfer_set.folder if isinstance(transfer_set, TransferSet) else transfer_set)
    return Run(load_transfer_set_recipe(given, student, recipe, overrides), out, progress=progress).results()


def _context(
    recipe: Recipe, folders: StageFolders, progress: Progress, name: str, cluster: Cluster | None
) -> RunContext:
    progress = progress if launch().writes else silent
    task = read_task(recipe, progress)
    target = task.target if task.labels else teacher_target(task, recipe)
    metric = target.metrics[0] if target.labels and not task.labels else task.metric  # classes only the teacher knows
    metric_of(metric, target)
    recipe.check_losses(target.problem_type)
    check_labelling(recipe, target, task.is_pair)
    if not (folders.out / "student" / MANIFEST).exists():
        check_models(recipe)
    student_task = with_labelled(task, recipe.data.labelled)
    recipe = recipe.for_texts(len(student_task.train))
    return RunContext(recipe, task, student_task, target, metric, folders, progress, name, cluster)


def forget_peak() -> None:
    """Lets the next run have a peak memory of its own, where the kernel allows it (Linux)."""
    switch = Path("/proc/self/clear_refs")
    if os.access(switch, os.W_OK):
        switch.write_text("5")  # resets the high-water mark that getrusage reads
