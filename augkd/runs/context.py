"""What all stages of a run share, and never change: recipe, task, target, folders, progress."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from augkd.data.given_transfer_set import locate_transfer_set
from augkd.data.target import Target
from augkd.data.task import Example, Task
from augkd.errors import TrainingError
from augkd.models.cluster import Cluster
from augkd.recipe import Recipe
from augkd.workspace.progress import Progress, prefixed, silent


@dataclass(frozen=True)
class StageFolders:
    """Which folder each stage goes to."""

    out: Path  # of the run
    shared: Path | None = None  # of a comparison: for stages that do not depend on the seed
    whole: Path | None = None  # of an assistant: the folder of the run it belongs to

    def of(self, stage: str, identity: str) -> Path:
        """Where a stage with the fingerprint `identity` lies: runs that share a folder share what is equal."""
        if self.shared is not None:
            return self.shared / f"{stage}-{identity[:12]}"
        if self.whole is None or stage == "transfer_set":
            return self.out / stage
        return self.whole / stage  # an assistant's teacher and index are those of the whole run


@dataclass(frozen=True)
class RunContext:
    """One run; its stages take this and the results of earlier stages."""

    recipe: Recipe
    task: Task
    student_task: Task  # the same, with the labelled training texts that the student sees
    target: Target  # the task's; the teacher's where no text has a label
    metric: str
    folders: StageFolders
    progress: Progress = silent
    name: str = field(default="recipe")
    cluster: Cluster | None = None  # whose workers encode, search and label; None: this machine does

    @property
    def originals(self) -> tuple[Example, ...]:
        """The training examples that the student sees: all, or as many labelled ones as the recipe allows."""
        return self.student_task.train

    @cached_property
    def given_transfer_set(self) -> Path | None:
        """The folder of the transfer set that the recipe names; found once, so that all of a run sees one state."""
        name = self.recipe.data.transfer_set
        return None if name is None else locate_transfer_set(name, self.progress)

    def assistant(self, number: int) -> RunContext:
        """The context of an assistant, counted from 1: the same data, another student."""
        recipe = self.recipe.for_assistant(number)
        assistants = self.folders.out / "assistants"
        return replace(
            self,
            recipe=recipe,
            folders=StageFolders(assistants / str(number), self.folders.shared, self.folders.out),
            progress=prefixed(self.progress, f"assistant {number}: "),
            name=f"assistant {number}",
        )


@contextmanager
def named_if_it_diverges(stage: str) -> Iterator[None]:
    """Names the stage in the message of a training that diverged."""
    try:
        yield
    except TrainingError as exc:
        raise TrainingError(f"{stage}: {exc}") from exc
