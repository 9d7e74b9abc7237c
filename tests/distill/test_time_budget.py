"""A time budget buys seconds of training: what counts, when it stops, what schedules follow, what a resume has left."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.tiny import LABELS, sentences
from torch.optim import SGD
from transformers import get_scheduler

from augkd.data.transfer_set import TransferSet, in_memory
from augkd.distill.arguments import DistillationArguments
from augkd.distill.dataset import DistillationDataset
from augkd.distill.time_budget import EPOCHS, TimeBudget, follow
from augkd.distill.trainer import DistillationTrainer
from augkd.errors import RecipeError
from augkd.models.classifier import load_backbone
from augkd.recipe import TrainingOptions
from augkd.recipe.units import format_seconds, parse_seconds


class Clock:
    """Seconds that pass when the test advances them."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def begun(
    seconds: float, clock: Clock, spent: dict[str, Any] | None = None, step: int = 0
) -> tuple[TimeBudget, Any, Any]:
    budget = TimeBudget(seconds, clock)
    state = SimpleNamespace(global_step=step, max_steps=10**8, stateful_callbacks=spent or {})
    control = SimpleNamespace(should_training_stop=False)
    budget.on_train_begin(None, state, control, lr_scheduler=scheduler("linear", 10**8))
    return budget, state, control


def scheduler(shape: str, steps: int) -> Any:
    warmup = math.ceil(0.1 * steps)
    return get_scheduler(shape, SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0), warmup, steps)


def step(budget: TimeBudget, state: Any, control: Any) -> None:
    budget.on_optimizer_step(None, state, control)
    state.global_step += 1
    budget.on_step_end(None, state, control)


def test_the_training_stops_with_the_step_that_spends_the_budget() -> None:
    clock = Clock()
    budget, state, control = begun(10.0, clock)
    for number in range(1, 5):
        clock.now += 3.0
        step(budget, state, control)
        assert control.should_training_stop == (number == 4)  # 12 of 10 seconds
    assert (budget.spent, budget.share) == (12.0, 1.0)
    assert state.max_steps == state.global_step == 4


def test_progress_is_the_share_of_the_time_whatever_the_steps_cost() -> None:
    clock = Clock()
    budget, state, control = begun(100.0, clock)
    shares = []
    for cost in (1.0, 4.0, 20.0, 25.0, 40.0):
        clock.now += cost
        step(budget, state, control)
        shares.append((state.global_step / state.max_steps, budget.share))
    assert [share for _, share in shares] == pytest.approx([0.01, 0.05, 0.25, 0.5, 0.9])
    for seen, share in shares[:-1]:
        assert seen == pytest.approx(share, abs=0.01)
    assert state.max_steps == state.global_step + 2, "never the step that Trainer itself would stop at"


@pytest.mark.parametrize("event", ["on_evaluate", "on_save"])
def test_validation_and_checkpoints_cost_nothing(event: str) -> None:
    clock = Clock()
    budget, state, control = begun(10.0, clock)
    for _ in range(3):
        clock.now += 1.0
        step(budget, state, control)
        clock.now += 60.0
        getattr(budget, event)(None, state, control)
    assert budget.spent == 3.0
    clock.now += 60.0  # neither a validation nor a checkpoint
    step(budget, state, control)
    assert budget.spent == 63.0


def test_a_checkpoint_keeps_the_time_spent() -> None:
    clock = Clock()
    budget, state, control = begun(10.0, clock)
    clock.now += 6.0
    step(budget, state, control)
    later, resumed, control = begun(10.0, clock, dict(state.stateful_callbacks), step=1)
    assert (later.spent, resumed.max_steps) == (6.0, 3)
    clock.now += 4.0
    step(later, resumed, control)
    assert control.should_training_stop
    fresh, _, _ = begun(10.0, clock)
    assert fresh.spent == 0.0


@pytest.mark.parametrize("shape", ["linear", "cosine", "constant_with_warmup"])
def test_the_learning_rate_over_the_time_is_that_of_the_scheduler_over_its_steps(shape: str) -> None:
    share = 0.0
    plain, timed = scheduler(shape, 1000), scheduler(shape, 1000)
    follow(timed, 1000, lambda: share)
    wanted = {}
    for number in range(1000):
        wanted[number] = plain.get_last_lr()[0]
        plain.optimizer.step()
        plain.step()
    for share in (0.05, 0.1, 0.4, 0.75, 0.999):
        timed.optimizer.step()
        timed.step()
        assert timed.get_last_lr()[0] == pytest.approx(wanted[round(share * 1000)], abs=1e-9)


# ---- with Trainer ----


