"""Intermediate-layer losses in the trainer: which teacher they use, what trains beside the student, how it resumes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny import LABELS
from support.transfer import transfer

from augkd.distill.arguments import arguments
from augkd.distill.dataset import DistillationDataset
from augkd.distill.objective.layer_states import token_layer_vectors
from augkd.distill.teacher.layers import LayerTeacher
from augkd.distill.trainer import DistillationTrainer
from augkd.errors import ModelError
from augkd.models.classifier import Classifier, load_backbone
from augkd.models.layers import from_layers
from augkd.models.student_kinds import build_student
from augkd.recipe import TrainingOptions

SET = transfer(6)
NARROW = {"layers": 2, "width": 24, "heads": 2, "intermediate": 32}


@pytest.fixture
def teacher(tiny_bert: Path) -> Classifier:
    return load_backbone(str(tiny_bert), LABELS, 32, seed=0, precision="float32")


def layer_teacher(losses: dict[str, Any], student: Classifier, teacher: Classifier, folder: Path) -> LayerTeacher:
    return LayerTeacher.of(losses, "cls", student, teacher, SET, folder, "weights", seed=0)


def trainer_of(student: Classifier, out: Path, layers: LayerTeacher | None, **training: Any) -> DistillationTrainer:
    common = {"epochs": 2, "batch_size": 2, "learning_rate": 1e-2, "precision": "float32", "kd": {}}
    stage = arguments(out, TrainingOptions.model_validate({**common, **training}), 0, "accuracy")
    data = DistillationDataset(student, SET)
    return DistillationTrainer(student, stage, data, lambda _: {"accuracy": 0.5}, layers=layers)


def test_stored_vectors_are_those_of_the_teacher_for_originals_and_chosen_candidates(
    teacher: Classifier, tmp_path: Path
) -> None:
    student = from_layers(teacher, [0, 2])
    layers = layer_teacher({"alp": {}}, student, teacher, tmp_path)
    data = DistillationDataset(student, SET)
    batch = data.collate([4, 1])["batch"]
    chosen = batch.pool.take(torch.tensor([0, 3, 5]))
    candidates = SET.candidates()
    texts = [(SET.column("text")[row], None) for row in (4, 1)]
    texts += [(candidates.text[row], None) for row in chosen.row.tolist()]
    expected = token_layer_vectors(teacher, teacher.tokens(texts), layers.objective.needs())
    stored = layers.targets(batch, chosen)
    assert isinstance(stored, torch.Tensor)
    torch.testing.assert_close(stored.float(), expected, atol=2e-3, rtol=2e-3)
    assert layers.store is not None
    assert layers.store.rows == len({*SET.column("text"), *candidates.text}), "each distinct text once"


def test_a_stored_and_a_live_teacher_train_the_same_student(teacher: Classifier, tmp_path: Path) -> None:
    """`hidden` needs the live one, `alp` the store; both together use the live one."""
    for losses, live in (({"alp": {}}, False), ({"hidden": {}}, True), ({"alp": {}, "attention": {}}, True)):
        student = from_layers(teacher, [0, 2])
        layers = layer_teacher(losses, student, teacher, tmp_path)
        assert (layers.store is None) == live
        before = {name: value.clone() for name, value in student.model.state_dict().items()}
        trainer_of(student, tmp_path / "-".join(losses), layers).train()
        after = student.model.state_dict()
        assert any(not torch.equal(before[name], after[name]) for name in before)
        assert all(not parameter.requires_grad for parameter in teacher.model.parameters()) == live
        teacher.model.requires_grad_(True)


def test_the_layers_change_what_is_learned_and_a_weight_of_zero_does_not(teacher: Classifier, tmp_path: Path) -> None:
    def learned(weight: float | None) -> torch.Tensor:
        student = from_layers(teacher, [0, 2])
        layers = None if weight is None else layer_teacher({"alp": {"weight": weight}}, student, teacher, tmp_path)
        trainer_of(student, tmp_path / f"w{weight}", layers).train()
        return torch.cat([parameter.detach().flatten() for parameter in student.model.parameters()])

    plain, weightless, heavy = learned(None), learned(0.0), learned(10.0)
    torch.testing.assert_close(weightless, plain)
    assert (heavy - plain).abs().max() > 1e-3


def test_projections_learn_beside_the_student_with_fresh_gradients_each_step(
    teacher: Classifier, tmp_path: Path
) -> None:
    student = build_student("scratch", NARROW, teacher, seed=0)
    layers = layer_teacher({"alp": {}}, student, teacher, tmp_path)
    start = {name: value.clone() for name, value in layers.objective.state_dict().items()}
    trainer = trainer_of(student, tmp_path / "out", layers)
    trainer.train()
    moved = layers.objective.state_dict()
    assert start
    assert all((moved[name] - start[name]).abs().max() > 1e-4 for name in start)
    assert all(p.grad is None or not p.grad.any() for p in layers.objective.parameters()), "kept for the next step"
    student.save(tmp_path / "saved")
    from safetensors.torch import load_file

    saved = load_file(tmp_path / "saved/model.safetensors")
    assert set(saved) == set(build_student("scratch", NARROW, teacher, seed=0).model.state_dict())


def test_a_stopped_training_with_projections_ends_as_an_uninterrupted_one(teacher: Classifier, tmp_path: Path) -> None:
    def weights(student: Classifier) -> torch.Tensor:
        return torch.cat([parameter.detach().flatten() for parameter in student.model.parameters()])

    whole = build_student("scratch", NARROW, teacher, seed=0)
    layers = layer_teacher({"ckd": {}}, whole, teacher, tmp_path)
    trainer_of(whole, tmp_path / "whole", layers).resume()

    cut = build_student("scratch", NARROW, teacher, seed=0)
    stopped = trainer_of(cut, tmp_path / "cut", layer_teacher({"ckd": {}}, cut, teacher, tmp_path))
    save = stopped._save_checkpoint

    def once(*args: Any) -> None:
        save(*args)
        raise KeyboardInterrupt

    stopped._save_checkpoint = once  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        stopped.resume()
    again = build_student("scratch", NARROW, teacher, seed=0)
    trainer_of(again, tmp_path / "cut", layer_teacher({"ckd": {}}, again, teacher, tmp_path)).resume()
    torch.testing.assert_close(weights(again), weights(whole), rtol=0, atol=0)


def test_token_losses_are_rejected_where_the_tokens_differ(teacher: Classifier, tmp_path: Path) -> None:
    student = from_layers(teacher, [0, 2])
    student.max_length = 16
    with pytest.raises(ModelError, match="compare token by token"):
        layer_teacher({"hidden": {}}, student, teacher, tmp_path)
