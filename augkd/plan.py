"""What a recipe would do, said without doing it: stages, sizes, what is already there.

Imports no torch, writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from augkd.checkpoints import locate
from augkd.data.corpus import CorpusSource
from augkd.data.task import Task, load_task
from augkd.errors import DataError
from augkd.recipe import NeighbourOptions, Recipe, dumped
from augkd.workspace import MANIFEST, read_manifest


def plan(recipe: Recipe, out: Path | None = None) -> Iterator[str]:
    """Lines that describe each stage; raises what the run itself would raise at its start."""
    task = load_task(**dumped(recipe.task))
    kind = "regression" if not task.labels else f"{len(task.labels)} classes: {', '.join(task.labels)}"
    sizes = f"{len(task.train)} train, {len(task.validation)} validation, {len(task.test)} test"
    yield f"task          {task.name}: {sizes}"
    yield f"              {kind}; metric {task.metric}"
    yield from (f"              note: {note}" for note in task.notes)
    if recipe.data.neighbours:
        yield from _index_lines(recipe.data.neighbours, out)
    yield from _teacher_lines(recipe, task, out)
    candidates = _candidates(recipe, task)
    yield f"transfer set  {len(task.train)} originals, {candidates} candidates at most{_state(out, 'transfer_set')}"
    yield from _student_lines(recipe, task, out)


def _index_lines(options: NeighbourOptions, out: Path | None) -> Iterator[str]:
    if isinstance(options.index, str):
        manifest = read_manifest(Path(options.index), "index")
        yield f"index         {options.index}: {manifest['count']} texts, {manifest['factory']} (built)"
        return
    source = CorpusSource(**dumped(options.index.corpus))
    size = source.known_size()
    count = f"{size} texts" if size is not None else "size unknown until read"
    yield f"index         {source.dataset}: {count}, {options.index.faiss.factory}{_state(out, 'index')}"


def _teacher_lines(recipe: Recipe, task: Task, out: Path | None) -> Iterator[str]:
    teacher = recipe.teacher
    if teacher.logits is not None:
        if not Path(teacher.logits).exists():
            raise DataError(f"teacher.logits {teacher.logits} does not exist; give a Parquet file or a folder of them")
        yield f"teacher       numbers from {teacher.logits}, column {teacher.column}"
        return
    if str(teacher.model).startswith(("/", ".", "~")):
        locate(str(teacher.model))
    how = f"fine-tuned for {teacher.epochs:g} epochs" if teacher.epochs else "as it is"
    yield f"teacher       {teacher.model}, {how}{_state(out, 'teacher') if teacher.epochs else ''}"
    evaluated = len(task.validation) + len(task.test)
    rows = len(task.train) + _candidates(recipe, task) + evaluated
    yield f"              at most {rows} texts through it, each distinct one once"


def _student_lines(recipe: Recipe, task: Task, out: Path | None) -> Iterator[str]:
    training, student = recipe.training, recipe.student
    source = f"layers {student.layers} of the teacher" if student.layers is not None else str(student.model)
    losses = ", ".join(f"{name} × {given['weight']:g}" for name, given in training.losses.items())
    yield f"student       {source}; {training.epochs:g} epochs of {len(task.train)} originals{_state(out, 'student')}"
    yield f"              losses: {losses}; seed {recipe.seed}"
    if recipe.data.augmented:
        ((selector, given),) = recipe.data.select.items()
        told = ", ".join(f"{key} {value}" for key, value in given.items())
        rest = f"refresh {recipe.data.refresh}, weight {recipe.data.weight:g}"
        yield f"              candidates: {selector} {told}, {rest}"


def _candidates(recipe: Recipe, task: Task) -> int:
    return len(task.train) * recipe.data.neighbours.k if recipe.data.neighbours else 0


def _state(out: Path | None, stage: str) -> str:
    if out is None:
        return ""
    if (out / stage / MANIFEST).exists():
        return f" ({out / stage} is there; reused if its inputs are unchanged)"
    return " (unfinished; will be continued)" if (out / stage / "building.json").exists() else " (to do)"
