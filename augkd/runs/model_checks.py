"""What can be known of a recipe's models before any is trained: whether students can be made, and layers compared.

A teacher takes hours and a student of it seconds to refuse, so both are asked first. Only configurations are read, and
only of models on this machine; what needs torch is imported for recipes that need it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from augkd.data.target import Target
from augkd.errors import ModelError
from augkd.models.layer_check import check_layers, folder_at_hand, skeleton
from augkd.models.layer_map import layer_positions
from augkd.recipe import Recipe, StudentOptions, TeacherOptions, dump

if TYPE_CHECKING:
    from augkd.distill.objective.layer_states import Pooling, Shape


def check_models(recipe: Recipe) -> None:
    """Raises ModelError or RecipeError for a student that cannot be made, or whose layers cannot be compared."""
    teacher = recipe.teacher
    for member in teacher.ensemble or []:
        _check_layers(member, "teacher.layers")
    _check_layers(teacher, "teacher.layers")
    for number, assistant in enumerate(recipe.assistants):
        _check_layers(teacher, f"assistants[{number}].layers", assistant)
    _check_layers(teacher, "student.layers", recipe.student)
    for student in (*recipe.assistants, recipe.student):
        _check_sizes(teacher, student)
    _check_structure(recipe)


def _check_layers(teacher: TeacherOptions, key: str, student: StudentOptions | None = None) -> None:
    choices: list[tuple[str, Any]] = [] if teacher.layers is None else [("teacher.layers", teacher.layers)]
    if student is not None and student.layers is not None:
        choices.append((key, student.layers))
    if choices:
        check_layers(str(teacher.model), choices)


def _check_sizes(teacher: TeacherOptions, student: StudentOptions) -> None:
    """Checks a small student's sizes against the teacher's configuration, where that is at hand."""
    kind = student.kind
    folder = None if kind in ("layers", "model") else folder_at_hand(str(teacher.model))
    if folder is None:
        return
    network, options = skeleton(folder, str(teacher.model)), dump(student)[kind]
    if network is None:
        return
    from augkd.models.student_kinds import check_width, smaller  # torch takes seconds to import

    if kind == "scratch":
        smaller(network.config, Target(), **options, device="meta")
    elif options["pretrained"]:
        check_width(network, options["width"])


# ---- intermediate-layer losses ----


def _check_structure(recipe: Recipe) -> None:
    """Checks each student's intermediate-layer losses against its tutor, as far as the configurations are at hand."""
    lessons = [recipe.for_assistant(number) for number in range(1, len(recipe.assistants) + 1)]
    lessons.append(recipe)
    if not any(_losses(lesson) for lesson in lessons):
        return
    from augkd.distill.objective.layer_objective import LayerObjective  # torch takes seconds to import

    # one pooling for all: the first token is the one that may be useless
    pooling: Pooling = "cls" if any(pooling == "cls" for each in lessons for _, pooling in _losses(each)) else "mean"
    teacher = _shape(recipe.teacher.model, pooling)
    if teacher is not None and recipe.teacher.layers is not None:
        teacher = _with_layers(teacher, len(layer_positions(recipe.teacher.layers, teacher.layers, "teacher.layers")))
    tutor = teacher
    for lesson in lessons:
        kind = lesson.student.kind
        if kind in ("bilstm", "static") and _losses(lesson):
            raise ModelError(f"a {kind} student has no transformer layers to match; leave out structure")
        student = _student_shape(lesson.student, teacher, pooling)
        if student is not None and tutor is not None:
            for losses, own in _losses(lesson):
                LayerObjective(losses, student, tutor, pooling=own)
        tutor = student


def _losses(recipe: Recipe) -> list[tuple[Any, Pooling]]:
    """The intermediate-layer losses of each stage that has some, and their pooling."""
    tables = [stage.structure for stage in recipe.training_stages if stage.structure and stage.structure.losses]
    return [(table.losses, table.pooling) for table in tables]


def _student_shape(options: StudentOptions, teacher: Shape | None, pooling: Pooling) -> Shape | None:
    """The shape of a student; None where it is unknown, or where the student has no transformer layers."""
    from augkd.distill.objective.layer_states import Shape

    if options.model is not None:
        return _shape(options.model, pooling)
    if options.scratch is not None:
        return Shape(options.scratch.layers, options.scratch.width, options.scratch.heads)
    if options.layers is None or teacher is None:
        return None
    return _with_layers(teacher, len(layer_positions(options.layers, teacher.layers)))


def _shape(model: str | None, pooling: Pooling) -> Shape | None:
    """The shape of a model; None where its configuration is not at hand. Raises ModelError for the wrong pooling."""
    from augkd.distill.objective.layer_states import Shape, check_pooling

    folder = None if model is None else folder_at_hand(model)
    network = None if folder is None else skeleton(folder, str(model))
    if network is None:
        return None
    check_pooling(network, pooling)
    return Shape.of(network)


def _with_layers(shape: Shape, layers: int) -> Shape:
    from dataclasses import replace

    return replace(shape, layers=layers)
