"""The tables of a training: losses by name, optimiser settings, stages that follow one another."""

from __future__ import annotations

import math
from importlib.util import find_spec
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from augkd.errors import RecipeError, did_you_mean, short_repr
from augkd.recipe import options, schedules
from augkd.recipe.table import IDENTITY, BatchSize, Epochs, Steps, Table
from augkd.recipe.units import parse_seconds

# What `transformers` can log to; the package has the same name, except for those in _PACKAGES.
TRACKERS = (
    *("azure_ml", "clearml", "codecarbon", "comet_ml", "dagshub", "dvclive", "flyte"),
    *("mlflow", "neptune", "swanlab", "tensorboard", "trackio", "wandb"),
)
_PACKAGES = {"azure_ml": "azureml", "flyte": "flytekit"}

_SHARED_BY_STAGES = ("stages", "max_length", "report_to", "budget")

NamedOptions = dict[str, dict[str, Any]]  # name of a loss or selector → its options


class FreeLBOptions(Table):
    """FreeLB: adversarial perturbations of the embeddings (Zhu et al. 2020)."""

    steps: int = Field(3, ge=1, le=1000)  # gradient-ascent steps, each with a backward pass
    step_size: float = Field(0.1, gt=0)
    magnitude: float = Field(0.1, ge=0)  # norm of the initial perturbation; 0: starts from zero
    radius: float = Field(0.0, ge=0)  # largest L2 norm of a text's perturbation; 0: unbounded


