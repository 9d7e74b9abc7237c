"""Distillation without text, on scikit-learn's digits: a CNN teaches a small one, alone, in a chain, in two stages."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from augkd.distill.any_module import Stage, annealing, chain, distill_modules
from augkd.distill.any_rows import logits_of, stacked
from augkd.errors import DataError, ModelError, RecipeError

Rows = tuple[Tensor, Tensor]
RATE = 1e-2


class CNN(nn.Module):
    """Two convolutions and a linear layer over 8 × 8 images."""

    def __init__(self, channels: int, seed: int, dropout: float = 0.0):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.layers = nn.Sequential(
                nn.Conv2d(1, channels, 3, stride=2, padding=1),
                nn.ReLU(),
                nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1),
                nn.ReLU(),
                nn.Flatten(),
                nn.Dropout(dropout),
                nn.Linear(8 * channels, 10),
            )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


@pytest.fixture(scope="module")
def digits() -> dict[str, Rows]:
    """1,100 labelled images for the teacher, 700 with 200 labels for a student, 200 to validate, 497 to test."""
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    images = torch.from_numpy(data.images[order]).float()[:, None] / 16
    labels = torch.from_numpy(data.target[order]).long()
    few = labels[:700].clone()
    few[200:] = -100
    return {
        "teacher": (images[:1100], labels[:1100]),
        "student": (images[:700], few),
        "validation": (images[1100:1300], labels[1100:1300]),
        "test": (images[1300:], labels[1300:]),
    }


def accuracy(model: nn.Module, rows: Rows) -> float:
    return float((logits_of(model, rows[0]).argmax(dim=1) == rows[1]).float().mean())


def agreement(first: nn.Module, second: nn.Module, images: Tensor) -> float:
    return float((logits_of(first, images).argmax(1) == logits_of(second, images).argmax(1)).float().mean())


@pytest.fixture(scope="module")
def teacher(digits: dict[str, Rows]) -> CNN:
    model = CNN(32, seed=0, dropout=0.2)
    stage = Stage({"ce": {}}, epochs=10, learning_rate=5e-3)
    distill_modules(model, None, *digits["teacher"], stage, seed=0, validation=digits["validation"])
    return model


@pytest.fixture(scope="module")
def students(digits: dict[str, Rows], teacher: CNN) -> dict[str, CNN]:
    """CNNs with 4 channels, all from one start in 8 epochs: from scratch, KD, by way of an assistant, annealing."""
    students = {name: CNN(4, seed=1) for name in ("scratch", "kd", "takd", "annealing")}
    kd = Stage({"kd": {"temperature": 2.0}}, epochs=8, learning_rate=RATE)
    rows, settings = digits["student"], {"seed": 0, "validation": digits["validation"]}
    distill_modules(students["scratch"], None, *rows, Stage({"ce": {}}, 8, RATE), **settings)
    distill_modules(students["kd"], teacher, *rows, kd, **settings)
    chain(teacher, [CNN(12, seed=2), students["takd"]], *rows, kd, **settings)
    distill_modules(students["annealing"], teacher, *rows, annealing(kd, 6, 2), **settings)
    return students


def test_the_teacher_classifies_digits_and_every_student_is_far_above_chance(
    digits: dict[str, Rows], teacher: CNN, students: dict[str, CNN]
) -> None:
    assert accuracy(teacher, digits["test"]) > 0.95
    for name, student in students.items():
        assert accuracy(student, digits["test"]) > 0.6, name  # chance is 0.1


def test_a_distilled_student_agrees_with_the_teacher_more_than_one_from_scratch(
    digits: dict[str, Rows], teacher: CNN, students: dict[str, CNN]
) -> None:
    images = digits["test"][0]
    alone = agreement(students["scratch"], teacher, images)
    assert all(agreement(students[name], teacher, images) > alone for name in ("kd", "takd", "annealing"))


# ---- the loop, on eight rows ----

SMALL = (torch.linspace(-1, 1, 40).reshape(8, 5), torch.tensor([0, 1, 2, 0, 1, 2, 0, 1]))


def linear(seed: int = 0, *more: nn.Module) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(*more, nn.Linear(5, 3))


def short(losses: dict[str, Any], **changes: Any) -> Stage:
    return Stage(losses, **{"epochs": 3, "learning_rate": 0.1, "batch_size": 4, "warmup_ratio": 0.0} | changes)


def test_the_teacher_sees_each_row_once_in_eval_mode_and_never_in_the_loop() -> None:
    teacher = linear(1, nn.Dropout(0.5)).train()
    seen: list[tuple[int, bool, bool]] = []
    teacher.register_forward_hook(
        lambda module, given, out: seen.append((len(out), module.training, out.requires_grad))
    )
    history = distill_modules(linear(), teacher, *SMALL, short({"kd": {}}), seed=0)
    assert seen == [(8, False, False)]
    assert all(module.training for module in teacher.modules())  # as it was
    assert (history.teacher_rows, history.student_rows) == (8, 24)


def test_the_student_is_in_train_mode_at_each_step_though_validation_puts_it_in_eval() -> None:
    student = linear(0, nn.Dropout(0.1))
    modes: list[bool] = []
    student.register_forward_hook(lambda module, given, out: modes.append(module.training))
    distill_modules(student, linear(1), *SMALL, short({"kd": {}}), seed=0, validation=SMALL)
    assert modes == [False] + 3 * [True, True, False]  # the first forward only counts the outputs


def test_one_step_is_adamw_on_the_mean_row() -> None:
    student, teacher = linear(0), linear(1)
    twin = copy.deepcopy(student)
    losses = {"kd": {"weight": 0.25, "temperature": 3.0}, "ce": {"weight": 0.5}}
    stage = short(losses, epochs=1, batch_size=8, weight_decay=0.1, max_grad_norm=0.0)
    history = distill_modules(student, teacher, *SMALL, stage, seed=0)
    logits, taught = twin(SMALL[0]), teacher(SMALL[0]).detach()
    kl = functional.kl_div(
        (logits / 3).log_softmax(1), (taught / 3).log_softmax(1), reduction="batchmean", log_target=True
    )
    loss = 0.25 * 9 * kl + 0.5 * functional.cross_entropy(logits, SMALL[1])
    loss.backward()
    torch.optim.AdamW(twin.parameters(), lr=0.1, weight_decay=0.1).step()
    assert history.epochs[0].loss == pytest.approx(float(loss.detach()), rel=1e-5)
    for mine, wanted in zip(student.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-4, atol=1e-5)


def test_logits_of_the_teacher_train_as_the_teacher_does() -> None:
    teacher, by_module, by_logits = linear(1), linear(), linear()
    distill_modules(by_module, teacher, *SMALL, short({"kd": {}}), seed=0)
    history = distill_modules(by_logits, teacher(SMALL[0]), *SMALL, short({"kd": {}}), seed=0)
    assert torch.equal(by_module[-1].weight, by_logits[-1].weight)
    assert history.teacher_rows == 0


def test_a_seed_repeats_a_run_another_does_not_and_the_global_one_is_left_alone() -> None:
    torch.manual_seed(5)
    wanted = torch.rand(1)
    torch.manual_seed(5)
    weights = []
    for seed in (0, 0, 1):
        student = linear(0, nn.Dropout(0.3))
        distill_modules(student, linear(1), *SMALL, short({"kd": {}}), seed=seed)
        weights.append(student[-1].weight)
    assert torch.equal(torch.rand(1), wanted)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_the_weights_of_the_best_epoch_are_kept_and_without_validation_those_of_the_last() -> None:
    snapshots: list[Tensor] = []

    def judge(student: nn.Module) -> float:
        snapshots.append(student[-1].weight.clone())  # type: ignore[index]
        return (0.1, 0.9, 0.9, 0.2)[len(snapshots) - 1]

    student, last = linear(), linear()
    history = distill_modules(student, linear(1), *SMALL, short({"kd": {}}, epochs=4), seed=0, validation=judge)
    distill_modules(last, linear(1), *SMALL, short({"kd": {}}, epochs=4), seed=0)
    assert history.best == (2,)  # the earliest of equals
    assert torch.equal(student[-1].weight, snapshots[1])
    assert torch.equal(last[-1].weight, snapshots[3])


def test_the_second_stage_starts_from_the_best_of_the_first() -> None:
    seen: list[Tensor] = []

    def judge(student: nn.Module) -> float:
        seen.append(student[-1].weight.clone())  # type: ignore[index]
        return -len(seen)

    student = linear()
    still = short({"ce": {}}, epochs=1, learning_rate=0.0, weight_decay=0.0)
    history = distill_modules(student, linear(1), *SMALL, [short({"kd": {}}), still], seed=0, validation=judge)
    assert [(epoch.stage, epoch.number) for epoch in history.epochs] == [(1, 1), (1, 2), (1, 3), (2, 1)]
    assert torch.equal(seen[3], seen[0])
    assert not torch.equal(seen[3], seen[2])


def test_annealing_is_regression_on_scaled_logits_and_then_labels_alone() -> None:
    first, second = annealing(short({"kd": {}}, batch_size=2), 6, 2)
    assert (list(first.losses), first.epochs, list(second.losses), second.epochs) == (["annealed"], 6, ["ce"], 2)
    assert first.batch_size == second.batch_size == 2


def test_each_of_a_chain_learns_from_the_one_before() -> None:
    teacher, assistant, student = linear(1), linear(2), linear(3)
    chain(teacher, [assistant, student], *SMALL, short({"kd": {}}), seed=0)
    alone, after = linear(2), linear(3)
    distill_modules(alone, teacher, *SMALL, short({"kd": {}}), seed=0)
    distill_modules(after, alone, *SMALL, short({"kd": {}}), seed=0)
    assert torch.equal(student[-1].weight, after[-1].weight)
    direct = linear(3)
    distill_modules(direct, teacher, *SMALL, short({"kd": {}}), seed=0)
    assert not torch.equal(student[-1].weight, direct[-1].weight)


def test_a_weight_may_follow_a_schedule() -> None:
    start = linear()
    twin = copy.deepcopy(start)
    off = {"step": {"at": 0.0, "before": 1.0, "after": 0.0}}
    distill_modules(start, linear(1), *SMALL, short({"kd": {"weight": off}}, weight_decay=0.0), seed=0)
    assert torch.equal(start[-1].weight, twin[-1].weight)


def test_progress_counts_the_steps_of_all_stages() -> None:
    reports: list[tuple[int, int]] = []
    stages = [short({"kd": {}}, epochs=1), short({"ce": {}}, epochs=2)]
    distill_modules(
        linear(), linear(1), *SMALL, stages, seed=0, progress=lambda done, total: reports.append((done, total))
    )
    assert reports == [(step, 6) for step in range(1, 7)]


class Sum(nn.Module):
    """Two named inputs, and logits in an object as transformers' models have them."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = linear(4)

    def forward(self, left: Tensor, right: Tensor) -> Any:
        return type("Output", (), {"logits": self.inner(left + right)})()


