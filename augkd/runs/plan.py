"""What a recipe would do: stages, sizes, costs, and what is finished already.

Imports no torch (but for layers of an unusual model), writes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from augkd.data.corpus import CorpusSource
from augkd.data.target import Target
from augkd.data.task import Task, with_labelled
from augkd.distill.teacher.prompt import question_for
from augkd.errors import DataError
from augkd.models.locate import locate
from augkd.recipe import Comparison, LabelBudgetOptions, NeighbourOptions, Recipe, StudentOptions, TeacherOptions, dump
from augkd.recipe.units import format_seconds
from augkd.retrieval.dense.rerank import texts_to_rerank
from augkd.retrieval.manifest import encoder_options, index_manifest
from augkd.runs.disk_plan import disk_lines, disk_plan
from augkd.runs.label_checks import check_labelling
from augkd.runs.model_checks import check_models
from augkd.runs.task import read_task, task_from
from augkd.workspace.folders import unfinished
from augkd.workspace.manifest_kinds import DenseManifest
from augkd.workspace.manifests import MANIFEST
from augkd.workspace.run_folder import run_folder, task_folder

_NAMES_SHOWN = 12  # classes named in a plan; the others are counted


def plan(recipe: Recipe, out: Path | None = None) -> Iterator[str]:
    """Lines that describe each stage; raises what the run itself would raise at its start."""
    task = read_task(recipe)
    recipe.check_losses(task.target.problem_type)
    check_labelling(recipe, task.target, task.is_pair)
    check_models(recipe)
    yield f"task          {task.name}: {_sizes(task)}"
    yield f"              {_predicted(task.target)}; metric {task.metric}"
    yield from (f"              note: {note}" for note in task.notes)
    student_task = with_labelled(task, recipe.data.labelled)
    recipe = recipe.for_texts(len(student_task.train))
    if recipe.data.neighbours:
        yield from _index_lines(recipe.data.neighbours, student_task, out)
    yield from _masked_lm_lines(recipe)
    yield from _teacher_lines(recipe, student_task, out)
    yield from _transfer_set_lines(recipe, task, student_task, out)
    yield from _student_lines(recipe, student_task, out)
    yield from disk_lines(disk_plan(recipe, student_task, out), out)


def _sizes(task: Task) -> str:
    return f"{len(task.train)} train, {len(task.validation)} validation, {len(task.test)} test"


def _predicted(target: Target) -> str:
    labels = target.labels
    if not labels:
        return "regression"
    more = f", … ({len(labels) - _NAMES_SHOWN} more)" if len(labels) > _NAMES_SHOWN else ""
    return f"{target.describe()}: {', '.join(labels[:_NAMES_SHOWN])}{more}"


# ---- index ----


def _index_lines(options: NeighbourOptions, task: Task, out: Path | None) -> Iterator[str]:
    texts: int | None
    if isinstance(options.index, str):
        manifest = index_manifest(options.index)
        texts, encoder = manifest.count, encoder_options(manifest)
        kind = manifest.factory if isinstance(manifest, DenseManifest) else "BM25"
        yield f"index         {options.index}: {texts} texts, {kind} (built)"
    else:
        source, encoder = CorpusSource(**dump(options.index.corpus)), dump(options.index.encoder)
        texts = source.known_size()
        count = f"{texts} texts" if texts is not None else "size unknown until read"
        factory = options.index.faiss.factory
        kind = "BM25" if encoder["kind"] == "lexical" else f"{encoder['kind']} vectors, {factory}"
        yield f"index         {source.dataset}: {count}, {kind}{_state(out, 'index')}"
    if encoder.get("rerank"):
        yield f"              {_rerank_cost(options, encoder, task, texts)}"


def _rerank_cost(options: NeighbourOptions, encoder: Mapping[str, Any], task: Task, texts: int | None) -> str:
    """What re-ranking costs beside encoding the whole corpus with the full model, which is the alternative to it."""
    depth = max(options.k, encoder["rerank"])
    queries = len(task.train) * (2 if task.is_pair and options.queries == "example" else 1)
    if texts is None:
        return f"re-ranking: up to {depth} texts for each of {queries} queries through {encoder['model']}"
    most = texts_to_rerank(queries, depth, texts)
    share = f"{most / texts:.2f} of what indexing with it would take"
    return f"re-ranking {queries} queries: at most {most} texts through {encoder['model']}, {share}"


# ---- teacher, transfer set ----


def _teacher_lines(recipe: Recipe, task: Task, out: Path | None) -> Iterator[str]:
    if recipe.data.transfer_set is not None:
        yield "teacher       none needed: the transfer set holds its logits"
        return
    teacher = recipe.teacher
    for member in teacher.ensemble or [teacher]:
        yield f"teacher       {_teacher(member)}{_state(out, 'teacher') if member.epochs else ''}"
    if teacher.ensemble:
        yield f"              {len(teacher.ensemble)} teachers, their {teacher.average} averaged"
    texts, budget = len(task.train) + _candidates(recipe, task), recipe.data.label_budget
    if budget is not None:
        texts = sum(example.label is not None for example in task.train) + budget.texts
    if teacher.kind in ("model", "ensemble"):
        texts += len(task.validation) + len(task.test)
        yield f"              labels at most {texts} texts, each distinct one once"
    if teacher.kind in ("endpoint", "answers"):
        yield from _asking_lines(teacher, task, texts)
    if budget is not None:
        yield f"              {_label_budget(budget, pool_size(recipe, task))}"


def _label_budget(budget: LabelBudgetOptions, pool: int | None) -> str:
    name, settings = budget.selector
    by = " ".join([name, *(f"{key} {_value(value)}" for key, value in settings.items())])
    of = "the index" if pool is None else f"at most {pool} unlabelled texts"
    return f"label budget: {budget.texts} of {of}, after rounds {', '.join(map(str, budget.sizes))}, by {by}"


def _teacher(options: TeacherOptions) -> str:
    if options.logits is not None:
        if not Path(options.logits).exists():
            raise DataError(f"teacher.logits {options.logits} does not exist; give a Parquet file or a folder of them")
        return f"numbers from {options.logits}, column {options.column}"
    if options.endpoint is not None:
        return f"{options.model} at {options.endpoint.url}"
    if options.answers is not None:
        return f"answers in {options.answers}"
    if str(options.model).startswith(("/", ".", "~")):
        locate(str(options.model))
    layers = "" if options.layers is None else f", layers {_value(options.layers)}"
    tuned = f"fine-tuned for {options.epochs:g} epochs" if options.epochs else "used as it is"
    return f"{options.model}{layers}, {tuned}"


def _asking_lines(teacher: TeacherOptions, task: Task, texts: int) -> Iterator[str]:
    """What is asked about; raises RecipeError where the question does not fit the task. Nothing is contacted."""
    endpoint = teacher.endpoint
    evaluates = endpoint is None or endpoint.evaluate
    evaluation = [*task.validation, *task.test] if evaluates else [e for e in task.validation if e.label is None]
    texts += len(evaluation)
    yield f"              is asked about at most {texts} texts, each distinct one once"
    if endpoint is None:
        return
    orders = len(question_for(teacher, task.target, task.is_pair).orders)
    known = "is set" if os.environ.get(endpoint.key) else "is not set"
    yield f"              at most {texts * orders} requests; {endpoint.key} {known}"
    if not evaluates:
        yield "              its own scores are not measured (teacher.endpoint.evaluate asks about test texts too)"


def _transfer_set_lines(recipe: Recipe, task: Task, student_task: Task, out: Path | None) -> Iterator[str]:
    originals = len(student_task.train)
    if recipe.data.transfer_set is not None:
        yield f"transfer set  {recipe.data.transfer_set}: {originals} of its originals are trained on"
        return
    shown = f"{originals} originals"
    if recipe.data.labelled is not None:
        shown = f"{originals} of {len(task.train)} training texts as originals (data.labelled)"
    state = _state(out, "transfer_set")
    yield f"transfer set  {shown}, at most {_candidates(recipe, student_task)} candidates{state}"


def pool_size(recipe: Recipe, task: Task) -> int | None:
    """Unlabelled texts that the teacher could be asked about, at most; None: not known before a corpus is read."""
    unlabelled, budget = sum(example.label is None for example in task.train), recipe.data.label_budget
    if budget is None or budget.of == "candidates" or recipe.data.neighbours is None:
        return unlabelled + _candidates(recipe, task)
    index = recipe.data.neighbours.index
    if isinstance(index, str):
        texts: int | None = index_manifest(index).count
    else:
        texts = CorpusSource(**dump(index.corpus)).known_size()
    return None if texts is None else unlabelled + min(texts, budget.pool)


def _candidates(recipe: Recipe, task: Task) -> int:
    data = recipe.data
    neighbours = data.neighbours.kept if data.neighbours else 0
    generated = data.generated.samples if data.generated else 0
    substituted = data.substitution.n if data.substitution else 0
    return len(task.train) * (neighbours + generated + substituted)


def _masked_lm_lines(recipe: Recipe) -> Iterator[str]:
    data = recipe.data
    for name in ("generator", "generated", "substitution"):
        options = getattr(data, name)
        if options is None:
            continue
        if options.model.startswith(("/", ".", "~")):
            locate(options.model)
        adapt = getattr(options, "adapt", None)
        adapted = f", adapted for {adapt.steps} steps of {adapt.batch_size} texts" if adapt else ""
        yield f"{name:14}{options.model}{adapted}"
    if data.generator:
        texts = f"{data.generator.samples} new text{'s' if data.generator.samples > 1 else ''} per original and step"
        yield f"              {texts}; {data.generator.ascend} gradient-ascent steps every {data.generator.every} steps"


# ---- student ----


def _student_lines(recipe: Recipe, task: Task, out: Path | None) -> Iterator[str]:
    for number, assistant in enumerate(recipe.assistants, 1):
        yield f"assistant {number}   {_student(assistant)}{_state(out, f'assistants/{number}/student')}"
    epochs = " + ".join(f"{stage.epochs:g}" for stage in recipe.training_stages) + " epochs"
    if most := recipe.training.max_steps:
        epochs += f", at most {most:,} steps{' each' if len(recipe.training_stages) > 1 else ''},"
    if recipe.training.budget is not None:
        epochs = f"{format_seconds(recipe.training.budget)} of training"
    state = _state(out, "student")
    yield f"student       {_student(recipe.student)}; {epochs} on {len(task.train)} originals{state}"
    for number, stage in enumerate(recipe.training_stages, 1):
        name = f"stage {number} losses" if len(recipe.training_stages) > 1 else "losses"
        members = [*stage.losses.items(), *(stage.structure.losses if stage.structure else {}).items()]
        losses = ", ".join(f"{loss} × {_value(options.get('weight', 1.0))}" for loss, options in members)
        yield f"              {name}: {losses}{'; freelb' if stage.freelb else ''}; seed {recipe.seed}"
    if recipe.data.has_candidates:
        ((selector, options),) = recipe.data.select.items()
        settings = " ".join([selector, *(f"{key} {value}" for key, value in options.items())])
        yield f"              candidates: {settings}, refresh {recipe.data.refresh}, weight {recipe.data.weight:g}"


def _student(options: StudentOptions) -> str:
    if options.layers is not None:
        return f"layers {_value(options.layers)} of the teacher"
    if options.model is not None:
        return options.model
    settings = ", ".join(f"{key} {value}" for key, value in dump(options)[options.kind].items())
    return f"{options.kind} ({settings})"


def _value(value: Any) -> str:
    """A value of a recipe, a table of one key as `key value`."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_value(inner)}" for key, inner in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)


