"""README and docs/ as data: their fenced blocks and command lines."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import typer

ROOT = Path(__file__).parents[2]


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


README, RECIPES = ROOT / "README.md", ROOT / "docs" / "recipes.md"


def fenced(path: Path) -> Iterator[tuple[str, str]]:
    """(language, text) of every fenced block."""
    yield from re.findall(r"^```(\w*)\n(.*?)^```", path.read_text(), flags=re.DOTALL | re.MULTILINE)


def command_lines(path: Path) -> list[str]:
    """Every line of a block that begins with `augkd `, continued lines joined, comments cut."""
    lines = []
    for _, text in fenced(path):
        joined = text.replace("\\\n", " ")
        lines += [line for line in joined.splitlines() if line.startswith("augkd ")]
    lines += re.findall(r"`(augkd [a-z]+ [^`]*--[^`]*)`", path.read_text())
    return [line for line in lines if "<" not in line]


COMMANDS = [line for path in PAGES for line in command_lines(path)]


def parse(line: str) -> click.Context:
    """The innermost context of a command line, parsed and not run; raises UsageError for what does not exist."""
    arguments = shlex.split(line, comments=True)[1:]
    command: Any = command_tree()
    context = click.Context(command)
    while hasattr(command, "commands"):
        name, *arguments = arguments
        found = command.get_command(context, name)
        if found is None:
            raise click.UsageError(f"no command {name}")
        command, context = found, click.Context(found, parent=context, info_name=name)
    command.parse_args(context, arguments)
    return context


def command_tree() -> Any:
    from augkd.cli.app import app

    return typer.main.get_command(app)


def leaves(command: Any, path: str = "augkd") -> Iterator[tuple[str, Any]]:
    for name, inner in getattr(command, "commands", {}).items():
        yield from leaves(inner, f"{path} {name}")
    if not hasattr(command, "commands"):
        yield path, command
