"""A student on disk with what its run's manifests say of it: task, maximum length, teacher, index.

Everything is read from manifests, so that shipping a student never trains or builds anything. A bare `save_pretrained`
folder has no manifest: its task, teacher and index are unknown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from augkd.data.target import Target
from augkd.data.task import Task
from augkd.errors import ModelError, short_repr
from augkd.models import small_students
from augkd.models.classifier import Classifier, load_classifier
from augkd.models.locate import locate, weight_files
from augkd.models.pretrained import load_config
from augkd.recipe import Recipe
from augkd.recipe.files import validate
from augkd.retrieval.manifest import check_index, read_index_manifest
from augkd.retrieval.texts import TextStore
from augkd.runs.task import read_task
from augkd.workspace.fingerprints import file_fingerprint, fingerprint
from augkd.workspace.manifest_kinds import StudentManifest
from augkd.workspace.manifests import MANIFEST, kind_of, read_manifest
from augkd.workspace.run_folder import RunFolder

_DEFAULT_MAX_LENGTH = 512  # tokens, for a student whose run is unknown


@dataclass(frozen=True)
class StudentFolder:
    """A student on disk; make one with `find_student`."""

    folder: Path  # a save_pretrained folder
    run: Path | None  # None for a student without a run
    recipe: Mapping[str, Any] | None  # as recorded in the student's manifest
    stages: RunFolder | None  # where the run's other stages lie; None when it is not finished

    def task(self) -> Task | None:
        """The run's task, read again; None when the recipe is unknown."""
        return read_task(validate(Recipe, dict(self.recipe), self.folder / MANIFEST)) if self.recipe else None

    def target(self, task: Task | None, folder: Path | None = None) -> Target:
        """What the student, or the task's classifier in `folder`, predicts, with its own thresholds."""
        saved = target_of(folder or self.folder)
        if task is None or not task.labels:
            return saved
        chosen = dict(zip(saved.labels, saved.thresholds, strict=False))
        return replace(task.target, thresholds=tuple(chosen.get(name, 0.5) for name in task.labels) if chosen else ())

    def load(self, task: Task | None, folder: Path | None = None, target: Target | None = None) -> Classifier:
        """The student, or the task's classifier in `folder`, in float32 on the CPU, in eval mode."""
        folder = folder or self.folder
        target = target or (task.target if task and task.labels else target_of(folder))
        classifier = load_classifier(str(folder), target, self.max_length, precision="float32")
        classifier.model.cpu().eval()
        return classifier

    @property
    def max_length(self) -> int:
        """Tokens that texts are truncated to."""
        return int(self._recorded("training", "max_length", int)) if self.recipe else _DEFAULT_MAX_LENGTH

    def teacher(self) -> Path | None:
        """The folder of the teacher: the one fine-tuned for the run, or a checkpoint that was used as it is.

        None for a teacher without a model, and where the run or its folder is gone.
        """
        model = self._recorded("teacher", "model", (str, type(None))) if self.recipe else None
        if not model:
            return None
        if not self._recorded("teacher", "epochs", (int, float)):
            return locate(model)
        return self.stages.stage("teacher") if self.stages else None

    def _recorded(self, table: str, key: str, kind: type | tuple[type, ...]) -> Any:
        """An option of the recipe. Raises ModelError where the manifest has another kind of value."""
        options = (self.recipe or {}).get(table)
        if not isinstance(options, Mapping) or not isinstance(options.get(key), kind):
            place, found = self.folder / MANIFEST, short_repr(options)
            raise ModelError(f"{place}: recipe.{table} is {found}, without a usable {key}; train the student again")
        return options[key]

    def index(self) -> Path | None:
        """The folder of the run's index, which may no longer exist; None for a run without one."""
        return self.stages.recorded("index") if self.stages else None


def find_student(folder: Path) -> StudentFolder:
    """The student in a run's folder or in its own. Raises ModelError when there is none."""
    place = next((path for path in (folder / "student", folder) if (path / "config.json").is_file()), None)
    if place is None:
        raise ModelError(f"{folder} holds no student; give a run's folder, or a folder that save_pretrained wrote")
    if kind_of(place) != "student":
        return StudentFolder(place, None, None, None)
    stages = RunFolder.open(place.parent) if kind_of(place.parent) == "run" else None
    return StudentFolder(place, place.parent, read_manifest(place, StudentManifest).recipe, stages)


def index_texts(folder: Path) -> Iterator[str]:
    """Every text of an index, without opening its vectors or its encoder."""
    manifest = read_index_manifest(folder)
    check_index(folder, manifest, [f"texts/{name}" for name in manifest.texts])
    for part in TextStore.open(folder, manifest.texts).parts():
        yield from part


def weights_fingerprint(folder: Path) -> str:
    """A fingerprint of a model folder's weights alone: the same weights with another tokenizer give the same one."""
    return fingerprint([file_fingerprint(path) for path in weight_files(folder)])


def target_of(folder: Path) -> Target:
    """What a saved classifier predicts, its labels in the order of its outputs."""
    small_students.register_models()  # so that AutoConfig knows the BiLSTM's configuration
    return Target.of_config(load_config(folder, str(folder)).to_dict())
