"""What can be known of a recipe's models before any is trained: whether students can be made, and layers compared.

A teacher takes hours and a student of it seconds to refuse, so both are asked first. Only configurations are read, and
only of models on this machine; what needs torch is imported for recipes that need it.
"""

from __future__ import annotations

from typing import Any

from augkd.data.target import Target
from augkd.errors import ModelError
from augkd.models.layer_check import check_layers, folder_at_hand, skeleton
from augkd.recipe import Recipe, StudentOptions, TeacherOptions, dump
from augkd.runs.layer_needs import layer_objectives, lesson_shapes, lessons, structures


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


def _check_structure(recipe: Recipe) -> None:
    """Checks each student's intermediate-layer losses against its tutor, as far as the configurations are at hand."""
    for lesson in lessons(recipe):
        if lesson.student.kind in ("bilstm", "static") and structures(lesson):
            raise ModelError(f"a {lesson.student.kind} student has no transformer layers to match; leave out structure")
    for lesson, student, tutor in lesson_shapes(recipe):
        if student is not None and tutor is not None:
            layer_objectives(lesson, student, tutor)
