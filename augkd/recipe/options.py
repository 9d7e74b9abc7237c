"""The options of losses and selectors, read from their source so that checking a recipe needs no torch.

Plug points are plain functions in a dict literal; their keyword-only parameters are their options. An annotation
`Annotated[float, "> 0"]` states the range once and `Literal["skip", "last"]` the choices, both for the recipe check
and for `augkd list`.
"""

from __future__ import annotations

import ast
import functools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from augkd.errors import RecipeError, did_you_mean, short_repr

_PACKAGE = Path(__file__).parent.parent
FAMILIES = {  # family → (file, name of the dict literal)
    "loss": ("distill/objective/losses.py", "LOSSES"),
    "intermediate-layer loss": ("distill/objective/layer_losses.py", "LAYER_LOSSES"),
    "selector": ("selection/selectors.py", "SELECTORS"),
    "label selector": ("selection/label_selectors.py", "LABEL_SELECTORS"),
}
_TYPES: dict[str, tuple[type, ...]] = {"float": (int, float), "int": (int,), "bool": (bool,), "str": (str,)}
_LARGEST = 2**63 - 1  # what a tensor's integer holds
_LIMITS = {
    ">": lambda value, bound: value > bound,
    ">=": lambda value, bound: value >= bound,
    "<": lambda value, bound: value < bound,
    "<=": lambda value, bound: value <= bound,
}


@dataclass(frozen=True)
class Option:
    """One keyword-only parameter: the name of its type, its range, its default."""

    name: str
    type: str
    limits: str  # "> 0" or ">= 0, <= 1"; "" for no limit
    default: Any
    choices: tuple[str, ...] = ()  # the only strings allowed; () for any
    required: bool = False  # has no default


@dataclass(frozen=True)
class Member:
    """One function of a family: the first line of its docstring, and its options."""

    summary: str
    options: tuple[Option, ...]


@functools.cache
def family(kind: str) -> Mapping[str, Member]:
    """The members of a family of `FAMILIES` by name, in the order of the source."""
    file, literal = FAMILIES[kind]
    tree = ast.parse((_PACKAGE / file).read_text(encoding="utf-8"))
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    return {name: _member(functions[function]) for name, function in _dict_literal(tree, literal).items()}


@functools.cache
def unsuited_losses(problem_type: str) -> tuple[str, ...]:
    """The losses that a task of this kind (`Target.problem_type`) cannot use: `UNSUITED` of the losses' source."""
    tree = ast.parse((_PACKAGE / FAMILIES["loss"][0]).read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "UNSUITED":
            return tuple(ast.literal_eval(node.value).get(problem_type, ()))
    raise AssertionError("no UNSUITED")


def check_member(kind: str, name: str, values: Mapping[str, Any], also: tuple[Option, ...] = ()) -> dict[str, Any]:
    """`values` as a dict if member `name` of the family accepts them; raises RecipeError naming what it accepts.

    `also` lists options that every member has (the weight of a loss).
    """
    members = family(kind)
    if name not in members:
        raise RecipeError(f"there is no {kind} {short_repr(name)}{did_you_mean(str(name), members)}")
    if not isinstance(values, Mapping):
        example = ", ".join(f"{option.name}: {option.default}" for option in members[name].options[:1])
        raise RecipeError(f"{kind} '{name}' is {short_repr(values)}; give a table of its options, e.g. {{{example}}}")
    return check_options(f"{kind} '{name}'", (*also, *members[name].options), values)


def check_options(what: str, known: Iterable[Option], values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` as a dict if all of them are `known` options; raises RecipeError, whose message begins with `what`."""
    options = {option.name: option for option in known}
    for key, value in values.items():
        if key not in options:
            raise RecipeError(f"{what} has no option {short_repr(key)}{did_you_mean(str(key), options)}")
        check_value(f"{what} option '{key}'", options[key], value)
    return dict(values)


def check_value(what: str, option: Option, value: Any) -> None:
    """Raises RecipeError when `value` is not of the option's type or out of its range."""
    if option.choices and value not in option.choices:
        raise RecipeError(f"{what} is {short_repr(value)}; it must be one of {', '.join(option.choices)}")
    types = _TYPES[option.type]
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        raise RecipeError(f"{what} is {short_repr(value)}; give {'an' if option.type == 'int' else 'a'} {option.type}")
    if isinstance(value, int) and abs(value) > _LARGEST:
        raise RecipeError(f"{what} is {short_repr(value)}; give at most {_LARGEST}")
    if isinstance(value, float) and not math.isfinite(value):
        raise RecipeError(f"{what} is {value}; give a finite number")
    for limit in filter(None, option.limits.split(",")):
        sign, bound = limit.split()
        if not _LIMITS[sign](value, float(bound)):
            raise RecipeError(f"{what} is {short_repr(value)}; it must be {option.limits}")


def _dict_literal(tree: ast.Module, name: str) -> dict[str, str]:
    """Key → name of the function, of the module's dict literal `name`."""
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        value = getattr(node, "value", None)
        if isinstance(value, ast.Dict) and any(isinstance(t, ast.Name) and t.id == name for t in targets):
            pairs = zip(value.keys, value.values, strict=True)
            return {str(k.value): v.id for k, v in pairs if isinstance(k, ast.Constant) and isinstance(v, ast.Name)}
    raise AssertionError(f"no dict literal {name}")


def _member(function: ast.FunctionDef) -> Member:
    summary = (ast.get_docstring(function) or "").split("\n")[0]
    parameters = zip(function.args.kwonlyargs, function.args.kw_defaults, strict=True)
    return Member(summary, tuple(_option(parameter, default) for parameter, default in parameters))


def _option(parameter: ast.arg, default: ast.expr | None) -> Option:
    annotation = ast.unparse(parameter.annotation) if parameter.annotation else "str"
    limits, choices = "", ()
    if annotation.startswith("Annotated["):
        annotation, literal = annotation[len("Annotated[") : -1].split(", ", 1)
        limits = ast.literal_eval(literal)
    if annotation.startswith("Literal["):
        choices = ast.literal_eval(f"({annotation[len('Literal[') : -1]},)")
        annotation = "str"
    return Option(parameter.arg, annotation, limits, _default_value(default) if default else None, choices)


def _default_value(node: ast.expr) -> Any:
    """A default: a literal or a quotient of two, since 20 / 30 of a training is clearer than 0.6666666666666666."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        return ast.literal_eval(node.left) / ast.literal_eval(node.right)
    return ast.literal_eval(node)
