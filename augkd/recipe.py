"""YAML → validated recipes, without importing torch.

A recipe is checked whole before anything runs: an unknown key is an error with a suggestion. Paths in a file are
relative to that file, paths given with `--set` to the working directory; both become absolute here, and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from augkd import options
from augkd.errors import RecipeError, did_you_mean, shown

_T = TypeVar("_T", bound=BaseModel)
MINILM = "sentence-transformers/all-MiniLM-L6-v2"
# Keys that describe the data set beside them; a new data set given with --set takes none of them over.
_DESCRIBE = ("text", "text_pair", "label", "labels", "splits", "split", "config", "name", "metric", "regression")
_PATHS = ("dataset", "model", "index", "logits", "augmented_samples")


class _Loader(yaml.SafeLoader):
    """Safe YAML in which 1e-4 is a number, as YAML 1.2 has it, and not text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class CorpusOptions(_Table):
    """Unlabelled text: `augkd.data.corpus.CorpusSource`."""

    dataset: str
    text: str = "text"
    split: str = "train"
    config: str | None = None
    limit: int | None = Field(None, ge=1)
    min_chars: int = Field(1, ge=1)
    max_chars: int = Field(2000, ge=1)


class EncoderOptions(_Table):
    """Text → unit vectors."""

    model: str = MINILM
    max_length: int | None = Field(None, ge=8)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"


class FaissOptions(_Table):
    """Which FAISS index, and the recall@10 it is tuned to."""

    factory: str = "auto"
    recall: float = Field(0.95, gt=0, le=1)


class IndexRecipe(_Table):
    """One index: a corpus, an encoder, a FAISS factory."""

    corpus: CorpusOptions
    encoder: EncoderOptions = Field(default_factory=lambda: EncoderOptions.model_validate({}))
    faiss: FaissOptions = Field(default_factory=lambda: FaissOptions.model_validate({}))
    seed: int = 0

    @field_validator("corpus", mode="before")
    @classmethod
    def _corpus(cls, value: Any) -> Any:
        return {"dataset": value} if isinstance(value, str) else value


class TaskOptions(_Table):
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


class TeacherOptions(_Table):
    """A checkpoint as it is (`epochs: 0`), a trunk to fine-tune, or logits given as numbers."""

    model: str | None = None
    epochs: float = Field(0, ge=0)
    learning_rate: float = Field(1e-4, gt=0)
    batch_size: int = Field(32, ge=1)
    labels: list[str] | None = None  # names for a checkpoint that only knows LABEL_0, LABEL_1, …
    seed: int = 0
    logits: str | None = None  # Parquet with the texts and a list column, in place of a model
    column: Literal["logits", "probabilities"] = "logits"
    missing: Literal["error", "drop"] = "error"  # a candidate without numbers stops the run, or is left out

    @model_validator(mode="after")
    def _one(self) -> TeacherOptions:
        if (self.model is None) == (self.logits is None):
            raise ValueError("give either 'model' or 'logits'")
        return self


class StudentOptions(_Table):
    """Layers of the teacher, or a checkpoint of its own."""

    layers: list[int] | None = None
    model: str | None = None

    @model_validator(mode="after")
    def _one(self) -> StudentOptions:
        if (self.model is None) == (self.layers is None):
            raise ValueError("give either 'layers' (of the teacher) or 'model'")
        return self


class NeighbourOptions(_Table):
    """k neighbours of each labelled text, from an index recipe or a built index folder."""

    index: IndexRecipe | str
    k: int = Field(8, ge=1, le=256)
    min_distance: float = Field(0.0, ge=0, le=2)  # cosine distance in the encoder's space
    max_distance: float = Field(2.0, ge=0, le=2)


class DataOptions(_Table):
    """Extra texts, and which of them are kept."""

    neighbours: NeighbourOptions | None = None
    augmented_samples: str | None = None  # JSONL of Minimax-kNN or Glitter
    select: dict[str, dict[str, Any]] = {"everything": {}}
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


_WEIGHT = options.Option("weight", "float", ">= 0", 1.0)


