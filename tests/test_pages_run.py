"""Every command, every Python block and every piece of a recipe in README and docs/ is run, page by page.

The commands of a page run in order in one folder. Its Python blocks run in order in another, empty one: a reader may
start with either. A block that builds on commands names them in a comment above: `<!-- needs: augkd …; augkd … -->`.

The words are the page's; what would take hours is made small: a tiny task, a tiny corpus, a tiny teacher of six layers,
one seed.
"""

from __future__ import annotations

import csv
import json
import re
import shlex
import webbrowser
from collections.abc import Iterator, Sequence
from contextlib import chdir
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from support.pages import COMMANDS, PAGES, command_lines, fenced
from support.storage import upload
from support.tiny import sentences
from typer.testing import CliRunner

import augkd
from augkd.cli.app import app
from augkd.recipe import Comparison, Recipe, load_recipe

WITH_NEIGHBOURS = {"demo", "vanilla-knn", "minimax-knn"}
DEMO = ["data.labelled=30", "student.static.width=16"]  # fewer texts than its own, vectors that the tiny teacher has
APPENDED = {  # the last of two equal options counts
    "compare": ("--seeds", "1", "--jobs", "1"),
    "calibrate": (
        "--agreement",
        "0.4",
        "--data",
        "held-out.csv",
    ),  # the tiny teacher's students agree with it by chance
    "push": ("--dry-run",),  # sending is tested against a local stand-in for the Hub: tests/ship/test_push.py
    "bench-student": ("--seconds", "0.2"),
}


