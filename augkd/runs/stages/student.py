"""How a student is made: built, trained through its stages, evaluated.

The folder is a `save_pretrained` one with the training log and the student's outputs on the evaluation texts, so that
comparisons and reports need neither model nor data.
"""

from __future__ import annotations

import dataclasses
import math
import resource
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from augkd.candidates.generator.generator import Generator
from augkd.data.task import Example, texts_of
from augkd.data.transfer_set import TransferSet
from augkd.distill.adversary.ascent import Adversary, Ascent
from augkd.distill.arguments import DistillationArguments, arguments
from augkd.distill.dataset import DistillationDataset
from augkd.distill.ensemble import Ensemble
from augkd.distill.stages import Trained, train_stages
from augkd.distill.teacher.layers import LayerTeacher
from augkd.distill.teacher.outputs import TeacherOutputs
from augkd.evaluation.judge import Judge
from augkd.models.classifier import Classifier, load_backbone, load_classifier
from augkd.models.layers import from_layers
from augkd.models.locate import locate, model_fingerprint
from augkd.models.masked_lm import check_same_vocabulary
from augkd.models.student_kinds import build_student
from augkd.recipe import dump
from augkd.recipe.units import format_bytes
from augkd.runs.context import RunContext
from augkd.runs.stages.masked_lm import MaskedLMStage
from augkd.runs.stages.teacher import Teacher, Tutor
from augkd.workspace.files import replacing, write_json
from augkd.workspace.fingerprints import file_fingerprint
from augkd.workspace.folders import begin, end
from augkd.workspace.manifests import finished, read_manifest

# Padded tokens per forward pass of a static student. Each pass fills a dense gradient of all token vectors, which
# is its main cost: 60 steps of 750 docstrings at width 384 took 34 s in passes of 1,024 tokens and 14 s in these.
_STATIC_TOKEN_BUDGET = 32_768


