"""`augkd list` names everything a recipe can name, with the options the code has."""

from __future__ import annotations

import inspect

import pytest

from augkd.distill.objective.layer_losses import LAYER_LOSSES
from augkd.distill.objective.losses import LOSSES
from augkd.errors import RecipeError
from augkd.recipe import shipped_recipes
from augkd.recipe.catalogue import KINDS, catalogue, lines
from augkd.selection.selectors import SELECTORS


def test_every_member_of_every_family_is_listed_with_the_options_of_its_signature() -> None:
    found = catalogue()
    assert set(found) == set(KINDS)
    for kind, members in (("losses", LOSSES), ("layers", LAYER_LOSSES), ("selectors", SELECTORS)):
        assert set(found[kind]) == set(members)
        for name, function in members.items():
            parameters = inspect.signature(function).parameters.values()
            defaults = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
            assert {option["name"]: option["default"] for option in found[kind][name]["options"]} == defaults
            assert found[kind][name]["summary"]
    assert set(found["pipelines"]) == set(shipped_recipes("pipelines"))


def test_the_lines_show_ranges_and_choices() -> None:
    text = "\n".join(lines(catalogue("losses")))
    assert "temperature: float = 2.0 (> 0)" in text
    assert "selectors" not in text
    assert "layers: str = skip (skip, last)" in "\n".join(lines(catalogue("layers")))


def test_an_unknown_kind_is_refused_with_the_one_meant() -> None:
    with pytest.raises(RecipeError, match="did you mean 'losses'"):
        catalogue("loses")
