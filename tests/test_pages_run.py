"""Every command, every Python block and every piece of a recipe in README and docs/ is run, page by page, in its order.

The words are the page's; what would take hours is made small: a tiny task, a tiny corpus, a tiny teacher of six layers,
one seed. Nothing else is changed, so that a command that needs a file or a folder finds what the page made before it.
"""

from __future__ import annotations

import csv
import shlex
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from support.pages import COMMANDS, PAGES, command_lines, fenced
from support.tiny import sentences
from typer.testing import CliRunner

import augkd.recipe
import augkd.runs.comparison
from augkd.cli.app import app
from augkd.recipe import Comparison, Recipe, by_name, load_index_recipe, load_recipe

WITH_NEIGHBOURS = {"demo", "vanilla-knn", "minimax-knn"}
LAST = {  # the last of two like options counts
    "compare": ("--seeds", "1", "--jobs", "1"),
    "push": ("--dry-run",),  # sending is tested against a local stand-in for the Hub: tests/test_hub.py
    "bench-student": ("--seconds", "0.2"),
}


def random_bert(folder: Path, tokenizer: Path, width: int, layers: int) -> Path:
    import torch
    from transformers import AutoTokenizer, BertConfig, BertModel

    torch.manual_seed(0)
    told = {"num_hidden_layers": layers, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(hidden_size=width, max_position_embeddings=128, **told)).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Path:
    """Six layers, as many as the recipes' teacher has."""
    return random_bert(tmp_path_factory.mktemp("teacher"), tiny_bert, 32, 6)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Path:
    """As wide as a static encoder's vectors are asked to be; 30,522 tokens go through it to make one."""
    return random_bert(tmp_path_factory.mktemp("encoder"), tiny_bert, 256, 1)


