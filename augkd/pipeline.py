"""The stages in order, each skipped when its inputs are what they were: index, teacher, transfer set, student, results.

The only file that sees all the others. A stage is a folder with a manifest; its `made_from` holds the fingerprints of
everything it depends on, so changing a learning rate retrains the student and nothing else. An assistant is a run of
its own whose student teaches the next one.
"""

from __future__ import annotations

import resource
import shutil
import sys
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from augkd.augment import Progress, write_transfer_set
from augkd.checkpoints import locate, model_fingerprint, parameter_count
from augkd.data.task import Task, load_task, texts_of
from augkd.data.transfer_set import TransferSet
from augkd.distill.arguments import arguments
from augkd.distill.dataset import DistillationDataset
from augkd.distill.layer_teacher import LayerTeacher
from augkd.distill.models import Classifier, from_layers, load_classifier, load_trunk
from augkd.distill.stages import Ensemble, train_stages
from augkd.distill.students import build_student
from augkd.distill.teacher import GivenTeacher, TeacherOutputs
from augkd.evaluation.judge import Judge
from augkd.evaluation.metrics import metric_of, score
from augkd.indexing import index_identity, make_index, open_index
from augkd.recipe import Recipe, StudentOptions, dumped
from augkd.retrieval.retriever import Retriever
from augkd.sizes import show_bytes
from augkd.teachers import Teacher, teacher_labels
from augkd.workspace import (
    begin,
    end,
    file_fingerprint,
    fingerprint,
    finished,
    locked,
    read_manifest,
    versions,
    write_json,
    write_manifest,
)

Made = dict[str, Any]


