"""How a student is made: built, trained through its stages, evaluated.

The folder is a `save_pretrained` one with the training log and the student's outputs on the evaluation texts, so that
comparisons and reports need neither model nor data.
"""

from __future__ import annotations

import resource
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from augkd.data.transfer_set import TransferSet
from augkd.distill.parallel import ranks
from augkd.distill.teacher.ray import TeacherFiles
from augkd.models.locate import locate, model_fingerprint
from augkd.recipe import dump
from augkd.runs.context import RunContext
from augkd.runs.stages.masked_lm import MaskedLMStage
from augkd.runs.stages.teacher import Teacher, Tutor
from augkd.workspace.fingerprints import file_fingerprint
from augkd.workspace.folders import begin, end
from augkd.workspace.manifest_kinds import StudentManifest
from augkd.workspace.manifests import finished, read_manifest

if TYPE_CHECKING:
    from augkd.models.classifier import Classifier


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

    def make(self, transfer: TransferSet) -> StudentManifest:
        """Trains the student unless it is there already; returns its manifest, with its scores.

        In several processes all train, and the first one writes.
        """
        folder = self.folder
        made_from = ranks().from_first(lambda: self._made_from(transfer))
        if not ranks().from_first(partial(finished, folder, "student", made_from)):
            from augkd.runs.stages.student_training import StudentTraining  # transformers takes seconds to import

            started = time.perf_counter()
            ranks().from_first(partial(begin, folder, "student", made_from))
            facts = StudentTraining(self, transfer).run()
            facts |= {"seconds": time.perf_counter() - started, "peak_rss_bytes": peak_rss()}
            ranks().from_first(partial(end, folder, "student", made_from, recipe=dump(self.context.recipe), **facts))
        # last: a kill here costs no training
        ranks().from_first(partial(shutil.rmtree, folder / "checkpoints", ignore_errors=True))
        return read_manifest(folder, StudentManifest)

    def _made_from(self, transfer: TransferSet) -> dict[str, Any]:
        """What decides the student; makes what it is read from, like the generator's model."""
        return {"transfer_set": file_fingerprint(transfer.folder / "data")} | self.identity

    def load(self) -> Classifier:
        """The finished student."""
        from augkd.models.classifier import load_classifier

        own = self.files
        return load_classifier(str(own.folder), own.target, own.max_length, None, own.precision)

    @property
    def files(self) -> TeacherFiles:
        """The finished student on disk, and how it is loaded."""
        training = self.context.recipe.training
        return TeacherFiles(self.folder, self.context.target, training.max_length, None, training.precision)

    @property
    def identity(self) -> dict[str, Any]:
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


def peak_rss() -> int:
    """Largest resident size of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
