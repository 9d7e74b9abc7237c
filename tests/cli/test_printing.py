"""Nothing that is printed controls a terminal, whatever texts, labels and names hold."""

from __future__ import annotations

import ast
import json
import re
import unicodedata
from pathlib import Path

import pytest
from support.finished_run import finished_run
from typer.testing import CliRunner

import augkd
from augkd.cli.app import app, main
from augkd.cli.printing import neutral, say, say_json
from augkd.cli.terminal import Bars
from augkd.data.transfer_set import TransferSet

EVIL = "\x1b]0;title\x07\x1b[2J\x9b31m\u202eabc\u2066\u200b\u2028\x7f\x00\r\ud800"
DIRECTIONS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
HARMLESS = "\N{BLACK DIAMOND}é 日本語 e\u0301 का\u200dक 👩\u200d🔬 نمونه\u200cها a\tb ‖ –"


def test_an_escape_sequence_is_shown_and_not_sent() -> None:
    assert neutral("\x1b[31mred") == "\\u001b[31mred"
    assert neutral("a\u202eb\u2069c") == "a\\u202eb\\u2069c"
    assert neutral("one\ntwo\rthree") == "one\\u000atwo\\u000dthree"
    assert neutral("\x9b2J\x7f") == "\\u009b2J\\u007f"
    assert neutral("tag \U000e0041") == "tag \\udb40\\udc41"
    assert neutral("\ud800") == "\\ud800"


def test_what_is_neutral_stays_as_it_is() -> None:
    assert neutral(HARMLESS) == HARMLESS


def test_every_character_is_either_harmless_or_escaped() -> None:
    for code in range(0x110000):
        shown = neutral(chr(code))
        if shown == chr(code):
            assert unicodedata.category(shown) not in {"Cc", "Cs", "Co", "Zl", "Zp"} or shown == "\t"
            assert unicodedata.bidirectional(shown) not in {
                "LRE",
                "RLE",
                "LRO",
                "RLO",
                "PDF",
                "LRI",
                "RLI",
                "FSI",
                "PDI",
            }
        else:
            assert re.fullmatch(r"(\\u[0-9a-f]{4}){1,2}", shown)


def test_json_is_neutral_and_reads_back_as_the_same_text(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"text": EVIL[:-1] + HARMLESS + "\U000e0041", "list": ["\x9b", 1.5, None]}
    say_json(value)
    printed = capsys.readouterr().out
    assert all(neutral(line) == line for line in printed.rstrip("\n").split("\n"))
    assert json.loads(printed) == value


def test_a_line_stays_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    say(f"label {EVIL}\nerror: forged", err=True)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("label \\u001b]0;title")


def test_progress_takes_no_markup_from_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    with Bars() as bars:
        bars("[/red] \x1b[2J: student", 1, 1)
        bars.headline("soon [/x]", 1, 2)
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("[/red] \\u001b[2J: student: 1 of 1")
    assert second == "all runs: 1 of 2 done, soon [/x]"


def hostile_task(folder: Path) -> Path:
    """A task whose texts, labels and name hold escapes."""
    folder.mkdir()
    texts = [f"text {number} {EVIL[:-1]}" for number in range(40)]
    labels = [f"label\x1b[31m\u202e{number % 2}" for number in range(40)]
    rows = [json.dumps({"text": text, "label": label}) for text, label in zip(texts, labels, strict=True)]
    (folder / "train.jsonl").write_text("\n".join(rows) + "\n")
    (folder / "labels.json").write_text(json.dumps({"task": "task\x1b[2J\u202e"}))
    return folder


@pytest.mark.parametrize("as_json", [False, True])
def test_no_command_sends_what_a_stranger_wrote_to_the_terminal(tmp_path: Path, tiny_bert: Path, as_json: bool) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"task: {hostile_task(tmp_path / 'task')}\nteacher: {{model: {tiny_bert}, epochs: 1}}\n"
        "student: {layers: [0]}\ntraining: {kd: {}, ce: {}, epochs: 1, max_length: 16}\n"
    )
    out = finished_run(tmp_path / "run")
    table = TransferSet.open(out / "transfer_set")
    assert len(table) == 3
    commands = [
        ["check", str(recipe)],
        ["augment", str(recipe), "--out", str(tmp_path / "augmented")],
        ["run", str(recipe), "--out", str(tmp_path / "run2")],
        ["compare", str(recipe), "--out", str(tmp_path / "compared")],
        ["transfer", "show", str(tmp_path / "augmented" / "transfer_set")],
    ]
    for command in commands:
        done = CliRunner().invoke(app, [*command, *(["--json"] if as_json and command[0] != "check" else [])])
        assert done.exit_code == 0, (command, done.output, done.exception)
        for line in done.output.split("\n"):
            assert neutral(line) == line, command


def prints(call: ast.Call) -> bool:
    function = call.func
    return (isinstance(function, ast.Name) and function.id == "print") or (
        isinstance(function, ast.Attribute) and function.attr in ("echo", "secho")
    )


def test_nothing_else_prints() -> None:
    package = Path(augkd.__file__).parent
    trees = {path.name: ast.parse(path.read_text(encoding="utf-8")) for path in package.rglob("*.py")}
    calls = {name: [node for node in ast.walk(tree) if isinstance(node, ast.Call)] for name, tree in trees.items()}
    assert [name for name, found in calls.items() if any(map(prints, found))] == ["printing.py"]


def test_a_message_of_pages_is_cut(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["augkd", "index", "info", "x" * 9000])
    with pytest.raises(SystemExit) as raised:
        main()
    assert raised.value.code == 1
    assert 100 < len(capsys.readouterr().err) < 2100
