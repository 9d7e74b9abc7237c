"""The stages in order, each skipped when its inputs are what they were: index, teacher, transfer set, student, results.

The only file that sees them all. A stage is a folder with a manifest; its `made_from` holds the fingerprints of
everything it depends on, so changing a learning rate retrains the student and nothing else. An assistant is a run of
its own whose student teaches the next one.
"""

from __future__ import annotations

import os
import resource
import shutil
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from augkd.candidates.from_models import WORDS, make_candidates
from augkd.data.task import Task, load_task
from augkd.data.transfer_set import TransferSet
from augkd.distill.teacher.outputs import TeacherOutputs
from augkd.evaluation.metrics import metric_of, score
from augkd.models.classifier import Classifier, load_classifier
from augkd.models.locate import locate, model_fingerprint, parameter_count
from augkd.recipe import AdaptOptions, GeneratedOptions, Recipe, StudentOptions, SubstitutionOptions, dumped
from augkd.retrieval.open import index_identity, make_index, open_index
from augkd.retrieval.retriever import Retriever
from augkd.runs.cards import write_cards
from augkd.runs.results import summary
from augkd.runs.stages.masked_lm import masked_lm_folder
from augkd.runs.stages.student import Student, believed
from augkd.runs.stages.teacher import Teacher, teacher_labels
from augkd.runs.stages.transfer_set import write_transfer_set
from augkd.workspace.files import write_json
from augkd.workspace.fingerprints import file_fingerprint, fingerprint
from augkd.workspace.folders import CACHE, begin, end
from augkd.workspace.locks import claimed, locked
from augkd.workspace.manifests import finished, read_manifest, write_manifest
from augkd.workspace.progress import Progress, silent

Made = dict[str, Any]
_MASKED = 0.3  # share of the tokens that a masked language model of substitution is warmed up with


