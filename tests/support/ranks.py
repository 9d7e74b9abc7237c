"""Small trainings that one process and two can do, to compare them; run as a program, it is one of the two.

Each start of torch takes seconds, so one pair of processes does all the trainings that a test file asks for.
"""

from __future__ import annotations

import gc
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

TESTS = Path(__file__).parent.parent


@dataclass(frozen=True)
class Case:
    """One training; every row has 4 candidates."""

    training: dict[str, Any] = field(default_factory=dict)
    select: dict[str, Any] = field(default_factory=lambda: {"minimax": {"keep": 2}})
    originals: int = 16
    refresh: int = 1
    alp: bool = False
    generator: bool = False
    student: str = "bert"
    killed_at: int = 0  # step, counted over all stages; 0: never
    mean_of_means: bool = False  # wrong on purpose: each process divides by its own rows


KD = {"kd": {"weight": 0.5, "temperature": 2.0}, "ce": {"weight": 0.5}}


def train(case: Case, out: Path, bert: Path) -> dict[str, Any]:
    """Trains in `out`; the gradients of every optimiser's steps, the weights at the end and the course."""
    import torch
    from support.transfer import transfer

    from augkd.distill.dataset import DistillationDataset
    from augkd.distill.stages import train_stages
    from augkd.distill.trainer import DistillationTrainer

    data = transfer(case.originals)
    teacher, student = _classifier(bert, 1), _student(case, bert)
    layers = (lambda _, trained: _layers(trained, teacher, data, out / "layers")) if case.alp else None
    adversary = _adversary(bert, teacher) if case.generator else None
    steps = [0]

    def progress(done: int, total: int | None) -> None:
        steps[0] += 1
        if steps[0] == case.killed_at:
            raise Killed

    def own_rows(trainer: DistillationTrainer, rows: Sequence[int]) -> dict[str, Any]:
        own = trainer.ranks.share(rows)
        return trainer.data.collate(own) | {"originals": len(own) * trainer.ranks.count}

    collate = own_rows if case.mean_of_means else DistillationTrainer._collate
    with gradients(student.model) as seen, patch.object(DistillationTrainer, "_collate", collate):
        trained = train_stages(
            student,
            _arguments(case, out),
            DistillationDataset(student, data),
            lambda classifier: {"accuracy": float(classifier.predict([("a cat", None)]).softmax(-1)[0, 0])},
            progress,
            layers,
            adversary,
        )
    weights = torch.cat([parameter.detach().flatten() for parameter in student.model.parameters()])
    course = {"log": trained.log, "rows": trained.rows, "best": trained.best}
    trace = [] if trained.trace is None else [trained.trace.divergence.tolist(), trained.trace.picked.tolist()]
    return {"gradients": seen, "weights": weights, "course": course, "trace": trace}


class Killed(BaseException):
    """A kill, as seen from inside the process."""


@contextmanager
def gradients(model: Any) -> Iterator[list[Any]]:
    """The gradient of each step of every optimiser, as one vector; that of a table that grows by token."""
    import torch
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    seen: list[Any] = []

    def see(optimiser: Any, args: Any, kwargs: Any) -> None:
        parameters = [p for group in optimiser.param_groups for p in group["params"]]
        own = [_by_token(model, p, torch.zeros_like(p) if p.grad is None else p.grad) for p in parameters]
        seen.append(torch.cat([gradient.flatten().clone() for gradient in own]))

    handle = register_optimizer_step_pre_hook(see)
    try:
        yield seen
    finally:
        handle.remove()


def _by_token(model: Any, parameter: Any, gradient: Any) -> Any:
    table = model.get_input_embeddings()
    if parameter is not table.weight or "place" not in table.state_dict():
        return gradient
    padded = gradient.new_zeros(len(table.place) + 1, gradient.shape[1])
    padded[: len(gradient)] = gradient
    return padded[table.place]  # of a token that was not met: 0, as the row of ones has


def _arguments(case: Case, out: Path) -> list[Any]:
    from augkd.distill.arguments import arguments
    from augkd.recipe import TrainingOptions

    common = {"batch_size": 8, "epochs": 1, "learning_rate": 0.1, "precision": "float32", "max_grad_norm": 0.0}
    table = {**common, **({} if "stages" in case.training else KD), **case.training}
    stages = table.pop("stages", [{}])
    selection = {"selector": case.select, "refresh": case.refresh, "generator_batch_size": 6}
    made = []
    for number, stage in enumerate(stages, 1):
        options = TrainingOptions.model_validate(table | stage)
        made.append(arguments(out / f"stage-{number}", options, 0, "accuracy", **selection))
        made[-1].logging_steps = 2
        made[-1].optim = "sgd"  # AdamW makes a step of a gradient that rounding alone keeps from 0
    return made