@dataclass(frozen=True)
class StudentStage:
    """One student of a recipe."""

    context: RunContext
    teacher: Teacher
    tutor: Tutor  # the teacher, or the last assistant
    assistants: Sequence[Tutor]  # trained before it, for the ensemble
    masked_lms: MaskedLMStage

    @property
    def folder(self) -> Path:
        """Where the student goes."""
        return self.context.folders.out / "student"

    def make(self, transfer: TransferSet) -> dict[str, Any]:
        """Trains the student unless it is there already; returns its manifest, with its scores."""
        folder = self.folder
        made_from = {"transfer_set": file_fingerprint(transfer.folder / "data")} | self._identity()
        if not finished(folder, "student", made_from):
            started = time.perf_counter()
            begin(folder, "student", made_from)
            facts = self._train(transfer)
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
            facts |= {"seconds": time.perf_counter() - started, "peak_rss_bytes": peak_rss()}
            end(folder, "student", made_from, recipe=dump(self.context.recipe), **facts)
        return read_manifest(folder, "student")

    def load(self) -> Classifier:
        """The finished student."""
        training = self.context.recipe.training
        labels = self.context.target.labels
        return load_classifier(str(self.folder), labels, training.max_length, None, training.precision)

    def _identity(self) -> dict[str, Any]:
        """What decides the student besides the transfer set."""
        recipe = self.context.recipe
        data = dump(recipe.data)
        generator = data["generator"]
        if recipe.data.generator is not None:
            model = model_fingerprint(self.masked_lms.folder(recipe.data.generator))
            generator |= {"model": model, "adapt": None}
        return {
            "task": self.context.task.fingerprint,
            "student": dump(recipe.student) | self._source(),
            "training": dump(recipe.training),
            "structure": recipe.structure and dump(recipe.structure),
            "data": {name: data[name] for name in ("select", "temperature", "refresh", "weight")},
            "generator": generator,
            "seed": recipe.seed,
            "ensemble": recipe.ensemble,
        }

    def _source(self) -> dict[str, Any]:
        if self.context.recipe.student.model is not None:
            return {"model": model_fingerprint(locate(self.context.recipe.student.model))}
        assert self.teacher.folder is not None
        return {"teacher": model_fingerprint(self.teacher.folder)}

    # -- training ----------------------------------------------------------------------------------------------------

    def _train(self, transfer: TransferSet) -> dict[str, Any]:
        """Trains it into its folder, continuing where a kill left off; returns its scores and the rows it cost."""
        context, student = self.context, self._untrained()
        adversary = self._adversary(student)
        judge = Judge(context.task, context.metric, context.target, self._tutor_logits)
        trained = train_stages(
            student,
            self._arguments(),
            DistillationDataset(student, transfer),
            lambda classifier: {context.metric: judge.validation(classifier)},
            partial(context.progress, "student"),
            partial(self._layers, transfer),
            adversary,
        )
        self._save(student, trained, adversary)
        facts = {"rows": trained.rows, "parameters": student.parameters, "validation": judge.validation(student)}
        facts |= judge.test(student)  # after every choice is made
        if context.recipe.ensemble:
            ensemble = Ensemble([*(assistant.model for assistant in self.assistants), student])
            facts["ensemble"] = {"validation": judge.validation(ensemble), **judge.test(ensemble)}
        return facts

    def _untrained(self) -> Classifier:
        recipe, labels = self.context.recipe, self.context.target.labels
        training, options = recipe.training, recipe.student
        if options.model is not None:
            return load_backbone(options.model, labels, training.max_length, recipe.seed, training.precision)
        if options.layers is not None:
            student = from_layers(self.teacher.model, options.layers)
        else:
            pairs = any(example.text_pair is not None for example in self.context.task.train)
            settings = dump(options)[options.kind]
            student = build_student(options.kind, settings, self.teacher.model, recipe.seed, pairs)
        student.model.requires_grad_(True)  # a copy of a teacher that is frozen by now would not learn
        return student

    def _arguments(self) -> list[DistillationArguments]:
        """The arguments of each stage of training."""
        recipe, data = self.context.recipe, self.context.recipe.data
        return [
            arguments(
                self.folder / "checkpoints" / f"stage-{number}",
                stage,
                recipe.seed,
                self.context.metric,
                selector=data.select,
                selection_temperature=data.temperature,
                refresh=data.refresh,
                candidate_weight=data.weight,
                planned_epochs=sum(math.ceil(phase.epochs) for phase in recipe.training_stages),
                generator_batch_size=data.generator.batch_size if data.generator else 1,
                token_budget=_STATIC_TOKEN_BUDGET if recipe.student.static else None,
            )
            for number, stage in enumerate(recipe.training_stages, 1)
        ]

    def _layers(self, transfer: TransferSet, stage: int, student: Classifier) -> LayerTeacher | None:
        """What the student's layers are compared with in a stage: the layers of its tutor."""
        structure, progress = self.context.recipe.training_stages[stage - 1].structure, self.context.progress
        if structure is None or not structure.losses:
            return None
        return LayerTeacher.of(
            structure.losses,
            structure.pooling,
            student,
            self.tutor.model,
            transfer,
            self.context.folders.of("teacher_layers", "all"),
            self.tutor.fingerprint,
            self.context.recipe.seed,
            lambda texts, size: progress(f"teacher layers ({format_bytes(size)})", 0, texts),
            partial(progress, "teacher layers"),
        )

    def _adversary(self, student: Classifier) -> Adversary | None:
        """The generator with its masked LM, and the live teacher it needs."""
        options = self.context.recipe.data.generator
        if options is None:
            return None
        lm, teacher = self.masked_lms.load(self.masked_lms.folder(options)), self.tutor.model
        check_same_vocabulary(lm.tokenizer, teacher=teacher.tokenizer, student=student.tokenizer)
        fields = {field.name: getattr(options, field.name) for field in dataclasses.fields(Ascent)}
        generator = Generator(lm, options.mask, options.temperature)
        seed = self.context.recipe.seed
        return Adversary(generator, teacher, Ascent(**fields), samples=options.samples, seed=seed)

    def _tutor_logits(self, texts: Any) -> NDArray[np.float32]:
        return self.tutor.outputs.logits(texts)

    # -- what it leaves ----------------------------------------------------------------------------------------------

    def _save(self, student: Classifier, trained: Trained, adversary: Adversary | None) -> None:
        student.save(self.folder)
        if adversary is not None:
            adversary.generator.lm.save(self.folder.parent / "generator")
        write_json(self.folder / "log.json", trained.log)
        if trained.trace is not None:
            trained.trace.write(self.folder / "trace.safetensors")
        with replacing(self.folder / "predictions.safetensors") as temporary:
            save_file(self._predictions(student), temporary)

    def _predictions(self, student: Classifier) -> dict[str, Tensor]:
        """Logits of student and teacher on validation and test with the labels, in the task's order."""
        task, target = self.context.task, self.context.target
        predictions: dict[str, Tensor] = {}
        for split, examples in (("validation", task.validation), ("test", task.test)):
            teacher = known_logits(self.teacher.outputs, examples, target.outputs)
            predictions[split] = student.predict(texts_of(examples)).contiguous()
            predictions[f"{split}_labels"] = torch.from_numpy(target.encode([e.label for e in examples]))
            predictions[f"teacher_{split}"] = torch.from_numpy(teacher)
        return predictions


def known_logits(outputs: TeacherOutputs, examples: Sequence[Example], width: int) -> NDArray[np.float32]:  # (n, width)
    """The teacher's logits of evaluation texts; nan in all of them where it does not know some."""
    texts = texts_of(examples)
    if not outputs.has(texts):
        return np.full((len(texts), width), np.nan, dtype=np.float32)
    return outputs.logits(texts)


def peak_rss() -> int:
    """Largest resident size of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
