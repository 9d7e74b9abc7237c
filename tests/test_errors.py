"""The tree drawn in errors.py is the tree of the classes, and every error of the package is in it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import augkd
from augkd import errors
from augkd.errors import AugkdError, did_you_mean, first_line, short_repr

PACKAGE = Path(augkd.__file__).parent


def depths(error: type[AugkdError], depth: int = 0) -> dict[str, int]:
    """The name and depth of an error and of all errors below it."""
    below = [depths(child, depth + 1) for child in error.__subclasses__()]
    return {error.__name__: depth} | {name: depth for tree in below for name, depth in tree.items()}


def test_the_drawn_tree_is_the_tree_of_the_classes() -> None:
    drawn = re.findall(r"^( *)[*+-] (\w+)", errors.__doc__ or "", flags=re.MULTILINE)
    assert {name: len(indent) // 2 for indent, name in drawn} == depths(AugkdError)


def test_no_error_is_defined_outside_the_tree() -> None:
    bases = set(depths(AugkdError))
    for path in PACKAGE.rglob("*.py"):
        if path.name == "errors.py":
            continue
        classes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)]
        assert not [c.name for c in classes if {ast.unparse(base) for base in c.bases} & bases], path


def test_a_name_gets_the_closest_known_one_or_the_list_of_all() -> None:
    assert did_you_mean("temprature", ["temperature", "weight"]) == "; did you mean 'temperature'?"
    assert did_you_mean("zzz", ["b", "a"]) == "; known: a, b"
    assert did_you_mean("zzz", []) == ""


def test_a_value_fits_into_one_line() -> None:
    assert short_repr("a\nb") == r"'a\nb'"
    assert short_repr("x" * 100) == "'" + "x" * 58 + "…"


def test_only_the_first_line_of_a_foreign_message_is_shown() -> None:
    assert first_line(ValueError("no route\nto host")) == "no route"
    assert first_line(KeyboardInterrupt()) == "KeyboardInterrupt"
