"""The tables of a pipeline recipe: task, teacher, student, data, training, structure."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from augkd.errors import RecipeError
from augkd.recipe import options
from augkd.recipe.card import CardOptions
from augkd.recipe.data import DataOptions
from augkd.recipe.table import Count, Seed, Table, Width
from augkd.recipe.teacher import Layers, TeacherOptions
from augkd.recipe.training import StructureOptions, TrainingOptions

_NEEDS = {
    "regression": ("classes", "regression"),
    "multi_label_classification": ("one class per text", "multi-label"),
}


class TaskOptions(Table):
    """Labelled text; the options of `augkd.data.task.load_task`."""

    dataset: str
    text: str = "text"
    text_pair: str | None = None
    label: str | list[str] = "label"  # a list: a column of 0 and 1 for each label
    labels: list[str] | None = None
    separator: str | None = None  # between the labels of a cell: several per text
    empty_label: Literal["missing", "none"] = "missing"  # of several: a text without labels, or with none of them
    splits: dict[Literal["train", "validation", "test"], str] | None = None
    config: str | None = None
    name: str | None = None
    metric: str | None = None
    regression: bool | None = None
    merge_labels: bool | None = None  # whether labels that differ in white space or composed accents only are one
    max_train: Count | None = Field(None, ge=2)
    encoding: str | None = None  # of the files; none: the one that each shows, else UTF-8
    delimiter: str | None = None  # between the columns of a CSV file; none: the one that each shows
    sheet: str | None = None  # of a workbook; none: the only one


class BiLSTMOptions(Table):
    """A bidirectional LSTM over the teacher's tokens (Tang et al. 2019)."""

    width: Width = 128
    hidden: Width = 256
    layers: int = Field(1, ge=1, le=64)
    dense: Width = 200  # width of the hidden layer before the outputs
    dropout: float = Field(0.3, ge=0, lt=1)
    pretrained: bool = True  # token vectors start from the teacher's, reduced to `width` by PCA


class StaticOptions(Table):
    """One linear layer on the mean of token vectors."""

    width: Width = 256
    dropout: float = Field(0.1, ge=0, lt=1)
    weighted: bool = True  # a learned weight per token
    pretrained: bool = True  # token vectors start from the teacher's


class ScratchOptions(Table):
    """A smaller configuration of the teacher's architecture with random weights."""

    layers: int = Field(2, ge=1, le=256)
    width: Width = 128
    heads: int = Field(2, ge=1, le=1024)
    intermediate: Width = 512


_STUDENT_KINDS = ("layers", "model", "scratch", "bilstm", "static")


class StudentOptions(Table):
    """Layers of the teacher, another checkpoint, or a small model of another architecture."""

    layers: Layers | None = None
    model: str | None = None
    scratch: ScratchOptions | None = None
    bilstm: BiLSTMOptions | None = None
    static: StaticOptions | None = None

    @model_validator(mode="after")
    def _has_one_kind(self) -> StudentOptions:
        if sum(getattr(self, kind) is not None for kind in _STUDENT_KINDS) != 1:
            raise ValueError(f"give one of {', '.join(_STUDENT_KINDS)}")
        return self

    @property
    def kind(self) -> str:
        """The one key that is given."""
        return next(kind for kind in _STUDENT_KINDS if getattr(self, kind) is not None)


class AssistantOptions(StudentOptions):
    """A student that becomes the teacher of the next student (Mirzadeh et al. 2020)."""

    training: TrainingOptions | None = None  # none: the student's