class StructureOptions(BaseModel):
    """Intermediate-layer losses by name, each with its weight and options, and the pooling of a layer's states."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True, allow_inf_nan=False)

    pooling: Literal["cls", "mean"] = "cls"  # the vector of the first token, or the mean over all tokens

    @model_validator(mode="after")
    def _checked(self) -> StructureOptions:
        check_losses("intermediate-layer loss", "structure", self.losses)
        return self

    @property
    def losses(self) -> NamedOptions:
        """Intermediate-layer loss → its options, including the weight."""
        return dict(self.model_extra or {})


class TrainingOptions(BaseModel):
    """The losses by name, each with its weight and options, and the settings of the optimiser.

    Each entry of `stages` is such a table, with the keys beside `stages` as its defaults; it starts from the best
    weights of the stage before, with a fresh optimiser.
    """

    model_config = ConfigDict(extra="allow", frozen=True, strict=True, allow_inf_nan=False)

    epochs: Epochs = Field(4, gt=0)
    max_steps: Steps = Field(0, ge=0)  # optimiser steps after which each stage ends at the latest; 0: no limit
    budget: float | None = None  # time budget in place of both (seconds, 30m, 1.5h); split over stages by epochs
    batch_size: BatchSize = 32  # originals per step; their candidates come on top
    accumulation: BatchSize = 1  # batches per optimiser step
    learning_rate: float = Field(3e-4, gt=0)
    warmup_ratio: float = Field(0.06, ge=0, lt=1)  # share of the steps in which the learning rate rises
    weight_decay: float = Field(0.01, ge=0)
    max_grad_norm: float = Field(1.0, ge=0)  # 0: no clipping
    dropout: float | None = Field(None, ge=0, lt=1)  # of all the student's dropout layers; none: their own rates
    max_length: int = Field(128, ge=8, le=2**20)  # tokens; longer texts are truncated, for teacher and student alike
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    checkpoints: Steps = Field(0, ge=0)  # steps between extra checkpoints; 0: at the end of each epoch only
    patience: Steps = Field(0, ge=0)  # epochs without a better validation score before stopping; 0: off
    report_to: str | list[str] | None = None  # experiment trackers; part of no fingerprint
    freelb: FreeLBOptions | None = None
    structure: StructureOptions | None = None  # of this stage; none: the recipe's
    stages: list[dict[str, Any]] | None = Field(None, min_length=1)

    @field_validator("budget", mode="before")
    @classmethod
    def _seconds(cls, value: Any) -> Any:
        return None if value is None else parse_seconds(value, "training.budget")

    @model_validator(mode="after")
    def _checked(self) -> TrainingOptions:
        known = [*TrainingOptions.model_fields, *options.family("loss")]
        for name in self.model_extra or {}:
            if name not in options.family("loss"):
                raise RecipeError(f"training has no key '{name}'{did_you_mean(name, known)}")
        check_losses("loss", "training", self.model_extra or {})
        for name in self.trackers:
            _check_tracker(name)
        if self.stages is None:
            if not self.model_extra and not (self.structure and self.structure.losses):
                raise RecipeError("training has no loss; give at least one, e.g. kd: {weight: 0.5, temperature: 2.0}")
        elif self.model_extra:
            loss = next(iter(self.model_extra))
            raise RecipeError(f"training has both stages and the loss '{loss}'; move it into a stage")
        assert self.training_stages  # raises RecipeError for an invalid stage
        return self

    @model_serializer(mode="wrap")
    def _dumped(self, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        values: dict[str, Any] = handler(self)
        if info.context == IDENTITY:
            values.pop("report_to")  # trackers do not change the student
            if self.dropout is None:
                values.pop("dropout")  # students from before there was this key stay valid
        return values

    @property
    def trackers(self) -> list[str]:
        """`report_to` as a list; empty for none."""
        names = [self.report_to] if isinstance(self.report_to, str) else self.report_to or []
        return [name for name in names if name != "none"]

    @property
    def losses(self) -> NamedOptions:
        """Loss → its options, including the weight."""
        return {name: {"weight": 1.0, **given} for name, given in (self.model_extra or {}).items()}

    @property
    def training_stages(self) -> list[TrainingOptions]:
        """The stages, each with all its settings; without `stages`, this table itself."""
        if self.stages is None:
            return [self]
        common = {name: getattr(self, name) for name in self.model_fields_set & set(TrainingOptions.model_fields)}
        del common["stages"]
        stages = [_stage(number, stage, common) for number, stage in enumerate(self.stages, 1)]
        epochs = sum(stage.epochs for stage in stages)
        return [stage.with_share(self.budget, stage.epochs / epochs) for stage in stages]

    def epochs_of(self, originals: int) -> int | None:
        """Epochs that a stage begins with so many training texts; None: a time budget decides."""
        if self.budget is not None:
            return None
        steps = math.ceil(math.ceil(originals / self.batch_size) / self.accumulation)
        return math.ceil(min(self.epochs, self.max_steps / steps) if self.max_steps else self.epochs)

    def with_share(self, budget: float | None, share: float) -> TrainingOptions:
        """This training with `share` of a time budget in seconds; unchanged where `budget` is None."""
        return self if budget is None else self.model_copy(update={"budget": budget * share})


def _stage(number: int, table: dict[str, Any], common: dict[str, Any]) -> TrainingOptions:
    """Stage `number`, from 1, over the common settings; raises RecipeError naming the stage."""
    where = f"training.stages: stage {number}"
    if key := next((key for key in _SHARED_BY_STAGES if key in table), None):
        raise RecipeError(f"{where} has '{key}', which all stages share; move it up")
    try:
        return TrainingOptions.model_validate({**common, **table})
    except RecipeError as exc:
        raise RecipeError(f"{where}: {exc}") from exc
    except ValidationError as exc:
        error = exc.errors()[0]
        place = ".".join(str(part) for part in error["loc"])
        raise RecipeError(f"{where}: {place} is {short_repr(error['input'])}: {error['msg']}") from exc


def check_losses(kind: str, table: str, members: NamedOptions) -> None:
    """Checks a table of losses, each with a weight (a number or a schedule) and its options; raises RecipeError."""
    for name, given in members.items():
        if not isinstance(given, dict):
            raise RecipeError(f"{table}.{name} is {short_repr(given)}; give a table, e.g. {{weight: 0.5}}")
        plain = {key: value for key, value in given.items() if key != "weight"}  # a weight may be a schedule
        options.check_member(kind, name, plain, also=(_WEIGHT,))
        schedules.parse(given.get("weight", 1.0), f"{kind} '{name}' option 'weight'")


def _check_tracker(name: str) -> None:
    if name not in TRACKERS:
        raise RecipeError(f"training.report_to: there is no tracker '{name}'{did_you_mean(name, TRACKERS)}")
    if find_spec(_PACKAGES.get(name, name)) is None:  # now, not after the teacher has been trained
        package = "'augkd[tensorboard]'" if name == "tensorboard" else _PACKAGES.get(name, name)
        raise RecipeError(f"training.report_to: {name} is not installed; pip install {package}")


_WEIGHT = options.Option("weight", "float", ">= 0", 1.0)
