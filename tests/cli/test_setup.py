"""Every command shows an example that parses; a shell completes recipes; `push` tells before it sends."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import typer
from support.command_line import Augkd
from support.finished_run import finished_run
from support.pages import leaves, parse

from augkd.cli.app import app
from augkd.cli.terminal import recipe_names
from augkd.recipe import shipped_recipes
from augkd.runs.cards import write_cards

COMMANDS = dict(leaves(typer.main.get_command(app)))


@pytest.fixture
def augkd(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Augkd:
    return Augkd(monkeypatch, capsys)


def examples(command: Any) -> Iterator[str]:
    """The command lines in a command's help, as the README would write them."""
    text = re.sub(r"\s+", " ", command.help or "")
    told = re.search(r"Examples?: (.*)$", text)
    for line in told[1].split("·") if told else ():
        yield line.strip().split(" (")[0]


@pytest.mark.parametrize("path", COMMANDS)
def test_the_help_of_every_command_has_an_example_that_parses(path: str) -> None:
    found = list(examples(COMMANDS[path]))
    assert found, f"{path} --help shows no example"
    assert any(f"{line} ".startswith(f"{path} ") for line in found)
    for line in found:
        assert f"augkd {parse(line).info_name} " in f"{path} ".replace(" index ", " ") or parse(line).info_name


def test_a_help_without_an_example_would_be_found() -> None:
    assert list(examples(click.Command("x", help="Does it."))) == []
    assert list(examples(click.Command("x", help="Does it.\n\nExamples:\n\naugkd run a --out b ·\naugkd check a"))) == [
        "augkd run a --out b",
        "augkd check a",
    ]


def completed(command: str, folder: Path) -> list[str]:
    """What bash is offered for the last word, by the installed command in `folder`."""
    words = command.split(" ")
    told = {"_AUGKD_COMPLETE": "complete_bash", "COMP_WORDS": command, "COMP_CWORD": str(len(words) - 1)}
    program = Path(sys.executable).parent / "augkd"
    done = subprocess.run([program], env=os.environ | told, capture_output=True, text=True, cwd=folder)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.skipif(not shutil.which(str(Path(sys.executable).parent / "augkd")), reason="augkd is not installed")
def test_bash_completes_recipes_by_what_the_command_takes(tmp_path: Path) -> None:
    (tmp_path / "minimal.yaml").touch()
    (tmp_path / "minimal.txt").touch()
    assert completed("augkd run mini", tmp_path) == ["minimax-knn", "minimal.yaml"]
    assert completed("augkd index build quest", tmp_path) == ["questions"]
    assert completed("augkd inde", tmp_path) == ["index"]


def test_names_are_offered_without_a_model_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "mine.yaml").touch()

    def context(name: str) -> typer.Context:
        return typer.Context(click.Command(name), info_name=name)

    assert recipe_names(context("run"), "") == [*sorted(shipped_recipes("pipelines")), "own"]
    assert recipe_names(context("build"), "") == [*sorted(shipped_recipes("indexes")), "own"]
    assert recipe_names(context("run"), "own/") == ["own/mine.yaml"]
    assert recipe_names(context("run"), "own/x") == []
    code = "import sys, augkd.cli.terminal, augkd.recipe; sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_can_be_shown_for_every_shell(augkd: Augkd, monkeypatch: pytest.MonkeyPatch, shell: str) -> None:
    monkeypatch.setattr("shellingham.detect_shell", lambda: (shell, f"/bin/{shell}"))
    done = augkd("--show-completion")
    assert done.code == 0
    assert "_AUGKD_COMPLETE" in done.out


def test_push_lists_what_would_go_and_sends_nothing(augkd: Augkd, tmp_path: Path) -> None:
    write_cards(finished_run(tmp_path))
    done = augkd("push", tmp_path, "me/polls", "--dry-run", "--json")
    assert done.code == 0
    assert set(done.json["files"]) == {"README.md", "config.json"}
    shown = augkd("push", tmp_path, "me/polls", "--dry-run").out.splitlines()
    assert shown[-1] == "nothing was uploaded; without --dry-run these files go to me/polls"

    refused = augkd("push", tmp_path, "me/polls")
    assert refused.code == 1
    assert refused.err == "error: the Hub cannot be reached: HF_HUB_OFFLINE is set; unset it to push\n"
