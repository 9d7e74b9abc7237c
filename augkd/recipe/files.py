"""Reads a YAML file and its `--set` overrides into a validated recipe.

The whole recipe is checked before anything runs; an unknown key is an error with a suggestion. Paths in a file are
relative to that file, paths given with `--set` to the working directory; both are made absolute here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from augkd.errors import RecipeError, did_you_mean, short_repr
from augkd.recipe.index import IndexRecipe
from augkd.recipe.pipeline import Recipe
from augkd.recipe.yaml_text import parse_yaml
from augkd.workspace.names import user_path
from augkd.workspace.storage import url_of

_T = TypeVar("_T", bound=BaseModel)
# Keys that describe the data set beside them; they are dropped when --set replaces that data set.
_DATASET_KEYS = (
    "text",
    "text_pair",
    "label",
    "labels",
    "separator",
    "empty_label",
    "splits",
    "split",
    "config",
    "name",
    "metric",
    "regression",
)
_PATH_KEYS = ("dataset", "model", "index", "logits", "augmented_samples", "transfer_set")
_NEW_PATH_KEYS = ("answers",)  # folders that need not exist yet
_LOCAL_KEYS = ("model", "logits", "augmented_samples", "answers")  # paths that cannot be URLs of object storage
_TRANSFER_SET_TRAINING = {"kd": {"weight": 0.5, "temperature": 2.0}, "ce": {"weight": 0.5}, "epochs": 4}


def load_recipe(name: str, overrides: Iterable[str] = ()) -> Recipe:
    """The pipeline recipe of a path or a shipped name, with `key=value` overrides applied; raises RecipeError."""
    path = find_recipe(name, "pipelines")
    tree = read_tree(path)
    _inline_index(tree)
    for override in overrides:
        apply_override(tree, override)
    return validate(Recipe, tree, path)


def load_index_recipe(name: str, overrides: Iterable[str] = ()) -> IndexRecipe:
    """The index recipe of a path or a shipped name, with `key=value` overrides applied; raises RecipeError."""
    path = find_recipe(name, "indexes")
    tree = read_tree(path)
    for override in overrides:
        apply_override(tree, override)
    return validate(IndexRecipe, tree, path)


def load_transfer_set_recipe(
    transfer_set: str, student: str | None, name: str | None = None, overrides: Iterable[str] = ()
) -> Recipe:
    """A recipe that trains from a given transfer set (a folder or a Hub name); raises RecipeError.

    `student` is the model to train. The rest is taken from the recipe `name` without its task, teacher, student and
    sources of candidates; without a name, it is vanilla KD for 4 epochs on everything that the transfer set holds.
    """
    path = find_recipe(name, "pipelines") if name else Path("--transfer-set")
    tree: dict[str, Any] = read_tree(path) if name else {"training": dict(_TRANSFER_SET_TRAINING)}
    data = tree.get("data") if isinstance(tree.get("data"), dict) else {}
    kept = {key: value for key, value in (data or {}).items() if key in ("select", "temperature", "refresh", "weight")}
    tree = {key: value for key, value in tree.items() if key not in ("task", "teacher", "student", "assistants")}
    tree["data"] = kept | {"transfer_set": _absolute_or_hub_name(transfer_set, Path.cwd())}
    if student is not None:
        tree["student"] = {"model": _absolute_or_hub_name(student, Path.cwd())}
    for override in overrides:
        apply_override(tree, override)
    return validate(Recipe, tree, path)


def shipped_recipes(kind: str) -> dict[str, Path]:
    """Name → file of the recipes that augkd ships; `kind` is `indexes` or `pipelines`."""
    package = Path(__file__).parent.parent
    for folder in (package / "_recipes" / kind, package.parent / kind):  # in a wheel, in a checkout
        if folder.is_dir():
            return {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    return {}


def find_recipe(name: str, kind: str) -> Path:
    """The file of a recipe: a path as it is, else the shipped recipe of that name; raises RecipeError."""
    path = user_path(name)
    if path.is_file():
        return path
    if name in shipped_recipes(kind):
        return shipped_recipes(kind)[name]
    suggestion = did_you_mean(name, shipped_recipes(kind))
    raise RecipeError(f"'{name}' is neither a recipe file nor the name of a shipped recipe{suggestion}")


def read_tree(path: Path) -> dict[str, Any]:
    """A recipe file as plain values with absolute paths; raises RecipeError for a file that is not a YAML table."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise RecipeError(f"{path} cannot be read: {exc}") from exc
    tree = parse_yaml(text, str(path))
    if not isinstance(tree, dict):
        kind = "nothing" if tree is None else f"a {type(tree).__name__}"
        raise RecipeError(f"{path} holds {kind}; a recipe is a table of keys such as 'task:' or 'corpus:'")
    _make_paths_absolute(tree, path.resolve().parent)
    return tree