class Recipe(Table):
    """One distillation run."""

    task: TaskOptions
    teacher: TeacherOptions
    student: StudentOptions
    assistants: list[AssistantOptions] = Field(default_factory=list)  # trained in order between teacher and student
    ensemble: bool = False  # also evaluates the average of assistants and student (Furlanello et al. 2018)
    data: DataOptions = Field(default_factory=lambda: DataOptions.model_validate({}))
    training: TrainingOptions
    structure: StructureOptions | None = None  # intermediate-layer losses of all stages
    seed: Seed = 0  # of the student's training; the teacher has its own, so that all seeds share it
    card: CardOptions = Field(default_factory=lambda: CardOptions.model_validate({}))

    @field_validator("task", mode="before")
    @classmethod
    def _task(cls, value: Any) -> Any:
        return {"dataset": value} if isinstance(value, str) else value

    @model_validator(mode="before")
    @classmethod
    def _task_of_transfer_set(cls, tree: Any) -> Any:
        """A given transfer set is the task and the teacher's logits, where the recipe names no others."""
        data = tree.get("data") if isinstance(tree, dict) else None
        given = data.get("transfer_set") if isinstance(data, dict) else None
        return {"task": {"dataset": given}, "teacher": {"logits": given}, **tree} if isinstance(given, str) else tree

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if self.data.transfer_set is not None and self.teacher.logits != self.data.transfer_set:
            raise ValueError("data.transfer_set holds the teacher's logits; drop teacher")
        for student in (*self.assistants, self.student):
            if student.model is None and self.teacher.network is None:
                raise ValueError(f"student.{student.kind} needs a teacher.model; give one, or give student.model")
        if self.teacher.network is None and any(stage.structure for stage in self.training_stages):
            raise ValueError("structure needs the layers of one teacher; give teacher.model, or leave out structure")
        if self.data.generator and self.teacher.network is None:
            raise ValueError("data.generator needs a teacher that labels new texts; give teacher.model")
        if self.ensemble and not self.assistants:
            raise ValueError("ensemble averages assistants and student; give assistants or drop it")
        return self

    @property
    def training_stages(self) -> list[TrainingOptions]:
        """The stages of the student's training, each with its intermediate-layer losses."""
        return [
            stage if stage.structure is not None else stage.model_copy(update={"structure": self.structure})
            for stage in self.training.training_stages
        ]

    def for_texts(self, originals: int) -> Recipe:
        """This recipe for so many training texts: with the number that `data.neighbours.sample: used` stands for.

        None, which means all neighbours, where the selector looks at all of them or a time budget bounds the training.
        """
        neighbours, in_turn = self.data.neighbours, self.data.drawn_in_turn
        if neighbours is None or neighbours.sample != "used":
            return self
        trainings = [self.training, *(assistant.training for assistant in self.assistants if assistant.training)]
        epochs = [stage.epochs_of(originals) for training in trainings for stage in training.training_stages]
        known = [number for number in epochs if number is not None]
        bounded = in_turn is not None and len(known) == len(epochs)  # each stage takes them in the same order
        sample = min(neighbours.k, max(known) * in_turn) if bounded and in_turn is not None else None
        changed = neighbours.model_copy(update={"sample": sample})
        return self.model_copy(update={"data": self.data.model_copy(update={"neighbours": changed})})

    def unsuited_losses(self, problem_type: str) -> list[str]:
        """The losses of this recipe that a task of this kind (`Target.problem_type`) cannot use."""
        trainings = [assistant.training for assistant in self.assistants if assistant.training]
        stages = [*self.training_stages, *(stage for training in trainings for stage in training.training_stages)]
        return sorted({name for stage in stages for name in stage.losses} & set(options.unsuited_losses(problem_type)))

    def for_assistant(self, number: int) -> Recipe:
        """The recipe of an assistant, counted from 1: its own student, taught by the assistants before it."""
        assistant = self.assistants[number - 1]
        changes = {
            "student": StudentOptions.model_validate(assistant.model_dump(exclude={"training"})),
            "training": assistant.training or self.training,
            "assistants": self.assistants[: number - 1],
            "ensemble": False,
        }
        return self.model_copy(update=changes)

    def check_losses(self, problem_type: str) -> None:
        """Raises RecipeError for a loss that a task of this kind cannot use; called before a teacher is trained."""
        if losses := self.unsuited_losses(problem_type):
            needs, kind = _NEEDS[problem_type]
            raise RecipeError(f"loss '{losses[0]}' needs {needs}, but this task is {kind}; use kd or annealed")
