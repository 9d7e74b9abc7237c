"""Options read from source equal the signatures; a wrong option is refused with a suggestion."""

from __future__ import annotations

import inspect
import subprocess
import sys
import typing
from typing import Any

import pytest

from augkd.distill.objective.layer_losses import LAYER_LOSSES
from augkd.distill.objective.losses import LOSSES
from augkd.errors import RecipeError
from augkd.recipe import options
from augkd.selection.label_selectors import LABEL_SELECTORS
from augkd.selection.selectors import SCORED, SELECTORS

FAMILIES: dict[str, Any] = {
    "loss": LOSSES,
    "intermediate-layer loss": LAYER_LOSSES,
    "selector": SELECTORS,
    "label selector": LABEL_SELECTORS,
}
MEMBERS = [(kind, name, function) for kind, members in FAMILIES.items() for name, function in members.items()]
WEIGHT = options.Option("weight", "float", ">= 0", 1.0)


def message(kind: str, name: str, values: dict[str, Any], **more: Any) -> str:
    with pytest.raises(RecipeError) as caught:
        options.check_member(kind, name, values, **more)
    return str(caught.value)


def test_the_families_read_from_source_are_the_dicts_in_order() -> None:
    assert {kind: list(options.family(kind)) for kind in options.FAMILIES} == {k: list(m) for k, m in FAMILIES.items()}
    assert set(SELECTORS) >= SCORED


@pytest.mark.parametrize(("kind", "name", "function"), MEMBERS, ids=[f"{k}-{n}" for k, n, _ in MEMBERS])
def test_options_read_from_source_equal_the_signature(kind: str, name: str, function: Any) -> None:
    hints = typing.get_type_hints(function, include_extras=True)
    expected = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is not parameter.KEYWORD_ONLY:
            continue
        hint = hints[parameter.name]
        inner, limits = typing.get_args(hint) if typing.get_origin(hint) is typing.Annotated else (hint, "")
        choices = typing.get_args(inner) if typing.get_origin(inner) is typing.Literal else ()
        type_name = "str" if choices else inner.__name__
        expected.append(options.Option(parameter.name, type_name, limits, parameter.default, choices))
    member = options.family(kind)[name]
    assert list(member.options) == expected
    assert member.summary == (inspect.getdoc(function) or "").split("\n")[0] != ""


@pytest.mark.parametrize(("kind", "name", "function"), MEMBERS, ids=[f"{k}-{n}" for k, n, _ in MEMBERS])
def test_every_default_passes_its_own_check(kind: str, name: str, function: Any) -> None:
    defaults = {option.name: option.default for option in options.family(kind)[name].options}
    assert options.check_member(kind, name, defaults) == defaults


def test_a_typo_in_an_option_names_the_option_meant() -> None:
    assert message("loss", "kd", {"temprature": 2.0}) == (
        "loss 'kd' has no option 'temprature'; did you mean 'temperature'?"
    )
    assert options.check_member("loss", "kd", {"temperature": 2.0}) == {"temperature": 2.0}


def test_an_option_close_to_no_other_is_refused_with_the_list_of_all() -> None:
    assert message("loss", "kd", {"zzz": 1}, also=(WEIGHT,)) == (
        "loss 'kd' has no option 'zzz'; known: temperature, weight"
    )


def test_a_member_without_options_refuses_any_and_lists_none() -> None:
    assert message("selector", "everything", {"keep": 4}) == "selector 'everything' has no option 'keep'"


def test_a_typo_in_a_member_names_the_member_meant() -> None:
    assert message("selector", "minmax", {}) == "there is no selector 'minmax'; did you mean 'minimax'?"
    assert message("loss", "logit-regression", {}) == (
        "there is no loss 'logit-regression'; did you mean 'logit_regression'?"
    )


@pytest.mark.parametrize("value", [0, -1.0])
def test_a_temperature_of_zero_or_less_is_out_of_range(value: float) -> None:
    assert message("loss", "kd", {"temperature": value}) == (
        f"loss 'kd' option 'temperature' is {value}; it must be > 0"
    )
    assert options.check_member("loss", "kd", {"temperature": 1e-3}) == {"temperature": 1e-3}


def test_a_bound_that_is_included_is_taken_and_one_below_is_not() -> None:
    assert options.check_member("selector", "minimax", {"keep": 1}) == {"keep": 1}
    assert "it must be >= 1" in message("selector", "minimax", {"keep": 0})
    assert options.check_member("loss", "ce", {"weight": 0}, also=(WEIGHT,)) == {"weight": 0}
    assert "it must be >= 0" in message("loss", "ce", {"weight": -0.1}, also=(WEIGHT,))


def test_both_bounds_of_a_range_hold() -> None:
    share = options.Option("share", "float", ">= 0, <= 1", 0.5)
    assert options.check_member("loss", "ce", {"share": 1}, also=(share,)) == {"share": 1}
    for value in (-0.1, 1.1):
        assert message("loss", "ce", {"share": value}, also=(share,)).endswith("it must be >= 0, <= 1")


def test_not_a_number_is_out_of_every_range() -> None:
    assert "give a finite number" in message("loss", "kd", {"temperature": float("nan")})


@pytest.mark.parametrize("value", [True, 2.0, "2", None, [2]])
def test_only_an_int_is_an_int_and_a_bool_is_not(value: Any) -> None:
    assert message("selector", "minimax", {"keep": value}).endswith("; give an int")


@pytest.mark.parametrize("value", [True, "2", None])
def test_a_bool_is_not_a_float_either(value: Any) -> None:
    assert message("loss", "kd", {"temperature": value}).endswith("; give a float")
    assert options.check_member("loss", "kd", {"temperature": 2}) == {"temperature": 2}  # but an int is


def test_only_a_bool_is_a_bool() -> None:
    assert options.check_member("loss", "logit_regression", {"centre": True}) == {"centre": True}
    assert message("loss", "logit_regression", {"centre": 1}).endswith("; give a bool")


@pytest.mark.parametrize("value", ["skp", 2, None, True])
def test_an_option_with_choices_takes_those_and_no_other(value: Any) -> None:
    assert message("intermediate-layer loss", "pkd", {"layers": value}) == (
        f"intermediate-layer loss 'pkd' option 'layers' is {value!r}; it must be one of skip, last"
    )
    assert options.check_member("intermediate-layer loss", "pkd", {"layers": "last"}) == {"layers": "last"}


def test_a_default_may_be_written_as_a_quotient() -> None:
    (ramp,) = [option for option in options.family("loss")["continuation"].options if option.name == "ramp"]
    assert ramp.default == 2 / 3


def test_options_of_any_table_are_matched_with_its_own_name() -> None:
    with pytest.raises(RecipeError) as caught:
        options.check_options("training.freelb", (options.Option("steps", "int", ">= 1", 3),), {"step": 1})
    assert str(caught.value) == "training.freelb has no option 'step'; did you mean 'steps'?"


def test_reading_options_does_not_import_torch() -> None:
    code = "import sys; from augkd.recipe import options; options.family('loss'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