def _make_paths_absolute(tree: Any, base: Path) -> None:
    """Makes every path in `tree` that exists below `base` absolute, in place; any other name is a name on the Hub."""
    for item in tree if isinstance(tree, list) else ():
        _make_paths_absolute(item, base)
    for key, value in tree.items() if isinstance(tree, dict) else ():
        if key == "model" and "endpoint" in tree:
            continue  # a name at a server, even where a folder has the same name
        if key in _LOCAL_KEYS and isinstance(value, str) and (url := url_of(value)):
            raise RecipeError(f"{key} is {url}: {key} is not read from storage; copy it here, and give its path")
        if key in _NEW_PATH_KEYS and isinstance(value, str):
            tree[key] = str((base / user_path(value)).resolve())
        elif key in _PATH_KEYS and isinstance(value, str):
            tree[key] = _absolute_or_hub_name(value, base)
        elif key == "endpoint" and isinstance(value, str):
            tree[key] = {"url": value}  # a table, to which --set can add a key
        elif key in ("task", "corpus") and isinstance(value, str):
            tree[key] = {"dataset": _absolute_or_hub_name(value, base)}
        elif key == "tasks" and isinstance(value, list):
            tree[key] = [_absolute_or_hub_name(item, base) if isinstance(item, str) else item for item in value]
            _make_paths_absolute(tree[key], base)
        else:
            _make_paths_absolute(value, base)


def _absolute_or_hub_name(value: str, base: Path) -> str:
    """A path that exists, or can be nothing else, made absolute; a URL of object storage in one form; else `value`."""
    if (url := url_of(value)) is not None:
        return url
    path = base / user_path(value)
    explicit = value.startswith((".", "/", "~"))
    return str(path.resolve()) if explicit or path.exists() else value


def _inline_index(tree: dict[str, Any]) -> None:
    """Replaces an index recipe that `data.neighbours.index` names with its table, in place."""
    data = tree.get("data")
    neighbours = data.get("neighbours") if isinstance(data, dict) else None
    if isinstance(neighbours, dict) and isinstance(neighbours.get("index"), str):
        neighbours["index"] = _index_table(neighbours["index"])


def _index_table(index: str) -> Any:
    """The table of an index recipe given as a file or shipped name; a built index stays a path or a URL."""
    if url_of(index) is not None or user_path(index).is_dir():
        return index
    return read_tree(find_recipe(index, "indexes"))


def apply_override(tree: dict[str, Any], override: str) -> None:
    """Applies one `dotted.key=value` in place; the value is YAML, its paths are relative to the working directory."""
    key, equals, text = override.partition("=")
    if not equals:
        raise RecipeError(f"--set {short_repr(override)} has no '='; write --set dotted.key=value")
    if not key:
        raise RecipeError(f"--set {short_repr(override)} has no key before '='; write --set dotted.key=value")
    value = parse_yaml(text, f"--set {short_repr(key)}: value {short_repr(text)}")
    *parents, last = key.split(".")
    table = _subtable(tree, parents)
    change = {last: value}
    if last != "model" or "endpoint" not in table:
        _make_paths_absolute(change, Path.cwd())
    if last == "dataset":
        for name in _DATASET_KEYS:
            table.pop(name, None)
    if last == "index" and isinstance(value, str):
        change[last] = _index_table(change[last])
    table |= change


def _subtable(tree: dict[str, Any], parents: list[str]) -> dict[str, Any]:
    """The table below these keys; created, in place of any plain value on the way, where there is none."""
    table = tree
    for parent in parents:
        if not isinstance(table.setdefault(parent, {}), dict):
            table[parent] = {}
        table = table[parent]
    return table


def validate(model: type[_T], tree: dict[str, Any], path: Path) -> _T:
    """`tree` as a `model`; raises RecipeError with one line about its first error, unknown keys before other errors."""
    try:
        return model.model_validate(tree)
    except ValidationError as exc:
        raise RecipeError(f"{path}: {_first_error(model, exc)}") from exc
    except RecipeError as exc:
        raise RecipeError(f"{path}: {exc}") from exc


def _first_error(model: type[BaseModel], exc: ValidationError) -> str:
    error = min(exc.errors(), key=lambda error: error["type"] != "extra_forbidden")
    place = [str(part) for part in error["loc"] if part not in ("IndexRecipe", "str")]
    where = ".".join(place) or "the recipe"
    if error["type"] == "extra_forbidden":
        table = _table_at(model, place[:-1])
        inside = ".".join(place[:-1]) or "a recipe"
        return f"{short_key(inside)} has no key {short_repr(place[-1])}{did_you_mean(place[-1], table.model_fields)}"
    if error["type"] == "missing":
        return f"{short_repr(where)} is missing; a recipe needs it"
    if error["type"] == "string_type" and isinstance(error["input"], bool | int | float):
        return f"{where} {_unquoted(error['input'])}"
    message = error["msg"].removeprefix("Value error, ")
    return f"{short_key(where)} is {short_repr(error['input'])}: {message}" if place else message


def _unquoted(value: bool | int | float) -> str:
    """What to do about a text that YAML took for something else."""
    if not isinstance(value, bool):
        return f"is the number {value}: quote it to make it a text: '{value}'"
    words = "'yes', 'on' or 'true'" if value else "'no', 'off' or 'false'"
    return f"is {str(value).lower()}: YAML reads an unquoted yes, no, on or off as true or false; quote it: {words}"


def short_key(key: str) -> str:
    """A dotted key as a message shows it: without quotes where it is plain."""
    return key if len(key) < 100 and key.isprintable() else short_repr(key, 100)


def _table_at(model: type[BaseModel], place: list[str]) -> type[BaseModel]:
    """The innermost table on the way to `place`, whose keys can be suggested."""
    for part in place:
        if part in model.model_fields:
            model = next(_tables(model.model_fields[part].annotation), model)
    return model


def _tables(annotation: Any) -> Iterator[type[BaseModel]]:
    """The tables in a type, at any depth of lists and unions."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _tables(inner)
