"""Labels from people or batch jobs: which texts to have labelled next, and the answers back into the recipe's folder.

A run with `teacher: {answers: FOLDER}` goes as far as it can with the answers in that folder, and stops where some are
missing; those are the texts to label next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from augkd.data.task import texts_of
from augkd.distill.teacher.answer_store import AnswerStore
from augkd.distill.teacher.asked import AskedTeacher
from augkd.distill.teacher.imported import (
    Imported,
    ImportedAnswers,
    hand_out,
    import_answers,
    requested_texts,
    text_id,
)
from augkd.errors import DataError, RecipeError
from augkd.recipe import Recipe
from augkd.runs.run import Run
from augkd.runs.task import read_task
from augkd.workspace.locks import locked
from augkd.workspace.progress import Progress, silent

Pair = tuple[str, str | None]


@dataclass(frozen=True)
class ImportedLabels:
    """What a file of answers held, and which texts that were handed out still have none."""

    counts: Imported
    missing: dict[str, Pair]  # by id


def texts_to_label(
    recipe: Recipe, out: Path, run: Path | None = None, labelled: bool = False, progress: Progress = silent
) -> list[Pair]:
    """Writes the texts that the recipe waits for to `out`, as JSONL with ids; returns them, [] where none is missing.

    `run` is the run's folder, in which what comes before is made (default: `run` in the folder of answers). With
    `labelled`, texts with a label that have no answer are written too: the teacher is calibrated on them. Raises
    RecipeError when the recipe has no folder of answers.
    """
    folder = answers_folder(recipe)
    strict = recipe.teacher.model_copy(update={"missing": "error"})
    home = run or folder / "run"
    job = Run(recipe.model_copy(update={"teacher": strict}), home, progress=progress)
    people = job.teacher.outputs
    assert isinstance(people, AskedTeacher)
    assert isinstance(people.source, ImportedAnswers)
    try:
        with locked(home):
            job.transfer_set()
    except DataError:
        if not people.source.waiting:  # something else is wrong
            raise
    texts: Sequence[Pair] = people.source.waiting
    if labelled:
        own = texts_of([example for example in job.context.originals if example.label is not None])
        store = AnswerStore(folder)
        store.refresh()
        texts = [*(text for text in dict.fromkeys(own) if store.get(text_id(text)) is None), *texts]
    hand_out(folder, texts, out)
    return list(texts)


def import_labels(recipe: Recipe, path: Path) -> ImportedLabels:
    """Adds the answers of a JSONL file to the recipe's folder; raises DataError for a wrong row, and adds nothing."""
    folder, task = answers_folder(recipe), read_task(recipe)
    labels = task.labels or recipe.teacher.labels
    if not labels:
        raise RecipeError(f"task {task.name} has no labels; name the classes with teacher.labels: [...]")
    counts = import_answers(folder, path, labels, recipe.teacher.labels)
    store = AnswerStore(folder)
    store.refresh()
    missing = {key: text for key, text in requested_texts(folder).items() if store.get(key) is None}
    return ImportedLabels(counts, missing)


def answers_folder(recipe: Recipe) -> Path:
    """Where the recipe's answers are; raises RecipeError when its teacher is not one that answers are imported for."""
    if recipe.teacher.kind != "answers":
        raise RecipeError(
            f"the recipe's teacher is {'an' if recipe.teacher.kind[0] in 'ae' else 'a'} {recipe.teacher.kind}, which "
            "labels texts by itself; for people or a batch job set teacher: {answers: FOLDER}"
        )
    return Path(str(recipe.teacher.answers))
