"""What a recipe can name: members of the families with their options, and the recipes that are shipped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel

from augkd.errors import RecipeError, did_you_mean
from augkd.recipe import DataOptions, options, shipped_recipes

_FAMILIES = {"losses": "loss", "layers": "layer loss", "selectors": "selector"}
KINDS = (*_FAMILIES, "sources", "pipelines", "indexes")
_SOURCES = {  # keys of `data` that candidates come from
    "neighbours": "The nearest texts of an index of unlabelled text.",
    "augmented_samples": "Texts from a JSONL file of Minimax-kNN or Glitter.",
    "generator": "Texts that a masked language model writes anew each step, trained against the student (MATE-KD).",
    "generated": "Texts of a trained generator, written into the transfer set.",
    "substitution": "Words replaced by a masked language model (TinyBERT).",
}


def catalogue(kind: str | None = None) -> dict[str, dict[str, Any]]:
    """Kind → name → what it does and, of losses and selectors, its options; raises RecipeError for an unknown kind."""
    if kind is not None and kind not in KINDS:
        raise RecipeError(f"there is no kind '{kind}'{did_you_mean(kind, KINDS)}")
    wanted = KINDS if kind is None else (kind,)
    return {name: _kind(name) for name in wanted}


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


def _kind(name: str) -> dict[str, Any]:
    if name in _FAMILIES:
        return _members(_FAMILIES[name])
    return _sources() if name == "sources" else _recipes(name)


def _sources() -> dict[str, Any]:
    """The sources that a recipe's `data` has keys for, with the keys of their tables."""
    fields = DataOptions.model_fields
    return {
        name: {"summary": summary, "options": [*_keys(fields[name].annotation)]}
        for name, summary in _SOURCES.items()
        if name in fields
    }


def _keys(annotation: Any) -> Iterator[dict[str, Any]]:
    """The keys of the table in a type like `Table | None`; none for a plain value."""
    table = next(
        (kind for kind in get_args(annotation) if isinstance(kind, type) and issubclass(kind, BaseModel)), None
    )
    for name, field in table.model_fields.items() if table else ():
        choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
        default = "required" if field.is_required() else field.get_default(call_default_factory=True)
        limits = ", ".join(_limit(found) for found in field.metadata)
        kind = "str" if choices else _type_name(field.annotation)
        yield {"name": name, "type": kind, "limits": limits, "default": default, "choices": choices}


def _type_name(annotation: Any) -> str:
    """A type as a reader of a recipe would say it: a table is a table, whatever its class."""
    kinds = [kind for kind in (get_args(annotation) or (annotation,)) if kind is not type(None)]
    told = ["table" if isinstance(kind, type) and issubclass(kind, BaseModel) else kind.__name__ for kind in kinds]
    return " | ".join(told)


def _limit(found: Any) -> str:
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    return " ".join(f"{sign} {getattr(found, name)}" for name, sign in signs.items() if hasattr(found, name))


def _recipes(kind: str) -> dict[str, Any]:
    first = {name: path.read_text(encoding="utf-8").split("\n", 1)[0] for name, path in shipped_recipes(kind).items()}
    return {name: {"summary": line.removeprefix("# ")} for name, line in first.items()}
