"""README and docs/ describe the code: every key, option, recipe, command and public name is there, and nothing else.

The wording is held too: words that DESIGN §6 replaces occur neither in the pages nor in help texts and error messages.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType
from typing import Any, get_args

import pytest
from pydantic import BaseModel
from support.pages import (
    API,
    COMMANDS,
    COMMANDS_PAGE,
    DOCS,
    METHODS,
    PAGES,
    README,
    RECIPES,
    ROOT,
    command_tree,
    fenced,
    leaves,
    parse,
)

import augkd
import augkd.errors
from augkd.recipe import Comparison, IndexRecipe, Recipe, is_comparison, options, schedules, shipped_recipes
from augkd.recipe.catalogue import catalogue
from augkd.recipe.cluster import ClusterOptions

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
    """The names in the first column of the tables, each between backticks."""
    return {key for line in text.splitlines() if line.startswith("| `") for key in ticked(line.split("|")[1])}


def ticked(text: str) -> set[str]:
    return set(re.findall(r"`([^`]+)`", text))


def described_elsewhere(key: str) -> bool:
    """Tables that occur twice are described once: `student`, `training`, `structure`, `corpus`, `adapt`."""
    twice = r"assistants\.\w+\.|training\.structure\.|data\.\w+\.adapt\.corpus\.|data\.substitution\.adapt\."
    return bool(re.match(twice, key))


@pytest.mark.parametrize("model", [Recipe, IndexRecipe, Comparison])
def test_every_key_of_a_recipe_is_in_a_table_of_the_recipe_page(model: type[BaseModel]) -> None:
    named = named_keys(RECIPES.read_text())
    wanted = {key for key in keys_of(model) if not described_elsewhere(key) and not key.startswith("tasks.")}
    assert len(wanted) >= 5
    assert wanted <= named, f"docs/recipes.md does not name {sorted(wanted - named)}"


def test_no_table_of_the_recipe_page_names_an_unknown_key() -> None:
    known = {key for model in (Recipe, IndexRecipe, Comparison) for key in keys_of(model)}
    dotted = {key for key in named_keys(RECIPES.read_text()) if re.fullmatch(r"[a-z_]+(\.[a-z_]+)+", key)}
    assert len(dotted) > 80
    assert dotted <= known, f"docs/recipes.md names {sorted(dotted - known)}"


def test_a_missing_key_would_be_noticed() -> None:
    text = RECIPES.read_text().replace("| `data.neighbours.near_copy`", "| near copies")
    assert set(keys_of(Recipe)) - named_keys(text) >= {"data.neighbours.near_copy"}


def test_the_page_gives_the_default_of_every_plain_key() -> None:
    listed = {}
    for line in RECIPES.read_text().splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if line.startswith("| `") and len(cells) == 5:
            listed |= dict.fromkeys(ticked(cells[1]), cells[2].strip("`"))
    checked = 0
    for model in (Recipe, IndexRecipe, Comparison):
        for key, default in plain_defaults(model):
            if described_elsewhere(key) or key.startswith("tasks."):
                continue
            assert parsed(listed[key]) == default, f"docs/recipes.md: {key} is {default!r}, not {listed[key]}"
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


def parsed(text: str) -> Any:
    """A default as the page writes it."""
    if text in ("none", "true", "false"):
        return {"none": None, "true": True, "false": False}[text]
    try:
        return float(text)
    except ValueError:
        return text


# ---- losses, layer losses, selectors, schedules ----


def row_of(name: str, kind: str = "") -> str:
    """The row of a name; two kinds may share one, and then the table whose heading is the kind is meant."""
    text = RECIPES.read_text()
    if kind in ("selector", "label selector"):
        (text,) = (part.split("\n\n")[0] for part in text.split(f"\n| {kind} |")[1:])
    rows = [line for line in text.splitlines() if line.startswith(f"| `{name}` |")]
    assert len(rows) == 1, f"docs/recipes.md has {len(rows)} rows for {name}"
    return rows[0]


@pytest.mark.parametrize(("kind", "name"), MEMBERS)
def test_every_loss_layer_loss_and_selector_has_a_row_with_all_its_options(kind: str, name: str) -> None:
    cell = row_of(name, kind).split("|")[2]
    described = set(re.findall(r"`(\w+)` \(", cell))
    known = options.family(kind)[name].options
    assert described == {option.name for option in known}
    for option in known:
        (facts,) = re.findall(rf"`{option.name}` \(([^)]*)\)", cell)
        default, *_ = re.split(r"[,;]", facts)
        assert defaults_alike(default.strip("` "), option.default), f"{name}.{option.name}: {default}"
        assert set(option.choices) <= ticked(f"({facts})")
        for limit in filter(None, option.limits.replace(">=", "≥").replace("<=", "≤").split(",")):
            assert limit.strip() in facts or kind == "selector"


def defaults_alike(written: str, default: Any) -> bool:
    if isinstance(default, bool | str):
        return written == str(default).lower()
    above, _, below = written.partition("/")
    return float(above) / float(below or 1) == default


@pytest.mark.parametrize("shape", schedules.SHAPES)
def test_every_schedule_has_a_row(shape: str) -> None:
    row = row_of(shape)
    if "the same" not in row.split("|")[2]:
        assert {option.name for option in schedules.SHAPES[shape]} <= ticked(row)


# ---- recipes and commands ----


@pytest.mark.parametrize("name", shipped_recipes("indexes"))
def test_every_shipped_index_recipe_is_on_the_page_of_methods(name: str) -> None:
    assert f"`{name}`" in METHODS.read_text()


@pytest.mark.parametrize("name", shipped_recipes("pipelines"))
def test_every_shipped_pipeline_has_a_row_in_the_table_of_its_group(name: str) -> None:
    sections = METHODS.read_text().split("\n## ")[1:]
    rows = [(section, line) for section in sections for line in section.splitlines() if line.startswith("| ")]
    ((section, _),) = [(section, row) for section, row in rows if f"`{name}`" in row.split("|")[3]]
    assert section.splitlines()[0].lower() == catalogue("pipelines")["pipelines"][name].group


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


def test_every_command_and_option_is_on_the_page_of_commands() -> None:
    text = COMMANDS_PAGE.read_text()
    for path, command in leaves(command_tree()):
        assert f"{path} " in text, f"docs/commands.md does not show {path}"
        for parameter in command.params:
            for flag in parameter.opts:
                assert not flag.startswith("-") or flag == "--help" or flag in text, (
                    f"docs/commands.md does not name {flag}"
                )


@pytest.mark.parametrize("line", [line for line in COMMANDS if "--set" in line])
def test_every_key_that_a_command_line_sets_exists(line: str) -> None:
    context = parse(line)
    recipe = next(iter(context.params.get("recipes") or [context.params.get("recipe")]))  # distill needs none
    models = {"build": [IndexRecipe], "plan": [ClusterOptions]}.get(str(context.info_name), [Recipe])
    if models == [Recipe] and recipe and is_comparison(recipe):
        models.append(Comparison)
    known = {key for model in models for key in keys_of(model)}
    known |= {f"data.neighbours.index.{key}" for key in keys_of(IndexRecipe)}
    for assignment in context.params["set_"]:
        assert assignment.partition("=")[0] in known


# ---- Python, public names and links ----

PYTHON = [(path.name, block.text) for path in PAGES for block in fenced(path, "python")]


@pytest.mark.parametrize(("page", "text"), PYTHON)
def test_every_python_block_compiles_and_its_imports_resolve(page: str, text: str) -> None:
    imported = 0
    for node in ast.walk(ast.parse(text, page)):
        if isinstance(node, ast.Import):
            imported += len([importlib.import_module(alias.name) for alias in node.names])
        if isinstance(node, ast.ImportFrom):
            assert node.module is None or not node.module.startswith("augkd."), "import from augkd, not from inside it"
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


def typed_imports() -> set[str]:
    """What `augkd/__init__.py` imports for type checkers and for the API page, which run no lazy import."""
    tree = ast.parse(Path(augkd.__file__).read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and "augkd." in str(node.module)]
    return {f"{str(node.module).removeprefix('augkd.')}.{alias.name}" for node in imports for alias in node.names}


def test_the_public_names_are_those_of_the_api_page_and_of_the_package() -> None:
    documented = re.findall(r"^::: augkd\.(\w+)$", API.read_text(), flags=re.MULTILINE)
    assert sorted(documented) == sorted(augkd.__all__)
    assert set(augkd.__all__) <= set(dir(augkd))
    assert {f"{module}.{name}" for name, module in augkd._MODULES.items()} == typed_imports()
    for name in augkd.__all__:
        assert getattr(augkd, name).__doc__, f"augkd.{name} has no docstring"


def test_every_error_is_public() -> None:
    classes = [value for value in vars(augkd.errors).values() if isinstance(value, type)]
    assert {error.__name__ for error in classes if issubclass(error, augkd.AugkdError)} <= set(augkd.__all__)


def test_the_python_page_names_every_public_function_and_class() -> None:
    named = set(re.findall(r"\w+", (DOCS / "python.md").read_text()))
    assert set(augkd.__all__) <= named


def test_every_page_is_in_the_navigation_of_the_site() -> None:
    navigation = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["nav"]
    assert sorted(page for entry in navigation for page in entry.values()) == sorted(p.name for p in DOCS.glob("*.md"))


def test_the_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= 150


def test_the_pages_are_in_the_source_distribution() -> None:
    target = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["sdist"]
    assert {"docs", "README.md", "CHANGELOG.md"} <= set(target["include"])


# ---- the captioned tree ----


def captioned(text: str) -> dict[str, str]:
    """Path below augkd/ → caption, from the tree of docs/architecture.md: two spaces of indent for each level."""
    tree, folders = {}, [""]
    for line in text.split("```\naugkd/\n")[1].split("```")[0].splitlines():
        name, _, caption = line.strip().partition("  ")
        depth = (len(line) - len(line.lstrip())) // 2
        folders = [*folders[:depth], f"{folders[depth - 1]}{name}"]
        tree[folders[-1]] = caption.strip()
    return tree


def test_the_tree_of_the_architecture_page_captions_every_room_and_file() -> None:
    tree = captioned((DOCS / "architecture.md").read_text())
    package = ROOT / "augkd"
    files = {path.relative_to(package) for path in package.rglob("*.py") if path.parent.name != "__pycache__"}
    expected = {path.as_posix() for path in files if path.name != "__init__.py"} | {"__init__.py"}
    expected |= {f"{folder.as_posix()}/" for path in files for folder in path.parents if folder.name}
    assert set(tree) == expected, f"missing {sorted(expected - set(tree))}, unknown {sorted(set(tree) - expected)}"
    assert all(tree.values()), f"no caption: {[path for path, caption in tree.items() if not caption]}"


def test_the_walks_of_the_architecture_page_pass_through_files_that_exist() -> None:
    files = re.findall(r"`([a-z_/0-9]+\.py)`", (DOCS / "architecture.md").read_text())
    assert len(files) > 20
    assert [file for file in files if not (ROOT / "augkd" / file).is_file()] == []


# ---- language: DESIGN §6 ----

REPLACED = {  # what a page, help text or error message does not say → what it says instead
    r"trunks?": "backbone",
    r"(?<!intermediate-)layer loss(es)?": "intermediate-layer loss",
    r"climb(s|ed|ing)?": "gradient ascent, gradient-ascent step",
    r"won back|wins? back|teacher's lead": "teacher gap closed",
    r"probes?": "held-out queries",
    r"efforts?": "search parameters",
    r"fold(s|ed|ing)?": "normalised text, key",
    r"warm_up|warmed up": "MLM adaptation (adapt)",
    r"teacher's word|gives its word": "labelled by the teacher",
    r"reckon(s|ed)?": "estimated",
    r"refused": "rejected; is an error; unsupported",
    r"foretold|gainsaid": "estimated; contradicted",
    r"of no kind": "unsupported file type",
    r"goes? before|went before": "overrides",
    r"told|tells no|said": "reported, stated, given; no offset mapping",
    r"in the middle|\d+ at most": "median 19, max 92",
    r"(?<!time )(?<!token )(?<!memory )(?<!label )budget": "time, token, memory or label budget",
    r"dear|cheap": "expensive, fast",
    r"anew": "again; new",
    r"heard|eats?|whoever|somebody|at hand": "(say what happens, in the field's terms)",
    r"(is|are) worth( it)?": "(say what is measured)",
}
EXCEPTIONS = (
    "--budget",  # the option of `compare`, which bounds time alone
    "training.budget",  # the recipe key; its page says "time budget"
)


def prose(page: Path) -> str:
    """A page without inline code, whose names are the code's, and without the output it quotes."""
    blocks = re.compile(r"^```(python|yaml|text)\n.*?^```", flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]+`", "", blocks.sub("", page.read_text()))


def help_texts(command: Any, path: str = "augkd") -> Iterator[tuple[str, str]]:
    """What `--help` prints, of a command and of all commands below it."""
    yield path, command.help or ""
    for parameter in command.params:
        yield f"{path} {parameter.name}", getattr(parameter, "help", None) or ""
    for name, inner in getattr(command, "commands", {}).items():
        yield from help_texts(inner, f"{path} {name}")


def docstrings() -> Iterator[tuple[str, str]]:
    """What the API page prints: the docstrings of public names, and of the public members of classes."""
    for name in augkd.__all__:
        value = getattr(augkd, name)
        yield name, inspect.getdoc(value) or ""
        for member, defined in vars(value).items() if isinstance(value, type) else ():
            if not member.startswith("_") and isinstance(defined, (property, FunctionType)):
                yield f"{name}.{member}", inspect.getdoc(defined) or ""


def error_messages() -> Iterator[tuple[str, str]]:
    """The literal parts of everything that is raised with a text, by file and line."""
    for path in sorted((ROOT / "augkd").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Raise) and node.exc is not None:
                parts = [part.value for part in ast.walk(node.exc) if isinstance(part, ast.Constant)]
                where = f"{path.relative_to(ROOT)}:{node.lineno}"
                yield where, " ".join(part for part in parts if isinstance(part, str))


def replaced_words(texts: Iterator[tuple[str, str]]) -> list[str]:
    found = []
    for where, text in texts:
        for exception in EXCEPTIONS:
            text = text.replace(exception, "")
        for pattern, replacement in REPLACED.items():
            for match in re.finditer(rf"(?<![\w-])({pattern})(?![\w-])", text, flags=re.IGNORECASE):
                found.append(f"{where}: '{match[0]}'; say: {replacement}")
    return found


def test_the_pages_use_the_terms_of_the_design() -> None:
    assert not replaced_words((page.name, prose(page)) for page in PAGES)


def test_the_help_texts_use_the_terms_of_the_design() -> None:
    texts = list(help_texts(command_tree()))
    assert len(texts) > 80
    assert not replaced_words(iter(texts))


def test_the_docstrings_of_public_names_use_the_terms_of_the_design() -> None:
    assert not replaced_words(docstrings())


def test_the_error_messages_use_the_terms_of_the_design() -> None:
    messages = list(error_messages())
    assert len(messages) > 150
    assert not replaced_words(iter(messages))


def test_a_replaced_word_would_be_noticed() -> None:
    assert replaced_words(iter([("here", "the Trunk is refused, 92 at most")])) == [
        "here: 'Trunk'; say: backbone",
        "here: 'refused'; say: rejected; is an error; unsupported",
        "here: '92 at most'; say: median 19, max 92",
    ]
    assert not replaced_words(iter([("here", "a folder within the time budget, of `--budget 30m`")]))
