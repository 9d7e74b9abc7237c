"""What a recipe can name: losses, selectors and sources with their options, and the recipes that augkd ships.

`augkd list` prints it. Options come from the functions and tables themselves and summaries from their docstrings or the
first line of a recipe, so the catalogue cannot disagree with the code. Shipped pipelines are grouped by the axis on
which they improve distillation.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from augkd.errors import RecipeError, did_you_mean
from augkd.recipe.data import DataOptions
from augkd.recipe.files import shipped_recipes
from augkd.recipe.options import Option, family

_FAMILIES = {
    "losses": "loss",
    "layers": "intermediate-layer loss",
    "selectors": "selector",
    "label-selectors": "label selector",
}
KINDS = (*_FAMILIES, "sources", "pipelines", "indexes")
_SOURCES = {  # keys of `data` that give candidates
    "neighbours": "The nearest texts of an index of unlabelled text.",
    "augmented_samples": "Texts from a JSONL file of Minimax-kNN or Glitter.",
    "transfer_set": "A finished transfer set, in place of all other sources.",
    "generator": "Texts that a masked language model, trained against the student, generates in every step (MATE-KD).",
    "generated": "Texts of a trained generator, stored in the transfer set.",
    "substitution": "Words replaced with predictions of a masked language model (TinyBERT).",
}
GROUPS = {  # axis of distillation, or group → what its pipelines change, and their names
    "data": (
        "which texts the student sees",
        (
            *("quick", "best", "demo", "vanilla-knn", "minimax-knn", "tinybert-augmentation", "mate-kd"),
            *("mate-minimax-knn", "label-budget"),
        ),
    ),
    "training": (
        "which loss, on which schedule, from which teacher",
        (
            *("kd", "logit-regression", "label-smoothing", "tf-kd", "tf-kd-self", "annealing-kd", "continuation-kd"),
            *("takd", "born-again", "reverse-kd", "defective-teacher", "freelb", "llm"),
        ),
    ),
    "structure": (
        "what inside the teacher is matched",
        ("pkd", "ckd-no", "ckd-po", "alp-kd", "alp-no", "alp-po", "rail-kd", "tinybert", "distilbert"),
    ),
    "several axes": ("combinations of the above", ("combined-kd", "mate-alp")),
    "students": ("small models of another architecture", ("bilstm", "static")),
    "controls and comparisons": (
        "what a method has to beat, and many methods on many tasks",
        ("no-kd", "random-masking", "all-in-one", "adversarial"),
    ),
}
_OTHER = "other"  # the group of a pipeline that GROUPS does not name


@dataclass(frozen=True)
class Entry:
    """One thing that a recipe can name."""

    summary: str
    options: tuple[Option, ...] = ()
    group: str | None = None  # of a pipeline: a key of GROUPS


Catalogue = Mapping[str, Mapping[str, Entry]]  # kind → name → entry


def catalogue(kind: str | None = None) -> Catalogue:
    """The entries of one kind of `KINDS`, or of all; raises RecipeError for an unknown kind."""
    if kind is not None and kind not in KINDS:
        raise RecipeError(f"there is nothing to list under '{kind}'{did_you_mean(kind, KINDS)}")
    return {name: _entries(name) for name in ((kind,) if kind else KINDS)}


def as_json(listing: Catalogue) -> dict[str, dict[str, Any]]:
    """A catalogue as plain values: kind → name → summary, with `options` and `group` where an entry has them."""
    return {
        kind: {
            name: {key: value for key, value in dataclasses.asdict(entry).items() if value or key == "summary"}
            for name, entry in entries.items()
        }
        for kind, entries in listing.items()
    }


def lines(listing: Catalogue) -> Iterator[str]:
    """A catalogue as text: names and summaries in two columns, options below their entry, pipelines by group."""
    for kind, entries in listing.items():
        yield f"{kind}:"
        width = max(map(len, entries), default=0) + 2
        group = None
        for name, entry in entries.items():
            if entry.group != group:
                group = entry.group
                yield f"  {group}: {GROUPS[group][0]}" if group in GROUPS else f"  {group}:"
            indent = "    " if group else "  "
            yield f"{indent}{name:{width}}{entry.summary}"
            for option in entry.options:
                yield f"{indent}{'':{width}}  {_option_line(option)}"


def _option_line(option: Option) -> str:
    allowed = ", ".join(option.choices) or option.limits
    default = ", required" if option.required else f" = {_as_yaml(option.default)}"
    return f"{option.name}: {option.type}{default}{f' ({allowed})' if allowed else ''}"


def _as_yaml(default: Any) -> str:
    """A default as a recipe would write it, to four decimal places."""
    if default is None or isinstance(default, bool):
        return str(default).lower()
    return str(round(default, 4)) if isinstance(default, float) else str(default)


# ---- the entries of each kind ----


def _entries(kind: str) -> dict[str, Entry]:
    if kind in _FAMILIES:
        members = family(_FAMILIES[kind])
        return {name: Entry(member.summary, member.options) for name, member in members.items()}
    if kind == "sources":
        return {name: Entry(summary, tuple(_source_options(name))) for name, summary in _SOURCES.items()}
    return _pipelines() if kind == "pipelines" else {n: Entry(_summary(p)) for n, p in shipped_recipes(kind).items()}


def _pipelines() -> dict[str, Entry]:
    """The shipped pipelines in the order of GROUPS, then any that it does not name."""
    files = shipped_recipes("pipelines")
    groups = {name: group for group, (_, names) in GROUPS.items() for name in names if name in files}
    groups |= {name: _OTHER for name in files if name not in groups}
    return {name: Entry(_summary(files[name]), group=group) for name, group in groups.items()}


def _summary(recipe: Path) -> str:
    """The first line of a recipe's file, which is a comment."""
    return recipe.read_text(encoding="utf-8").split("\n", 1)[0].removeprefix("# ")


def _source_options(name: str) -> Iterator[Option]:
    """The keys of a source's table in `data`; none for a source that is a plain value."""
    types = get_args(DataOptions.model_fields[name].annotation)
    table = next((kind for kind in types if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
    for key, field in table.model_fields.items() if table else ():
        yield _option(key, field)


def _option(key: str, field: FieldInfo) -> Option:
    choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    return Option(
        name=key,
        type="str" if choices else _type_name(field.annotation),
        limits=", ".join(map(_limit, field.metadata)),
        default=None if field.is_required() else field.get_default(call_default_factory=True),
        choices=choices,
        required=field.is_required(),
    )


def _type_name(annotation: Any) -> str:
    """A type as a recipe shows it: every table is `table`, whatever its class."""
    types = [kind for kind in (get_args(annotation) or (annotation,)) if kind is not type(None)]
    names = ["table" if isinstance(kind, type) and issubclass(kind, BaseModel) else kind.__name__ for kind in types]
    return " | ".join(names)


def _limit(constraint: Any) -> str:
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    bounds = [f"{sign} {getattr(constraint, name)}" for name, sign in signs.items() if hasattr(constraint, name)]
    return " ".join(bounds)
