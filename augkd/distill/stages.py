"""Training in stages: each starts from the best weights of the one before, with a fresh optimiser and schedule.

Annealing-KD (Jafari et al. 2021) is two of them, TinyBERT another two; plain KD is one. A finished stage leaves its
weights, so a killed run goes on with the stage it was in.
"""

from __future__ import annotations

import math
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from augkd.distill.adversary.ascent import Adversary
from augkd.distill.arguments import DistillationArguments
from augkd.distill.dataset import DistillationDataset
from augkd.distill.teacher.layers import LayersOf
from augkd.distill.trace import Trace
from augkd.distill.trainer import DistillationTrainer
from augkd.models.classifier import Classifier, Pair
from augkd.workspace.files import read_json, replacing, write_json
from augkd.workspace.progress import Steps

Validation = Callable[[Classifier], Mapping[str, float]]


@dataclass(frozen=True)
class Trained:
    """What training cost and how it went."""

    rows: dict[str, int]  # rows forwarded, by purpose
    log: list[dict[str, Any]]  # the trainer's log, each entry with its stage
    best: list[float | None]  # best validation score of each stage
    trace: Trace | None  # what was selected; None without stored candidates, and with a budget of time


def train_stages(
    student: Classifier,
    stages: Sequence[DistillationArguments],
    data: DistillationDataset,
    validation: Validation | None,
    progress: Steps | None = None,
    layers: LayersOf | None = None,
    adversary: Adversary | None = None,
) -> Trained:
    """Trains `student` in place through all `stages`, continuing where an earlier call was killed.

    Each stage's `output_dir` must be its own; finished ones are loaded instead of trained. `layers(stage, student)`
    gives what the student's layers follow in a stage, from 1, or None; `adversary` goes on from stage to stage.
    """
    rows: Counter[str] = Counter()
    log: list[dict[str, Any]] = []
    best: list[float | None] = []
    traces: list[Trace] = []
    for number, arguments in enumerate(stages, 1):
        folder = Path(arguments.output_dir)
        done = folder / "stage.json"
        if done.exists():
            student.model.load_state_dict(load_file(folder / "stage.safetensors"))
            if adversary is not None:
                adversary.load_state(load_file(folder / "generator.safetensors"))
            facts = read_json(done)
            if (folder / "trace.safetensors").exists():
                traces.append(Trace.read(folder / "trace.safetensors"))
        else:
            followed = layers(number, student) if layers else None
            trainer = DistillationTrainer(
                student, arguments, data, validation, progress=progress, layers=followed, adversary=adversary
            )
            facts = _train(trainer)
            if number < len(stages):  # the last one is saved by the caller
                _save(trainer, folder, facts)
            if trainer.choice.trace is not None:
                traces.append(trainer.choice.trace.result())
        rows.update(facts["rows"])
        log += [{"stage": number, **entry} for entry in facts["log"]]
        best.append(facts["best"])
    return Trained(dict(rows), log, best, Trace.join(traces) if traces else None)


def _train(trainer: DistillationTrainer) -> dict[str, Any]:
    trainer.resume()
    return {"rows": trainer.counted, "log": trainer.state.log_history, "best": trainer.state.best_metric}


def _save(trainer: DistillationTrainer, folder: Path, facts: Mapping[str, Any]) -> None:
    weights = {name: tensor.contiguous().clone() for name, tensor in trainer.student.model.state_dict().items()}
    with replacing(folder / "stage.safetensors") as temporary:
        save_file(weights, temporary)
    if trainer.adversary is not None:
        with replacing(folder / "generator.safetensors") as temporary:
            save_file(trainer.adversary.state(), temporary)
    if trainer.choice.trace is not None:
        trainer.choice.trace.result().write(folder / "trace.safetensors")
    write_json(folder / "stage.json", facts)
    for checkpoint in folder.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)


class Ensemble:
    """Several classifiers as one that predicts: the last option of born-again networks (Furlanello et al. 2018)."""

    def __init__(self, members: Sequence[Classifier]):
        self._members = list(members)

    def predict(self, texts: Sequence[Pair]) -> Tensor:  # (n, outputs)
        """Logs of the members' mean probabilities; for regression the mean of their outputs."""
        outputs = torch.stack([member.predict(texts) for member in self._members])
        if not self._members[0].labels:
            return outputs.mean(dim=0)
        return outputs.log_softmax(dim=-1).logsumexp(dim=0) - math.log(len(self._members))
