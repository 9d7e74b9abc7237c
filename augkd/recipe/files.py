"""YAML files and `--set` → validated recipes.

A recipe is checked whole before anything runs: an unknown key is an error with a suggestion. Paths in a file are
relative to that file, paths given with `--set` to the working directory; both become absolute here, and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from augkd.errors import RecipeError, did_you_mean, short_repr
from augkd.recipe.index import IndexRecipe
from augkd.recipe.pipeline import Recipe

_T = TypeVar("_T", bound=BaseModel)
# Keys that describe the data set beside them; a new data set given with --set takes none of them over.
_DESCRIBE = ("text", "text_pair", "label", "labels", "splits", "split", "config", "name", "metric", "regression")
_PATHS = ("dataset", "model", "index", "logits", "augmented_samples")


class _Loader(yaml.SafeLoader):
    """Safe YAML in which 1e-4 is a number, as YAML 1.2 has it, and not text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def load_recipe(name: str, sets: Iterable[str] = ()) -> Recipe:
    """The pipeline recipe at a path or of a shipped name, with `key=value` changes; raises RecipeError."""
    path = find_recipe(name, "pipelines")
    tree = read_tree(path)
    neighbours = tree.get("data", {}).get("neighbours") if isinstance(tree.get("data", {}), dict) else None
    if isinstance(neighbours, dict) and isinstance(neighbours.get("index"), str):
        neighbours["index"] = _inlined(neighbours["index"])
    for assignment in sets:
        apply(tree, assignment)
    return validated(Recipe, tree, path)


def load_index_recipe(name: str, sets: Iterable[str] = ()) -> IndexRecipe:
    """The index recipe at a path or of a shipped name, with `key=value` changes; raises RecipeError."""
    path = find_recipe(name, "indexes")
    tree = read_tree(path)
    for assignment in sets:
        apply(tree, assignment)
    return validated(IndexRecipe, tree, path)


def shipped_recipes(kind: str) -> dict[str, Path]:
    """Name → file of the recipes that come with augkd; `kind` is `indexes` or `pipelines`."""
    package = Path(__file__).parent.parent
    for folder in (package / "_recipes" / kind, package.parent / kind):  # a wheel's place, then a checkout's
        if folder.is_dir():
            return {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    return {}


def find_recipe(name: str, kind: str) -> Path:
    """A recipe's file: a path as given, or the shipped recipe of that bare name."""
    path = Path(name).expanduser()
    if path.is_file():
        return path
    if name in shipped_recipes(kind):
        return shipped_recipes(kind)[name]
    raise RecipeError(f"no recipe file '{name}', and none of that name is shipped{did_you_mean(name, shipped_recipes(kind))}")


def read_tree(path: Path) -> dict[str, Any]:
    """A recipe file as plain values, its paths absolute; raises RecipeError for a file that holds none."""
    try:
        tree = _Loader(path.read_text(encoding="utf-8")).get_single_data()
    except yaml.YAMLError as exc:
        raise RecipeError(f"{path} is not YAML: {' '.join(str(exc).split())[:200]}") from exc
    except (OSError, UnicodeDecodeError) as exc:
        raise RecipeError(f"{path} cannot be read: {exc}") from exc
    if not isinstance(tree, dict):
        raise RecipeError(f"{path} holds {type(tree).__name__}; a recipe is a table of keys like 'task:' or 'corpus:'")
    _absolute(tree, path.resolve().parent)
    return tree


def _absolute(tree: Any, base: Path) -> None:
    """Makes every path in `tree` that exists below `base` absolute, in place; other names are left as Hub names."""
    for item in tree if isinstance(tree, list) else ():
        _absolute(item, base)
    for key, value in tree.items() if isinstance(tree, dict) else ():
        if key in _PATHS and isinstance(value, str):
            tree[key] = _path(value, base)
        elif key in ("task", "corpus") and isinstance(value, str):
            tree[key] = {"dataset": _path(value, base)}
        elif key == "tasks" and isinstance(value, list):
            tree[key] = [_path(item, base) if isinstance(item, str) else item for item in value]
            _absolute(tree[key], base)
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
    return read_tree(find_recipe(index, "indexes"))


def apply(tree: dict[str, Any], assignment: str) -> None:
    """Applies one `dotted.key=value`; the value is YAML, paths are relative to the working directory."""
    key, found, text = assignment.partition("=")
    if not found or not key:
        raise RecipeError(f"--set {short_repr(assignment)} has no '='; write --set dotted.key=value")
    try:
        value = _Loader(text).get_single_data()
    except yaml.YAMLError as exc:
        raise RecipeError(f"--set {key}: value {short_repr(text)} is not YAML") from exc
    *parents, last = key.split(".")
    node = tree
    for parent in parents:
        if not isinstance(node.setdefault(parent, {}), dict):
            node[parent] = {}
        node = node[parent]
    changed = {last: value}
    _absolute(changed, Path.cwd())
    if last == "dataset":
        for described in _DESCRIBE:
            node.pop(described, None)
    if last == "index" and isinstance(value, str):
        changed[last] = _inlined(changed[last])
    node |= changed


def validated(model: type[_T], tree: dict[str, Any], path: Path) -> _T:
    """`tree` as a `model`; raises RecipeError with the first thing that is wrong, in one line."""
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
    message = error["msg"].removeprefix("Value error, ")
    return f"{where} is {short_repr(error['input'])}: {message}" if place else message


def _table_at(model: type[BaseModel], place: list[str]) -> type[BaseModel]:
    for part in place:
        if part in model.model_fields:
            model = next(_tables(model.model_fields[part].annotation), model)
    return model


def _tables(annotation: Any) -> Iterator[type[BaseModel]]:
    """The tables in a type, however deep in lists and unions."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _tables(inner)
