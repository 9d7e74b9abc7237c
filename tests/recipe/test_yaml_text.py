"""YAML within bounds: what a stranger's file or `--set` can ask for takes no time and ends in one line."""

from __future__ import annotations

import time

import pytest

from augkd.errors import AugkdError, RecipeError
from augkd.recipe.files import apply_override, load_recipe
from augkd.recipe.yaml_text import DEEPEST, LONGEST, MOST_VALUES, parse_yaml

# nine levels of nine aliases: 9^9 = 387,420,489 values
BOMB = "a0: &a0 [" + ", ".join(["x"] * 9) + "]\n"
BOMB += "".join(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 9))
MERGES = "a0: &a0 {" + ", ".join(f"k{n}: 1" for n in range(9)) + "}\n"
MERGES += "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 9))


@pytest.mark.parametrize("text", [BOMB, MERGES])
def test_an_alias_bomb_is_refused_at_once(text: str) -> None:
    started = time.perf_counter()
    with pytest.raises(RecipeError, match="stands for more than 100,000 values with its aliases written out"):
        parse_yaml(text, "recipe.yaml")
    assert time.perf_counter() - started < 1  # took 12 s and more


@pytest.mark.parametrize("text", ["&a [*a]", "&a {b: *a}", "&a {<<: *a}", "[&a [[*a]]]"])
def test_an_alias_that_contains_itself_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="an alias contains itself"):
        apply_override({}, f"a={text}")


@pytest.mark.parametrize("levels", [DEEPEST + 1, 10_000])
def test_deep_nesting_is_refused_and_a_hundred_levels_are_not(levels: int) -> None:
    with pytest.raises(RecipeError, match="nested more than 100 levels deep"):
        parse_yaml("[" * levels + "]" * levels, "recipe.yaml")
    value = parse_yaml("[" * DEEPEST + "]" * DEEPEST, "recipe.yaml")
    for _ in range(DEEPEST - 1):
        (value,) = value
    assert value == []


def test_the_bound_on_values_counts_every_alias() -> None:
    half = MOST_VALUES // 2
    text = f"[&a [{', '.join(['x'] * (half - 2))}], *a]"  # 1 + 2 × (half - 1) values
    first, second = parse_yaml(text, "recipe.yaml")
    assert first == second == ["x"] * (half - 2)
    with pytest.raises(RecipeError, match="more than 100,000 values"):
        parse_yaml(text[:-1] + ", x, x]", "recipe.yaml")


def test_a_text_that_is_too_long_is_not_parsed() -> None:
    with pytest.raises(RecipeError, match=r"recipe.yaml has 1,000,001 characters; a recipe has at most 1,000,000"):
        parse_yaml("#" * (LONGEST + 1), "recipe.yaml")


@pytest.mark.parametrize(
    "text",
    [
        *("!!timestamp foo", "2001-99-99", "!!bool foo", '!!int ""', "!!int foo", "!!float foo", "!!binary ü"),
        *("!!python/object/apply:os.system [ls]", "!!set [a]", "!!omap [a]", "{[a]: b}", "{{a: b}: c}", "a: b: c"),
        *("*nowhere", "a\x00b", "\x1b[2J", "%YAML 9.9\n---\na", "---\na\n---\nb", '"\\x'),
        *("9" * 5000, "0x" + "f" * 5000, "1" * 41),
    ],
)
def test_text_that_is_no_plain_value_is_one_line(text: str) -> None:
    with pytest.raises(RecipeError, match=r"^recipe.yaml is not valid YAML: .+$") as raised:
        parse_yaml(text, "recipe.yaml")
    assert "\n" not in str(raised.value)


def test_no_tag_makes_an_object() -> None:
    with pytest.raises(RecipeError, match="is not valid YAML"):
        parse_yaml("!!python/object/apply:os.getcwd []", "recipe.yaml")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("teacher.model=~nouser/x", "begins with an unknown user"),
        (f"teacher.model={'x' * 5000}", "is longer than a path can be"),
        (f"teacher.model={'x/' * 3000}y", "is longer than a path can be"),
        ('task="a\\0b"', "contains a null character"),
        ('task="./\\ud800"', "contains half a character"),
        (f"task.dataset={'x' * 300}", "is longer than a path can be"),
        ("data.neighbours.index=~nouser/x", "begins with an unknown user"),
        ("data.select.minimax=4", r"selector 'minimax' is 4; give a table of its options, e.g. \{keep: 4\}"),
        ("data.select.minimax.keep=[4]", "option 'keep' is"),
        ("data.select=[minimax]", "give one selector"),
        ("data.select.1=2", "give one selector"),
        ("1.2=3", "has no key '1'"),
        ("training.stages=[1]", "training"),
        ("training.kd.weight={linear: 5}", "give a table"),
        ("training.kd={1: 2}", "has no option 1"),
    ],
)
def test_a_value_of_the_wrong_kind_is_one_line(override: str, message: str) -> None:
    with pytest.raises(AugkdError, match=message) as raised:
        load_recipe("minimax-knn", [override])
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 500
