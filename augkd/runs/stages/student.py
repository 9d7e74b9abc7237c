"""How a student is made: built, trained through its stages, judged.

The folder that comes out is a `save_pretrained` one with the training log and what the student says of the evaluation
texts, so that comparisons and reports need neither model nor data.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from augkd.candidates.generator.generator import Generator
from augkd.data.task import Example, Task, texts_of
from augkd.data.transfer_set import TransferSet
from augkd.distill.adversary.ascent import Adversary, Ascent
from augkd.distill.arguments import arguments
from augkd.distill.dataset import DistillationDataset
from augkd.distill.stages import Ensemble, train_stages
from augkd.distill.teacher.layers import LayerTeacher
from augkd.distill.teacher.outputs import TeacherOutputs, knows
from augkd.evaluation.judge import Judge
from augkd.models.classifier import Classifier, from_layers, load_backbone
from augkd.models.locate import locate, model_fingerprint
from augkd.models.masked_lm import check_same_vocabulary, load_masked_lm
from augkd.models.student_kinds import build_student
from augkd.recipe import Recipe, dumped
from augkd.recipe.units import show_bytes
from augkd.runs.stages.teacher import FolderOf, Teacher
from augkd.workspace.files import replacing, write_json
from augkd.workspace.progress import Progress


@dataclass(frozen=True)
class Student:
    """One student of a recipe. `tutor` is who teaches it, the recipe's teacher or the last assistant."""

    recipe: Recipe
    task: Task
    labels: tuple[str, ...]
    metric: str
    teacher: Teacher
    tutor: Callable[[], tuple[TeacherOutputs, str]]  # its logits, and the fingerprint of its weights
    tutor_model: Callable[[], Classifier]
    assistants: Callable[[], Sequence[Classifier]]  # trained ones, for the ensemble
    masked_lm: Callable[[], Path]  # of the generator, where the recipe has one
    folder_of: FolderOf
    progress: Progress

    def made_of(self) -> dict[str, Any]:
        """The recipe's part in a student: what changes it besides the transfer set."""
        data = dumped(self.recipe.data)
        generator = data["generator"]
        if generator is not None:
            generator |= {"model": model_fingerprint(self.masked_lm()), "adapt": None}
        return {
            "task": self.task.fingerprint,
            "student": dumped(self.recipe.student) | self._source(),
            "training": dumped(self.recipe.training),
            "structure": self.recipe.structure and dumped(self.recipe.structure),
            "data": {name: data[name] for name in ("select", "temperature", "refresh", "weight")},
            "generator": generator,
            "seed": self.recipe.seed,
            "ensemble": self.recipe.ensemble,
        }

    def train(self, folder: Path, transfer: TransferSet) -> dict[str, Any]:
        """Trains it into `folder`, continuing where a kill left off; returns its figures and the rows it cost."""
        student, data = self._untrained(), self.recipe.data
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
                planned_epochs=sum(math.ceil(one.epochs) for one in self.recipe.phases),
                generator_batch_size=data.generator.batch_size if data.generator else 1,
            )
            for number, stage in enumerate(self.recipe.phases, 1)
        ]
        adversary = self._adversary(student)
        judge = Judge(self.task, self.metric, not self.labels, lambda texts: self.tutor()[0].logits(texts))
        trained = train_stages(
            student,
            stages,
            DistillationDataset(student, transfer),
            lambda classifier: {self.metric: judge.validation(classifier)},
            lambda done, total: self.progress("student", done, total),
            partial(self._layers, transfer),
            adversary,
        )
        student.save(folder)
        if adversary is not None:
            adversary.generator.lm.save(folder.parent / "generator")
        write_json(folder / "log.json", trained.log)
        if trained.trace is not None:
            trained.trace.write(folder / "trace.safetensors")
        self._write_predictions(student, folder / "predictions.safetensors")
        facts = {"rows": trained.rows, "parameters": student.parameters, "validation": judge.validation(student)}
        facts |= judge.test(student)  # after every choice is made
        if self.recipe.ensemble:
            every = Ensemble([*self.assistants(), student])
            facts["ensemble"] = {"validation": judge.validation(every), **judge.test(every)}
        return facts

    @cached_property
    def _tutor_model(self) -> Classifier:
        return self.tutor_model()  # one for layers and generator, so that its rows are counted once

    def _untrained(self) -> Classifier:
        training, options, seed = self.recipe.training, self.recipe.student, self.recipe.seed
        if options.model is not None:
            return load_backbone(options.model, self.labels, training.max_length, seed, training.precision)
        if options.layers is not None:
            return from_layers(self.teacher.classifier(), options.layers)
        pairs = any(example.text_pair is not None for example in self.task.train)
        return build_student(options.kind, dumped(options)[options.kind], self.teacher.classifier(), seed, pairs)

    def _source(self) -> dict[str, Any]:
        if self.recipe.student.model is not None:
            return {"model": model_fingerprint(locate(self.recipe.student.model))}
        folder = self.teacher.folder()
        assert folder is not None
        return {"teacher": model_fingerprint(folder)}

    def _layers(self, transfer: TransferSet, stage: int, student: Classifier) -> LayerTeacher | None:
        """What the student's layers follow in a stage: the layers of whoever teaches it."""
        structure = self.recipe.phases[stage - 1].structure
        if structure is None or not structure.losses:
            return None
        return LayerTeacher.of(
            structure.losses,
            structure.pooling,
            student,
            self._tutor_model,
            transfer,
            self.folder_of("teacher_layers", "all"),
            self.tutor()[1],
            self.recipe.seed,
            lambda texts, size: self.progress(f"teacher layers ({show_bytes(size)})", 0, texts),
            lambda done, total: self.progress("teacher layers", done, total),
        )

    def _adversary(self, student: Classifier) -> Adversary | None:
        """The generator with its masked LM, and the live teacher it needs."""
        options = self.recipe.data.generator
        if options is None:
            return None
        lm, teacher = load_masked_lm(str(self.masked_lm()), self.recipe.training.precision), self._tutor_model
        check_same_vocabulary(lm.tokenizer, teacher=teacher.tokenizer, student=student.tokenizer)
        fields = {field.name: getattr(options, field.name) for field in dataclasses.fields(Ascent)}
        generator = Generator(lm, options.mask, options.temperature)
        return Adversary(generator, teacher, Ascent(**fields), samples=options.samples, seed=self.recipe.seed)

    def _write_predictions(self, student: Classifier, path: Path) -> None:
        """Logits of student and teacher on validation and test with the labels, in the task's order."""
        found: dict[str, Tensor] = {}
        outputs, _ = self.teacher.outputs()
        for split, examples in (("validation", self.task.validation), ("test", self.task.test)):
            found[split] = student.predict(texts_of(examples)).contiguous()
            found[f"{split}_labels"] = _labels(examples, self.labels)
            found[f"teacher_{split}"] = torch.from_numpy(believed(outputs, examples, len(self.labels) or 1))
        with replacing(path) as temporary:
            save_file(found, temporary)


def believed(outputs: TeacherOutputs, examples: Sequence[Example], width: int) -> NDArray[np.float32]:  # (n, width)
    """The teacher's logits of evaluation texts; nan in all of them where it does not know some."""
    texts = texts_of(examples)
    if not knows(outputs, texts):
        return np.full((len(texts), width), np.nan, dtype=np.float32)
    return outputs.logits(texts)


def _labels(examples: Sequence[Example], names: Sequence[str]) -> Tensor:  # (n,) -100 or nan: none
    labels = [example.label for example in examples]
    if names:
        return torch.tensor([-100 if label is None else int(label) for label in labels], dtype=torch.long)
    return torch.tensor([torch.nan if label is None else float(label) for label in labels], dtype=torch.float32)
