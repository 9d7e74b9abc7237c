"""YAML from files and `--set` as plain values, within bounds: a recipe may come from a stranger.

Only plain values are built (`SafeLoader`). An alias stands for all that it names, so nine lines of nine aliases would
be 387 million values; they are counted before anything is built.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from augkd.errors import RecipeError

LONGEST = 1_000_000  # characters of a recipe
MOST_VALUES = 100_000  # every alias counted as all it stands for
DEEPEST = 100  # tables and lists within each other
MOST_DIGITS = 40  # of an integer


class _Loader(yaml.SafeLoader):
    """Safe YAML in which 1e-4 is a number, as in YAML 1.2, and not a string."""

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """Python converts no number of more than 4,300 digits, and no key takes one of 40."""
        if len(node.value) > MOST_DIGITS:
            raise yaml.constructor.ConstructorError(
                None, None, f"a number of {len(node.value)} digits is too long", node.start_mark
            )
        return int(super().construct_yaml_int(node))


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def parse_yaml(text: str, what: str) -> Any:
    """The value of a YAML text; raises RecipeError, whose message begins with `what`, if it is invalid or too large."""
    if len(text) > LONGEST:
        raise RecipeError(f"{what} has {len(text):,} characters; a recipe has at most {LONGEST:,}")
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _count(node, {}, DEEPEST, what)
        return loader.construct_document(node)
    except RecipeError:
        raise
    except RecursionError as exc:
        raise RecipeError(f"{what} is nested more than {DEEPEST} levels deep; a recipe has a few") from exc
    except Exception as exc:  # a tag whose value it does not fit raises ValueError, KeyError, AttributeError, …
        problem = getattr(exc, "problem", None)
        reason = problem if what.startswith("--set") and problem else " ".join(str(exc).split())[:200]
        raise RecipeError(f"{what} is not valid YAML: {reason}") from exc


def _count(node: Any, known: dict[int, int], levels: int, what: str) -> int:
    """The values below a node, aliases counted as all they stand for; raises RecipeError when they are too many."""
    if levels == 0:
        raise RecipeError(f"{what} is nested more than {DEEPEST} levels deep, or an alias contains itself")
    if id(node) in known:
        return known[id(node)]
    inner = node.value if isinstance(node.value, list) else []
    nodes = [part for pair in inner for part in pair] if isinstance(node, yaml.MappingNode) else inner
    total = 1
    for part in nodes:
        total += _count(part, known, levels - 1, what)
        if total > MOST_VALUES:
            raise RecipeError(f"{what} stands for more than {MOST_VALUES:,} values with its aliases written out")
    known[id(node)] = total
    return total
