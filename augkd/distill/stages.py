"""Training in stages: each starts from the best weights of the one before, with a fresh optimiser and schedule.

Annealing-KD (Jafari et al. 2021) is two of them, TinyBERT another two; plain KD is one. A finished stage leaves its
weights and its result, so a killed run resumes with the stage it was in.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from augkd.distill.adversary.ascent import Adversary
from augkd.distill.arguments import DistillationArguments
from augkd.distill.dataset import DistillationDataset
from augkd.distill.parallel import ranks
from augkd.distill.teacher.layers import LayerTeacher
from augkd.distill.trace import Trace
from augkd.distill.trainer import DistillationTrainer
from augkd.models.classifier import Classifier
from augkd.models.dropout import dropout_of, fast_dropout
from augkd.models.norms import rounded_norms
from augkd.models.trimmed_embedding import trimmed_embedding
from augkd.workspace.checksums import check, read_signed, table_of, write_signed
from augkd.workspace.files import replacing
from augkd.workspace.progress import Steps

Validation = Callable[[Classifier], Mapping[str, float]]
LayerTeacherOf = Callable[[int, Classifier], LayerTeacher | None]  # (stage from 1, student) → what its layers follow

_RESULT, _WEIGHTS, _GENERATOR, _TRACE = (
    "stage.json",
    "stage.safetensors",
    "generator.safetensors",
    "trace.safetensors",
)


@dataclass(frozen=True)
class Trained:
    """The cost and the course of a training."""

    rows: dict[str, int]  # rows forwarded, by purpose
    log: list[dict[str, Any]]  # the trainer's log, each entry with its stage
    best: list[float | None]  # best validation score of each stage
    trace: Trace | None  # what was selected; None without stored candidates, and with a time budget


@dataclass(frozen=True)
class StageResult:
    """The cost and the course of one stage; the content of its `stage.json`."""

    rows: dict[str, int]  # rows forwarded, by purpose
    log: list[dict[str, Any]]
    best: float | None  # best validation score


def train_stages(
    student: Classifier,
    stages: Sequence[DistillationArguments],
    data: DistillationDataset,
    validation: Validation | None,
    progress: Steps | None = None,
    layers: LayerTeacherOf | None = None,
    adversary: Adversary | None = None,
) -> Trained:
    """Trains `student` in place through all `stages`, continuing where an earlier call was killed.

    Each stage needs an `output_dir` of its own; finished stages are loaded instead of trained. `validation` gives the
    student's figures by name, one of them the stage's `metric_for_best_model`. `layers(stage, student)` gives what the
    student's layers are compared with in a stage, counted from 1, or None. `adversary` is trained on from stage to
    stage. `progress` is called with (steps done, steps in all) of the current stage. Processes that were launched
    together train one student; the first one validates and writes.
    """
    results: list[StageResult] = []
    traces: list[Trace | None] = []
    all_ranks = ranks()
    with lean(student, data, adversary):
        for number, arguments in enumerate(stages, 1):
            folder = Path(arguments.output_dir)
            if all_ranks.from_first((folder / _RESULT).exists):
                result, trace = _load(folder, student, adversary)
            else:
                teacher = all_ranks.first_before_others(partial(layers, number, student)) if layers else None
                trainer = DistillationTrainer(
                    student, arguments, data, validation, progress=progress, layers=teacher, adversary=adversary
                )
                with dropout_of(student.model, arguments.dropout):
                    trainer.resume()
                # seconds and speed are those of this process alone
                log = [entry for entry in trainer.state.log_history if "train_runtime" not in entry]
                result = StageResult(trainer.all_rows, log, trainer.state.best_metric)
                trace = None if trainer.choice.trace is None else trainer.choice.trace.result(all_ranks)
                if number < len(stages):  # the caller saves the student of the last stage
                    all_ranks.from_first(partial(_save, folder, student, adversary, result, trace))
            results.append(result)
            traces.append(trace)
    return _joined(results, [trace for trace in traces if trace is not None])


@contextmanager
def lean(student: Classifier, data: DistillationDataset, adversary: Adversary | None) -> Iterator[None]:
    """While open, `student` is trained with less work on a CPU.

    It has fast dropout, norms that are rounded where its products are, and only the word vectors of its texts, to
    which those of the tokens that a generator writes are added.
    """
    padding = torch.tensor([student.pad_id])
    ids = torch.cat([data.tokens.ids, data.candidate_tokens.ids, padding])
    rows = trimmed_embedding(student.model, ids, grows=adversary is not None)
    with rows, fast_dropout(student.model), rounded_norms(student.model):
        yield


def _joined(results: Sequence[StageResult], traces: Sequence[Trace]) -> Trained:
    rows: Counter[str] = Counter()
    for result in results:
        rows.update(result.rows)
    log = [{"stage": number, **entry} for number, result in enumerate(results, 1) for entry in result.log]
    return Trained(dict(rows), log, [result.best for result in results], Trace.join(traces) if traces else None)


def _load(folder: Path, student: Classifier, adversary: Adversary | None) -> tuple[StageResult, Trace | None]:
    """Puts student and generator where a finished stage left them; returns its result.

    Raises WorkspaceError, which names the file, when one of its files is damaged.
    """
    remedy = f"remove {folder} and run the same command"
    written = read_signed(folder / _RESULT, remedy)
    check(folder, written["files"], remedy=remedy)
    student.model.load_state_dict(load_file(folder / _WEIGHTS))
    if adversary is not None:
        adversary.load_state(load_file(folder / _GENERATOR))
    trace = Trace.read(folder / _TRACE) if (folder / _TRACE).exists() else None
    return StageResult(written["rows"], written["log"], written["best"]), trace


def _save(
    folder: Path, student: Classifier, adversary: Adversary | None, result: StageResult, trace: Trace | None
) -> None:
    """Writes a finished stage, its result last, and removes its checkpoints."""
    weights = {name: tensor.contiguous().clone() for name, tensor in student.model.state_dict().items()}
    with replacing(folder / _WEIGHTS) as temporary:
        save_file(weights, temporary)
    if adversary is not None:
        with replacing(folder / _GENERATOR) as temporary:
            save_file(adversary.state(), temporary)
    if trace is not None:
        trace.write(folder / _TRACE)
    names = (_WEIGHTS, _GENERATOR, _TRACE)
    files = table_of(folder, [name for name in names if (folder / name).exists()])
    write_signed(folder / _RESULT, asdict(result) | {"files": files})
    for checkpoint in folder.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
