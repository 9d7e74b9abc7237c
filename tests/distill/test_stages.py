"""Each stage starts from the best weights with a fresh optimiser; a stopped training resumes with its stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.tiny import LABELS, sentences

from augkd.data.transfer_set import TransferSet, in_memory
from augkd.distill.arguments import arguments
from augkd.distill.dataset import DistillationDataset
from augkd.distill.stages import lean, train_stages
from augkd.distill.trainer import DistillationTrainer
from augkd.models.classifier import Classifier, load_backbone
from augkd.recipe import TrainingOptions


def transfer(count: int = 12) -> TransferSet:
    draw = torch.Generator().manual_seed(0)
    rows = [
        {
            "id": str(number),
            "text": text,
            "text_pair": None,
            "label": label,
            "teacher_logits": torch.randn(3, generator=draw).tolist(),
            "candidates": [],
        }
        for number, (text, label) in enumerate(sentences()[:count])
    ]
    return in_memory(rows, LABELS)


def arguments_of(out: Path, *stages: dict[str, Any]) -> list[Any]:
    common = {"batch_size": 4, "epochs": 1, "learning_rate": 1e-2, "precision": "float32"}
    return [
        arguments(out / f"stage-{n}", TrainingOptions.model_validate({**common, **stage}), 0, "accuracy")
        for n, stage in enumerate(stages, 1)
    ]


def student_of(tiny_bert: Path) -> Classifier:
    return load_backbone(str(tiny_bert), LABELS, 32, seed=0, precision="float32")


def constant(classifier: Classifier) -> dict[str, float]:
    return {"accuracy": 0.5}


def trained(tiny_bert: Path, out: Path, *stages: dict[str, Any]) -> tuple[Classifier, Any]:
    student = student_of(tiny_bert)
    done = train_stages(student, arguments_of(out, *stages), DistillationDataset(student, transfer()), constant)
    return student, done


def weights(student: Classifier) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in student.model.state_dict().items()}


@pytest.mark.parametrize(("most", "steps", "epochs"), [(0, 6, 2), (4, 4, 4 / 3), (6, 6, 2), (9, 6, 2)])
def test_a_training_ends_after_its_most_steps_with_a_learning_rate_of_0(
    tiny_bert: Path, tmp_path: Path, most: int, steps: int, epochs: float
) -> None:
    student = student_of(tiny_bert)
    (given,) = arguments_of(tmp_path, {"ce": {}, "epochs": 2, "max_steps": most})
    trainer = DistillationTrainer(student, given, DistillationDataset(student, transfer()), constant)
    trainer.train()
    assert (trainer.state.global_step, trainer.state.max_steps) == (steps, steps)
    assert trainer.lr_scheduler is not None
    assert trainer.lr_scheduler.get_last_lr()[0] == 0
    scored = [entry["epoch"] for entry in trainer.state.log_history if "eval_accuracy" in entry]
    assert scored == pytest.approx([1, epochs])
    assert given.max_steps == -1, "the arguments stay as they were"


def test_a_time_budget_takes_the_place_of_the_most_steps(tmp_path: Path) -> None:
    (given,) = arguments_of(tmp_path, {"ce": {}, "max_steps": 4, "budget": 60})
    assert (given.time_budget, given.step_limit) == (60, 0)


def test_two_stages_are_two_trainings_one_after_the_other(tiny_bert: Path, tmp_path: Path) -> None:
    both, done = trained(tiny_bert, tmp_path / "both", {"logit_regression": {}}, {"ce": {}})

    by_hand = student_of(tiny_bert)
    data = DistillationDataset(by_hand, transfer())
    with lean(by_hand, data, None):
        for stage in arguments_of(tmp_path / "hand", {"logit_regression": {}}, {"ce": {}}):
            DistillationTrainer(by_hand, stage, data, constant).train()
    for name, value in weights(by_hand).items():
        torch.testing.assert_close(both.model.state_dict()[name], value, rtol=0, atol=0)
    assert done.rows["training"] == 2 * 12
    assert {entry["stage"] for entry in done.log} == {1, 2}

    only, _ = trained(tiny_bert, tmp_path / "only", {"ce": {}})
    assert any(not torch.equal(value, only.model.state_dict()[name]) for name, value in weights(both).items())


def test_each_stage_has_its_dropout_and_the_student_its_own_afterwards(tiny_bert: Path, tmp_path: Path) -> None:
    given, without, by_hand = (student_of(tiny_bert) for _ in range(3))
    data = DistillationDataset(given, transfer())
    rates: list[set[float]] = []

    def rates_of(student: Classifier) -> dict[str, float]:
        rates.append({module.p for module in student.model.modules() if hasattr(module, "p")})
        return {"accuracy": 0.5}

    stages = arguments_of(tmp_path / "given", {"ce": {}, "dropout": 0.0}, {"ce": {}}, {"ce": {}, "dropout": 0.25})
    train_stages(given, stages, data, rates_of)
    assert rates == [{0.0}, {0.1}, {0.25}]
    assert {module.p for module in given.model.modules() if hasattr(module, "p")} == {0.1}
    assert given.model.config.hidden_dropout_prob == 0.1

    train_stages(without, arguments_of(tmp_path / "without", {"ce": {}, "dropout": 0.0}), data, constant)
    for module in by_hand.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    train_stages(by_hand, arguments_of(tmp_path / "hand", {"ce": {}}), data, constant)
    for name, value in weights(by_hand).items():
        torch.testing.assert_close(without.model.state_dict()[name], value, rtol=0, atol=0)


def test_a_training_stopped_in_its_second_stage_does_not_repeat_the_first(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = trained(tiny_bert, tmp_path / "whole", {"kd": {}}, {"ce": {}})
    resume, calls = DistillationTrainer.resume, []

    def stopped(trainer: DistillationTrainer) -> None:
        calls.append(trainer.args.output_dir)
        if len(calls) == 2:
            raise KeyboardInterrupt
        resume(trainer)

    monkeypatch.setattr(DistillationTrainer, "resume", stopped)
    with pytest.raises(KeyboardInterrupt):
        trained(tiny_bert, tmp_path / "cut", {"kd": {}}, {"ce": {}})
    again, done = trained(tiny_bert, tmp_path / "cut", {"kd": {}}, {"ce": {}})
    assert [Path(call).name for call in calls] == ["stage-1", "stage-2", "stage-2"]
    assert done.rows["training"] == 2 * 12
    for name, value in weights(whole).items():
        torch.testing.assert_close(again.model.state_dict()[name], value, rtol=0, atol=0)
    kept = load_file(tmp_path / "cut/stage-1/stage.safetensors")
    assert any(not torch.equal(value, kept[name]) for name, value in weights(again).items())


def test_the_second_stage_starts_from_the_best_weights_of_the_first(tiny_bert: Path, tmp_path: Path) -> None:
    seen: list[dict[str, torch.Tensor]] = []

    def falling(classifier: Classifier) -> dict[str, float]:
        seen.append(weights(classifier))
        return {"accuracy": 1.0 / len(seen)}  # the first evaluation is the best one

    student = student_of(tiny_bert)
    stages = arguments_of(tmp_path, {"kd": {}, "epochs": 3}, {"ce": {}})
    train_stages(student, stages, DistillationDataset(student, transfer()), falling)
    start = load_file(tmp_path / "stage-1/stage.safetensors")
    assert all(torch.equal(start[name], value) for name, value in seen[0].items())
    assert any(not torch.equal(start[name], value) for name, value in seen[2].items())