class TrainingOptions(BaseModel):
    """The losses by name, each with its weight and options, and the schedule."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True, allow_inf_nan=False)

    epochs: float = Field(4, gt=0)
    batch_size: int = Field(32, ge=1)  # originals a step; their candidates come on top
    accumulation: int = Field(1, ge=1)
    learning_rate: float = Field(3e-4, gt=0)
    warmup: float = Field(0.06, ge=0, lt=1)  # share of the steps
    weight_decay: float = Field(0.01, ge=0)
    max_grad_norm: float = Field(1.0, ge=0)  # 0: no clipping
    max_length: int = Field(128, ge=8)  # tokens; teacher and student cut alike
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    checkpoints: int = Field(0, ge=0)  # extra checkpoints every so many steps; 0: at each epoch's end only
    patience: int = Field(0, ge=0)  # epochs without a better validation score before stopping; 0: never stop early

    @model_validator(mode="after")
    def _losses(self) -> TrainingOptions:
        known = [*TrainingOptions.model_fields, *options.family("loss")]
        for name, given in (self.model_extra or {}).items():
            if name not in options.family("loss"):
                raise RecipeError(f"training has no key '{name}'{did_you_mean(name, known)}")
            if not isinstance(given, dict):
                raise RecipeError(f"training.{name} is {shown(given)}; give a table, e.g. {{weight: 0.5}}")
            options.checked("loss", name, given, also=(_WEIGHT,))
        if not self.model_extra:
            raise RecipeError("training names no loss; give at least one, e.g. kd: {weight: 0.5, temperature: 2.0}")
        return self

    @property
    def losses(self) -> dict[str, dict[str, Any]]:
        """Loss name → its options, the weight among them."""
        return {name: {"weight": 1.0, **given} for name, given in (self.model_extra or {}).items()}


class Recipe(_Table):
    """One distillation run."""

    task: TaskOptions
    teacher: TeacherOptions
    student: StudentOptions
    data: DataOptions = Field(default_factory=lambda: DataOptions.model_validate({}))
    training: TrainingOptions
    seed: int = 0  # of the student's training; the teacher has its own, so that seeds share one teacher

    @field_validator("task", mode="before")
    @classmethod
    def _task(cls, value: Any) -> Any:
        return {"dataset": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if self.student.layers is not None and self.teacher.model is None:
            raise ValueError("student.layers needs a teacher model; with teacher.logits give student.model")
        return self


def load_recipe(name: str, sets: Iterable[str] = ()) -> Recipe:
    """The pipeline recipe at a path or of a shipped name, with `key=value` changes; raises RecipeError."""
    path = find(name, "pipelines")
    tree = _read(path)
    neighbours = tree.get("data", {}).get("neighbours") if isinstance(tree.get("data", {}), dict) else None
    if isinstance(neighbours, dict) and isinstance(neighbours.get("index"), str):
        neighbours["index"] = _inlined(neighbours["index"])
    for assignment in sets:
        _apply(tree, assignment)
    return _validated(Recipe, tree, path)


def load_index_recipe(name: str, sets: Iterable[str] = ()) -> IndexRecipe:
    """The index recipe at a path or of a shipped name, with `key=value` changes; raises RecipeError."""
    path = find(name, "indexes")
    tree = _read(path)
    for assignment in sets:
        _apply(tree, assignment)
    return _validated(IndexRecipe, tree, path)


def shipped(kind: str) -> dict[str, Path]:
    """Name → file of the recipes that come with augkd; `kind` is `indexes` or `pipelines`."""
    package = Path(__file__).parent
    for folder in (package / "_recipes" / kind, package.parent / kind):  # a wheel's place, then a checkout's
        if folder.is_dir():
            return {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    return {}


def find(name: str, kind: str) -> Path:
    """A recipe's file: a path as given, or the shipped recipe of that bare name."""
    path = Path(name).expanduser()
    if path.is_file():
        return path
    if name in shipped(kind):
        return shipped(kind)[name]
    raise RecipeError(f"no recipe file '{name}', and none of that name is shipped{did_you_mean(name, shipped(kind))}")


