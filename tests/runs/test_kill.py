"""Killed at any moment, a run or an index build ends, when it is started again, in the bytes of an untouched one.

Starting Python and importing torch takes longer than the tiny run itself, so a nursery process imports everything once
and forks an attempt from it; it computes nothing before, and with one thread nothing is lost in the fork.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from augkd.workspace import folders as workspace
from augkd.workspace.manifests import finished

pytestmark = pytest.mark.slow

KILLS = 10

NURSERY = """
import json, os, sys, time
import numpy as np, torch
torch.set_num_threads(1)
import augkd.cli.app, augkd.runs.run, accelerate, datasets, sklearn.metrics, sentence_transformers, transformers
from augkd.data.corpus import CorpusSource
from augkd.retrieval.engines.local import build_dense
from pathlib import Path
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer, BertModel

class Slow:
    name, dim, fingerprint = "slow", 8, "slow-8"

    def encode(self, texts):
        time.sleep(0.02)
        rows = [np.random.default_rng(list(text.encode())).normal(size=8) for text in texts]
        vectors = np.array(rows, dtype=np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

def work(command):
    if command[0] == "build":
        build_dense(Path(command[2]), CorpusSource(command[1]), Slow(), factory="IVF16,Flat", chunk=100)
        return 0
    sys.argv = ["augkd", *command]
    try:
        augkd.cli.app.main()
    except SystemExit as exc:
        return exc.code or 0

for line in sys.stdin:
    command, seconds = json.loads(line)
    child = os.fork()
    if child == 0:
        code = 70
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        try:
            code = work(command)
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            os._exit(code)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, 9)  # a child that has ended is still there, for it was not waited for
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Nursery:
    """Attempts, forked from a process that has imported everything."""

    def __init__(self, log: Path) -> None:
        self._log = log
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
        with log.open("w") as stream:
            self._process = subprocess.Popen(
                [sys.executable, "-c", NURSERY],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                text=True,
                env=environment,
            )

    def attempt(self, command: list[str], kill_after: float | None = None) -> bool:
        """Whether the command ended by itself, in 0, before it was killed."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps([command, kill_after]) + "\n")
        self._process.stdin.flush()
        code = int(self._process.stdout.readline())
        assert code in (0, -signal.SIGKILL), f"status {code}: {self._log.read_text()[-2000:]}"
        return code == 0

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(timeout=30)


@pytest.fixture
def nursery(tmp_path: Path) -> Any:
    made = Nursery(tmp_path / "nursery.log")
    yield made
    made.close()


def contents(folder: Path) -> dict[str, bytes]:
    """Bytes of what must not depend on the kills, by name."""
    names = ("vectors.faiss", "*.arrow", "*.parquet", "*.safetensors")
    found = sorted(path for name in names for path in folder.rglob(name) if "teacher_logits" not in path.parts)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def killed_until_finished(nursery: Nursery, command: list[str], folder: Path, whole: float) -> list[Path]:
    """Runs `command + [folder]` in fresh folders until KILLS kills have landed; the finished folders."""
    rng = random.Random(0)
    kills, finished = 0, []
    while kills < KILLS:
        out = folder / f"round-{len(finished)}"
        while not nursery.attempt([*command, str(out)], rng.uniform(0.02, 0.4) * whole if kills < KILLS else None):
            kills += 1
        finished.append(out)
    assert kills == KILLS
    return finished


def test_ten_kills_leave_no_trace_in_a_run(nursery: Nursery, recipe_file: Path, tmp_path: Path) -> None:
    command = ["run", str(recipe_file), "--set", "training.checkpoints=3", "--out"]
    nursery.attempt([*command[:-1], "--help"])  # the imports are done when this returns
    started = time.perf_counter()
    assert nursery.attempt([*command, str(tmp_path / "whole")])
    whole = time.perf_counter() - started

    wanted = contents(tmp_path / "whole")
    assert {"index/vectors.faiss", "index/texts/part-00000.arrow", "student/model.safetensors"} <= wanted.keys()
    assert "transfer_set/data/train-00000.parquet" in wanted
    expected = json.loads((tmp_path / "whole" / "results.json").read_text())
    for out in killed_until_finished(nursery, command, tmp_path, whole):
        found = contents(out)
        assert found.keys() == wanted.keys()
        assert [name for name in wanted if found[name] != wanted[name]] == []
        results = json.loads((out / "results.json").read_text())
        assert {k: results[k] for k in ("teacher", "student", "data")} == {
            k: expected[k] for k in ("teacher", "student", "data")
        }
        for rows in ("scoring_rows", "training_rows"):
            assert results["cost"][rows] == expected["cost"][rows]
        stages = ("index", "teacher", "transfer_set", "student")
        assert [path for stage in stages for path in (out / stage).rglob(".*.tmp")] == []
        assert not list(out.rglob("building.json"))


def test_ten_kills_leave_no_trace_in_an_index(nursery: Nursery, tmp_path: Path) -> None:
    corpus = tmp_path / "lines.txt"
    corpus.write_text("".join(f"line number {number}\n" for number in range(4000)))
    command = ["build", str(corpus)]
    nursery.attempt(["--help"])
    started = time.perf_counter()
    assert nursery.attempt([*command, str(tmp_path / "whole")])
    whole = time.perf_counter() - started

    wanted = contents(tmp_path / "whole")
    assert len(wanted) == 2 + 40  # vectors, the probes of their recall, 40 text parts
    for out in killed_until_finished(nursery, command, tmp_path, whole):
        assert contents(out) == wanted
        names = {path.relative_to(out) for path in out.rglob("*") if path.is_file()}
        assert names == {
            path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*") if path.is_file()
        }


def test_ctrl_c_ends_in_130_and_one_line_and_the_same_command_finishes(recipe_file: Path, tmp_path: Path) -> None:
    # A shell that starts pytest in the background leaves SIGINT ignored; the terminal's default is put back first.
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from augkd.cli.app import main; main()"
    )
    command = [sys.executable, "-c", code, "run", str(recipe_file), "--out", str(tmp_path / "out")]
    command += ["--set", "training.epochs=1", "--set", "teacher.epochs=1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    deadline = time.monotonic() + 60
    while not (tmp_path / "out" / "teacher" / "building.json").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err.splitlines()[-1] == "interrupted; the same command continues"
    assert "Traceback" not in err
    assert out == ""
    assert not (tmp_path / "out" / "results.json").exists()

    again = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert again.returncode == 0, again.stderr
    assert json.loads((tmp_path / "out" / "results.json").read_text())["cost"]["training_rows"] == 90 * 3


def test_a_kill_while_a_stage_is_being_marked_or_emptied_leaves_a_folder_that_can_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marked = tmp_path / "marked"
    marked.mkdir()
    (marked / ".building.json.123.tmp").write_text("{")
    assert workspace.begin(marked, "student", {"seed": 0}) is False

    emptied = tmp_path / "emptied"
    workspace.begin(emptied, "student", {"seed": 0})
    (emptied / "weights").write_text("old")
    workspace.end(emptied, "student", {"seed": 0})
    with monkeypatch.context() as patch:

        def killed(folder: Path, keep: set[Path]) -> None:
            raise KeyboardInterrupt

        patch.setattr(workspace, "_empty", killed)
        with pytest.raises(KeyboardInterrupt):
            workspace.begin(emptied, "student", {"seed": 1})
    assert not finished(emptied, "student", {"seed": 0})
    assert workspace.begin(emptied, "student", {"seed": 1}) is False
    assert [path.name for path in emptied.iterdir()] == ["building.json"]
    (emptied / "sub").mkdir()
    (emptied / "sub" / ".log.json.7.tmp").write_text("{")
    assert workspace.begin(emptied, "student", {"seed": 1}) is True
    assert not list(emptied.rglob("*.tmp"))
