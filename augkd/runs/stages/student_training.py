"""Training of a student: built, trained through its stages, evaluated, saved with its outputs on the evaluation texts.

Imported when a student has to be trained and not before: `transformers` takes seconds to import, which a run whose
stages are finished does not need.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from augkd.candidates.generator.generator import Generator
from augkd.data.target import present
from augkd.data.task import texts_of
from augkd.data.transfer_set import TransferSet
from augkd.distill.adversary.ascent import Adversary, Ascent
from augkd.distill.arguments import DistillationArguments, arguments
from augkd.distill.dataset import DistillationDataset
from augkd.distill.ensemble import Ensemble
from augkd.distill.parallel import ranks
from augkd.distill.stages import Trained, train_stages
from augkd.distill.teacher.layers import LayerTeacher
from augkd.distill.teacher.outputs import known_logits
from augkd.evaluation.judge import Judge, Predictor, Remembered
from augkd.evaluation.thresholds import with_thresholds
from augkd.models.classifier import Classifier, load_backbone
from augkd.models.layers import from_layers
from augkd.models.locate import model_fingerprint
from augkd.models.masked_lm import check_same_vocabulary
from augkd.models.outputs import record_thresholds
from augkd.models.student_kinds import build_student
from augkd.recipe import dump
from augkd.runs.context import named_if_it_diverges
from augkd.runs.stages.teacher_pass import layers_title
from augkd.workspace.files import replacing, write_json
from augkd.workspace.manifests import MANIFEST, write_manifest

if TYPE_CHECKING:
    from augkd.runs.stages.student import StudentStage

# Padded tokens per forward pass of a static student. Each pass fills a dense gradient of all token vectors, which
# is its main cost: 60 steps of 750 docstrings at width 384 took 34 s in passes of 1,024 tokens and 14 s in these.
_STATIC_TOKEN_BUDGET = 32_768


class StudentTraining:
    """The training of one student from its transfer set."""

    def __init__(self, stage: StudentStage, transfer: TransferSet):
        self._stage, self._transfer = stage, transfer

    def run(self) -> dict[str, Any]:
        """Trains it into its folder, continuing where a kill left off; returns its scores and the rows it cost."""
        context, all_ranks = self._stage.context, ranks()
        student = all_ranks.first_before_others(self._untrained)
        adversary = all_ranks.first_before_others(partial(self._adversary, student))
        judge = Judge(context.task, context.metric, context.target, self._tutor_logits)
        with named_if_it_diverges("student"):
            trained = train_stages(
                student,
                self._arguments(),
                DistillationDataset(student, self._transfer),
                lambda classifier: {context.metric: judge.validation(classifier)},
                partial(context.progress, "student"),
                self._layers,
                adversary,
            )
        return all_ranks.from_first(partial(self._finish, student, trained, adversary, judge))

    def _finish(
        self, student: Classifier, trained: Trained, adversary: Adversary | None, judge: Judge
    ) -> dict[str, Any]:
        """Saves and evaluates the trained student; its scores and the rows it cost."""
        context, predictor = self._stage.context, Remembered(student)
        record_thresholds(student.model.config, judge.fitted(predictor))
        self._save(student, trained, adversary, self._predictions(predictor))
        facts = {"rows": trained.rows, "parameters": student.parameters, "validation": judge.validation(predictor)}
        facts |= judge.test(predictor)  # after every choice is made
        if context.recipe.ensemble:
            ensemble = Remembered(Ensemble([*(assistant.model for assistant in self._stage.assistants), student]))
            facts["ensemble"] = {"validation": judge.validation(ensemble), **judge.test(ensemble)}
        return facts

    def _untrained(self) -> Classifier:
        recipe, target = self._stage.context.recipe, self._stage.context.target
        training, options = recipe.training, recipe.student
        if options.model is not None:
            return load_backbone(options.model, target, training.max_length, recipe.seed, training.precision)
        if options.layers is not None:
            student = from_layers(self._stage.teacher.model, options.layers)
        else:
            pairs = any(example.text_pair is not None for example in self._stage.context.task.train)
            settings = dump(options)[options.kind]
            student = build_student(options.kind, settings, self._stage.teacher.model, recipe.seed, pairs)
        student.model.requires_grad_(True)  # a copy of a teacher that is frozen by now would not learn
        return student

    def _arguments(self) -> list[DistillationArguments]:
        """The arguments of each stage of training."""
        recipe, data = self._stage.context.recipe, self._stage.context.recipe.data
        return [
            arguments(
                self._stage.folder / "checkpoints" / f"stage-{number}",
                stage,
                recipe.seed,
                self._stage.context.metric,
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

    def _layers(self, stage: int, student: Classifier) -> LayerTeacher | None:
        """What the student's layers are compared with in a stage: the layers of its tutor."""
        context = self._stage.context
        structure, progress = context.recipe.training_stages[stage - 1].structure, context.progress
        if structure is None or not structure.losses:
            return None
        return LayerTeacher.of(
            structure.losses,
            structure.pooling,
            student,
            self._stage.tutor.model,
            self._transfer,
            context.folders.of("teacher_layers", "all"),
            self._stage.tutor.fingerprint,
            context.recipe.seed,
            lambda texts, size: progress(layers_title(size), 0, texts),
            partial(progress, "teacher layers"),
        )

    def _adversary(self, student: Classifier) -> Adversary | None:
        """The generator with its masked LM, and the live teacher it needs."""
        options = self._stage.context.recipe.data.generator
        if options is None:
            return None
        lm, teacher = self._stage.masked_lms.load(self._stage.masked_lms.folder(options)), self._stage.tutor.model
        check_same_vocabulary(lm.tokenizer, teacher=teacher.tokenizer, student=student.tokenizer)
        fields = {field.name: getattr(options, field.name) for field in dataclasses.fields(Ascent)}
        generator = Generator(lm, options.mask, options.temperature)
        seed = self._stage.context.recipe.seed
        return Adversary(generator, teacher, Ascent(**fields), samples=options.samples, seed=seed)

    def _tutor_logits(self, texts: Any) -> NDArray[np.float32]:
        return self._stage.tutor.outputs.logits(texts)

    # -- what it leaves ----------------------------------------------------------------------------------------------

    def _save(
        self, student: Classifier, trained: Trained, adversary: Adversary | None, predictions: dict[str, Tensor]
    ) -> None:
        student.save(self._stage.folder)
        if adversary is not None:
            generator = self._stage.folder.parent / "generator"
            (generator / MANIFEST).unlink(missing_ok=True)  # of an earlier training
            adversary.generator.lm.save(generator)
            write_manifest(generator, "generator", {"masked_lm": model_fingerprint(generator)})
        write_json(self._stage.folder / "log.json", trained.log)
        if trained.trace is not None:
            trained.trace.write(self._stage.folder / "trace.safetensors")
        with replacing(self._stage.folder / "predictions.safetensors") as temporary:
            save_file(predictions, temporary)

    def _predictions(self, student: Predictor) -> dict[str, Tensor]:
        """Logits of student and teacher on validation and test with the labels, in the task's order."""
        task, target = self._stage.context.task, self._stage.context.target
        predictions: dict[str, Tensor] = {}
        for split, examples in (("validation", task.validation), ("test", task.test)):
            teacher = known_logits(self._stage.teacher.outputs, texts_of(examples), target.outputs)
            predictions[split] = student.predict(texts_of(examples)).contiguous()
            predictions[f"{split}_labels"] = torch.from_numpy(target.encode([e.label for e in examples]))
            predictions[f"teacher_{split}"] = torch.from_numpy(teacher)
        return predictions | self._thresholds(predictions)

    def _thresholds(self, predictions: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Those of student and teacher, where texts have several labels; each chosen on the validation texts."""
        labels, metric = predictions["validation_labels"].numpy(), self._stage.context.metric
        labelled = present(labels)
        thresholds: dict[str, Tensor] = {}
        for name, split in (("thresholds", "validation"), ("teacher_thresholds", "teacher_validation")):
            logits = predictions[split].numpy()[labelled]
            if not np.isnan(logits).any():
                target = with_thresholds(self._stage.context.target, metric, logits, labels[labelled])
                thresholds |= {name: torch.tensor(target.thresholds, dtype=torch.float64)} if target.thresholds else {}
        return thresholds
