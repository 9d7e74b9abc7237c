"""Processes launched together, by torchrun or accelerate: one student as of one process, one line for a mistake."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from support.command_line import Augkd
from support.ranks import environment, finish, start
from support.tiny import sentences

from augkd.recipe import load_recipe
from augkd.runs.run import Run
from augkd.workspace.launch import Launch, alone, launch


@pytest.fixture
def augkd(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Augkd:
    return Augkd(monkeypatch, capsys)


# ---- which process this is ----


def test_a_process_finds_its_place_in_the_environment_and_none_when_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert launch() == Launch(0, 1)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert launch() == Launch(1, 3)
    assert not launch().writes
    with alone():
        assert launch() == Launch(0, 1)
    assert launch() == Launch(1, 3)


@pytest.mark.parametrize("command", ["compare", "index", "augment", "label"])
def test_a_command_for_one_process_says_so(command: str, augkd: Augkd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    done = augkd(command, "build" if command == "index" else "minimax-knn", "--out", "x")
    assert (done.code, done.out) == (1, "")
    assert done.err == (
        f"error: augkd {command} runs in one process, and 2 were launched; start it without torchrun or "
        "`accelerate launch`, which are for augkd run and augkd distill\n"
    )


# ---- the whole ----


def launched(module: str, *arguments: object) -> subprocess.Popen[str]:
    """A launcher, with the environment of a process that nobody launched yet."""
    return subprocess.Popen(
        [sys.executable, "-m", module, *map(str, arguments)],
        env={name: value for name, value in environment(0, 2, 0).items() if name not in ("RANK", "WORLD_SIZE")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def torchrun(*command: object) -> subprocess.Popen[str]:
    """`torchrun` with two processes that run a module."""
    return launched("torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", *command)


def accelerate(*command: object) -> subprocess.Popen[str]:
    """`accelerate launch` with two processes that run a module."""
    how = ["--multi_gpu", "--num_processes=2", "--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no"]
    return launched("accelerate.commands.accelerate_cli", "launch", *how, "--main_process_port=0", "-m", *command)


@pytest.fixture(scope="module")
def recipe(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Minimax with all that is made on the way, without dropout, whose masks differ between processes."""
    folder = tmp_path_factory.mktemp("launched")
    shutil.copytree(tiny_bert, folder / "bert")
    config = json.loads((folder / "bert/config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "bert/config.json").write_text(json.dumps(config))
    (folder / "task").mkdir()
    for split, rows in (("train", sentences(0)), ("validation", sentences(10)[:18]), ("test", sentences(20)[:18])):
        lines = [json.dumps({"text": text, "label": label}) for text, label in rows]
        (folder / "task" / f"{split}.jsonl").write_text("\n".join(lines))
    (folder / "corpus.txt").write_text("\n".join(f"{text} and more" for text, _ in sentences(40)))
    training = "kd: {temperature: 2.0}, ce: {}, epochs: 3, batch_size: 40, learning_rate: 2.0e-3, precision: float32"
    training += ", structure: {alp: {}}"
    (folder / "recipe.yaml").write_text(f"""\
task: {{dataset: {folder / "task"}}}
teacher: {{model: {folder / "bert"}, epochs: 6, learning_rate: 5.0e-3}}
assistants: [{{layers: [0, 1]}}]
student: {{layers: [0, 2]}}
data:
  generator: {{model: {folder / "bert"}, adapt: {{steps: 2, batch_size: 8}}, ascend: 1, every: 2, batch_size: 8}}
  neighbours: {{index: {{corpus: {{dataset: {folder / "corpus.txt"}}}, encoder: {{max_length: 32}}}}, k: 3}}
  select: {{minimax: {{keep: 1}}}}
training: {{{training}}}
""")
    return folder / "recipe.yaml"


@pytest.fixture(scope="module")
def two(recipe: Path) -> Path:
    """A run of two processes, from the index to the results."""
    out = recipe.parent / "two"
    first, second = finish(start(["-m", "augkd", "run", recipe, "--out", out, "--json"]))
    assert (first[0], second[0]) == (0, 0), first[2] + second[2]
    assert json.loads(first[1]) == json.loads((out / "results.json").read_text())
    assert second[1:] == ("", "")  # one process prints, and the other may write no file
    return out


@pytest.mark.slow
def test_the_student_of_two_processes_is_that_of_one(two: Path, recipe: Path) -> None:
    one = shutil.copytree(two, recipe.parent / "one")
    shutil.rmtree(one / "student")
    (one / "manifest.json").unlink()
    results = Run(load_recipe(str(recipe), []), one, name="recipe").results()
    other = json.loads((two / "results.json").read_text())
    for part in ("student", "teacher", "data"):
        assert results[part] == other[part]
    for rows in ("teacher_rows", "scoring_rows", "training_rows"):
        assert results["cost"][rows] == other["cost"][rows] > 0
    alone, shared = (load_file(folder / "student/predictions.safetensors") for folder in (one, two))
    assert np.ptp(alone["test"]) > 0.02
    np.testing.assert_allclose(alone["test"], shared["test"], atol=1e-3)
    alone, shared = (load_file(folder / "student/trace.safetensors") for folder in (one, two))
    assert 0.1 < alone["picked"].mean() < 0.4  # one of three neighbours and a generated text
    assert (alone["picked"] == shared["picked"]).mean() > 0.97


@pytest.mark.slow
def test_accelerate_launches_the_same_processes(two: Path, recipe: Path) -> None:
    other = shutil.copytree(two, recipe.parent / "accelerated")
    shutil.rmtree(other / "student")
    (other / "manifest.json").unlink()
    process = accelerate("augkd", "run", recipe, "--out", other)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    accelerated, shared = (load_file(folder / "student/predictions.safetensors") for folder in (other, two))
    np.testing.assert_allclose(accelerated["test"], shared["test"], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [torchrun, accelerate])
def test_when_one_process_fails_all_end_with_its_line(
    launcher: Callable[..., subprocess.Popen[str]], two: Path, recipe: Path
) -> None:
    given = ["--transfer-set", two / "transfer_set", "--student", recipe.parent / "bert", "--set", "training.epochs=3"]
    command = ["support.broken_rank", "fail", "1", "-", "distill", *given, "--out", recipe.parent / launcher.__name__]
    started = time.monotonic()
    process = launcher(*command)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    errors = [line for line in err.splitlines() if line.startswith(("error", "interrupted"))]
    assert errors == ["error: process 1 of 2: student: no luck with this step"]
    assert "parallel.py" not in err, "a traceback of ours"
    assert time.monotonic() - started < 100


@pytest.mark.slow
def test_ctrl_c_ends_all_processes_with_one_line(two: Path, recipe: Path) -> None:
    """One process sleeps in its step, the other waits for its gradients in the communication library."""
    marker = recipe.parent / "marker"
    given = ["--transfer-set", two / "transfer_set", "--student", recipe.parent / "bert"]
    process = torchrun("support.broken_rank", "sleep", "0", marker, "distill", *given, "--out", recipe.parent / "cut")
    deadline = time.monotonic() + 100
    while not marker.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode != 0
    lines = [line for line in err.splitlines() if line.startswith(("error", "interrupted"))]
    assert lines == ["interrupted; the same command continues"]
    assert "parallel.py" not in err, "a traceback of ours"
