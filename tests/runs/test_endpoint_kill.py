"""A run that is killed while an LLM answers: what was answered is kept, only requests in progress are sent again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support.chat_server import Fault, Say, chat_server
from support.tiny import sentences

pytest.importorskip("openai")

CONCURRENCY = 3


@pytest.mark.slow
def test_a_killed_run_pays_again_only_for_the_requests_in_progress(tmp_path: Path, tiny_bert: Path) -> None:
    rows = "".join(f"{text},{label}\n" for text, label in sentences())
    for split in ("train", "validation", "test"):
        (tmp_path / "task").mkdir(exist_ok=True)
        (tmp_path / "task" / f"{split}.csv").write_text(f"text,label\n{rows if split == 'train' else rows[:400]}")

    def behave(request: dict[str, Any], number: int) -> Say | Fault:
        return Fault(delay=0.03)  # then the answer "A"

    with chat_server(behave) as server:
        (tmp_path / "recipe.yaml").write_text(
            f"task: {{dataset: task, splits: {{train: train.csv}}}}\n"
            f"teacher: {{endpoint: {{url: '{server.url}', concurrency: {CONCURRENCY}}}, model: llm}}\n"
            f"student: {{model: {tiny_bert}}}\n"
            "training: {kd: {}, epochs: 1, max_length: 32}\n"
        )
        command = [sys.executable, "-m", "augkd.cli.app", "augment", str(tmp_path / "recipe.yaml")]
        command += ["--out", str(tmp_path / "run")]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while len(server.requests) < 20 and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        time.sleep(0.2)  # what was on its way reaches the server
        sent = len(server.requests)
        assert 20 <= sent < 60
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        texts = len(set(server.prompts))
        assert len(server.requests) <= texts + CONCURRENCY
        assert texts > 60
