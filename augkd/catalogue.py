"""What a recipe can name: members of the families with their options, and the recipes that are shipped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from augkd import options
from augkd.errors import RecipeError, did_you_mean
from augkd.recipe import shipped

_FAMILIES = {"losses": "loss", "layers": "layer loss", "selectors": "selector"}
KINDS = (*_FAMILIES, "pipelines", "indexes")


def catalogue(kind: str | None = None) -> dict[str, dict[str, Any]]:
    """Kind → name → what it does and, of losses and selectors, its options; raises RecipeError for an unknown kind."""
    if kind is not None and kind not in KINDS:
        raise RecipeError(f"there is no kind '{kind}'{did_you_mean(kind, KINDS)}")
    wanted = KINDS if kind is None else (kind,)
    return {name: _members(_FAMILIES[name]) if name in _FAMILIES else _recipes(name) for name in wanted}


def lines(found: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """A catalogue to read."""
    for kind, members in found.items():
        yield f"{kind}:"
        for name, facts in members.items():
            yield f"  {name:20}{facts['summary']}"
            for option in facts.get("options", []):
                yield f"  {'':20}  {option['name']}: {option['type']} = {option['default']}{_limits(option)}"


def _limits(option: Mapping[str, Any]) -> str:
    if option["choices"]:
        return f" ({', '.join(option['choices'])})"
    return f" ({option['limits']})" if option["limits"] else ""


def _members(family: str) -> dict[str, Any]:
    return {
        name: {"summary": summary, "options": [vars(option) for option in given]}
        for name, (summary, given) in options.family(family).items()
    }


def _recipes(kind: str) -> dict[str, Any]:
    first = {name: path.read_text(encoding="utf-8").split("\n", 1)[0] for name, path in shipped(kind).items()}
    return {name: {"summary": line.removeprefix("# ")} for name, line in first.items()}