def _classifier(bert: Path, seed: int) -> Any:
    from support.tiny import LABELS

    from augkd.models.classifier import load_backbone

    loaded = load_backbone(str(bert), LABELS, 32, seed, precision="float32")
    for name, parameter in loaded.model.named_parameters():
        if parameter.dim() == 2 and "embeddings" not in name:
            parameter.data *= 5  # random weights of the usual size hardly tell texts apart
    return loaded


def _student(case: Case, bert: Path) -> Any:
    from augkd.models.layers import from_layers
    from augkd.models.student_kinds import build_student

    teacher = _classifier(bert, 2)
    if case.student == "bert":
        return from_layers(teacher, [0, 2])
    return build_student(case.student, {"width": 16, "dropout": 0.0}, teacher, 0)


def _layers(student: Any, teacher: Any, data: Any, folder: Path) -> Any:
    from augkd.distill.teacher.layers import LayerTeacher

    return LayerTeacher.of({"alp": {}}, "cls", student, teacher, data, folder, "weights", seed=0)


def _adversary(bert: Path, teacher: Any) -> Any:
    import torch

    from augkd.candidates.generator.generator import Generator
    from augkd.distill.adversary.ascent import Adversary, Ascent
    from augkd.models.masked_lm import load_masked_lm

    with torch.random.fork_rng():
        torch.manual_seed(3)
        generator = Generator(load_masked_lm(str(bert), "float32"))
    return Adversary(generator, teacher, Ascent(ascend=2, every=2), samples=2, seed=0)


# ---- two processes ----


def environment(rank: int, count: int, port: int) -> dict[str, str]:
    """What torchrun sets."""
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_PORT": port}
    path = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    threads = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "HF_HUB_OFFLINE": "1"}
    return (
        os.environ
        | threads
        | {"MASTER_ADDR": "127.0.0.1", "PYTHONPATH": path}
        | {k: str(v) for k, v in numbers.items()}
    )


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def start(command: Sequence[object], count: int = 2, **given: Any) -> list[subprocess.Popen[str]]:
    """`python` with these arguments, as `count` processes of one launch; the others may write no file over 64 bytes."""
    port, processes = free_port(), []
    for rank in range(count):
        processes.append(
            subprocess.Popen(
                [sys.executable, *map(str, command)],
                env=environment(rank, count, port),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                preexec_fn=_write_nothing if rank else None,
                **given,
            )
        )
    return processes


def _write_nothing() -> None:
    import resource

    # bytes; `tempfile` tries its folder with 4
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))


def finish(processes: Sequence[subprocess.Popen[str]], seconds: float = 120) -> list[tuple[int, str, str]]:
    """Exit status, stdout and stderr of each. As torchrun does, ends all when one fails, or when time is up."""
    with ThreadPoolExecutor(len(processes)) as readers:
        texts = [readers.submit(process.communicate) for process in processes]
        deadline = time.monotonic() + seconds
        while any(process.poll() is None for process in processes):
            if any(process.poll() for process in processes) or time.monotonic() > deadline:
                for process in processes:
                    process.terminate()
                break
            time.sleep(0.1)
        return [(process.wait(), *text.result()) for process, text in zip(processes, texts, strict=True)]


def main() -> None:
    """Does the cases of a JSON file in this process of a launch; the first process writes what came of them."""
    file, bert = Path(sys.argv[1]), Path(sys.argv[2])
    import torch

    from augkd.models.libraries import quiet_libraries

    quiet_libraries()
    torch.set_num_threads(1)
    gc.freeze()  # Trainer collects garbage, which would look at every object of every library
    changed = [] if os.environ["RANK"] == "0" else watch_files(file.parent)
    results = {}
    for name, settings in json.loads(file.read_text()).items():
        case = Case(**settings)
        try:
            results[name] = train(case, file.parent / name, bert)
        except Killed:
            results[name] = {}
    if os.environ["RANK"] == "0":
        torch.save(results, file.with_suffix(".pt"))
    assert not changed, changed


_CHANGES = {f"os.{name}" for name in ("mkdir", "rename", "remove", "rmdir", "link", "symlink", "truncate")}


def watch_files(folder: Path) -> list[str]:
    """What this process writes, makes, renames or removes below `folder` from now on, as Python sees it."""
    changed: list[str] = []
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT

    def see(event: str, args: Any) -> None:
        opened = event == "open" and isinstance(args[2], int) and args[2] & writing
        changes = opened or event in _CHANGES
        if changes and str(args[0]).startswith(str(folder)):
            changed.append(f"{event} {args[0]}")

    sys.addaudithook(see)
    return changed


if __name__ == "__main__":
    main()