def silent(stage: str, done: int, total: int | None) -> None:
    """The progress of someone who does not look."""


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
        return values

    # -- stages ------------------------------------------------------------------------------------------------------

    def index(self) -> Retriever:
        """The index of the recipe, built or opened."""
        assert self.recipe.data.neighbours is not None
        given = self.recipe.data.neighbours.index
        if isinstance(given, str):
            return open_index(Path(given))
        folder = self._folder("index", fingerprint(dumped(given)))
        started = time.perf_counter()
        index = make_index(given, folder, lambda done, total: self.progress("index", done, total))
        self._index_seconds = max(self._index_seconds, time.perf_counter() - started)  # results() asks for it twice
        return index

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
        if not finished(folder, "transfer_set", made):
            started = time.perf_counter()
            begin(folder, "transfer_set", made)
            counts = write_transfer_set(folder, self.task, self.labels, outputs, self.recipe.data, index, self.progress)
            seconds = time.perf_counter() - started
            facts = {"data": counts, "teacher_rows": outputs.rows, "seconds": seconds}
            end(folder, "transfer_set", made, labels=self.labels, **facts)
        return TransferSet.open(folder)

    def student(self) -> dict[str, Any]:
        """Trains the student; returns its manifest, with its figures on validation and test."""
        transfer = self.transfer_set()
        data = dumped(self.recipe.data)
        made = {
            "transfer_set": file_fingerprint(transfer.folder / "data"),
            "task": self.task.fingerprint,
            "student": dumped(self.recipe.student) | self._student_source(),
            "training": dumped(self.recipe.training),
            "structure": self.recipe.structure and dumped(self.recipe.structure),
            "data": {name: data[name] for name in ("select", "temperature", "refresh", "weight")},
            "seed": self.recipe.seed,
            "ensemble": self.recipe.ensemble,
        }
        folder = self.out / "student"
        if not finished(folder, "student", made):
            started = time.perf_counter()
            begin(folder, "student", made)
            facts = self._distill(folder, transfer)
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
            end(folder, "student", made, recipe=dumped(self.recipe), seconds=time.perf_counter() - started, **facts)
        return read_manifest(folder, "student")

    def teacher_figures(self) -> dict[str, Any]:
        """The teacher's metric on validation and test, and its size; None where it was not asked for these texts."""
        outputs, _ = self.teacher.outputs()
        figures: dict[str, Any] = {}
        for split, examples in (("validation", self.task.validation), ("test", self.task.test)):
            texts, labels = texts_of(examples), [example.label for example in examples]
            unknown = isinstance(outputs, GivenTeacher) and outputs.unknown(texts)
            known = not unknown and None not in labels
            figures[split] = score(self.metric, outputs.logits(texts), labels) if known else None
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

    def _distill(self, folder: Path, transfer: TransferSet) -> dict[str, Any]:
        student = self._untrained()
        data = self.recipe.data
        stages = [
            arguments(
                folder / "checkpoints" / f"stage-{number}",
                stage,
                self.recipe.seed,
                self.metric,
                selector=data.select,
                selection_temperature=data.temperature,
                refresh=data.refresh,
                candidate_weight=data.weight,
            )
            for number, stage in enumerate(self.recipe.phases, 1)
        ]
        judge = Judge(self.task, self.metric, not self.labels, lambda texts: self._tutor()[0].logits(texts))
        trained = train_stages(
            student,
            stages,
            DistillationDataset(student, transfer),
            lambda classifier: {self.metric: judge.validation(classifier)},
            lambda done, total: self.progress("student", done, total),
            partial(self._layers, transfer),
        )
        student.save(folder)
        write_json(folder / "log.json", trained.log)
        facts = {"rows": trained.rows, "parameters": student.parameters, "validation": judge.validation(student)}
        facts |= judge.test(student)  # the one look at the test split
        if self.recipe.ensemble:
            every = Ensemble([*(run.trained() for run in self.assistants()), student])
            facts["ensemble"] = {"validation": judge.validation(every), **judge.test(every)}
        return facts

    def _layers(self, transfer: TransferSet, stage: int, student: Classifier) -> LayerTeacher | None:
        """What the student's layers follow in a stage: the layers of whoever teaches it."""
        structure = self.recipe.phases[stage - 1].structure
        if structure is None or not structure.losses:
            return None
        tutor = self.assistants()[-1].trained() if self.recipe.assistants else self.teacher.classifier()
        return LayerTeacher.of(
            structure.losses,
            structure.pooling,
            student,
            tutor,
            transfer,
            self._folder("teacher_layers", "all"),
            self._tutor()[1],
            self.recipe.seed,
            self._announce,
            lambda done, total: self.progress("teacher layers", done, total),
        )

    def _announce(self, texts: int, size: int) -> None:
        self.progress(f"teacher layers ({show_bytes(size)})", 0, texts)

    def _untrained(self) -> Classifier:
        training, options, seed = self.recipe.training, self.recipe.student, self.recipe.seed
        if options.model is not None:
            return load_trunk(options.model, self.labels, training.max_length, seed, training.precision)
        if options.layers is not None:
            return from_layers(self.teacher.classifier(), options.layers)
        pairs = any(example.text_pair is not None for example in self.task.train)
        return build_student(options.kind, dumped(options)[options.kind], self.teacher.classifier(), seed, pairs)

    def _student_source(self) -> Made:
        if self.recipe.student.model is not None:
            return {"model": model_fingerprint(locate(self.recipe.student.model))}
        folder = self.teacher.folder()
        assert folder is not None
        return {"teacher": model_fingerprint(folder)}

    def _candidate_options(self) -> Made:
        data = self.recipe.data
        neighbours = dumped(data.neighbours) | {"index": None} if data.neighbours else None
        samples = data.augmented_samples
        return {"neighbours": neighbours, "augmented_samples": file_fingerprint(Path(samples)) if samples else None}

    def _folder(self, stage: str, identity: str) -> Path:
        if self.shared is not None:
            return self.shared / f"{stage}-{identity[:12]}"
        if self.chain is None or stage == "transfer_set":
            return self.out / stage
        return self.chain.parent / stage  # an assistant's teacher and index are those of the whole run

    def _summary(self, student: Made, teacher: Made, transfer: Made) -> dict[str, Any]:
        ((selector, given),) = self.recipe.data.select.items()
        candidates = transfer["data"]["candidates"]
        each = candidates / max(1, transfer["data"]["originals"])
        data = {name: transfer["data"][name] for name in list(transfer["data"]) if name != "short"}
        data["kept_per_original"] = min(given.get("keep", each), each) if candidates else 0
        assistants = [self._assistant_summary(run) for run in self.assistants()]
        rows: Counter[str] = Counter(student["rows"])
        for assistant in assistants:
            rows.update(assistant["rows"])
        seconds = {"index": self._index_seconds, "transfer_set": transfer["seconds"], "student": student["seconds"]}
        folder = self.teacher.folder()
        if folder and self.recipe.teacher.epochs > 0:
            seconds["teacher"] = read_manifest(folder, "teacher")["seconds"]
        if assistants:
            seconds["assistants"] = sum(assistant["seconds"] for assistant in assistants)
        figures = ("validation", "test", "test_interval", "parameters", "ensemble")
        values = {
            "task": self.task.name,
            "metric": self.metric,
            "seed": self.recipe.seed,
            "recipe": self.name,
            "teacher": teacher,
            "student": {name: student[name] for name in figures if name in student},
            "data": data | {"selector": selector},
            "cost": {
                "teacher_rows": transfer["teacher_rows"],
                "scoring_rows": rows["scoring"],
                "training_rows": rows["training"],
                "seconds": seconds,
                "peak_rss_bytes": peak_rss(),
            },
            "versions": versions(),
        }
        if assistants:
            values["assistants"] = assistants
        return values

    @staticmethod
    def _assistant_summary(run: Run) -> Made:
        manifest = read_manifest(run.out / "student", "student")
        return {name: manifest[name] for name in ("validation", "test", "parameters", "rows", "seconds")}


# -- pieces without a run ----------------------------------------------------------------------------------------------


def read_task(recipe: Recipe) -> Task:
    """The recipe's task."""
    return load_task(**dumped(recipe.task))


def peak_rss() -> int:
    """Largest resident size of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _prefixed(progress: Progress, prefix: str, stage: str, done: int, total: int | None) -> None:
    progress(prefix + stage, done, total)
