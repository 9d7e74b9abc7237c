"""What a loss or selector can be told, read from its source so that checking a recipe needs no torch.

Plug points are plain functions in a dict literal; their keyword-only parameters are their options. An annotation
`Annotated[float, "> 0"]` states the range once, `Literal["skip", "last"]` the choices, for the recipe check and for
`augkd list` alike.
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
    "layer loss": ("distill/objective/layer_losses.py", "LAYER_LOSSES"),
    "selector": ("selection/selectors.py", "SELECTORS"),
}
_TYPES: dict[str, tuple[type, ...]] = {"float": (int, float), "int": (int,), "bool": (bool,), "str": (str,)}
_LIMITS = {
    ">": lambda value, bound: value > bound,
    ">=": lambda value, bound: value >= bound,
    "<": lambda value, bound: value < bound,
    "<=": lambda value, bound: value <= bound,
}


@dataclass(frozen=True)
class Option:
    """One keyword-only parameter: its type's name, its range in words, its default."""

    name: str
    type: str
    limits: str  # e.g. "> 0" or ">= 0, <= 1"; "" for none
    default: Any
    choices: tuple[str, ...] = ()  # all the strings it may be; () for any


@functools.cache
def family(kind: str) -> Mapping[str, tuple[str, tuple[Option, ...]]]:
    """Name → (first docstring line, options) of every member of a family of FAMILIES."""
    file, literal = FAMILIES[kind]
    tree = ast.parse((_PACKAGE / file).read_text(encoding="utf-8"))
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    members = {}
    for name, function in _dict_literal(tree, literal).items():
        node = functions[function]
        summary = (ast.get_docstring(node) or "").split("\n")[0]
        members[name] = (summary, tuple(_options(node)))
    return members


@functools.cache
def for_classes_only() -> tuple[str, ...]:
    """Losses that a regression task cannot have."""
    tree = ast.parse((_PACKAGE / FAMILIES["loss"][0]).read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "NEEDS_CLASSES":
            return tuple(ast.literal_eval(node.value))
    raise AssertionError("no NEEDS_CLASSES")


def check_member(kind: str, name: str, values: Mapping[str, Any], also: tuple[Option, ...] = ()) -> dict[str, Any]:
    """`values` if member `name` of the family takes them; raises RecipeError naming what it does take.

    `also` are options every member has (a loss's weight).
    """
    members = family(kind)
    if name not in members:
        raise RecipeError(f"there is no {kind} '{name}'{did_you_mean(name, members)}")
    return check_options(f"{kind} '{name}'", (*also, *members[name][1]), values)


def check_options(what: str, known: Iterable[Option], values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` if all are among the `known` options; raises RecipeError, whose line begins with `what`."""
    named = {option.name: option for option in known}
    for key, value in values.items():
        if key not in named:
            raise RecipeError(f"{what} has no option '{key}'{did_you_mean(str(key), named)}")
        check_value(f"{what} option '{key}'", named[key], value)
    return dict(values)


def check_value(what: str, option: Option, value: Any) -> None:
    """Raises RecipeError when `value` is not of the option's type or out of its range."""
    if option.choices and value not in option.choices:
        raise RecipeError(f"{what} is {short_repr(value)}; it must be one of {', '.join(option.choices)}")
    types = _TYPES[option.type]
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        raise RecipeError(f"{what} is {short_repr(value)}; give {'an' if option.type == 'int' else 'a'} {option.type}")
    if isinstance(value, float) and not math.isfinite(value):
        raise RecipeError(f"{what} is {value}; give a finite number")
    for limit in filter(None, option.limits.split(",")):
        sign, bound = limit.split()
        if not _LIMITS[sign](value, float(bound)):
            raise RecipeError(f"{what} is {short_repr(value)}; it must be {option.limits}")


def _dict_literal(tree: ast.Module, name: str) -> dict[str, str]:
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        value = getattr(node, "value", None)
        if isinstance(value, ast.Dict) and any(isinstance(t, ast.Name) and t.id == name for t in targets):
            pairs = zip(value.keys, value.values, strict=True)
            return {str(k.value): v.id for k, v in pairs if isinstance(k, ast.Constant) and isinstance(v, ast.Name)}
    raise AssertionError(f"no dict literal {name}")


def _options(node: ast.FunctionDef) -> list[Option]:
    found = []
    for argument, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
        text = ast.unparse(argument.annotation) if argument.annotation else "str"
        limits, choices = "", ()
        if text.startswith("Annotated["):
            text, limits = text[len("Annotated[") : -1].split(", ", 1)
            limits = ast.literal_eval(limits)
        if text.startswith("Literal["):
            text, choices = "str", ast.literal_eval(f"({text[len('Literal[') : -1]},)")
        found.append(Option(argument.arg, text, limits, _value(default) if default else None, choices))
    return found


def _value(node: ast.expr) -> Any:
    """A default: a literal, or a quotient of two, because 20 / 30 of a training says more than 0.6666666666666666."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        return ast.literal_eval(node.left) / ast.literal_eval(node.right)
    return ast.literal_eval(node)
