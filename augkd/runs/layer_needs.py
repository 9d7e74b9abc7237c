"""Which of a tutor's layers a recipe compares with a student's, known from the configurations of the models alone.

`torch` is imported only for recipes that match layers; only models on this machine are looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from augkd.models.layer_check import folder_at_hand, skeleton
from augkd.models.layer_map import layer_positions
from augkd.recipe import Recipe, StructureOptions, StudentOptions

if TYPE_CHECKING:
    from augkd.distill.objective.layer_objective import LayerObjective
    from augkd.distill.objective.layer_states import Needs, Pooling, Shape


def stored_needs(recipe: Recipe) -> tuple[Needs, Shape] | None:
    """The layer vectors of the last lesson's tutor that its stages need, and the tutor's shape.

    None where they need no vectors, a live model, several kinds, or where a configuration is not at hand.
    """
    if not structures(recipe):
        return None
    *_, (lesson, student, tutor) = lesson_shapes(recipe)
    if student is None or tutor is None:
        return None
    needs = {objective.needs() for objective in layer_objectives(lesson, student, tutor)}
    (only,) = needs if len(needs) == 1 else (None,)
    return None if only is None or only.live or not only.layers else (only, tutor)


def lessons(recipe: Recipe) -> list[Recipe]:
    """The recipes of the assistants, one after another, then the student's."""
    return [*(recipe.for_assistant(number) for number in range(1, len(recipe.assistants) + 1)), recipe]


def structures(recipe: Recipe) -> list[StructureOptions]:
    """The intermediate-layer losses of each stage of training that has some."""
    return [stage.structure for stage in recipe.training_stages if stage.structure and stage.structure.losses]


def layer_objectives(recipe: Recipe, student: Shape, tutor: Shape) -> list[LayerObjective]:
    """The losses of each such stage. Raises RecipeError or ModelError for losses that do not fit the two models."""
    from augkd.distill.objective.layer_objective import LayerObjective  # torch takes seconds to import

    return [LayerObjective(each.losses, student, tutor, pooling=each.pooling) for each in structures(recipe)]


def lesson_shapes(recipe: Recipe) -> Iterator[tuple[Recipe, Shape | None, Shape | None]]:
    """The recipe of each lesson with the shapes of its student and its tutor; None: not known. None if no layers match.

    Raises ModelError for a pooling that does not suit a model.
    """
    all_structures = [structure for lesson in lessons(recipe) for structure in structures(lesson)]
    if not all_structures:
        return
    # one pooling for all: the first token is the one that may be useless
    pooling: Pooling = "cls" if any(structure.pooling == "cls" for structure in all_structures) else "mean"
    teacher = _model_shape(recipe.teacher.model, pooling)
    if teacher is not None and recipe.teacher.layers is not None:
        teacher = _with_layers(teacher, len(layer_positions(recipe.teacher.layers, teacher.layers, "teacher.layers")))
    tutor = teacher
    for lesson in lessons(recipe):
        student = _student_shape(lesson.student, teacher, pooling)
        yield lesson, student, tutor
        tutor = student


def _student_shape(options: StudentOptions, teacher: Shape | None, pooling: Pooling) -> Shape | None:
    """The shape of a student; None where it is unknown, or where the student has no transformer layers."""
    from augkd.distill.objective.layer_states import Shape

    if options.model is not None:
        return _model_shape(options.model, pooling)
    if options.scratch is not None:
        return Shape(options.scratch.layers, options.scratch.width, options.scratch.heads)
    if options.layers is None or teacher is None:
        return None
    return _with_layers(teacher, len(layer_positions(options.layers, teacher.layers)))


def _model_shape(model: str | None, pooling: Pooling) -> Shape | None:
    """The shape of a model; None where its configuration is not at hand. Raises ModelError for the wrong pooling."""
    from augkd.distill.objective.layer_states import Shape, check_pooling

    folder = None if model is None else folder_at_hand(model)
    network = None if folder is None else skeleton(folder, str(model))
    if network is None:
        return None
    check_pooling(network, pooling)
    return Shape.of(network)


def _with_layers(shape: Shape, layers: int) -> Shape:
    return replace(shape, layers=layers)