def test_inputs_may_be_several_or_named_and_outputs_an_object() -> None:
    plain = linear(4)(2 * SMALL[0])
    assert torch.allclose(logits_of(Sum(), (SMALL[0], SMALL[0])), plain)
    assert torch.allclose(logits_of(Sum(), {"right": SMALL[0], "left": SMALL[0]}, batch_size=3), plain)


def test_a_dataset_becomes_its_tensors() -> None:
    inputs, labels = stacked(TensorDataset(*SMALL))
    assert torch.equal(inputs, SMALL[0])  # type: ignore[arg-type]
    assert torch.equal(labels, SMALL[1])


def test_one_output_is_regression() -> None:
    student = nn.Linear(5, 1)
    targets = SMALL[0].sum(dim=1)
    history = distill_modules(
        student, None, SMALL[0], targets, short({"ce": {}}, epochs=20), seed=0, validation=(SMALL[0], targets)
    )
    assert history.best[0] is not None
    error = (student(SMALL[0])[:, 0] - targets).square().mean().detach()
    assert float(error) < 0.1 * float(targets.var())
    assert max(epoch.validation or -9.0 for epoch in history.epochs) == pytest.approx(-float(error), abs=1e-6)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"stages": short({"kdd": {}})}, RecipeError, "did you mean 'kd'"),
        ({"stages": short({"kd": {"temprature": 2.0}})}, RecipeError, "did you mean 'temperature'"),
        ({"stages": short({})}, ModelError, "names no loss"),
        ({"stages": short({"kd": {}}, epochs=0)}, ModelError, "epochs is 0"),
        ({"labels": torch.tensor([0, 1])}, DataError, "8 inputs, 8 teacher logits, 2 labels"),
        ({"labels": torch.full((8,), 3)}, DataError, "label 3 is no class of a model with 3 outputs"),
        ({"teacher": torch.zeros(8, 4)}, ModelError, r"\(8, 4\), the student has 3 outputs"),
        ({"teacher": None}, ModelError, "needs a teacher"),
        ({"inputs": torch.zeros(0, 5)}, DataError, "no inputs"),
    ],
)
def test_what_does_not_fit_together_is_rejected(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    given: dict[str, Any] = {"teacher": linear(1), "inputs": SMALL[0], "labels": SMALL[1], "stages": short({"kd": {}})}
    with pytest.raises(error, match=message) as caught:
        distill_modules(linear(), **given | changes, seed=0)
    assert "\n" not in str(caught.value)
