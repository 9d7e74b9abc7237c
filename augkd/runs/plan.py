"""What a recipe would do, said without doing it: stages, sizes, what is already there.

Imports no torch, writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from augkd.data.corpus import CorpusSource
from augkd.data.task import Task, load_task
from augkd.errors import DataError
from augkd.models.locate import locate
from augkd.recipe import Comparison, NeighbourOptions, Recipe, StudentOptions, TeacherOptions, dumped
from augkd.recipe.units import show_seconds
from augkd.workspace.manifests import MANIFEST, read_manifest


def plan(recipe: Recipe, out: Path | None = None) -> Iterator[str]:
    """Lines that describe each stage; raises what the run itself would raise at its start."""
    task = load_task(**dumped(recipe.task))
    if task.regression:
        recipe.check_regression()
    kind = "regression" if not task.labels else f"{len(task.labels)} classes: {', '.join(task.labels)}"
    sizes = f"{len(task.train)} train, {len(task.validation)} validation, {len(task.test)} test"
    yield f"task          {task.name}: {sizes}"
    yield f"              {kind}; metric {task.metric}"
    yield from (f"              note: {note}" for note in task.notes)
    if recipe.data.neighbours:
        yield from _index_lines(recipe.data.neighbours, out)
    yield from _generator_lines(recipe)
    yield from _teacher_lines(recipe, task, out)
    candidates = _candidates(recipe, task)
    yield f"transfer set  {len(task.train)} originals, {candidates} candidates at most{_state(out, 'transfer_set')}"
    yield from _student_lines(recipe, task, out)


def _index_lines(options: NeighbourOptions, out: Path | None) -> Iterator[str]:
    if isinstance(options.index, str):
        manifest = read_manifest(Path(options.index), "index")
        yield f"index         {options.index}: {manifest['count']} texts, {manifest.get('factory', 'BM25')} (built)"
        return
    source = CorpusSource(**dumped(options.index.corpus))
    size = source.known_size()
    count = f"{size} texts" if size is not None else "size unknown until read"
    encoder = options.index.encoder
    how = "BM25" if encoder.kind == "lexical" else f"{encoder.kind} vectors, {options.index.faiss.factory}"
    yield f"index         {source.dataset}: {count}, {how}{_state(out, 'index')}"


def _teacher_lines(recipe: Recipe, task: Task, out: Path | None) -> Iterator[str]:
    teacher = recipe.teacher
    for member in teacher.ensemble or [teacher]:
        yield f"teacher       {_teacher(member)}{_state(out, 'teacher') if member.epochs else ''}"
    if teacher.ensemble:
        yield f"              {len(teacher.ensemble)} teachers, their {teacher.average} averaged"
    if teacher.logits is None:
        evaluated = len(task.validation) + len(task.test)
        rows = len(task.train) + _candidates(recipe, task) + evaluated
        yield f"              at most {rows} texts through it, each distinct one once"


def _teacher(options: TeacherOptions) -> str:
    if options.logits is not None:
        if not Path(options.logits).exists():
            raise DataError(f"teacher.logits {options.logits} does not exist; give a Parquet file or a folder of them")
        return f"numbers from {options.logits}, column {options.column}"
    if str(options.model).startswith(("/", ".", "~")):
        locate(str(options.model))
    cut = "" if options.layers is None else f", layers {_told(options.layers)}"
    return f"{options.model}{cut}, " + (f"fine-tuned for {options.epochs:g} epochs" if options.epochs else "as it is")


def _student_lines(recipe: Recipe, task: Task, out: Path | None) -> Iterator[str]:
    for number, assistant in enumerate(recipe.assistants, 1):
        yield f"assistant {number}   {_student(assistant)}{_state(out, f'assistants/{number}/student')}"
    epochs = " + ".join(f"{stage.epochs:g}" for stage in recipe.phases) + " epochs"
    if recipe.training.budget is not None:
        epochs = f"{show_seconds(recipe.training.budget)} of training"
    state = _state(out, "student")
    yield f"student       {_student(recipe.student)}; {epochs} on {len(task.train)} originals{state}"
    for number, stage in enumerate(recipe.phases, 1):
        name = f"stage {number} losses" if len(recipe.phases) > 1 else "losses"
        members = [*stage.losses.items(), *(stage.structure.losses if stage.structure else {}).items()]
        told = ", ".join(f"{loss} × {_told(given.get('weight', 1.0))}" for loss, given in members)
        yield f"              {name}: {told}{'; freelb' if stage.freelb else ''}; seed {recipe.seed}"
    if recipe.data.augmented:
        ((selector, given),) = recipe.data.select.items()
        told = ", ".join(f"{key} {value}" for key, value in given.items())
        rest = f"refresh {recipe.data.refresh}, weight {recipe.data.weight:g}"
        yield f"              candidates: {' '.join((selector, told)).strip()}, {rest}"


def _student(options: StudentOptions) -> str:
    if options.layers is not None:
        return f"layers {_told(options.layers)} of the teacher"
    if options.model is not None:
        return options.model
    told = ", ".join(f"{key} {value}" for key, value in dumped(options)[options.kind].items())
    return f"{options.kind} ({told})"


def _told(value: Any) -> str:
    """A value of a recipe, a table of one key as `key value`."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_told(inner)}" for key, inner in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)


def _candidates(recipe: Recipe, task: Task) -> int:
    data = recipe.data
    found = data.neighbours.k if data.neighbours else 0
    written = (data.generated.samples if data.generated else 0) + (data.substitution.n if data.substitution else 0)
    return len(task.train) * (found + written)


def _generator_lines(recipe: Recipe) -> Iterator[str]:
    data = recipe.data
    for name in ("generator", "generated", "substitution"):
        options = getattr(data, name)
        if options is None:
            continue
        if options.model.startswith(("/", ".", "~")):
            locate(options.model)
        adapt = getattr(options, "adapt", None)
        how = f", warmed up for {adapt.steps} steps of {adapt.batch_size} texts" if adapt else ""
        yield f"{name:14}{options.model}{how}"
    if data.generator:
        texts = f"{data.generator.samples} new text{'s' if data.generator.samples > 1 else ''} an original and step"
        yield f"              {texts}; climbs {data.generator.ascend} steps every {data.generator.every}"


def _state(out: Path | None, stage: str) -> str:
    if out is None:
        return ""
    if (out / stage / MANIFEST).exists():
        return f" ({out / stage} is there; reused if its inputs are unchanged)"
    return " (unfinished; will be continued)" if (out / stage / "building.json").exists() else " (to do)"


def plan_comparison(comparison: Comparison, recipes: Mapping[str, Recipe], out: Path | None = None) -> Iterator[str]:
    """Lines for each task of a comparison, with the students that each recipe trains."""
    yield f"comparison    {len(comparison.tasks)} tasks × {len(recipes)} recipes × {comparison.seeds} seeds"
    for options in comparison.tasks:
        task = load_task(**dumped(options))
        sizes = f"{len(task.train)} train, {len(task.validation)} validation, {len(task.test)} test"
        yield f"task          {task.name}: {sizes}; metric {task.metric}"
        for name, recipe in recipes.items():
            if not task.labels and recipe.for_classes_only:
                yield f"  {name:20}left out: {', '.join(recipe.for_classes_only)} needs classes"
                continue
            here = recipe.model_copy(update={"task": options})
            folder = None if out is None else out / task.name / "runs" / f"{name}-s0"
            first, *rest = _student_lines(here, task, folder)
            yield f"  {name:20}{first.removeprefix('student').strip()}"
            yield from (f"  {'':20}{line.strip()}" for line in rest)
