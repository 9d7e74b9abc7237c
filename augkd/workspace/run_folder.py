"""Where each stage of a finished run lies: recorded in the run's manifest, read here, known nowhere else.

A stage is in the run's own folder, in the folder that a comparison's runs share, or wherever the user keeps a finished
index. Paths inside a comparison are stored relative to the run, so that the whole can be moved.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from augkd.errors import WorkspaceError
from augkd.workspace.manifest_kinds import RunManifest
from augkd.workspace.manifests import read_manifest
from augkd.workspace.names import path_name

COMPARISON = "compare.json"  # in the folder of a comparison
_OWN_NAMES = (COMPARISON, "compare.md", "report.html", "runs", "shared")  # what else that folder holds


@dataclass(frozen=True)
class RunFolder:
    """A finished run on disk; make one with `RunFolder.open`."""

    folder: Path
    manifest: RunManifest

    @classmethod
    def open(cls, folder: Path) -> RunFolder:
        """Raises WorkspaceError when `folder` is not a finished run, or is one of an older augkd."""
        manifest = read_manifest(folder, RunManifest)
        if manifest.stages is None:
            raise WorkspaceError(f"{folder} does not record where its stages lie; run the same command again")
        return cls(folder, manifest)

    @property
    def recipe(self) -> dict[str, Any]:
        """The resolved recipe."""
        return dict(self.manifest.recipe)

    def recorded(self, stage: str) -> Path | None:
        """Where a stage was left (`index`, `teacher`, `transfer_set`, `student`, …); None for a run without it."""
        path = (self.manifest.stages or {}).get(stage)
        return None if path is None else Path(os.path.normpath(self.folder.absolute() / path))

    def stage(self, stage: str) -> Path | None:
        """The folder of a stage that is still there; None for a run without it, or when it was removed."""
        path = self.recorded(stage)
        return path if path is not None and path.is_dir() else None

    @property
    def comparison(self) -> Path | None:
        """The folder of the comparison that the run is part of."""
        above = self.folder.absolute().parent.parent
        return above if self.folder.absolute().parent.name == "runs" and (above / COMPARISON).exists() else None


def recorded_stages(folder: Path) -> list[Path]:
    """Where the stages of a run were left; none for another folder, and for one that cannot be read."""
    try:
        run = RunFolder.open(folder)
    except WorkspaceError:
        return []
    return [path for name in run.manifest.stages or {} if (path := run.recorded(name)) is not None]


def relative_stages(folder: Path, stages: Mapping[str, Path]) -> dict[str, str]:
    """What a run's manifest records: relative paths for stages of the run and of its comparison, else absolute ones."""
    home = folder.absolute()
    near = {home, home.parent.parent}  # the run; a comparison has its runs in OUT/runs/NAME
    return {
        name: os.path.relpath(path.absolute(), home)
        if any(path.absolute().is_relative_to(place) for place in near)
        else str(path.absolute())
        for name, path in stages.items()
    }


def task_folder(out: Path, task: str) -> Path:
    """Where a comparison over several tasks keeps one of them; raises WorkspaceError for a name that is no folder's."""
    return out / path_name(task, "the name of a task (task.name, or its labels.json)", reserved=_OWN_NAMES)


def run_folder(out: Path, recipe: str, seed: int) -> Path:
    """Where a comparison in `out` keeps one run; raises WorkspaceError for a name that is no folder's."""
    return out / "runs" / path_name(f"{recipe}-s{seed}", "the name of a run")
