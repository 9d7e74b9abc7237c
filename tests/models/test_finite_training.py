"""A training stops at its first loss or weight that is not finite, and leaves its last good checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny import LABELS
from support.transfer import transfer
from torch import nn
from transformers import TrainerControl, TrainerState

from augkd.distill.arguments import DistillationArguments
from augkd.distill.dataset import DistillationDataset
from augkd.distill.trainer import DistillationTrainer
from augkd.errors import TrainingError
from augkd.models.classifier import load_backbone
from augkd.models.finite import not_finite
from augkd.models.finite_training import FiniteTraining


@dataclass
class Arguments:
    output_dir: str
    learning_rate: float = 0.5


def test_the_weights_that_are_not_finite_are_named() -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    assert list(not_finite(module)) == []
    with torch.no_grad():
        module[0].bias[1] = torch.inf
        module[1].weight[0, 2] = torch.nan
    assert list(not_finite(module)) == ["0.bias", "1.weight"]
    assert list(not_finite(nn.ReLU())) == []


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_loss_that_is_not_finite_stops_before_its_step(tmp_path: Path, value: float) -> None:
    guard = FiniteTraining(dict)
    guard.see(torch.tensor(1e30), Arguments(str(tmp_path)), 1)
    (tmp_path / "checkpoint-5").mkdir()
    (tmp_path / "checkpoint-10").mkdir()
    with pytest.raises(TrainingError, match=r"the loss of step 11 is .*lower the learning rate \(0\.5\).*step 10 is"):
        guard.see(torch.tensor(value), Arguments(str(tmp_path)), 11)


def test_on_a_device_the_first_bad_loss_is_read_when_the_trainer_reads_its_own(tmp_path: Path) -> None:
    guard, arguments, model = FiniteTraining(dict, at_once=False), Arguments(str(tmp_path)), nn.Linear(1, 1)
    for step in range(1, 7):
        guard.see(torch.tensor({3: torch.nan, 5: torch.inf}.get(step, 0.5)), arguments, step)
        guard.on_step_end(arguments, TrainerState(), TrainerControl(), model=model)  # nothing is due: not read
    with pytest.raises(TrainingError, match="the loss of step 3 is not finite"):
        guard.on_step_end(arguments, TrainerState(), TrainerControl(should_log=True), model=model)


@pytest.mark.parametrize("due", ["should_evaluate", "should_save", "should_training_stop"])
def test_weights_are_looked_at_before_they_are_kept(tmp_path: Path, due: str) -> None:
    model, projection = nn.Linear(1, 1), nn.Linear(1, 1)
    guard, arguments = FiniteTraining(lambda: {"projection": projection}), Arguments(str(tmp_path))
    guard.on_epoch_end(arguments, TrainerState(), TrainerControl(**{due: True}), model=model)
    with torch.no_grad():
        projection.bias[0] = torch.nan
    guard.on_step_end(arguments, TrainerState(), TrainerControl(should_log=True), model=model)
    with pytest.raises(TrainingError, match=r"1 of the projection weights after step 0 are not finite \(first: bias\)"):
        guard.on_step_end(arguments, TrainerState(), TrainerControl(**{due: True}), model=model)
    with pytest.raises(TrainingError, match="no checkpoint was written"):
        guard.on_train_end(arguments, TrainerState(), TrainerControl(), model=model)


def training(out: Path, bert: Path, **given: Any) -> DistillationTrainer:
    student = load_backbone(str(bert), LABELS, 32, seed=0, precision="float32")
    settings = {"num_train_epochs": 30, "per_device_train_batch_size": 4, "save_strategy": "steps", "save_steps": 1}
    settings |= {"report_to": "none", "disable_tqdm": True, "seed": 0, "precision": "float32"} | given
    return DistillationTrainer(
        student, DistillationArguments(output_dir=str(out), **settings), DistillationDataset(student, transfer(8))
    )


def test_a_learning_rate_of_a_million_stops_the_training_and_keeps_only_good_checkpoints(
    tmp_path: Path, tiny_bert: Path
) -> None:
    from safetensors.torch import load_file

    with pytest.raises(TrainingError, match=r"the training diverged: .*lower the learning rate \(1e\+06\)"):
        training(tmp_path, tiny_bert, learning_rate=1e6, weight_decay=0.01).resume()
    kept = sorted(tmp_path.glob("checkpoint-*/model.safetensors"))
    assert kept
    for path in kept:
        assert all(tensor.isfinite().all() for tensor in load_file(path).values())


def test_resuming_a_diverged_training_stops_with_the_same_words(tmp_path: Path, tiny_bert: Path) -> None:
    messages = []
    for _ in range(2):
        with pytest.raises(TrainingError) as failure:
            training(tmp_path, tiny_bert, learning_rate=1e6).resume()
        messages.append(str(failure.value))
    assert messages[0] == messages[1]


def test_a_usual_learning_rate_trains_to_the_end(tmp_path: Path, tiny_bert: Path) -> None:
    trainer = training(tmp_path, tiny_bert, learning_rate=1e-3)
    trainer.resume()
    assert trainer.state.global_step == trainer.state.max_steps == 60