def random_bert(folder: Path, tokenizer: Path, width: int, layers: int) -> Path:
    import torch
    from transformers import AutoTokenizer, BertConfig, BertModel

    torch.manual_seed(0)
    sizes = {"num_hidden_layers": layers, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(hidden_size=width, max_position_embeddings=128, **sizes)).save_pretrained(folder)
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
    """The files that the pages name, and the overrides that make a recipe small."""

    def __init__(self, folder: Path, teacher: Path, encoder: Path):
        self.folder, self.teacher, self._encoder = folder, teacher, encoder
        self.cluster = ""  # its address, where a page has one
        for name in ("my-task", "small"):
            for split, start in (("train", 0), ("validation", 10), ("test", 20)):
                rows = [(*row, *row) for row in sentences(start)[: 90 if split == "train" else 18]]
                self._write(folder / name / f"{split}.csv", ("text", "label", "question", "topic"), rows)
        self._write(folder / "my.csv", ("text", "label"), sentences())
        self._write(folder / "held-out.csv", ("text", "label"), [*sentences(50), *sentences(60)])
        self._write(folder / "reviews.csv", ("remark", "verdict"), sentences())
        for number, name in enumerate(("my.txt", "my-corpus.txt", "more-reviews.txt", "new.txt"), 3):
            (folder / name).write_text("\n".join(text for text, _ in sentences(number * 10)) + "\n")
        self._write_labelling(folder)
        (folder / "takedown.txt").write_text(sentences(40)[0][0] + "\n")
        for name, column in (("new", "question"), ("my-corpus", "body")):
            pq.write_table(pa.table({column: [text for text, _ in sentences(90)]}), folder / f"{name}.parquet")

    def _write_labelling(self, folder: Path) -> None:
        """A task with few labels, a recipe whose teacher is people, another with an LLM, and people's answers."""
        rows = [{"text": text, "label": label} for text, label in sentences(0)]
        partly = [row if number % 15 < 4 else row | {"label": None} for number, row in enumerate(rows)]
        for split, of_split in (("train", partly), ("validation", rows[:18]), ("test", rows[18:36])):
            path = folder / "partly" / f"{split}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(f"{json.dumps(row)}\n" for row in of_split))
        (folder / "answers.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        recipe = {
            "task": "partly",
            "student": {"model": str(self.teacher)},
            "data": {"label_budget": {"texts": 12, "rounds": 2, "by": "margin", "near": 1.0}},
            "training": {"kd": {}, "epochs": 1, "max_length": 32},
        }
        llm = {"endpoint": "http://localhost:8000/v1", "model": "some-model"}
        for name, teacher in (("people", {"answers": "labels"}), ("llm", llm)):
            (folder / f"{name}.yaml").write_text(yaml.safe_dump(recipe | {"teacher": teacher}))

    @property
    def overrides(self) -> list[str]:
        """A tiny task and a tiny teacher for a pipeline recipe."""
        return [f"task.dataset={self.folder / 'small'}", f"teacher.model={self.teacher}", "teacher.epochs=1"]

    @property
    def corpus(self) -> str:
        """A tiny corpus for an index recipe."""
        return f"corpus={self.folder / 'my-corpus.txt'}"

    def run(self, line: str) -> str:
        """Runs a command line of a page in the working folder; a bucket is a storage in memory."""
        line = re.sub("s3://bucket/([^ /]+)", self._stored, line)
        arguments = shlex.split(line, comments=True)[1:]
        arguments += [*self._overrides_for(arguments), *APPENDED.get(arguments[0], ())]
        if "--address" in arguments:
            arguments += ["--address", self.cluster]
        if "--budget" in arguments:
            arguments += ["--budget", "2s"]
        typed = "who wrote Faust ?\n\n" if arguments[:2] == ["index", "search"] else None
        result = CliRunner().invoke(app, arguments, input=typed, catch_exceptions=False)
        assert result.exit_code == 0, (line, result.output)
        return result.output

    def _stored(self, found: re.Match[str]) -> str:
        """The URL of a folder or file of the reader, uploaded."""
        places = [self.folder / found[1], self.folder / "runs" / found[1], *self.folder.glob(f"runs/*/{found[1]}")]
        return upload(next(place for place in places if place.exists()), f"memory://bucket/{found[1]}")

    def _overrides_for(self, arguments: list[str]) -> list[str]:
        command, first, rest = arguments[0], "".join(arguments[1:2]), arguments[1:]
        overrides: list[str] = []
        if "people.yaml" in rest or command == "label":
            return []
        if "--transfer-set" in rest:
            return ["--student", str(self.teacher)]
        if (command, first) == ("index", "build"):
            overrides = [] if any(word.startswith("corpus=") for word in rest) else [self.corpus]
            named = any(word in "".join(rest) for word in ("kind: static", "intfloat/"))
            overrides += [f"encoder.model={self._encoder}"] if named else []
        elif command in ("run", "distill", "check", "augment", "compare") or first == "score":
            overrides = self.overrides
            overrides = [*overrides, *DEMO] if "demo" in rest else overrides
            built = any(word.startswith("data.neighbours.index=") for word in rest)
            if WITH_NEIGHBOURS & set(rest) and first != "score" and not built:
                overrides = [*overrides, f"data.neighbours.index.{self.corpus}"]
            if "reviews.yaml" in rest or "my-task" in "".join(rest):
                overrides = overrides[1:]  # the page's own task
            elif "all-in-one" in rest:
                overrides = [f"tasks=[{self.folder / 'small'}]", *overrides[1:]]
        return [word for override in overrides for word in ("--set", override)]

    @staticmethod
    def _write(path: Path, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="") as stream:
            csv.writer(stream).writerows([columns, *rows])


@pytest.fixture
def desk(tmp_path: Path, teacher: Path, encoder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """A working folder with the files that the pages name."""
    monkeypatch.setattr(webbrowser, "open", lambda _: True)
    desk = Desk(tmp_path / "desk", teacher, encoder)
    with chdir(desk.folder):
        yield desk


TAKEN_FOR_GRANTED = {  # what the commands of a page find in the reader's folder, as an earlier page made it
    "commands.md": [
        "augkd index build demo --out runs/other",
        *(f"augkd index build demo --shard {part}/4 --out runs/s{part}" for part in (2, 3, 4)),
    ],
    "deploy.md": ["augkd run demo --out runs/one"],
    "indexes.md": ["augkd index build demo --out runs/reviews"],
    "storage.md": [
        "augkd index build questions --out runs/questions",
        "augkd augment minimax-knn --out runs/aug --set data.neighbours.index=runs/questions",
    ],
    "report.md": ["augkd run demo --out runs/one", "augkd compare demo --controls kd --out runs/compare"],
}


WITH_CLUSTER = {"cluster.md"}


def pages_with_commands() -> Iterator[Any]:
    for page in filter(command_lines, PAGES):
        marks = [pytest.mark.xdist_group("ray")] if page.name in WITH_CLUSTER else []
        yield pytest.param(page, id=page.name, marks=marks)


@pytest.mark.slow
@pytest.mark.parametrize("page", pages_with_commands())
def test_every_command_of_a_page_runs(page: Path, desk: Desk, request: pytest.FixtureRequest) -> None:
    if page.name in WITH_CLUSTER:
        desk.cluster = request.getfixturevalue("ray_address")
    for line in [*TAKEN_FOR_GRANTED.get(page.name, []), *command_lines(page)]:
        desk.run(line)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if fenced(page, "python")], ids=lambda page: page.name)
