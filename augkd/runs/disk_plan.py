"""How much room a run takes on the disk, stage by stage: shown by `check`, and tested before a run begins.

Only what can be known without reading a corpus or a model is counted, and finished stages take nothing. Training keeps
two whole checkpoints, each with the optimiser's two moments, and writes a third before the oldest goes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from augkd.data.task import Task
from augkd.models.locate import weight_files
from augkd.recipe import IndexRecipe, Recipe
from augkd.retrieval.room import SURE, index_bytes, local_model
from augkd.runs.layer_needs import stored_needs
from augkd.workspace.disk import check_room, free_bytes, size_text
from augkd.workspace.manifests import MANIFEST

_TRAINED = 1 + 3 * 3  # times the weights: the result, three checkpoints of weights and two moments
_OVERHEAD = 200  # bytes of a text beside its characters: ids, score, logits, offsets


def disk_plan(recipe: Recipe, task: Task, out: Path | None) -> dict[str, int]:
    """Bytes by stage that is not finished in `out`; a stage whose size is not known is left out."""
    sizes: dict[str, int] = {}
    neighbours = recipe.data.neighbours
    if neighbours and isinstance(neighbours.index, IndexRecipe):
        sizes["index"] = index_bytes(neighbours.index)
    weights = _weights(recipe.teacher.model)
    if recipe.teacher.epochs and weights:
        sizes["teacher"] = _TRAINED * weights
    sizes["transfer set"] = _transfer_set(recipe, task)
    if not _finished(out, "student"):
        sizes["teacher layers"] = _teacher_layers(recipe, task)
    student = _weights(recipe.student.model) if recipe.student.model else weights
    sizes["student"] = _TRAINED * student
    return {stage: size for stage, size in sizes.items() if size and not _finished(out, stage.replace(" ", "_"))}


def disk_lines(sizes: dict[str, int], out: Path | None) -> Iterator[str]:
    """A disk plan for `check`: what each stage takes, and what is free where it would be written."""
    place = out or Path.cwd()
    needed, free = sum(sizes.values()), free_bytes(place)
    parts = ", ".join(f"{stage} {size_text(size)}" for stage, size in sizes.items())
    yield f"disk          at most {size_text(needed)} ({parts or 'all is finished'}); {size_text(free)} free in {place}"
    if needed > free:
        yield "              note: that is more than is free; free some space, or choose another --out"


def check_disk(recipe: Recipe, task: Task, out: Path, shared: bool) -> None:
    """Raises WorkspaceError, before hours are spent, when a stage that is to be made in `out` cannot fit.

    `shared`: all but the student lie elsewhere, and may be finished there. The estimates are upper bounds, so a third
    of the largest stage must fit.
    """
    sizes = disk_plan(recipe, task, out)
    if shared:
        sizes = {stage: size for stage, size in sizes.items() if stage == "student"}
    if sizes:
        stage = max(sizes, key=lambda name: sizes[name])
        check_room(out, sizes[stage] // SURE, f"the {stage}")


def _transfer_set(recipe: Recipe, task: Task) -> int:
    data, originals = recipe.data, len(task.train)
    if data.transfer_set is not None:
        return 0
    characters = sum(len(example.text) + len(example.text_pair or "") for example in task.train)
    outputs = 4 * max(1, len(task.labels))
    return (1 + _candidates(recipe)) * (characters + originals * (_OVERHEAD + outputs))


def _teacher_layers(recipe: Recipe, task: Task) -> int:
    """Bytes of the layer vectors of all texts; 0 where none are stored."""
    needed = stored_needs(recipe)
    if needed is None:
        return 0
    from augkd.distill.teacher.layer_store import bytes_of_a_text  # torch takes seconds to import

    needs, shape = needed
    return len(task.train) * (1 + _candidates(recipe)) * bytes_of_a_text(len(needs.layers), shape.width)


def _candidates(recipe: Recipe) -> int:
    """The most candidates of a labelled text, but for those of a file of samples."""
    data = recipe.data
    each = (data.neighbours.kept if data.neighbours else 0) + (data.generated.samples if data.generated else 0)
    return each + (data.substitution.n if data.substitution else 0)


def _weights(model: str | None) -> int:
    """Bytes of a model's weights on this machine; 0 where it is not here yet."""
    folder = local_model(model)
    return 0 if folder is None else sum(path.stat().st_size for path in weight_files(folder))


def _finished(out: Path | None, stage: str) -> bool:
    return out is not None and (out / stage / MANIFEST).exists()