def transfer() -> TransferSet:
    draw = torch.Generator().manual_seed(0)
    return in_memory(
        [
            {
                "id": str(number),
                "text": text,
                "text_pair": None,
                "label": label,
                "teacher_logits": torch.randn(len(LABELS), generator=draw).tolist(),
                "candidates": [],
            }
            for number, (text, label) in enumerate(sentences()[:12])
        ],
        LABELS,
    )


def trainer_of(out: Path, bert: Path, clock: Clock, seconds: float | None, **given: Any) -> DistillationTrainer:
    data = transfer()
    student = load_backbone(str(bert), LABELS, 32, seed=0, precision="float32")
    options = {
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-3,
        "warmup_steps": 0.1,
        "precision": "float32",
        "save_strategy": "steps",
        "save_steps": 3,
        "logging_steps": 1,
        "seed": 0,
        "report_to": "none",
        "disable_tqdm": True,
    } | given
    arguments = DistillationArguments(output_dir=str(out), time_budget=seconds, **options)
    trainer = DistillationTrainer(student, arguments, DistillationDataset(student, data))
    trainer.remove_callback(TimeBudget)  # the trainer's own reads the wall clock
    if seconds is not None:
        trainer.callback_handler.callbacks.insert(0, TimeBudget(seconds, clock))

    def second(*_: Any, **__: Any) -> None:
        clock.now += 1.0

    student.model.register_forward_pre_hook(second, with_kwargs=True)
    return trainer


def rates(trainer: DistillationTrainer) -> list[float]:
    return [entry["learning_rate"] for entry in trainer.state.log_history if "learning_rate" in entry]


def test_a_budget_of_ten_steps_is_a_training_of_ten_steps(tmp_path: Path, tiny_bert: Path) -> None:
    timed = trainer_of(tmp_path / "timed", tiny_bert, Clock(), 10.0)
    assert timed.args.num_train_epochs == EPOCHS
    timed.train()
    counted = trainer_of(tmp_path / "counted", tiny_bert, Clock(), None, max_steps=10)
    counted.train()
    assert timed.state.global_step == 10
    assert rates(timed) == pytest.approx(rates(counted))
    for one, other in zip(timed.student.model.parameters(), counted.student.model.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_a_killed_training_resumes_with_the_rest_of_its_budget(tmp_path: Path, tiny_bert: Path) -> None:
    whole = trainer_of(tmp_path / "whole", tiny_bert, Clock(), 10.0)
    whole.train()
    killed = trainer_of(tmp_path / "killed", tiny_bert, Clock(), 10.0)
    stop = killed.training_step

    def until_the_fifth(*args: Any, **kwargs: Any) -> Any:
        if killed.state.global_step == 5:
            raise KeyboardInterrupt
        return stop(*args, **kwargs)

    killed.training_step = until_the_fifth
    with pytest.raises(KeyboardInterrupt):
        killed.train()
    resumed = trainer_of(tmp_path / "killed", tiny_bert, Clock(), 10.0)
    resumed.resume()
    assert resumed.state.global_step == 10
    assert rates(resumed)[3:] == pytest.approx(rates(whole)[3:])


# ---- recipes ----


def test_stages_share_a_budget_by_their_epochs() -> None:
    stages = [{"kd": {}, "epochs": 6}, {"ce": {}, "epochs": 2}]
    training = TrainingOptions.model_validate({"budget": "20m", "stages": stages})
    assert [stage.budget for stage in training.training_stages] == [900.0, 300.0]
    assert [stage.budget for stage in TrainingOptions.model_validate({"stages": stages}).training_stages] == [
        None,
        None,
    ]
    stages[0]["budget"] = 5
    with pytest.raises(RecipeError, match="stage 1 has 'budget', which all stages share"):
        TrainingOptions.model_validate({"stages": stages})


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30m", 1800), ("1.5h", 5400), ("2h30m", 9000), ("1 d", 86400), ("30", 30), (45, 45)],
)
def test_a_time_is_read_as_people_write_it(text: str | int, seconds: float) -> None:
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "half an hour", "0s", 0, "-5m", -5, "5m later", "m5", True])
def test_a_time_that_is_none_is_an_error_that_shows_how(text: Any) -> None:
    with pytest.raises(RecipeError, match=r"training\.budget is .*; write it like 90s, 30m or 2h30m"):
        TrainingOptions.model_validate({"kd": {}, "budget": text})


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(45.4, "45 s"), (200, "3 min 20 s"), (7500, "2 h 05 min"), (100_800, "1 d 4 h"), (60, "1 min")],
)
def test_a_time_is_shown_as_people_write_it(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text