def test_the_python_blocks_of_a_page_run_on_an_empty_folder(
    page: Path, desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = fenced(page, "python")
    if not any(block.needs for block in blocks):  # else the folder with the files that the needed commands read
        (tmp_path / "empty").mkdir()
        monkeypatch.chdir(tmp_path / "empty")
    make_small(monkeypatch, desk)
    names: dict[str, Any] = {"__name__": "page"}
    for block in blocks:
        for line in block.needs:
            desk.run(line)
        exec(compile(block.text, page.name, "exec"), names)  # our own page, nothing from elsewhere


def make_small(monkeypatch: pytest.MonkeyPatch, desk: Desk) -> None:
    """Recipes that a Python block loads are small, and so are the comparisons and students it trains."""
    load, load_index = augkd.load_recipe, augkd.load_index_recipe
    compare, distil = augkd.compare_recipes, augkd.distill_transfer_set

    def load_small(name: str, overrides: Sequence[str] = ()) -> Any:
        if name == "people.yaml":
            return load(name, overrides)
        built = any(override.startswith("data.neighbours.index=") for override in overrides)
        corpus = [f"data.neighbours.index.{desk.corpus}"] if name in WITH_NEIGHBOURS and not built else []
        return load(name, [*overrides, *desk.overrides, *corpus, *(DEMO if name == "demo" else ())])

    replacements = {
        "load_recipe": load_small,
        "load_index_recipe": lambda name, overrides=(): load_index(name, [*overrides, desk.corpus]),
        "compare_recipes": lambda recipes, **options: compare(recipes, **options | {"seeds": 1, "time_budget": 2}),
        "distill_transfer_set": lambda given, student, *rest, **options: distil(
            given, str(desk.teacher), *rest, **options
        ),
    }
    for name, replacement in replacements.items():
        monkeypatch.setattr(augkd, name, replacement)


def test_every_page_with_commands_is_run() -> None:
    assert set(TAKEN_FOR_GRANTED) <= {page.name for page in PAGES}
    assert sum(len(command_lines(page)) for page in PAGES) == len(COMMANDS)


def test_a_page_says_which_commands_a_block_needs(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- needs: augkd one; augkd two -->\n```python\npass\n```\n\n```yaml\na: 1\n```\n")
    with_needs, without = fenced(page)
    assert with_needs.needs == ("augkd one", "augkd two")
    assert (without.language, without.needs) == ("yaml", ())


PIECES = [(page.name, block.text) for page in PAGES for block in fenced(page, "yaml")]


@pytest.mark.parametrize(("page", "text"), PIECES)
def test_every_piece_of_a_recipe_is_one(page: str, text: str, tmp_path: Path) -> None:
    piece = yaml.safe_load(text)
    if "recipes" in piece:
        assert Comparison.model_validate(piece).recipes
        return
    whole = load_recipe("kd").model_dump(mode="json", exclude_unset=True)
    replaced = ["teacher"] if "ensemble" in piece.get("teacher", {}) else []
    replaced += ["teacher", "task"] if "transfer_set" in piece.get("data", {}) else []
    whole = {key: value for key, value in whole.items() if key not in replaced}
    path = tmp_path / "whole.yaml"
    path.write_text(yaml.safe_dump(whole | piece))
    assert isinstance(load_recipe(str(path)), Recipe)