class Desk:
    """A working folder with the files that the pages name, and the changes that make a recipe small."""

    def __init__(self, folder: Path, teacher: Path, encoder: Path):
        self.folder, self._teacher, self._encoder = folder, teacher, encoder
        for name in ("my-task", "small"):
            for split, start in (("train", 0), ("validation", 10), ("test", 20)):
                rows = [(*row, *row) for row in sentences(start)[: 90 if split == "train" else 18]]
                self._rows(folder / name / f"{split}.csv", ("text", "label", "question", "topic"), rows)
        self._rows(folder / "my.csv", ("text", "label"), sentences())
        self._rows(folder / "reviews.csv", ("remark", "verdict"), sentences())
        for number, name in enumerate(("my.txt", "my-corpus.txt", "more-reviews.txt", "new.txt"), 3):
            (folder / name).write_text("\n".join(text for text, _ in sentences(number * 10)) + "\n")
        (folder / "takedown.txt").write_text(sentences(40)[0][0] + "\n")
        for name, column in (("new", "question"), ("my-corpus", "body")):
            pq.write_table(pa.table({column: [text for text, _ in sentences(90)]}), folder / f"{name}.parquet")

    @property
    def changes(self) -> list[str]:
        return [f"task.dataset={self.folder / 'small'}", f"teacher.model={self._teacher}", "teacher.epochs=1"]

    @property
    def corpus(self) -> str:
        return f"corpus={self.folder / 'my-corpus.txt'}"

    def run(self, line: str) -> str:
        """Runs one command line of a page."""
        arguments = shlex.split(line, comments=True)[1:]
        arguments += [*self._small(arguments), *LAST.get(arguments[0], ())]
        if "--budget" in arguments:
            arguments += ["--budget", "2s"]
        asked = "who wrote Faust ?\n\n" if arguments[:2] == ["index", "search"] else None
        result = CliRunner().invoke(app, arguments, input=asked, catch_exceptions=False)
        assert result.exit_code == 0, (line, result.output)
        return result.output

    def _small(self, arguments: list[str]) -> list[str]:
        command, first, rest = arguments[0], "".join(arguments[1:2]), arguments[1:]
        sets: list[str] = []
        if (command, first) == ("index", "build"):
            sets = [] if any(word.startswith("corpus=") for word in rest) else [self.corpus]
            sets += [f"encoder.model={self._encoder}"] if "kind: static" in "".join(rest) else []
        elif command == "augment" and first in ("show", "jsonl"):
            return []
        elif command in ("run", "distill", "check", "augment", "compare") or first == "score":
            recipes = {word for word in rest if word in WITH_NEIGHBOURS}
            sets = self.changes
            if recipes and first != "score":
                sets = [*sets, f"data.neighbours.index.{self.corpus}"]
            if "reviews.yaml" in rest or "my-task" in "".join(rest):
                sets = sets[1:]  # the page's own task
            elif "all-in-one" in rest:
                sets = [f"tasks=[{self.folder / 'small'}]", *sets[1:]]
        return [word for one in sets for word in ("--set", one)]

    @staticmethod
    def _rows(path: Path, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        path.parent.mkdir(exist_ok=True)
        with path.open("w", newline="") as stream:
            csv.writer(stream).writerows([columns, *rows])


@pytest.fixture
def desk(tmp_path: Path, teacher: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.setattr(webbrowser, "open", lambda _: True)
    made = Desk(tmp_path, teacher, encoder)
    with chdir(tmp_path):
        yield made


BEFORE = {  # what a page takes for granted, as the README made it
    "README.md": [
        "augkd index build demo --out runs/other",
        *(f"augkd index build demo --shard {part}/4 --out runs/s{part}" for part in (2, 3, 4)),
    ],
    "compare.md": [],
    "deploy.md": ["augkd run demo --out runs/one"],
    "indexes.md": ["augkd index build demo --out runs/reviews"],
    "python.md": [],
    "recipes.md": [],
    "report.md": ["augkd run demo --out runs/one", "augkd compare demo --controls kd --out runs/compare"],
    "results.md": [],
    "start.md": [],
}


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_and_python_block_of_a_page_runs(page: Path, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    for line in BEFORE[page.name]:
        desk.run(line)
    commands = command_lines(page)
    for line in commands:
        desk.run(line)
    blocks = [text for language, text in fenced(page) if language == "python"]
    made_small(monkeypatch, desk)
    for text in blocks:
        exec(compile(text, page.name, "exec"), {"__name__": "page"})  # our own page, nothing from elsewhere
    assert commands or blocks or page.name == "recipes.md", "pieces of recipes alone: below"


def made_small(monkeypatch: pytest.MonkeyPatch, desk: Desk) -> None:
    """Recipes that a Python block loads, and comparisons it runs, are small too."""

    def small(load: Callable[..., Any], changes: list[str]) -> Callable[..., Any]:
        return lambda name, sets=(): load(name, [*sets, *changes])

    corpus = f"data.neighbours.index.{desk.corpus}"
    monkeypatch.setattr(augkd.recipe, "load_recipe", small(load_recipe, desk.changes))
    monkeypatch.setattr(augkd.recipe, "load_index_recipe", small(load_index_recipe, [desk.corpus]))
    monkeypatch.setattr(augkd.recipe, "by_name", small(by_name, [*desk.changes, corpus]))
    compare, less = augkd.runs.comparison.compare_recipes, {"seeds": 1, "budget": 2}
    monkeypatch.setattr(
        augkd.runs.comparison, "compare_recipes", lambda recipes, **told: compare(recipes, **told | less)
    )


def test_all_pages_are_run() -> None:
    assert set(BEFORE) == {page.name for page in PAGES}
    assert sum(len(command_lines(page)) for page in PAGES) == len(COMMANDS)


PIECES = [(page.name, text) for page in PAGES for language, text in fenced(page) if language == "yaml"]


@pytest.mark.parametrize(("page", "text"), PIECES)
def test_every_piece_of_a_recipe_is_one(page: str, text: str, tmp_path: Path) -> None:
    piece = yaml.safe_load(text)
    if "recipes" in piece:
        assert Comparison.model_validate(piece).recipes
        return
    whole = load_recipe("kd").model_dump(mode="json", exclude_unset=True)
    whole.pop("teacher") if "ensemble" in piece.get("teacher", {}) else None
    path = tmp_path / "whole.yaml"
    path.write_text(yaml.safe_dump(whole | piece))
    assert isinstance(load_recipe(str(path)), Recipe)
