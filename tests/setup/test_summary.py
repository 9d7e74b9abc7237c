"""`augkd init` ends with commands that can be pasted into a shell."""

from __future__ import annotations

import shlex
from pathlib import Path

from support.pages import parse

from augkd.setup.summary import next_commands


def test_every_next_command_parses() -> None:
    commands = next_commands(Path("mine.yaml"))
    assert commands[0] == "augkd check mine.yaml"
    assert commands[1] == "augkd run mine.yaml --out runs/mine"
    for command in commands:
        parse(command)


def test_paths_with_spaces_stay_one_argument() -> None:
    commands = next_commands(Path("my recipes/it's mine.yaml"))
    check, run, show, compare = (shlex.split(command) for command in commands)
    assert check == ["augkd", "check", "my recipes/it's mine.yaml"]
    assert run == ["augkd", "run", "my recipes/it's mine.yaml", "--out", "runs/it's mine"]
    assert "runs/it's mine/transfer_set" in show
    assert compare[-1] == "runs/it's mine-compare"
    for command in commands:
        parse(command)
