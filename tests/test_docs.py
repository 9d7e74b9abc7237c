"""README and docs/ say what the code does: every key, option, recipe and command is there, and what is there exists."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel
from support.pages import COMMANDS, PAGES, README, RECIPES, ROOT, command_tree, fenced, leaves, parse

from augkd.recipe import Comparison, IndexRecipe, Recipe, is_comparison, options, schedules, shipped

MEMBERS = [(kind, name) for kind in options.FAMILIES for name in options.family(kind)]


# ---- keys ----


def keys_of(model: type[BaseModel], prefix: str = "", seen: tuple[type[BaseModel], ...] = ()) -> Iterator[str]:
    """Every dotted key of a recipe; a table within itself (stages, an ensemble's members) is listed once."""
    for name, field in model.model_fields.items():
        yield prefix + name
        for table in tables_in(field.annotation):
            # an index recipe is described on its own; the members of an ensemble are teachers
            if table not in (*seen, model, IndexRecipe):
                yield from keys_of(table, f"{prefix}{name}.", (*seen, model))


def tables_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from tables_in(inner)


def named_keys(text: str) -> set[str]:
    """What the first column of the tables names, each name between backticks."""
    return {key for line in text.splitlines() if line.startswith("| `") for key in ticked(line.split("|")[1])}


def ticked(text: str) -> set[str]:
    return set(re.findall(r"`([^`]+)`", text))


def described_elsewhere(key: str) -> bool:
    """Tables that appear twice are described once: `student`, `training`, `structure`, `corpus`, `adapt`."""
    twice = r"assistants\.\w+\.|training\.structure\.|data\.\w+\.adapt\.corpus\.|data\.substitution\.adapt\."
    return bool(re.match(twice, key))


@pytest.mark.parametrize("model", [Recipe, IndexRecipe, Comparison])
def test_every_key_of_a_recipe_is_in_a_table_of_the_recipe_page(model: type[BaseModel]) -> None:
    named = named_keys(RECIPES.read_text())
    wanted = {key for key in keys_of(model) if not described_elsewhere(key) and not key.startswith("tasks.")}
    assert len(wanted) >= 5
    assert wanted <= named, f"docs/recipes.md does not name {sorted(wanted - named)}"


def test_no_table_of_the_recipe_page_names_a_key_that_is_not_there() -> None:
    known = {key for model in (Recipe, IndexRecipe, Comparison) for key in keys_of(model)}
    dotted = {key for key in named_keys(RECIPES.read_text()) if re.fullmatch(r"[a-z_]+(\.[a-z_]+)+", key)}
    assert len(dotted) > 80
    assert dotted <= known, f"docs/recipes.md names {sorted(dotted - known)}"


def test_a_key_that_a_page_leaves_out_would_be_found() -> None:
    text = RECIPES.read_text().replace("| `data.neighbours.near_copy`", "| near copies")
    assert set(keys_of(Recipe)) - named_keys(text) >= {"data.neighbours.near_copy"}


def test_the_default_of_every_plain_key_is_the_one_the_page_says() -> None:
    said = {}
    for line in RECIPES.read_text().splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if line.startswith("| `") and len(cells) == 5:
            said |= dict.fromkeys(ticked(cells[1]), cells[2].strip("`"))
    checked = 0
    for model in (Recipe, IndexRecipe, Comparison):
        for key, default in plain_defaults(model):
            if described_elsewhere(key) or key.startswith("tasks."):
                continue
            assert spoken(said[key]) == default, f"docs/recipes.md: {key} is {default!r}, not {said[key]}"
            checked += 1
    assert checked > 80


def plain_defaults(model: type[BaseModel]) -> Iterator[tuple[str, Any]]:
    """Key and default of every key that has a plain one: a number, a text, a truth value, None."""
    fields = {key: field_at(model, key) for key in keys_of(model)}
    for key, field in fields.items():
        if not field.is_required() and field.default_factory is None:
            yield key, field.default


def field_at(model: type[BaseModel], key: str) -> Any:
    first, _, rest = key.partition(".")
    if not rest:
        return model.model_fields[first]
    holders = [table for table in tables_in(model.model_fields[first].annotation) if table is not IndexRecipe]
    return field_at(holders[0], rest)


def spoken(text: str) -> Any:
    """A default as the page writes it."""
    if text in ("none", "true", "false"):
        return {"none": None, "true": True, "false": False}[text]
    try:
        return float(text)
    except ValueError:
        return text


# ---- losses, layer losses, selectors, schedules ----


def row_of(name: str) -> str:
    rows = [line for line in RECIPES.read_text().splitlines() if line.startswith(f"| `{name}` |")]
    assert len(rows) == 1, f"docs/recipes.md has {len(rows)} rows for {name}"
    return rows[0]


@pytest.mark.parametrize(("kind", "name"), MEMBERS)
def test_every_loss_layer_loss_and_selector_has_a_row_with_all_its_options(kind: str, name: str) -> None:
    cell = row_of(name).split("|")[2]
    found = set(re.findall(r"`(\w+)` \(", cell))
    known = options.family(kind)[name][1]
    assert found == {option.name for option in known}
    for option in known:
        (said,) = re.findall(rf"`{option.name}` \(([^)]*)\)", cell)
        default, *_ = re.split(r"[,;]", said)
        assert defaults_alike(default.strip("` "), option.default), f"{name}.{option.name}: {default}"
        assert set(option.choices) <= ticked(f"({said})")
        for limit in filter(None, option.limits.replace(">=", "≥").replace("<=", "≤").split(",")):
            assert limit.strip() in said or kind == "selector"


def defaults_alike(said: str, default: Any) -> bool:
    if isinstance(default, bool | str):
        return said == str(default).lower()
    above, _, below = said.partition("/")
    return float(above) / float(below or 1) == default


@pytest.mark.parametrize("shape", schedules.SHAPES)
def test_every_schedule_has_a_row(shape: str) -> None:
    row = row_of(shape)
    if "the same" not in row.split("|")[2]:
        assert {option.name for option in schedules.SHAPES[shape]} <= ticked(row)


# ---- recipes and commands ----


@pytest.mark.parametrize("name", [*shipped("pipelines"), *shipped("indexes")])
def test_every_shipped_recipe_is_in_the_readme(name: str) -> None:
    assert re.search(rf"[`\s]{re.escape(name)}[`,\s]", README.read_text())


@pytest.mark.parametrize("name", shipped("pipelines"))
def test_every_shipped_method_has_a_row_in_the_table_of_methods(name: str) -> None:
    table = README.read_text().split("## Methods")[1].split("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("|") and f"`{name}`" in line.split("|")[3]]
    assert len(rows) == 1


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_line_in_the_pages_parses(line: str) -> None:
    assert parse(line).info_name


def test_there_are_command_lines_and_a_wrong_one_does_not_parse() -> None:
    assert len(COMMANDS) > 30
    with pytest.raises(Exception, match="no command bild"):
        parse("augkd index bild demo --out x")
    with pytest.raises(Exception, match=r"[Nn]o such option"):
        parse("augkd index build demo --out x --shards 1/2")
    with pytest.raises(Exception, match=r"[Mm]issing"):
        parse("augkd run demo")


def test_every_command_and_option_is_in_the_readme() -> None:
    text = README.read_text()
    for path, command in leaves(command_tree()):
        assert f"{path} " in text, f"README does not show {path}"
        for parameter in command.params:
            for flag in parameter.opts:
                assert not flag.startswith("-") or flag == "--help" or flag in text, f"README does not name {flag}"


@pytest.mark.parametrize("line", [line for line in COMMANDS if "--set" in line])
def test_every_key_that_a_command_line_sets_exists(line: str) -> None:
    context = parse(line)
    recipe = context.params.get("recipe") or context.params["recipes"][0]
    models = {"build": [IndexRecipe]}.get(str(context.info_name), [Recipe])
    if models == [Recipe] and is_comparison(recipe):
        models.append(Comparison)
    known = {key for model in models for key in keys_of(model)}
    known |= {f"data.neighbours.index.{key}" for key in keys_of(IndexRecipe)}
    for assignment in context.params["set_"]:
        assert assignment.partition("=")[0] in known


# ---- Python and links ----

PYTHON = [(path.name, text) for path in PAGES for language, text in fenced(path) if language == "python"]


@pytest.mark.parametrize(("page", "text"), PYTHON)
def test_every_python_block_compiles_and_its_imports_resolve(page: str, text: str) -> None:
    imported = 0
    for node in ast.walk(ast.parse(text, page)):
        if isinstance(node, ast.Import):
            imported += len([importlib.import_module(alias.name) for alias in node.names])
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(str(node.module))
            assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)
            imported += len(node.names)
    assert imported


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_link_leads_to_a_page_and_a_heading_that_exist(path: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", path.read_text()):
        file, _, anchor = target.partition("#")
        page = path if not file else (path.parent / file).resolve()
        assert page.is_file(), target
        headings = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
        slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
        assert not anchor or anchor in slugs, target


def test_the_pages_are_in_the_source_distribution() -> None:
    import tomllib

    target = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["sdist"]
    assert {"docs", "README.md", "CHANGELOG.md"} <= set(target["include"])
