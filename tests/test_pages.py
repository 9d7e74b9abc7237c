"""The commands of the README lead, as a new user would run them, from a CSV and a text file to a shipped student."""

from __future__ import annotations

import csv
import json
import re
import shlex
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import pytest
from support.pages import README, ROOT, command_lines, fenced
from support.tiny import sentences
from typer.testing import CliRunner

from augkd.cli.app import app

WORDS = {"positive": "good", "negative": "bad"}


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working folder with the two files that the pages name, after the five commands of the README."""
    folder = tmp_path_factory.mktemp("desk")
    rows = [(text.replace("a ", f"a {WORDS[label]} "), label) for text, label in labelled()]
    with (folder / "reviews.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("remark", "verdict"), *rows])
    (folder / "more-reviews.txt").write_text("\n".join(text for text, _ in sentences(50)))
    with chdir(folder):
        lines = block_with(README, "augkd init reviews.csv")
        assert len(lines) == 5
        for line in lines:
            run(line)
        yield folder


def labelled() -> list[tuple[str, str]]:
    """90 short texts of two classes; a single word distinguishes them."""
    texts = [text for text, _ in sentences() if " a " in f" {text}"]
    return [(f"{text} no {number}", label) for number in range(2) for text in texts for label in WORDS][:90]


def run(line: str) -> str:
    result = CliRunner().invoke(app, shlex.split(line)[1:], catch_exceptions=False)
    assert result.exit_code == 0, (line, result.output)
    return result.output


def block_with(page: Path, first: str) -> list[str]:
    """The commands of the fenced block that begins with `first`."""
    text = page.read_text()
    start = text.index(first)
    return [line for line in text[start : text.index("```", start)].splitlines() if line.startswith("augkd ")]


def skeleton(text: str) -> list[str]:
    """The lines of an output without its numbers, so that outputs for different data can be compared."""
    return [re.sub(r"\d[\d,]*", "#", line).rstrip() for line in text.splitlines()]


@pytest.mark.slow
def test_the_quoted_output_of_init_is_what_init_prints(desk: Path) -> None:
    (quoted,) = [block.text for block in fenced(ROOT / "docs" / "start.md") if block.text.startswith("task ")]
    printed = run(f"{block_with(README, 'augkd init reviews.csv')[0]} --force")
    assert set(skeleton(quoted)) <= set(skeleton(printed))


@pytest.mark.slow
def test_five_commands_lead_from_two_files_to_a_shipped_student(desk: Path) -> None:
    figures = json.loads((desk / "runs/reviews/results.json").read_text())
    assert figures["student"]["test"] > 0.8  # a single word distinguishes the classes
    assert (desk / "runs/reviews/report.html").stat().st_size > 10_000
    assert json.loads((desk / "shipped/onnx/export.json").read_text())
    assert (desk / "shipped/onnx/model_quantized.onnx").exists()


@pytest.mark.slow
def test_the_other_commands_of_the_first_steps_work_on_the_same_run(desk: Path) -> None:
    lines = command_lines(ROOT / "docs" / "start.md")
    (shown,) = [line for line in lines if "transfer show" in line]
    assert "neighbours" in run(shown)
    dry = [line for line in lines if "--dry-run" in line]
    assert dry
    assert all("model.safetensors" in run(line) for line in dry)
    again = [line for line in lines if line.startswith("augkd run reviews.yaml")]
    before = (desk / "runs/reviews/student/model.safetensors").stat().st_mtime_ns
    assert run(again[0])
    assert (desk / "runs/reviews/student/model.safetensors").stat().st_mtime_ns == before  # nothing is done twice
