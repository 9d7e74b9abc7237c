"""`augkd list` names everything a recipe can name, with the options the code has, in aligned columns."""

from __future__ import annotations

import inspect
import json

import pytest

from augkd.distill.objective.layer_losses import LAYER_LOSSES
from augkd.distill.objective.losses import LOSSES
from augkd.errors import RecipeError
from augkd.recipe import DataOptions, NeighbourOptions, shipped_recipes
from augkd.recipe.catalogue import GROUPS, KINDS, as_json, catalogue, lines
from augkd.selection.selectors import SELECTORS


def test_every_member_of_every_family_is_listed_with_the_options_of_its_signature() -> None:
    listing = catalogue()
    assert set(listing) == set(KINDS)
    for kind, members in (("losses", LOSSES), ("layers", LAYER_LOSSES), ("selectors", SELECTORS)):
        assert set(listing[kind]) == set(members)
        for name, function in members.items():
            parameters = inspect.signature(function).parameters.values()
            defaults = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
            assert {option.name: option.default for option in listing[kind][name].options} == defaults
            assert listing[kind][name].summary


def test_every_source_is_a_key_of_data_with_the_keys_of_its_table() -> None:
    sources = catalogue("sources")["sources"]
    assert set(sources) <= set(DataOptions.model_fields)
    assert [option.name for option in sources["neighbours"].options] == list(NeighbourOptions.model_fields)
    assert [option.name for option in sources["neighbours"].options if option.required] == ["index"]
    assert sources["augmented_samples"].options == ()


def test_the_lines_show_ranges_choices_and_defaults_as_a_recipe_writes_them() -> None:
    text = "\n".join(lines(catalogue("losses")))
    assert "temperature: float = 2.0 (> 0)" in text
    assert "centre: bool = false" in text
    assert "ramp: float = 0.6667 (> 0, <= 1)" in text
    assert "selectors" not in text
    assert "layers: str = skip (skip, last)" in "\n".join(lines(catalogue("layers")))
    sources = "\n".join(lines(catalogue("sources")))
    assert "index: table | str, required\n" in sources
    assert "max_teacher_distance: float = none (> 0)" in sources


@pytest.mark.parametrize("kind", KINDS)
def test_every_summary_of_a_kind_begins_in_the_same_column(kind: str) -> None:
    entries = catalogue(kind)[kind]
    printed = list(lines(catalogue(kind)))
    columns = set()
    for name, entry in entries.items():
        (line,) = [line for line in printed if line.split() and line.split()[0] == name and entry.summary in line]
        assert f"{name}  " in line, "at least two spaces stand between a name and its summary"
        columns.add(line.index(entry.summary))
    assert len(columns) == 1


def test_every_shipped_pipeline_is_listed_once_under_its_group() -> None:
    pipelines = catalogue("pipelines")["pipelines"]
    assert set(pipelines) == set(shipped_recipes("pipelines"))
    names = [name for _, members in GROUPS.values() for name in members]
    assert sorted(names) == sorted(pipelines), "name every pipeline in one group of GROUPS"
    printed = list(lines(catalogue("pipelines")))
    headings = [line.strip().split(":")[0] for line in printed if line.startswith("  ") and line[2] != " "]
    assert headings == list(GROUPS)
    assert pipelines["minimax-knn"].group == "data"


def test_the_json_form_is_plain_and_leaves_out_what_an_entry_has_not() -> None:
    value = json.loads(json.dumps(as_json(catalogue())))
    assert list(value) == list(KINDS)
    assert value["pipelines"]["pkd"]["group"] == "structure"
    assert set(value["indexes"]["demo"]) == {"summary"}
    assert value["selectors"]["minimax"]["options"] == [
        {"name": "keep", "type": "int", "limits": ">= 1", "default": 4, "choices": [], "required": False},
        {"name": "of", "type": "int", "limits": ">= 0", "default": 0, "choices": [], "required": False},
    ]


def test_an_unknown_kind_is_refused_with_the_one_meant() -> None:
    with pytest.raises(RecipeError, match="did you mean 'losses'"):
        catalogue("loses")
