"""README and docs/ as data: their fenced blocks, their command lines, and the tree of commands they describe."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import typer

ROOT = Path(__file__).parents[2]
README, DOCS = ROOT / "README.md", ROOT / "docs"
PAGES = [README, *sorted(DOCS.glob("*.md"))]
RECIPES, COMMANDS_PAGE, METHODS, API = (DOCS / f"{name}.md" for name in ("recipes", "commands", "methods", "api"))

_BLOCK = re.compile(r"(?:^<!-- needs: (.*?) -->\n)?^```(\w*)\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    text: str
    needs: tuple[str, ...]  # commands that a reader must have run before, from the HTML comment above the block


def fenced(path: Path, language: str | None = None) -> list[Block]:
    """The fenced blocks of a page in order; with `language`, only those."""
    blocks = [
        Block(kind, text, tuple(filter(None, (command.strip() for command in needs.split(";")))))
        for needs, kind, text in _BLOCK.findall(path.read_text())
    ]
    return [block for block in blocks if language in (None, block.language)]


def command_lines(path: Path) -> list[str]:
    """Every line of a block that begins with `augkd `, continued lines joined; and commands with options in prose."""
    lines = []
    for block in fenced(path):
        joined = block.text.replace("\\\n", " ")
        lines += [line for line in joined.splitlines() if line.startswith("augkd ")]
    lines += re.findall(r"`(augkd [a-z]+ [^`]*--[^`]*)`", path.read_text())
    return [line for line in lines if "<" not in line]


COMMANDS = [line for path in PAGES for line in command_lines(path)]


def parse(line: str) -> click.Context:
    """The innermost context of a command line, parsed and not run; raises UsageError for unknown names."""
    arguments = shlex.split(line, comments=True)[1:]
    command: Any = command_tree()
    context = click.Context(command)
    while hasattr(command, "commands"):
        name, *arguments = arguments
        inner = command.get_command(context, name)
        if inner is None:
            raise click.UsageError(f"no command {name}")
        command, context = inner, click.Context(inner, parent=context, info_name=name)
    command.parse_args(context, arguments)
    return context


def command_tree() -> Any:
    """The root of the command line."""
    from augkd.cli.app import app

    return typer.main.get_command(app)


def leaves(command: Any, path: str = "augkd") -> Iterator[tuple[str, Any]]:
    """Every command that does something, with its full name."""
    for name, inner in getattr(command, "commands", {}).items():
        yield from leaves(inner, f"{path} {name}")
    if not hasattr(command, "commands"):
        yield path, command
