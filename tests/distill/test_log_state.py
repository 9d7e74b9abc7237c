"""A training that resumes between two log entries writes the log of an uninterrupted one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny import LABELS
from support.transfer import transfer

from augkd.distill.arguments import DistillationArguments
from augkd.distill.dataset import DistillationDataset
from augkd.distill.log_state import LogState
from augkd.distill.objective.matching import MatchedMeans
from augkd.distill.stages import train_stages
from augkd.distill.statistics import SelectionStatistics
from augkd.distill.trainer import DistillationTrainer
from augkd.models.classifier import Classifier, load_backbone

STEPS = 12  # 3 epochs of 4 steps; an entry every 5th, a checkpoint every 2nd and at the end of each epoch


class Killed(BaseException):
    """A kill, as seen from inside the process."""


def trained(bert: Path, out: Path, kill_at: int = 0, **given: Any) -> list[dict[str, Any]]:
    """The log of a training, which a kill may stop after a step."""

    def progress(done: int, total: int | None) -> None:
        if done == kill_at:
            raise Killed

    settings: dict[str, Any] = {"num_train_epochs": 3, "per_device_train_batch_size": 2, "logging_steps": 5}
    settings |= {"save_strategy": "epoch", "save_every": 2, "seed": 0, "report_to": "none", "disable_tqdm": True}
    settings |= {"selector": {"minimax": {"keep": 2}}, "precision": "float32", "learning_rate": 1e-3} | given
    student = load_backbone(str(bert), LABELS, 32, seed=0, precision="float32")
    arguments = DistillationArguments(output_dir=str(out / "stage-1"), **settings)
    return train_stages(student, [arguments], DistillationDataset(student, transfer(8)), None, progress).log


@pytest.fixture(scope="module")
def whole(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return trained(tiny_bert, tmp_path_factory.mktemp("whole"))


def test_the_log_has_an_entry_for_each_interval_and_no_times(whole: list[dict[str, Any]]) -> None:
    assert [entry["step"] for entry in whole] == [5, 10]
    assert {"loss", "grad_norm", "learning_rate", "selection/divergence_pool"} <= whole[0].keys()
    assert not any("runtime" in key or "per_second" in key for entry in whole for key in entry)


@pytest.mark.parametrize(
    "step", [3, 8, *(pytest.param(step, marks=pytest.mark.slow) for step in range(1, STEPS) if step not in (3, 8))]
)
def test_a_log_after_a_kill_at_any_step_is_the_uninterrupted_one(
    whole: list[dict[str, Any]], tiny_bert: Path, tmp_path: Path, step: int
) -> None:
    with pytest.raises(Killed):
        trained(tiny_bert, tmp_path, kill_at=step)
    assert trained(tiny_bert, tmp_path) == whole


def test_a_training_that_forgot_its_sums_would_log_another_loss(
    whole: list[dict[str, Any]], tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LogState, "begin", lambda self: None)
    with pytest.raises(Killed):
        trained(tiny_bert, tmp_path, kill_at=3)
    again = trained(tiny_bert, tmp_path)
    assert [entry["step"] for entry in again] == [5, 10]
    assert again[0]["loss"] != pytest.approx(whole[0]["loss"], rel=1e-3)


def test_the_sums_of_a_selection_and_of_matched_layers_survive_a_checkpoint() -> None:
    before, after = (SelectionStatistics(["a", "b"], torch.tensor([0, 1]), False) for _ in range(2))
    before._scored = True
    before._add("similarity", torch.tensor([0.25, 0.75]))
    before._add("divergence_picked", torch.tensor([1.0, 2.0]))
    before._add("divergence_pool", torch.tensor([1.0, 2.0, 6.0]))
    after.load_state(before.state())
    taken = after.take()
    assert taken["selection/similarity"] == 0.5
    assert (taken["selection/divergence_picked"], taken["selection/divergence_pool"]) == (1.5, 3.0)

    means, again = MatchedMeans(), MatchedMeans()
    means._sums, means._rows = {"layers/1": torch.tensor(6.0)}, 4
    again.load_state(means.state())
    assert again.take() == {"layers/1": 1.5}


def test_the_divergence_of_the_generator_is_kept(tiny_bert: Path, tmp_path: Path) -> None:
    def trainer() -> DistillationTrainer:
        student: Classifier = load_backbone(str(tiny_bert), LABELS, 32, seed=0, precision="float32")
        arguments = DistillationArguments(output_dir=str(tmp_path), report_to="none", disable_tqdm=True)
        return DistillationTrainer(student, arguments, DistillationDataset(student, transfer(4)))

    first, second = trainer(), trainer()
    first.ascent_divergence = 0.125
    second.log_state.load_state(first.log_state.state())
    assert second.ascent_divergence is None
    second.log_state.begin()
    assert second.ascent_divergence == 0.125
