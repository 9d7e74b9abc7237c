"""The tables of a pipeline recipe: task, teacher, student, data, training, structure."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from augkd import options
from augkd.errors import RecipeError, shown
from augkd.recipe.index import IndexRecipe
from augkd.recipe.table import Table
from augkd.recipe.training import Named, StructureOptions, TrainingOptions

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


class NeighbourOptions(Table):
    """k neighbours of each labelled text, from an index recipe or a built index folder."""

    index: IndexRecipe | str
    k: int = Field(8, ge=1, le=256)
    queries: Literal["example", "label", "task", "mix"] = "example"
    unit: Literal["text", "sentence"] = "text"  # sentence: one sentence of the text is replaced by its neighbour
    language: str = "en"  # of the sentences
    pairs: Literal["each", "unit", "both"] = "each"  # one side of a pair replaced, both at once, or half of each
    diversity: float = Field(0.0, ge=0, le=1)  # weight of unlikeness to the ones chosen already (MMR); 0: off
    unique: bool = False  # a text of the corpus goes to one owner only
    near_copy: float = Field(0.95, gt=0, le=1)  # cosine from which a text counts as a copy of an evaluation text
    min_distance: float = Field(0.0, ge=0, le=2)  # cosine distance in the encoder's space
    max_distance: float = Field(2.0, ge=0, le=2)
    min_teacher_distance: float = Field(0.0, ge=0)  # total variation of the teacher's beliefs; regression: difference
    max_teacher_distance: float | None = Field(None, gt=0)


def _everything() -> Named:
    return {"everything": {}}


class DataOptions(Table):
    """Extra texts, and which of them are kept."""

    neighbours: NeighbourOptions | None = None
    augmented_samples: str | None = None  # JSONL of Minimax-kNN or Glitter
    select: Named = Field(default_factory=_everything)
    temperature: float = Field(2.0, gt=0)  # of the divergence that minimax ranks by
    refresh: int = Field(1, ge=1)  # epochs between scorings; stale scores in between
    weight: float = Field(1.0, ge=0)  # of all chosen candidates together against the originals, whatever their number

    @field_validator("select", mode="before")
    @classmethod
    def _select(cls, value: Any) -> Any:
        value = {value: {}} if isinstance(value, str) else value
        if not isinstance(value, dict) or len(value) != 1:
            raise ValueError(f"give one selector, e.g. {{minimax: {{keep: 4}}}}, not {shown(value)}")
        ((name, given),) = value.items()
        return {name: options.checked("selector", name, given or {})}

    @property
    def augmented(self) -> bool:
        """Whether there are candidates at all."""
        return self.neighbours is not None or self.augmented_samples is not None


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
