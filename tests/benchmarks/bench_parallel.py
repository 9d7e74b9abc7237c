"""Examples a second of a training in one process and in two, on one core each.

Minimax-kNN's step on two MiniLM layers: 32 originals with 8 candidates of 12 tokens each, of which 4 are chosen. Both
trainings take turns, because a machine is seldom idle. Beside the wall-clock ratio stands that of the processor time of
a process, which neighbours on the machine do not change: what it falls short of 2 is communication, copying and what
every process does for itself.

    python tests/benchmarks/bench_parallel.py [--steps 20] [--rounds 3]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np

LABELS = tuple("abcdef")
BATCH, CANDIDATES, TOKENS = 32, 8, 12
_WARM = 3  # steps that are not counted


def main() -> None:
    """Prints a line for each round, then the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if "RANK" in os.environ:
        train(options.steps)
        return
    walls, processors = [], []
    for _ in range(options.rounds):
        one, two = (launch(count, options.steps) for count in (1, 2))
        speed = [BATCH / median["wall"] for median in (one, two)]
        walls.append(speed[1] / speed[0])
        processors.append(one["processor"] / two["processor"])
        print(f"{speed[0]:8.1f}/s {speed[1]:8.1f}/s  wall {walls[-1]:.2f}  processor {processors[-1]:.2f}", flush=True)
    print(f"median: wall {statistics.median(walls):.2f}, processor {statistics.median(processors):.2f}")


def launch(count: int, steps: int) -> dict[str, float]:
    """The median seconds of a step in the first of `count` processes: by the wall clock, and of its processor."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
    processes = []
    for rank in range(count):
        given = {**shared, "RANK": rank, "LOCAL_RANK": rank, "OMP_NUM_THREADS": 1}
        environment = os.environ | {name: str(value) for name, value in given.items()}
        command = [sys.executable, __file__, f"--steps={steps}"]
        processes.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
    shown = [process.communicate()[0] for process in processes]
    assert not any(process.returncode for process in processes)
    times: dict[str, float] = json.loads(shown[0])
    return times


def train(steps: int) -> None:
    """Trains in this process, and prints what its steps took if it is the first."""
    import torch

    from augkd.data.transfer_set import in_memory
    from augkd.distill.arguments import DistillationArguments
    from augkd.distill.dataset import DistillationDataset
    from augkd.distill.stages import lean
    from augkd.distill.trainer import DistillationTrainer
    from augkd.models.classifier import load_backbone
    from augkd.models.layers import from_layers
    from augkd.models.libraries import quiet_libraries

    quiet_libraries()
    torch.set_num_threads(1)
    teacher = load_backbone("sentence-transformers/all-MiniLM-L6-v2", LABELS, 128, seed=0)
    student = from_layers(teacher, [0, 5])
    student.model.requires_grad_(True).train()
    data = DistillationDataset(student, in_memory(list(rows(teacher, BATCH * (steps + _WARM))), LABELS))
    clock: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as folder, lean(student, data, None):
        arguments = DistillationArguments(
            output_dir=folder,
            num_train_epochs=1,
            per_device_train_batch_size=BATCH,
            accelerator_config={"split_batches": True},
            selector={"minimax": {"keep": 4}},
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            losses={"kd": {"weight": 0.5, "temperature": 2.0}, "ce": {"weight": 0.5}},
        )
        DistillationTrainer(
            student, arguments, data, progress=lambda *_: clock.append((time.perf_counter(), time.process_time()))
        ).train()
    if os.environ["RANK"] == "0":
        wall, processor = (
            statistics.median(end - start for start, end in pairwise(times))
            for times in zip(*clock[_WARM:], strict=True)
        )
        print(json.dumps({"wall": wall, "processor": processor}))


def rows(teacher: Any, count: int) -> Iterator[dict[str, Any]]:
    """Rows of a transfer set whose texts have `TOKENS` tokens, out of 4,000 words."""
    words = [word for word in teacher.tokenizer.get_vocab() if word.isalpha() and len(word) > 2]
    draw = random.Random(0)
    words = sorted(words)[:4000]
    logits = np.random.default_rng(0).standard_normal((count, 1 + CANDIDATES, len(LABELS))).tolist()

    def text() -> dict[str, Any]:
        return {"text": " ".join(draw.choice(words) for _ in range(TOKENS - 2)), "text_pair": None}

    for row in range(count):
        found = [
            {"id": f"{row}-{k}", **text(), "source": "index", "score": 0.5, "teacher_logits": known}
            for k, known in enumerate(logits[row][1:])
        ]
        original = {"id": str(row), **text(), "label": LABELS[row % len(LABELS)]}
        yield {**original, "teacher_logits": logits[row][0], "candidates": found}


if __name__ == "__main__":
    main()