def _read(path: Path) -> dict[str, Any]:
    try:
        tree = _Loader(path.read_text(encoding="utf-8")).get_single_data()
    except yaml.YAMLError as exc:
        raise RecipeError(f"{path} is not YAML: {' '.join(str(exc).split())[:200]}") from exc
    except (OSError, UnicodeDecodeError) as exc:
        raise RecipeError(f"{path} cannot be read: {exc}") from exc
    if not isinstance(tree, dict):
        raise RecipeError(f"{path} holds {type(tree).__name__}; a recipe is a table of keys like 'task:' or 'corpus:'")
    for key in ("task", "corpus"):
        if isinstance(tree.get(key), str):
            tree[key] = {"dataset": tree[key]}
    _absolute(tree, path.resolve().parent)
    return tree


def _absolute(tree: Any, base: Path) -> None:
    """Makes every path in `tree` that exists below `base` absolute, in place; other names are left as Hub names."""
    for key, value in tree.items() if isinstance(tree, dict) else ():
        if key in _PATHS and isinstance(value, str):
            tree[key] = _path(value, base)
        elif key == "corpus" and isinstance(value, str):
            tree[key] = {"dataset": _path(value, base)}
        else:
            _absolute(value, base)


def _path(value: str, base: Path) -> str:
    path = base / Path(value).expanduser()
    explicit = value.startswith((".", "/", "~"))
    return str(path.resolve()) if explicit or path.exists() else value


def _inlined(index: str) -> Any:
    """The table of an index recipe's file or shipped name; a built index's folder stays a path."""
    if Path(index).is_dir():
        return index
    return _read(find(index, "indexes"))


def _apply(tree: dict[str, Any], assignment: str) -> None:
    """Applies one `dotted.key=value`; the value is YAML, paths are relative to the working directory."""
    key, found, text = assignment.partition("=")
    if not found or not key:
        raise RecipeError(f"--set {shown(assignment)} has no '='; write --set dotted.key=value")
    try:
        value = _Loader(text).get_single_data()
    except yaml.YAMLError as exc:
        raise RecipeError(f"--set {key}: value {shown(text)} is not YAML") from exc
    *parents, last = key.split(".")
    node = tree
    for parent in parents:
        if not isinstance(node.setdefault(parent, {}), dict):
            node[parent] = {}
        node = node[parent]
    if last in ("task", "corpus") and isinstance(value, str):
        node[last] = {"dataset": _path(value, Path.cwd())}
        return
    if last in _PATHS and isinstance(value, str):
        value = _path(value, Path.cwd())
        if last == "dataset":
            for described in _DESCRIBE:
                node.pop(described, None)
        if last == "index":
            value = _inlined(value)
    else:
        _absolute(value, Path.cwd())
    node[last] = value


def _validated(model: type[_T], tree: dict[str, Any], path: Path) -> _T:
    try:
        return model.model_validate(tree)
    except ValidationError as exc:
        raise RecipeError(f"{path}: {_one_line(model, exc)}") from exc
    except RecipeError as exc:
        raise RecipeError(f"{path}: {exc}") from exc


def _one_line(model: type[BaseModel], exc: ValidationError) -> str:
    errors = sorted(exc.errors(), key=lambda error: error["type"] != "extra_forbidden")
    error = errors[0]
    place = [str(part) for part in error["loc"] if part not in ("IndexRecipe", "str")]
    where = ".".join(place) or "the recipe"
    if error["type"] == "extra_forbidden":
        table = _table_at(model, place[:-1])
        inside = ".".join(place[:-1]) or "a recipe"
        return f"{inside} has no key '{place[-1]}'{did_you_mean(place[-1], table.model_fields)}"
    if error["type"] == "missing":
        return f"'{where}' is missing; a recipe needs it"
    return f"{where} is {shown(error['input'])}: {error['msg'].removeprefix('Value error, ')}"


def _table_at(model: type[BaseModel], place: list[str]) -> type[BaseModel]:
    for part in place:
        annotation = model.model_fields[part].annotation
        inner = [annotation, *get_args(annotation)]
        model = next((t for t in inner if isinstance(t, type) and issubclass(t, BaseModel)), model)
    return model


def dumped(recipe: BaseModel) -> dict[str, Any]:
    """A recipe as plain values, for manifests and fingerprints."""
    return recipe.model_dump(mode="json")
