"""The tables of a pipeline recipe: task, teacher, student, data, training, structure."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from augkd.errors import RecipeError
from augkd.recipe import options
from augkd.recipe.card import CardOptions
from augkd.recipe.data import DataOptions
from augkd.recipe.table import Table
from augkd.recipe.training import StructureOptions, TrainingOptions

Layers = list[int] | dict[Literal["uniform", "first", "last", "distilbert"], int]  # places, or {rule: how many}


class TaskOptions(Table):
    """Labelled text: `augkd.data.task.load_task`."""

    dataset: str
    text: str = "text"
    text_pair: str | None = None
    label: str = "label"
    labels: list[str] | None = None
    splits: dict[Literal["train", "validation", "test"], str] | None = None
    config: str | None = None
    name: str | None = None
    metric: str | None = None
    regression: bool | None = None
    max_train: int | None = Field(None, ge=2)


class TeacherOptions(Table):
    """A checkpoint as it is (`epochs: 0`), a trunk to fine-tune, or logits given as numbers."""

    model: str | None = None
    epochs: float = Field(0, ge=0)
    learning_rate: float = Field(1e-4, gt=0)
    batch_size: int = Field(32, ge=1)
    labels: list[str] | None = None  # names for a checkpoint that only knows LABEL_0, LABEL_1, …
    seed: int = 0
    layers: Layers | None = None  # keeps only these layers of the trunk: a teacher of another size
    ensemble: list[TeacherOptions] | None = Field(None, min_length=2)  # several teachers, averaged
    average: Literal["logits", "probabilities"] = "logits"
    logits: str | None = None  # Parquet with the texts and a list column, in place of a model
    column: Literal["logits", "probabilities"] = "logits"
    missing: Literal["error", "drop"] = "error"  # a candidate without numbers stops the run, or is left out

    @model_validator(mode="after")
    def _one(self) -> TeacherOptions:
        if sum(given is not None for given in (self.model, self.logits, self.ensemble)) != 1:
            raise ValueError("give one of 'model', 'logits' and 'ensemble'")
        beside = self.model_fields_set - {"ensemble", "average", "model", "logits"}
        if self.ensemble is not None and beside:
            raise ValueError(f"'{min(beside)}' belongs to the members of 'ensemble', not beside it")
        if self.layers is not None and (self.model is None or self.epochs == 0):
            raise ValueError("'layers' cuts a trunk before it is fine-tuned; give 'model' and 'epochs'")
        return self


class BiLSTMOptions(Table):
    """A bidirectional LSTM over the teacher's tokens (Tang et al. 2019)."""

    width: int = Field(128, ge=1)
    hidden: int = Field(256, ge=1)
    layers: int = Field(1, ge=1)
    dense: int = Field(200, ge=1)  # width of the layer before the outputs
    dropout: float = Field(0.3, ge=0, lt=1)
    pretrained: bool = True  # token vectors from the teacher's, cut to `width` by PCA


class StaticOptions(Table):
    """The mean of token vectors and one linear layer."""

    width: int = Field(256, ge=1)
    dropout: float = Field(0.1, ge=0, lt=1)
    weighted: bool = True  # a learned weight for each token
    pretrained: bool = True


class ScratchOptions(Table):
    """A smaller configuration of the teacher's architecture, with random weights."""

    layers: int = Field(2, ge=1)
    width: int = Field(128, ge=1)
    heads: int = Field(2, ge=1)
    intermediate: int = Field(512, ge=1)


_KINDS = ("layers", "model", "scratch", "bilstm", "static")


class StudentOptions(Table):
    """Layers of the teacher, a checkpoint of its own, or a small model of another kind."""

    layers: Layers | None = None
    model: str | None = None
    scratch: ScratchOptions | None = None
    bilstm: BiLSTMOptions | None = None
    static: StaticOptions | None = None

    @model_validator(mode="after")
    def _one(self) -> StudentOptions:
        if sum(getattr(self, kind) is not None for kind in _KINDS) != 1:
            raise ValueError(f"give one of {', '.join(_KINDS)}")
        return self

    @property
    def kind(self) -> str:
        """Which of them it is."""
        return next(kind for kind in _KINDS if getattr(self, kind) is not None)


class AssistantOptions(StudentOptions):
    """A student that becomes the teacher of the next one (Mirzadeh et al. 2020)."""

    training: TrainingOptions | None = None  # none: as the student's


class Recipe(Table):
    """One distillation run."""

    task: TaskOptions
    teacher: TeacherOptions
    student: StudentOptions
    assistants: list[AssistantOptions] = Field(
        default_factory=list
    )  # trained one after another between teacher and student
    ensemble: bool = False  # reports the average of assistants and student too (Furlanello et al. 2018)
    data: DataOptions = Field(default_factory=lambda: DataOptions.model_validate({}))
    training: TrainingOptions
    structure: StructureOptions | None = None  # layer losses of all stages
    seed: int = 0  # of the student's training; the teacher has its own, so that seeds share one teacher
    card: CardOptions = Field(default_factory=lambda: CardOptions.model_validate({}))

    @field_validator("task", mode="before")
    @classmethod
    def _task(cls, value: Any) -> Any:
        return {"dataset": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        for student in (*self.assistants, self.student):
            if student.model is None and self.teacher.model is None:
                raise ValueError(f"student.{student.kind} needs one teacher model; without it give student.model")
        if self.teacher.model is None and any(stage.structure for stage in self.phases):
            raise ValueError("structure needs one teacher model whose layers can be seen")
        if self.data.generator and self.teacher.model is None:
            raise ValueError("data.generator needs one teacher model to ask about new texts")
        if self.ensemble and not self.assistants:
            raise ValueError("ensemble averages assistants and student; there are no assistants")
        return self

    @property
    def phases(self) -> list[TrainingOptions]:
        """The stages of the student's training, each with its layer losses."""
        return [
            stage if stage.structure is not None else stage.model_copy(update={"structure": self.structure})
            for stage in self.training.phases
        ]

    @property
    def for_classes_only(self) -> list[str]:
        """The losses of this recipe that a regression task cannot have."""
        stages = [*self.phases, *(stage for a in self.assistants if a.training for stage in a.training.phases)]
        return sorted({name for stage in stages for name in stage.losses} & set(options.for_classes_only()))

    def check_regression(self) -> None:
        """Raises RecipeError for losses that need classes; asked before a teacher is trained on numbers."""
        if unfit := self.for_classes_only:
            raise RecipeError(
                f"loss '{unfit[0]}' needs classes, and this task has numbers for labels; use kd or annealed"
            )
