"""results.json: what a run's student scores, and what it cost; written once for a finished run.

Rows are counted where a model is forwarded; here they are only added up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from augkd.evaluation.results import (
    AssistantResults,
    Cost,
    DataCounts,
    LabelRounds,
    RunResults,
    StudentResults,
    TeacherResults,
)
from augkd.recipe import DataOptions
from augkd.runs.context import RunContext
from augkd.workspace.checksums import table_of
from augkd.workspace.files import read_json, write_json
from augkd.workspace.manifest_kinds import StudentManifest, TransferSetManifest
from augkd.workspace.manifests import MANIFEST, finished, read_kind, versions, write_manifest

RESULTS = "results.json"
_STUDENT = ("validation", "test", "test_interval", "parameters", "ensemble")
_ASSISTANT = ("validation", "test", "parameters", "rows", "seconds")


@dataclass(frozen=True)
class RunRecord:
    """What a run's folder says about it: results.json, and the manifest that vouches for it."""

    out: Path
    student: StudentManifest
    recipe: dict[str, Any]
    stages: dict[str, str]  # where each stage lies

    def read(self) -> RunResults | None:
        """The results of exactly this run, by the same versions of the libraries; None where there are none.

        Raises WorkspaceError, which names the file, when they are damaged.
        """
        if not finished(self.out, "run", self._made_from):
            return None
        written = read_kind(self.out, "run")
        facts = {**self._facts, "versions": versions()}
        same = all(written.get(name) == value for name, value in facts.items())
        return cast(RunResults, read_json(self.out / RESULTS)) if same else None

    def write(self, results: RunResults) -> None:
        """Writes results.json, then the manifest; an older one goes first, since it vouches for other results."""
        (self.out / MANIFEST).unlink(missing_ok=True)
        write_json(self.out / RESULTS, results)
        write_manifest(self.out, "run", self._made_from, files=table_of(self.out, [RESULTS]), **self._facts)

    @property
    def _made_from(self) -> dict[str, Any]:
        return {"student": self.student.made_from.on_disk()}

    @property
    def _facts(self) -> dict[str, Any]:
        return {"recipe": self.recipe, "seed": self.recipe["seed"], "stages": self.stages}


def run_results(
    context: RunContext,
    student: StudentManifest,
    teacher: TeacherResults,
    transfer: TransferSetManifest,
    assistants: Sequence[StudentManifest],
    seconds: Mapping[str, float],  # by stage
) -> RunResults:
    """The content of results.json."""
    recipe = context.recipe
    results: RunResults = {
        "task": context.task.name,
        "metric": context.metric,
        "seed": recipe.seed,
        "recipe": context.name,
        "teacher": teacher,
        "student": _chosen(student, _STUDENT, StudentResults),
        "data": _data(recipe.data, transfer.data.on_disk()),
        "cost": _cost(student, transfer, assistants, seconds),
        "versions": versions(),
    }
    if transfer.label_rounds is not None:
        results["label_rounds"] = cast(LabelRounds, transfer.label_rounds)
    if transfer.asked is not None:
        results["asked"] = transfer.asked
    if assistants:
        results["assistants"] = [_chosen(assistant, _ASSISTANT, AssistantResults) for assistant in assistants]
    return results


def _chosen(manifest: StudentManifest, names: Sequence[str], kind: Any) -> Any:
    written = manifest.on_disk()
    return kind(**{name: written[name] for name in names if name in written})


def _cost(
    student: StudentManifest,
    transfer: TransferSetManifest,
    assistants: Sequence[StudentManifest],
    seconds: Mapping[str, float],
) -> Cost:
    rows: Counter[str] = Counter(student.rows)
    for assistant in assistants:
        rows.update(assistant.rows)
    if assistants:
        seconds = {**seconds, "assistants": sum(assistant.seconds for assistant in assistants)}
    return {
        "teacher_rows": transfer.teacher_rows + rows["teacher"],
        "generator_rows": transfer.generator_rows + rows["generator"],
        "scoring_rows": rows["scoring"],
        "training_rows": rows["training"],
        "seconds": dict(seconds),
        "peak_rss_bytes": student.peak_rss_bytes,
    }


def _data(options: DataOptions, counts: Mapping[str, Any]) -> DataCounts:
    """The transfer set's counts, what a generator adds at a step, and how many of both the selector keeps at most."""
    ((selector, selector_options),) = options.select.items()
    generated = options.generator.samples if options.generator else 0
    candidates = counts["candidates"] / max(1, counts["originals"]) + generated
    data: Any = {name: value for name, value in counts.items() if name != "short"}
    data["generated_per_original"] = generated
    data["kept_per_original"] = min(selector_options.get("keep", candidates), candidates)
    data["selector"] = selector
    return cast(DataCounts, data)