def _state(out: Path | None, stage: str) -> str:
    if out is None:
        return ""
    if (out / stage / MANIFEST).exists():
        return f" ({out / stage} is finished; used again if its inputs are unchanged)"
    return " (unfinished; will be continued)" if unfinished(out / stage) else " (to do)"


# ---- comparisons ----


def plan_comparison(comparison: Comparison, recipes: Mapping[str, Recipe], out: Path | None = None) -> Iterator[str]:
    """Lines for each task of a comparison, with the students that each recipe trains."""
    for recipe in recipes.values():
        check_models(recipe)
    yield f"comparison    {len(comparison.tasks)} tasks × {len(recipes)} recipes × {comparison.seeds} seeds"
    for options in comparison.tasks:
        task = task_from(options)
        home = task_folder(out or Path(), task.name)
        yield f"task          {task.name}: {_sizes(task)}; metric {task.metric}"
        for name, recipe in recipes.items():
            if unsuited := recipe.unsuited_losses(task.target.problem_type):
                yield f"  {name:20}left out: {', '.join(unsuited)} does not apply to {task.target.problem_type}"
                continue
            folder = None if out is None else run_folder(home, name, 0)
            first, *rest = _student_lines(
                recipe.model_copy(update={"task": options}), with_labelled(task, recipe.data.labelled), folder
            )
            yield f"  {name:20}{first.removeprefix('student').strip()}"
            yield from (f"  {'':20}{line.strip()}" for line in rest)