@dataclass
class Run:
    """One recipe on its way through the stages. `shared` is where stages that do not depend on the seed go."""

    recipe: Recipe
    out: Path
    shared: Path | None = None
    progress: Progress = silent
    name: str = "recipe"
    chain: Path | None = None  # where the assistants lie; None: in `out`

    def __post_init__(self) -> None:
        self.task: Task = read_task(self.recipe)
        metric_of(self.metric, not self.labels)
        if not self.labels:
            self.recipe.check_regression()
        self._index_seconds = 0.0  # of this process: a finished index costs its opening

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names of the task; those of the teacher where no text has a label; () for regression."""
        return self.task.labels or teacher_labels(self.task, self.recipe)

    @property
    def metric(self) -> str:
        """The task's metric; accuracy for a task whose classes only the teacher knows."""
        return "accuracy" if self.labels and not self.task.labels else self.task.metric

    def results(self) -> dict[str, Any]:
        """All stages; the finished ones are not repeated. Returns and writes results.json."""
        with locked(self.out):
            student = self.student()
            teacher = self.teacher_figures()
            transfer = read_manifest(self.transfer_set().folder, "transfer_set")
            values = self._summary(student, teacher, transfer)
            write_json(self.out / "results.json", values)
            made = {"student": student["made_from"]}
            write_manifest(self.out, "run", made, recipe=dumped(self.recipe), seed=self.recipe.seed)
            write_cards(self.out, self.transfer_set().folder)
        return values

    def prepare(self) -> None:
        """The stages that need no student: index, teacher, what the teacher teaches with, the generator's model."""
        first, *_ = (*self.assistants(), self)
        first.transfer_set()
        if self.recipe.data.generator:
            self.masked_lm()

    # -- stages ------------------------------------------------------------------------------------------------------

    def index(self) -> Retriever:
        """The index of the recipe, built or opened."""
        assert self.recipe.data.neighbours is not None
        given = self.recipe.data.neighbours.index
        if isinstance(given, str):
            return open_index(Path(given))
        folder = self._folder("index", fingerprint(dumped(given)))
        started = time.perf_counter()
        with claimed(folder):
            index = make_index(given, folder, self.progress)
        self._index_seconds = max(self._index_seconds, time.perf_counter() - started)  # results() asks for it twice
        return index

    def masked_lm(self) -> Path:
        """The folder of the generator's masked language model, warmed up where the recipe says so."""
        options = self.recipe.data.generator
        assert options is not None
        return self._masked_lm(options.model, options.adapt, options.mask)

    @property
    def teacher(self) -> Teacher:
        """The recipe's teacher, not the last assistant."""
        training = self.recipe.training
        return Teacher(self.recipe.teacher, self.task, self.labels, self.metric, training, self._folder, self.progress)

    def assistants(self) -> list[Run]:
        """A run for each assistant: the same data, taught by the one before it."""
        runs = []
        for number, options in enumerate(self.recipe.assistants, 1):
            told = StudentOptions.model_validate(options.model_dump(exclude={"training"}))
            changed = {
                "student": told,
                "training": options.training or self.recipe.training,
                "assistants": self.recipe.assistants[: number - 1],
                "ensemble": False,
            }
            name = f"assistant {number}"
            shown = partial(_prefixed, self.progress, f"{name}: ")
            chain = self.chain or self.out / "assistants"
            recipe = self.recipe.model_copy(update=changed)
            runs.append(Run(recipe, chain / str(number), self.shared, shown, name, chain))
        return runs

    def transfer_set(self) -> TransferSet:
        """Originals and candidates with the logits of whoever teaches the student."""
        outputs, weights = self._tutor()
        index = self.index() if self.recipe.data.neighbours else None
        made = {
            "task": self.task.fingerprint,
            "teacher": weights,
            "index": index_identity(index) if index else None,
            "data": self._candidate_options(),
            "max_length": self.recipe.training.max_length,
        }
        folder = self._folder("transfer_set", fingerprint(made))
        with claimed(folder):
            if not finished(folder, "transfer_set", made):
                self._make_transfer_set(folder, made, outputs, index)
        return TransferSet.open(folder)

    def _make_transfer_set(self, folder: Path, made: Made, outputs: TeacherOutputs, index: Retriever | None) -> None:
        started, data = time.perf_counter(), self.recipe.data
        begin(folder, "transfer_set", made)
        texts = make_candidates(self.task, data, self.recipe.training, self._lm_of, folder / CACHE, self.progress)
        counts = write_transfer_set(folder, self.task, self.labels, outputs, data, index, self.progress, texts)
        shutil.rmtree(folder / CACHE / WORDS, ignore_errors=True)
        facts = {"data": counts, "teacher_rows": outputs.rows, "generator_rows": texts.rows}
        end(folder, "transfer_set", made, labels=self.labels, **facts, seconds=time.perf_counter() - started)

    def student(self) -> dict[str, Any]:
        """Trains the student; returns its manifest, with its figures on validation and test."""
        transfer, student = self.transfer_set(), self._student()
        made = {"transfer_set": file_fingerprint(transfer.folder / "data")} | student.made_of()
        folder = self.out / "student"
        if not finished(folder, "student", made):
            started = time.perf_counter()
            begin(folder, "student", made)
            facts = student.train(folder, transfer)
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
            facts |= {"seconds": time.perf_counter() - started, "peak_rss_bytes": peak_rss()}
            end(folder, "student", made, recipe=dumped(self.recipe), **facts)
        return read_manifest(folder, "student")

    def teacher_figures(self) -> dict[str, Any]:
        """The teacher's metric on validation and test, and its size; None where it was not asked for these texts."""
        outputs, _ = self.teacher.outputs()
        figures: dict[str, Any] = {}
        for split, examples in (("validation", self.task.validation), ("test", self.task.test)):
            labels = [example.label for example in examples]
            logits = believed(outputs, examples, len(self.labels) or 1)
            known = None not in labels and not np.isnan(logits).any()
            figures[split] = score(self.metric, logits, labels) if known else None
        folder = self.teacher.folder()
        figures["parameters"] = parameter_count(folder) if folder else None
        return figures

    # -- parts of stages ---------------------------------------------------------------------------------------------

    def _tutor(self) -> tuple[TeacherOutputs, str]:
        """Who teaches the student: the last assistant, else the teacher; as logits, with a fingerprint."""
        if not self.recipe.assistants:
            return self.teacher.outputs()
        last = self.assistants()[-1]
        last.student()
        weights = fingerprint([model_fingerprint(last.out / "student"), self.labels])
        return self.teacher.cached(last.trained, weights), weights

    def trained(self) -> Classifier:
        """The finished student."""
        training = self.recipe.training
        return load_classifier(str(self.out / "student"), self.labels, training.max_length, None, training.precision)

    def _student(self) -> Student:
        return Student(
            self.recipe,
            self.task,
            self.labels,
            self.metric,
            self.teacher,
            self._tutor,
            lambda: self.assistants()[-1].trained() if self.recipe.assistants else self.teacher.classifier(),
            lambda: [run.trained() for run in self.assistants()],
            self.masked_lm,
            self._folder,
            self.progress,
        )

    def _masked_lm(self, model: str, adapt: AdaptOptions | None, rate: float) -> Path:
        training = self.recipe.training
        return masked_lm_folder(
            model,
            adapt,
            self.index,
            list(self.task.evaluation_texts()),
            self._folder,
            self.progress,
            rate=rate,
            max_length=training.max_length,
            precision=training.precision,
        )

    def _lm_of(self, options: GeneratedOptions | SubstitutionOptions) -> Path:
        """The folder of the masked language model that writes candidates; of substitution it masks word by word."""
        adapt = options.adapt if isinstance(options, SubstitutionOptions) else None
        return self._masked_lm(options.model, adapt, _MASKED)

    def _lm_identity(self, options: GeneratedOptions | SubstitutionOptions) -> Made:
        encoder = model_fingerprint(locate(options.encoder))
        return {"model": model_fingerprint(self._lm_of(options)), "adapt": None, "encoder": encoder}

    def _candidate_options(self) -> Made:
        data = self.recipe.data
        neighbours = dumped(data.neighbours) | {"index": None} if data.neighbours else None
        samples = data.augmented_samples
        own = {
            name: None if options is None else dumped(options) | self._lm_identity(options)
            for name, options in (("generated", data.generated), ("substitution", data.substitution))
        }
        return own | {
            "neighbours": neighbours,
            "augmented_samples": file_fingerprint(Path(samples)) if samples else None,
        }

    def _folder(self, stage: str, identity: str) -> Path:
        if self.shared is not None:
            return self.shared / f"{stage}-{identity[:12]}"
        if self.chain is None or stage == "transfer_set":
            return self.out / stage
        return self.chain.parent / stage  # an assistant's teacher and index are those of the whole run

    def _summary(self, student: Made, teacher: Made, transfer: Made) -> Made:
        generator = self.recipe.data.generator
        seconds = {"index": self._index_seconds, "transfer_set": transfer["seconds"], "student": student["seconds"]}
        folder = self.teacher.folder()
        if folder and self.recipe.teacher.epochs > 0:
            seconds["teacher"] = read_manifest(folder, "teacher")["seconds"]
        if generator and generator.adapt:
            seconds["masked_lm"] = read_manifest(self.masked_lm(), "masked_lm")["seconds"]
        assistants = [read_manifest(run.out / "student", "student") for run in self.assistants()]
        named = {"task": self.task.name, "metric": self.metric, "seed": self.recipe.seed, "recipe": self.name}
        return named | summary(self.recipe.data, student, teacher, transfer, assistants, seconds)


# -- pieces without a run ----------------------------------------------------------------------------------------------


def read_task(recipe: Recipe) -> Task:
    """The recipe's task."""
    return load_task(**dumped(recipe.task))


def forget_peak() -> None:
    """Lets the next run have a peak memory of its own, where the kernel allows it (Linux)."""
    switch = Path("/proc/self/clear_refs")
    if os.access(switch, os.W_OK):
        switch.write_text("5")  # resets the high-water mark that getrusage reads


def peak_rss() -> int:
    """Largest resident size of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _prefixed(progress: Progress, prefix: str, stage: str, done: int, total: int | None) -> None:
    progress(prefix + stage, done, total)
