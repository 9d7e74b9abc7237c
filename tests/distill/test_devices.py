"""A training step on a GPU mixes no devices, and computes what it computes on the CPU: on a pretended GPU.

Each case trains two students through the trainer's own loop, one on the CPU and one on the pretended device, and
compares loss and weights. An operation on tensors of two devices raises, as on CUDA.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from support.pretended_cuda import CUDA, pretended_cuda
from support.tiny import LABELS
from support.transfer import transfer
from torch import Tensor, nn

from augkd.candidates.generator.generator import Generator
from augkd.data.target import Target
from augkd.data.transfer_set import TransferSet, in_memory
from augkd.distill.adversary.ascent import Adversary, Ascent
from augkd.distill.any_module import ANNEALING, Stage, distill_modules
from augkd.distill.arguments import DistillationArguments
from augkd.distill.dataset import DistillationDataset
from augkd.distill.objective.losses import LOSSES, UNSUITED
from augkd.distill.objective.objective import Objective
from augkd.distill.stages import train_stages
from augkd.distill.teacher.layers import LayerTeacher
from augkd.distill.trainer import DistillationTrainer
from augkd.models.classifier import Classifier, load_backbone
from augkd.models.layers import from_layers
from augkd.models.masked_lm import load_masked_lm
from augkd.models.student_kinds import build_student

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(torch.cuda.is_available(), reason="models are loaded onto the GPU that is here"),
]

SET = transfer(4, k=3)
NUMBERS = transfer(4, (), k=3)
MINIMAX = {"minimax": {"keep": 2}}


def several_labels() -> TransferSet:
    """`SET` with any number of labels a text."""
    rows = SET.table.to_pylist()
    for number, row in enumerate(rows):
        row["label"] = list(LABELS[: number % 3])
    return in_memory(rows, Target(LABELS, multi_label=True))


SEVERAL = several_labels()
SETS = {"regression": NUMBERS, "multi_label_classification": SEVERAL, "classification": SET}


@contextmanager
def on_cuda() -> Iterator[None]:
    """The pretended device, which the trainer takes for its own."""
    with pretended_cuda(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(DistillationArguments, "device", property(lambda self: self._setup_devices and CUDA))
        patch.setattr(Accelerator, "device", property(lambda self: CUDA))
        yield


def classifier(bert: Path, device: torch.device, data: TransferSet = SET, seed: int = 0) -> Classifier:
    loaded = load_backbone(str(bert), data.target, 32, seed, "float32")
    loaded.model.to(device)
    return loaded


def training(
    out: Path,
    student: Classifier,
    data: TransferSet,
    *,
    layers: LayerTeacher | None = None,
    adversary: Adversary | None = None,
    **given: Any,
) -> DistillationTrainer:
    settings = {
        "num_train_epochs": 1,
        "per_device_train_batch_size": 2,
        "learning_rate": 1e-2,
        "weight_decay": 0.1,
        "optim": "sgd",  # Adam would turn the rounding of a gradient near 0 into a whole step
        "losses": {"kd": {"weight": 0.5}, "ce": {"weight": 0.5}},
        "selector": {"everything": {}},
        "precision": "float32",
        "token_budget": 64,
        "save_strategy": "no",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "disable_tqdm": True,
        "seed": 0,
    } | given
    arguments = DistillationArguments(output_dir=str(out), **settings)
    dataset = DistillationDataset(student, data)
    return DistillationTrainer(student, arguments, dataset, layers=layers, adversary=adversary)


# ---- the same training on both devices ----

Make = Callable[[Path, torch.device], DistillationTrainer]


def trained(trainer: DistillationTrainer, device: torch.device) -> tuple[list[float], dict[str, Tensor]]:
    """The losses and the weights of a training, which stayed on its device."""
    trainer.train()
    state = trainer.student.model.state_dict()
    assert {tensor.device for tensor in state.values()} == {device}
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return losses, {name: tensor.detach().cpu() for name, tensor in state.items()}


def assert_same_on_cuda(make: Make, folder: Path) -> None:
    """Trains on the CPU and on the pretended device, and compares every loss and every weight."""
    losses, weights = trained(make(folder / "cpu", torch.device("cpu")), torch.device("cpu"))
    with on_cuda():
        cuda_losses, cuda_weights = trained(make(folder / "cuda", CUDA), CUDA)
        cuda_weights = {name: tensor + 0 for name, tensor in cuda_weights.items()}
    assert len(losses) == 2
    assert cuda_losses == pytest.approx(losses, rel=1e-4)
    for name, expected in weights.items():
        torch.testing.assert_close(cuda_weights[name], expected, rtol=1e-3, atol=1e-5, msg=name)


LOSS_CASES = [(kind, name) for kind in SETS for name in LOSSES if name not in UNSUITED.get(kind, ())]


@pytest.mark.parametrize(("kind", "loss"), LOSS_CASES)
def test_every_loss_trains_on_cuda_as_on_the_cpu(plain_bert: Path, tmp_path: Path, kind: str, loss: str) -> None:
    data = SETS[kind]

    def make(folder: Path, device: torch.device) -> DistillationTrainer:
        return training(folder, classifier(plain_bert, device, data), data, losses={loss: {}})

    assert_same_on_cuda(make, tmp_path)


STEPS: dict[str, dict[str, Any]] = {
    "minimax": {"selector": MINIMAX},
    "random": {"selector": {"random": {"keep": 2}}},
    "freelb": {"freelb": {"steps": 2, "step_size": 0.2, "magnitude": 0.5, "radius": 0.3}},
    "accumulated": {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2},
    "adamw": {"optim": "adamw_torch", "learning_rate": 1e-6},
}


@pytest.mark.parametrize("kind", SETS)
@pytest.mark.parametrize("settings", STEPS.values(), ids=STEPS)
def test_selection_freelb_and_accumulation_train_on_cuda_as_on_the_cpu(
    plain_bert: Path, tmp_path: Path, kind: str, settings: dict[str, Any]
) -> None:
    data = SETS[kind]

    def make(folder: Path, device: torch.device) -> DistillationTrainer:
        return training(folder, classifier(plain_bert, device, data), data, **settings)

    assert_same_on_cuda(make, tmp_path)


# ---- layers ----


def teacher_and_student(bert: Path, device: torch.device) -> tuple[Classifier, Classifier]:
    """A teacher and a student of two of its layers: made on the CPU, for `cuda` without a number is not pretended."""
    teacher = classifier(bert, torch.device("cpu"), seed=1)
    student = from_layers(teacher, [0, 2])
    teacher.model.to(device)
    student.model.to(device)
    return teacher, student


STORED = (({"pkd": {}}, "cls"), ({"ckd": {}}, "mean"), ({"alp": {}}, "mean"), ({"rail": {}}, "cls"))
LIVE = (
    ({"hidden": {}, "embedding": {}}, "cls"),
    ({"distilbert_cosine": {}}, "cls"),
    ({"alp": {}, "attention": {}}, "mean"),
)


@pytest.mark.parametrize(
    ("losses", "pooling"), [*STORED, *LIVE], ids=lambda value: "-".join(value) if isinstance(value, dict) else value
)
def test_layers_of_a_stored_and_of_a_live_teacher_train_on_cuda_as_on_the_cpu(
    plain_bert: Path, tmp_path: Path, losses: dict[str, Any], pooling: Any
) -> None:
    def make(folder: Path, device: torch.device) -> DistillationTrainer:
        teacher, student = teacher_and_student(plain_bert, device)
        layers = LayerTeacher.of(losses, pooling, student, teacher, SET, folder / "store", "weights", seed=0)
        return training(folder, student, SET, layers=layers)

    assert_same_on_cuda(make, tmp_path)


# ---- generator ----


def adversary(bert: Path, device: torch.device, data: TransferSet, **given: Any) -> Adversary:
    lm = load_masked_lm(str(bert), "float32")
    lm.model.to(device)
    return Adversary(Generator(lm), classifier(bert, device, data, seed=1), Ascent(ascend=1, every=1, **given), seed=5)


@pytest.mark.parametrize("objective", ["kl", "cross_entropy"])
@pytest.mark.parametrize("kind", SETS)
def test_a_generator_ascends_and_fills_pools_on_cuda_as_on_the_cpu(
    plain_bert: Path, tmp_path: Path, kind: str, objective: str
) -> None:
    data = SETS[kind]

    def make(folder: Path, device: torch.device) -> DistillationTrainer:
        student = classifier(plain_bert, device, data)
        generator = adversary(plain_bert, device, data, objective=objective)
        return training(folder, student, data, adversary=generator, selector=MINIMAX, generator_batch_size=2)

    assert_same_on_cuda(make, tmp_path)


def test_generated_texts_follow_stored_layers_on_cuda_as_on_the_cpu(plain_bert: Path, tmp_path: Path) -> None:
    def make(folder: Path, device: torch.device) -> DistillationTrainer:
        teacher, student = teacher_and_student(plain_bert, device)
        layers = LayerTeacher.of({"alp": {}}, "mean", student, teacher, SET, folder / "store", "weights", seed=0)
        return training(folder, student, SET, layers=layers, adversary=adversary(plain_bert, device, SET))

    assert_same_on_cuda(make, tmp_path)


# ---- students of other kinds ----


@pytest.mark.parametrize(
    ("kind", "options"), [("bilstm", {"width": 8, "hidden": 8, "dropout": 0.0}), ("static", {"width": 8})]
)
def test_small_students_train_on_cuda_as_on_the_cpu(
    plain_bert: Path, tmp_path: Path, kind: str, options: dict[str, Any]
) -> None:
    def make(folder: Path, device: torch.device) -> DistillationTrainer:
        student = build_student(kind, options, classifier(plain_bert, device, seed=1), seed=0)
        return training(folder, student, SET, selector=MINIMAX)

    assert_same_on_cuda(make, tmp_path)


# ---- stages, with what makes training lean on a CPU ----


def test_stages_of_a_lean_student_with_dropout_stay_on_cuda(tiny_bert: Path, tmp_path: Path) -> None:
    with on_cuda():
        student = classifier(tiny_bert, CUDA)
        data = DistillationDataset(student, SET)
        before = student.model.get_input_embeddings().weight.detach().cpu()
        stages = [training(tmp_path / str(n), student, SET, losses=losses).args for n, losses in enumerate(ANNEALING)]
        done = train_stages(student, stages, data, None)
        after = student.model.get_input_embeddings().weight
        assert after.device == CUDA
        assert student.predict([("a cat", None), ("she bought a longer text", None)]).device.type == "cpu"
        assert bool((after.cpu() != before).any())
    assert [entry["stage"] for entry in done.log if "loss" in entry] == [1, 1, 2, 2]


# ---- modules of any kind ----


def test_modules_of_any_kind_train_on_cuda_as_on_the_cpu() -> None:
    draw = torch.Generator().manual_seed(0)
    inputs, labels = torch.randn(12, 5, generator=draw), torch.randint(3, (12,), generator=draw)

    def run(device: torch.device, there: torch.device) -> tuple[list[float], Tensor]:
        torch.manual_seed(0)
        student, teacher = nn.Linear(5, 3), nn.Linear(5, 3).to(device)
        stages = [Stage(losses, epochs=2, batch_size=4) for losses in ANNEALING]
        given = (inputs.to(there), labels.to(there))
        history = distill_modules(student, teacher, *given, stages, seed=0, validation=given, device=device)
        assert student.weight.device == device
        return [epoch.loss for epoch in history.epochs], student.weight.detach().cpu()

    losses, weights = run(torch.device("cpu"), torch.device("cpu"))
    with on_cuda():
        for there in (torch.device("cpu"), CUDA):  # where the caller has the rows
            cuda_losses, cuda_weights = run(CUDA, there)
            assert cuda_losses == pytest.approx(losses, rel=1e-5)
            torch.testing.assert_close(cuda_weights, weights)


# ---- the device itself ----


class ForgetsToMove(Objective):
    """Wrong on purpose: leaves the teacher's logits and the labels on the CPU."""

    def __call__(self, logits: Tensor, teacher: Tensor, labels: Tensor, progress: float) -> Tensor:
        return sum(term.loss(logits, teacher, labels, progress) for term in self.terms)


class ReadsArrays(Objective):
    """Wrong on purpose: takes the logits for an array, which they are on the CPU alone."""

    def __call__(self, logits: Tensor, teacher: Tensor, labels: Tensor, progress: float) -> Tensor:
        assert len(logits.detach().numpy()) == len(teacher)
        return super().__call__(logits, teacher, labels, progress)


@pytest.mark.parametrize(("wrong", "message"), [(ForgetsToMove, "same device"), (ReadsArrays, "numpy")])
def test_a_loss_that_works_on_the_cpu_alone_is_found(
    plain_bert: Path, tmp_path: Path, wrong: type[Objective], message: str
) -> None:
    def run(folder: Path, device: torch.device) -> None:
        trainer = training(folder, classifier(plain_bert, device), SET)
        trainer.objective = wrong({"kd": {}})
        trained(trainer, device)

    run(tmp_path / "cpu", torch.device("cpu"))
    with on_cuda(), pytest.raises((RuntimeError, TypeError), match=message):
        run(tmp_path / "cuda", CUDA)
