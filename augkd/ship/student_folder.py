"""What a finished run's folder tells those who ship its student: weights, task, length, teacher, index.

All of it comes from manifests, so that nothing is trained or built by asking; what is gone is said to be gone. A bare
`save_pretrained` folder has weights and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from augkd.data.task import Task, load_task
from augkd.errors import ModelError
from augkd.models.classifier import Classifier, load_classifier
from augkd.models.locate import locate, weight_files
from augkd.retrieval.manifest import read_index_manifest
from augkd.retrieval.texts import TextStore
from augkd.workspace.files import read_json
from augkd.workspace.fingerprints import file_fingerprint, fingerprint
from augkd.workspace.manifests import MANIFEST, read_manifest

_LONGEST = 512  # tokens, of a student whose run is not known and whose tokenizer names no limit


@dataclass(frozen=True)
class StudentFolder:
    """A student on disk; make one with `find_student`."""

    folder: Path  # save_pretrained
    run: Path | None  # the run's folder; None for a student that stands alone
    recipe: Mapping[str, Any] | None  # as its manifest holds it
    made_from: Mapping[str, Any]

    def task(self) -> Task | None:
        """The run's task, read again; None when the recipe is not known."""
        return load_task(**self.recipe["task"]) if self.recipe else None

    def load(self, task: Task | None, folder: Path | None = None, labels: tuple[str, ...] = ()) -> Classifier:
        """The student (or another classifier of the task, in `folder`) in float32 on the CPU, in eval mode."""
        folder = folder or self.folder
        labels = labels or (task.labels if task else ()) or output_names(folder)
        classifier = load_classifier(str(folder), labels, self.max_length, precision="float32")
        classifier.model.cpu().eval()
        return classifier

    @property
    def max_length(self) -> int:
        """Tokens that texts were cut to."""
        return int(self.recipe["training"]["max_length"]) if self.recipe else _LONGEST

    def teacher(self) -> Path | None:
        """The folder of the teacher's weights: the run's, one that a comparison shares, or a checkpoint as it was."""
        told = self.recipe["teacher"] if self.recipe else {}
        if not told.get("model"):
            return None
        if not told["epochs"]:
            return locate(told["model"])
        return next((folder for folder in self._siblings("teacher") if self._taught(folder, told)), None)

    def index(self) -> Path | None:
        """The folder of the run's index, there or gone; None for a run without one."""
        given = ((self.recipe or {}).get("data", {}).get("neighbours") or {}).get("index")
        if given is None or isinstance(given, str):
            return Path(given) if given else None
        found = [folder for folder in self._siblings("index") if read_manifest(folder, "index")["recipe"] == given]
        return found[0] if found else (self.run or self.folder) / "index"

    def _siblings(self, stage: str) -> list[Path]:
        """Finished folders of a stage: in the run, and in `shared` of the comparison that the run is part of."""
        if self.run is None:
            return []
        shared = sorted((self.run.parent.parent / "shared").glob(f"{stage}-*"))
        return [folder for folder in (self.run / stage, *shared) if (folder / MANIFEST).exists()]

    def _taught(self, folder: Path, told: Mapping[str, Any]) -> bool:
        assert self.recipe is not None
        made = read_manifest(folder, "teacher")["made_from"]
        training = self.recipe["training"]
        wanted = {"teacher": {**told, "model": None}, **{name: training[name] for name in ("max_length", "precision")}}
        return made["task"] == self.made_from["task"] and all(made[name] == value for name, value in wanted.items())


def find_student(given: Path) -> StudentFolder:
    """The student of a run's folder, or the student folder `given`. Raises ModelError when it is neither."""
    folder = next((path for path in (given / "student", given) if (path / "config.json").is_file()), None)
    if folder is None:
        raise ModelError(f"{given} holds no student; give a run's folder, or a folder that save_pretrained wrote")
    run = next((path for path in (given, folder.parent) if path != folder and _kind(path) == "run"), None)
    if _kind(folder) != "student":
        return StudentFolder(folder, None, None, {})
    manifest = read_manifest(folder, "student")
    return StudentFolder(folder, run or folder.parent, manifest["recipe"], manifest["made_from"])


def texts_of_index(folder: Path) -> Iterator[str]:
    """Every text of an index, without its vectors or its encoder being opened."""
    for part in TextStore.open(folder, read_index_manifest(folder).get("texts")).parts():
        yield from part


def weights_of(folder: Path) -> str:
    """A fingerprint of a model folder's weights alone."""
    return fingerprint([file_fingerprint(path) for path in weight_files(folder)])


def output_names(folder: Path) -> tuple[str, ...]:
    """What a classifier calls its outputs, in their order; () for a regressor."""
    from transformers import AutoConfig

    from augkd.models.small_students import registered  # noqa: F401  (so that a BiLSTM's configuration is known)

    names = AutoConfig.from_pretrained(folder).id2label
    return tuple(names[place] for place in range(len(names))) if len(names) > 1 else ()


def _kind(folder: Path) -> str | None:
    path = folder / MANIFEST
    return read_json(path).get("kind") if path.is_file() else None
