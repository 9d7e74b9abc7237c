"""Commands in processes of their own, forked from one that has imported everything, and stopped at chosen file events.

Starting Python and importing torch takes longer than a tiny run. The nursery computes nothing before it forks, and with
one thread nothing is lost in the fork. An event is what changes the disk: a file that is opened for writing, renamed,
removed or truncated, a folder that is made or removed. At event n the fault strikes, before the event itself happens.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NURSERY = r"""
import json, os, resource, signal, sys
import numpy as np, torch
torch.set_num_threads(1)
import augkd.cli.app, augkd.runs.run, augkd.runs.comparison, augkd.ship.export, augkd.evaluation.report.report
import augkd.runs.stages.student_training, augkd.runs.stages.fine_tuning, augkd.retrieval.build, augkd.runs.cards
import accelerate, datasets, jinja2, matplotlib.figure, onnx, onnxruntime, onnxscript, sentence_transformers
from transformers import AutoModel, AutoModelForMaskedLM, AutoModelForSequenceClassification, BertModel

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate"}

def watch(sandbox, at, strike):
    state = {"events": 0, "busy": False}

    def below(path):
        try:
            return os.path.abspath(os.fsdecode(path)).startswith(sandbox)
        except (TypeError, ValueError):
            return False

    def hook(event, args):
        if state["busy"]:
            return
        if event == "open":
            path, _, flags = args
            if not (isinstance(flags, int) and flags & WRITES and below(path)):
                return
        elif event in CHANGES:
            if not (below(args[0]) or args[-1] not in (-1, None) and event in ("os.remove", "os.rmdir")):
                return
        else:
            return
        state["events"] += 1
        if state["events"] == at:
            state["busy"] = True
            strike()
            state["busy"] = False

    sys.addaudithook(hook)
    return state

def striker(order):
    if order.get("signal"):
        return lambda: os.kill(os.getpid(), getattr(signal, order["signal"]))
    gone = order.get("vanish")
    return lambda: os.rename(gone, gone + ".gone") if gone else None

def child(order):
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have left it ignored
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if order.get("cwd"):
        os.chdir(order["cwd"])
    if order.get("file_limit"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["file_limit"],) * 2)
    state = watch(order["sandbox"], order.get("at"), striker(order))
    sys.argv = ["augkd", *order["command"]]
    code = 70
    try:
        augkd.cli.app.main()
        code = 0
    except SystemExit as exc:
        code = exc.code if isinstance(exc.code, int) else 0 if exc.code is None else 1
    except BaseException:
        import traceback
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        with open(order["log"] + ".events", "w") as stream:
            stream.write(str(state["events"]))
        os._exit(code)

for line in sys.stdin:
    orders = json.loads(line)
    pids = []
    for order in orders:
        pid = os.fork()
        if pid == 0:
            child(order)
        pids.append(pid)
    print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]), flush=True)
"""


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int  # negative: the signal that killed it
    error: str  # what it wrote to stderr
    events: int  # how often it changed the disk; 0 when it was killed

    def check_one_line(self) -> str:
        """The one line of a mistake that the user can fix; fails for a traceback or a signal."""
        assert "Traceback" not in self.error, self.error[-3000:]
        lines = [line for line in self.error.splitlines() if line.startswith("error: ")]
        assert self.code == 1, f"status {self.code}: {self.error[-3000:]}"
        assert len(lines) == 1, self.error[-3000:]
        return lines[0]


class Nursery:
    """Attempts, forked from a process that has imported everything; `sandbox` is where events count."""

    def __init__(self, folder: Path, sandbox: Path) -> None:
        self._folder, self._sandbox = folder, sandbox
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
        with (folder / "nursery.log").open("w") as stream:
            self._process = subprocess.Popen(
                [sys.executable, "-c", NURSERY],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                text=True,
                env=environment,
            )

    def attempt(self, command: list[str], **order: Any) -> Ended:
        """Runs one command; `at` and `signal` or `vanish` say at which event what strikes."""
        return self.together([command], **order)[0]

    def together(self, commands: list[list[str]], **order: Any) -> list[Ended]:
        """Runs commands at the same time."""
        logs = [self._folder / f"attempt-{number}.log" for number in range(len(commands))]
        orders = [
            {"command": command, "log": str(log), "sandbox": str(self._sandbox), **order}
            for command, log in zip(commands, logs, strict=True)
        ]
        for log in logs:
            Path(f"{log}.events").unlink(missing_ok=True)
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(orders) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, (self._folder / "nursery.log").read_text()[-3000:]
        return [self._ended(code, log) for code, log in zip(json.loads(line), logs, strict=True)]

    def _ended(self, code: int, log: Path) -> Ended:
        events = Path(f"{log}.events")
        return Ended(code, log.read_text(errors="replace"), int(events.read_text()) if events.exists() else 0)

    def close(self) -> None:
        """Ends the process; its children have ended by themselves."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(timeout=60)
