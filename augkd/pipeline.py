"""The stages in order, each skipped when its inputs are what they were: index, teacher, transfer set, student, results.

The only file that sees all the others. A stage is a folder with a manifest; its `made_from` holds the fingerprints of
everything it depends on, so changing a learning rate retrains the student and nothing else.
"""

from __future__ import annotations

import resource
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from augkd.augment import Progress, make_index, original_row, texts_of, write_transfer_set
from augkd.checkpoints import locate, model_fingerprint
from augkd.data.task import Task, load_task
from augkd.data.transfer_set import TransferSet, in_memory
from augkd.distill.arguments import DistillationArguments, arguments
from augkd.distill.models import Classifier, from_layers, load_classifier, load_trunk
from augkd.distill.teacher import CachedTeacher, GivenTeacher, TeacherOutputs
from augkd.distill.trainer import DistillationDataset, DistillationTrainer
from augkd.errors import DataError, ModelError
from augkd.evaluation.metrics import interval, metric_of, score
from augkd.recipe import Recipe, TrainingOptions, dumped
from augkd.retrieval.index import Index
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

    def __post_init__(self) -> None:
        self.task: Task = read_task(self.recipe)
        metric_of(self.metric, not self.labels)
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

    def index(self) -> Index:
        """The index of the recipe, built or opened."""
        assert self.recipe.data.neighbours is not None
        given = self.recipe.data.neighbours.index
        if isinstance(given, str):
            return Index.open(Path(given))
        folder = self._folder("index", fingerprint(dumped(given)))
        started = time.perf_counter()
        index = make_index(given, folder, lambda done, total: self.progress("index", done, total))
        self._index_seconds = max(self._index_seconds, time.perf_counter() - started)  # results() asks for it twice
        return index

    def teacher(self) -> Path | None:
        """The folder of the teacher's weights: as given, or fine-tuned here; None when it is given as numbers."""
        options = self.recipe.teacher
        if options.model is None:
            return None
        trunk = locate(options.model)
        if options.epochs == 0:
            return trunk
        if all(example.label is None for example in self.task.train):
            raise DataError(f"task {self.task.name} has no labels to fine-tune a teacher on; set teacher.epochs: 0")
        made = {
            "trunk": model_fingerprint(trunk),
            "task": self.task.fingerprint,
            "teacher": dumped(options) | {"model": None},
            "max_length": self.recipe.training.max_length,
            "precision": self.recipe.training.precision,
        }
        folder = self._folder("teacher", fingerprint(made))
        if not finished(folder, "teacher", made):
            started = time.perf_counter()
            begin(folder, "teacher", made)
            rows = self._fine_tune(folder, options.model)
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
            end(folder, "teacher", made, rows=rows, seconds=time.perf_counter() - started)
        return folder

    def transfer_set(self) -> TransferSet:
        """Originals and candidates with the teacher's logits."""
        outputs, weights = self._teacher_outputs()
        index = self.index() if self.recipe.data.neighbours else None
        made = {
            "task": self.task.fingerprint,
            "teacher": weights,
            "index": index.manifest["made_from"] if index else None,
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
        made = {
            "transfer_set": file_fingerprint(transfer.folder / "data"),
            "task": self.task.fingerprint,
            "student": dumped(self.recipe.student) | self._student_source(),
            "training": dumped(self.recipe.training),
            "data": {name: dumped(self.recipe.data)[name] for name in ("select", "temperature", "refresh", "weight")},
            "seed": self.recipe.seed,
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
        outputs, _ = self._teacher_outputs()
        figures: dict[str, Any] = {}
        for split, examples in (("validation", self.task.validation), ("test", self.task.test)):
            texts, labels = texts_of(examples), [example.label for example in examples]
            unknown = isinstance(outputs, GivenTeacher) and outputs.unknown(texts)
            known = not unknown and None not in labels
            figures[split] = score(self.metric, outputs.logits(texts), labels) if known else None
        folder = self.teacher()
        figures["parameters"] = parameter_count(folder) if folder else None
        return figures

    # -- parts of stages ---------------------------------------------------------------------------------------------

    def _fine_tune(self, folder: Path, model: str) -> dict[str, int]:
        options = self.recipe.teacher
        teacher = load_trunk(
            model, self.labels, self.recipe.training.max_length, options.seed, self.recipe.training.precision
        )
        training = TrainingOptions.model_validate(
            {
                "ce": {},
                "epochs": options.epochs,
                "learning_rate": options.learning_rate,
                "batch_size": options.batch_size,
                "max_length": self.recipe.training.max_length,
                "precision": self.recipe.training.precision,
                "checkpoints": self.recipe.training.checkpoints,
            }
        )
        rows = [original_row(e, np.zeros(len(self.labels) or 1), [], self.labels) for e in self.task.train]
        transfer = in_memory(rows, self.labels)
        settings = arguments(folder / "checkpoints", training, options.seed, self.metric)
        return self._train(teacher, settings, transfer, folder, "teacher")

    def _distill(self, folder: Path, transfer: TransferSet) -> dict[str, Any]:
        student = self._student()
        data = self.recipe.data
        settings = arguments(
            folder / "checkpoints",
            self.recipe.training,
            self.recipe.seed,
            self.metric,
            selector=data.select,
            selection_temperature=data.temperature,
            refresh=data.refresh,
            candidate_weight=data.weight,
        )
        rows = self._train(student, settings, transfer, folder, "student")
        test = self.task.test
        logits = student.predict(texts_of(test)).numpy()  # the one look at the test split
        labels = [example.label for example in test]
        known = all(label is not None for label in labels)
        return {
            "rows": rows,
            "parameters": student.parameters,
            "validation": self._validate(student),
            "test": score(self.metric, logits, labels) if known else None,
            "test_interval": interval(self.metric, logits, labels) if known else None,
        }

    def _train(
        self,
        model: Classifier,
        arguments: DistillationArguments,
        transfer: TransferSet,
        folder: Path,
        stage: str,
    ) -> dict[str, int]:
        def validation(classifier: Classifier) -> Mapping[str, float]:
            return {self.metric: self._validate(classifier)}

        dataset = DistillationDataset(model, transfer)
        trainer = DistillationTrainer(
            model, arguments, dataset, validation, progress=lambda done, total: self.progress(stage, done, total)
        )
        trainer.resume()
        model.save(folder)
        write_json(folder / "log.json", trainer.state.log_history)
        return dict(trainer.rows)

    def _validate(self, classifier: Classifier) -> float:
        examples = [example for example in self.task.validation if example.label is not None]
        if not examples:
            return self._agreement(classifier)
        return score(self.metric, classifier.predict(texts_of(examples)).numpy(), [e.label for e in examples])

    def _agreement(self, classifier: Classifier) -> float:
        """The metric against the teacher's own predictions, for a task without labels."""
        outputs, _ = self._teacher_outputs()
        texts = texts_of(self.task.validation)
        believed = outputs.logits(texts)
        target = believed[:, 0] if not self.labels else believed.argmax(axis=1)
        return score(self.metric, classifier.predict(texts).numpy(), list(target))

    def _student(self) -> Classifier:
        training, options = self.recipe.training, self.recipe.student
        if options.layers is not None:
            return from_layers(self._load_teacher(), options.layers)
        assert options.model is not None
        seed = self.recipe.seed
        return load_trunk(options.model, self.labels, training.max_length, seed, training.precision)

    def _load_teacher(self) -> Classifier:
        folder = self.teacher()
        assert folder is not None, "recipe.py refuses student.layers without a teacher model"
        training, given = self.recipe.training, self.recipe.teacher.labels
        return load_classifier(str(folder), self.labels, training.max_length, given, training.precision)

    def _student_source(self) -> Made:
        if self.recipe.student.model is not None:
            return {"model": model_fingerprint(locate(self.recipe.student.model))}
        folder = self.teacher()
        assert folder is not None
        return {"teacher": model_fingerprint(folder)}

    def _teacher_outputs(self) -> tuple[TeacherOutputs, str]:
        """The teacher as a source of logits, and its fingerprint."""
        options, training = self.recipe.teacher, self.recipe.training
        if options.logits is not None:
            path = Path(options.logits)
            given = GivenTeacher(path, options.column, self.labels, options.labels, options.missing == "drop")
            return given, fingerprint([file_fingerprint(path), dumped(options) | {"logits": None}])
        folder = self.teacher()
        assert folder is not None
        weights = fingerprint([model_fingerprint(folder), self.labels, options.labels, training.precision])
        cached = CachedTeacher(
            self._load_teacher,
            len(self.labels) or 1,
            self._folder("teacher_logits", "all"),
            weights,
            training.max_length,
        )
        return cached, weights

    def _candidate_options(self) -> Made:
        data = self.recipe.data
        neighbours = dumped(data.neighbours) | {"index": None} if data.neighbours else None
        samples = data.augmented_samples
        return {"neighbours": neighbours, "augmented_samples": file_fingerprint(Path(samples)) if samples else None}

    def _folder(self, stage: str, identity: str) -> Path:
        if self.shared is None:
            return self.out / stage
        return self.shared / f"{stage}-{identity[:12]}"

    def _summary(self, student: Made, teacher: Made, transfer: Made) -> dict[str, Any]:
        ((selector, given),) = self.recipe.data.select.items()
        candidates = transfer["data"]["candidates"]
        each = candidates / max(1, transfer["data"]["originals"])
        data = {name: transfer["data"][name] for name in list(transfer["data"]) if name != "short"}
        data["kept_per_original"] = min(given.get("keep", each), each) if candidates else 0
        rows = student["rows"]
        seconds = {"index": self._index_seconds, "transfer_set": transfer["seconds"], "student": student["seconds"]}
        folder = self.teacher()
        if folder and self.recipe.teacher.epochs > 0:
            seconds["teacher"] = read_manifest(folder, "teacher")["seconds"]
        return {
            "task": self.task.name,
            "metric": self.metric,
            "seed": self.recipe.seed,
            "recipe": self.name,
            "teacher": teacher,
            "student": {name: student[name] for name in ("validation", "test", "test_interval", "parameters")},
            "data": data | {"selector": selector},
            "cost": {
                "teacher_rows": transfer["teacher_rows"],
                "scoring_rows": rows.get("scoring", 0),
                "training_rows": rows.get("training", 0),
                "seconds": seconds,
                "peak_rss_bytes": peak_rss(),
            },
            "versions": versions(),
        }


# -- pieces without a run ----------------------------------------------------------------------------------------------


def read_task(recipe: Recipe) -> Task:
    """The recipe's task."""
    return load_task(**dumped(recipe.task))


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


def parameter_count(folder: Path) -> int:
    """Parameters in a model folder's safetensors files, read from their headers."""
    from safetensors import safe_open

    total = 0
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="numpy") as store:
            total += sum(int(np.prod(store.get_slice(name).get_shape())) for name in store.keys())  # noqa: SIM118
    return total


def peak_rss() -> int:
    """Largest resident size of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
