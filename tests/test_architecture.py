"""House rules that a machine can check: which way imports point, what may be imported, how a file begins."""

from __future__ import annotations

import ast
import re
import statistics
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main
import yaml

import augkd
from augkd.recipe import is_comparison, load_index_recipe, load_recipe, shipped_recipes

PACKAGE = Path(augkd.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
MODULES = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__") for path in FILES}
HEAVY = ("torch", "transformers", "faiss", "datasets", "sentence_transformers", "ray")


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def imports_of(path: Path) -> Iterator[str]:
    """Modules of ours that `path` imports anywhere in it, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            names = [f"{module}.{a.name}" if f"{module}.{a.name}" in MODULES else module for a in node.names]
        yield from (name for name in names if name.startswith("augkd."))


def part_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def test_imports_point_down_the_rooms() -> None:
    from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

    assert lint_imports(config_filename=str(PACKAGE.parent / "pyproject.toml"), no_cache=True) == EXIT_STATUS_SUCCESS


def test_every_room_has_a_row_in_the_contract() -> None:
    contract = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    rows = {room.strip() for row in contract["layers"] for room in row.split("|")}
    assert rows == {f"augkd.{part_of(module)}" for module in MODULES} - {"augkd."}


def test_selection_imports_nothing_of_ours_but_tokens_and_errors() -> None:
    imported = {name for path in (PACKAGE / "selection").glob("*.py") for name in imports_of(path)}
    assert {name for name in imported if part_of(name) != "selection"} <= {"augkd.models.tokens", "augkd.errors"}
    assert "augkd.models.tokens" in imported


def test_only_the_error_tree_lies_loose_in_the_package() -> None:
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py", "__main__.py", "errors.py"}


def test_no_file_is_long_and_most_functions_are_short() -> None:
    long = {path.name: len(path.read_text().splitlines()) for path in FILES}
    assert {name: lines for name, lines in long.items() if lines >= 330} == {}
    functions = [
        node.end_lineno - node.lineno + 1
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.end_lineno
    ]
    assert statistics.median(functions) <= 10


def test_losses_and_metrics_know_no_other_stage() -> None:
    def parts(file: str) -> set[str]:
        return {part_of(name) for name in imports_of(PACKAGE / file)}

    assert parts("distill/objective/losses.py") <= {"errors", "recipe", "selection", "data"}
    assert parts("distill/objective/layer_losses.py") <= {"errors", "models"}
    assert parts("evaluation/metrics.py") <= {"errors", "data"}


LIGHT = sorted(
    module
    for module in MODULES
    if part_of(module) in ("errors", "recipe", "data", "workspace", "cli") or module == "augkd.runs.plan"
)


def test_what_answers_before_work_begins_imports_no_model_library() -> None:
    code = "import importlib, sys\n" + "".join(
        f"importlib.import_module({module!r}); "
        f"found = [n for n in {HEAVY!r} if n in sys.modules]; assert not found, ({module!r}, found)\n"
        for module in LIGHT
    )
    assert {"augkd.errors", "augkd.recipe", "augkd.data.task", "augkd.data.transfer_set", "augkd.cli.app"} <= set(LIGHT)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == done.stderr == ""


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_every_module_opens_with_a_docstring(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert docstring
    assert docstring[0].isalnum(), docstring


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_nothing_that_runs_code_from_data_is_used(path: Path) -> None:
    banned_calls = {"eval", "exec", "yaml.load", "torch.load", "__import__", "os.system"}
    banned_modules = {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) not in banned_calls, f"{path}:{node.lineno}"
            for keyword in node.keywords:
                if keyword.arg in ("allow_pickle", "trust_remote_code"):
                    assert ast.unparse(keyword.value) == "False", f"{path}:{node.lineno}"
        if isinstance(node, ast.Import):
            assert not {alias.name.split(".")[0] for alias in node.names} & banned_modules, f"{path}:{node.lineno}"
        if isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] not in banned_modules, f"{path}:{node.lineno}"


@pytest.mark.parametrize("name", sorted(name for name in shipped_recipes("pipelines") if not is_comparison(name)))
def test_every_shipped_pipeline_recipe_loads(name: str) -> None:
    recipe = load_recipe(name)
    assert all(stage.losses or stage.structure for stage in recipe.training_stages)
    if recipe.data.neighbours:
        assert not isinstance(recipe.data.neighbours.index, str), "the index recipe is written into the pipeline's"


@pytest.mark.parametrize("name", sorted(shipped_recipes("indexes")))
def test_every_shipped_index_recipe_loads(name: str) -> None:
    assert load_index_recipe(name).corpus.dataset


@pytest.mark.parametrize(
    "path", [*shipped_recipes("pipelines").values(), *shipped_recipes("indexes").values()], ids=lambda p: p.stem
)
def test_every_shipped_recipe_says_what_it_is_in_its_first_line(path: Path) -> None:
    first = path.read_text().splitlines()[0]
    assert first.startswith("# ")
    assert first.endswith(".")
    assert isinstance(yaml.safe_load(path.read_text()), dict)


def commands() -> set[str]:
    from augkd.cli.app import app

    return set(typer.main.get_command(app).commands)


def test_every_command_in_the_readme_exists() -> None:
    text = (PACKAGE.parent / "README.md").read_text()
    blocks = "\n".join(re.findall(r"```.*?```|`augkd [^`]*`", text, flags=re.DOTALL))
    named = set(re.findall(r"(?<![\w/.-])(?<!from )augkd ([a-z-]+)", blocks))
    assert named <= commands(), f"README names {named - commands()}"


def test_the_documented_commands_exist() -> None:
    assert {"index", "augment", "distill", "run", "compare", "check", "list"} <= commands()
