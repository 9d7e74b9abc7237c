"""The trainer forwards the rows it should in the mode it should; stopping or splitting a run changes no weight."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.tiny import LABELS
from support.transfer import K, transfer
from torch import Tensor
from transformers import TrainerCallback

from augkd.data.transfer_set import TransferSet
from augkd.distill import checkpoint as module
from augkd.distill.arguments import DistillationArguments
from augkd.distill.dataset import DistillationDataset
from augkd.distill.trainer import DistillationTrainer
from augkd.models.classifier import Classifier, load_backbone
from augkd.models.tokens import LengthGrouped
from augkd.workspace.checkpoints import last_checkpoint, mark_whole

MINIMAX = {"minimax": {"keep": 2}}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Matrices this small lose more to waiting for a second core than they gain."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def student_of(bert: Path, labels: tuple[str, ...] = LABELS) -> Classifier:
    return load_backbone(str(bert), labels, 32, seed=0, precision="float32")


def trainer_of(
    out: Path, bert: Path, data: TransferSet, kind: type[DistillationTrainer] = DistillationTrainer, **given: Any
) -> DistillationTrainer:
    extra = {key: given.pop(key) for key in ("validation", "progress") if key in given}
    settings = {
        "num_train_epochs": 1,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-3,
        "losses": {"kd": {"weight": 0.5, "temperature": 2.0}, "ce": {"weight": 0.5}},
        "selector": {"everything": {}},
        "precision": "float32",
        "save_strategy": "no",
        "seed": 0,
        "report_to": "none",
        "disable_tqdm": True,
    } | given
    student = student_of(bert, data.labels)
    arguments = DistillationArguments(output_dir=str(out), **settings)
    return kind(student, arguments, DistillationDataset(student, data), **extra)


def weights(trainer: DistillationTrainer) -> Tensor:
    return torch.cat([parameter.detach().flatten().cpu() for parameter in trainer.student.model.parameters()])


# ---- accumulation ----

ONE_STEP = {"optim": "sgd", "learning_rate": 0.1, "max_grad_norm": 0.0, "lr_scheduler_type": "constant"}


class MeanOfMeans(DistillationTrainer):
    """Wrong on purpose: divides each part of the step by its own size, as a plain batch mean does."""

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        parts = self.args.gradient_accumulation_steps * len(inputs["batch"].tokens)
        return super().compute_loss(model, inputs, return_outputs, parts)


def after_one_step(
    out: Path, bert: Path, size: int, parts: int, kind: type[DistillationTrainer] = DistillationTrainer
) -> Tensor:
    given = {**ONE_STEP, "per_device_train_batch_size": size, "gradient_accumulation_steps": parts}
    trainer = trainer_of(out, bert, transfer(16), kind, selector=MINIMAX, **given)
    before = weights(trainer)
    trainer.train()
    assert trainer.state.global_step == 1
    return weights(trainer) - before


@pytest.mark.parametrize(("size", "parts"), [(4, 4), (5, 4)], ids=["even", "uneven last part"])
def test_an_accumulated_step_is_the_same_step_as_one_large_batch(
    tmp_path: Path, plain_bert: Path, size: int, parts: int
) -> None:
    whole = after_one_step(tmp_path / "a", plain_bert, 16, 1)
    assert whole.abs().max() > 1e-3
    assert torch.allclose(after_one_step(tmp_path / "b", plain_bert, size, parts), whole, atol=1e-6)


def test_a_mean_of_batch_means_would_be_another_step(tmp_path: Path, plain_bert: Path) -> None:
    whole = after_one_step(tmp_path / "a", plain_bert, 16, 1)
    assert not torch.allclose(after_one_step(tmp_path / "b", plain_bert, 5, 4, MeanOfMeans), whole, atol=1e-4)


# ---- rows ----


@pytest.mark.parametrize(
    ("selector", "refresh", "scoring", "training"),
    [
        (MINIMAX, 1, 4 * 2, 3 * 2),
        (MINIMAX, 2, 4 * 1, 3 * 2),
        ({"minimax": {"keep": 2, "of": 3}}, 1, 3 * 2, 3 * 2),
        ({"random": {"keep": 2}}, 1, 0, 3 * 2),
        ({"nearest": {"keep": 2}}, 1, 0, 3 * 2),
        ({"everything": {}}, 1, 0, 5 * 2),
    ],
    ids=["minimax", "minimax refreshed every second epoch", "minimax of some", "random", "nearest", "everything"],
)
def test_rows_forwarded_in_two_epochs_are_what_the_selector_needs(
    tmp_path: Path, tiny_bert: Path, selector: dict[str, Any], refresh: int, scoring: int, training: int
) -> None:
    trainer = trainer_of(tmp_path, tiny_bert, transfer(6), selector=selector, refresh=refresh, num_train_epochs=2)
    forwarded = {True: 0, False: 0}  # with gradient or without

    def count(module: Any, args: Any, kwargs: Any) -> None:
        forwarded[torch.is_grad_enabled()] += len(kwargs["input_ids"])

    trainer.student.model.register_forward_pre_hook(count, with_kwargs=True)
    trainer.train()
    assert forwarded == {True: 6 * training, False: 6 * scoring}
    assert (trainer.rows["training"], trainer.rows["scoring"]) == (6 * training, 6 * scoring)


def test_minimax_of_some_scores_every_candidate_in_turn_and_keeps_the_most_divergent(
    tmp_path: Path, tiny_bert: Path
) -> None:
    epochs = 2 * (K // 2)
    trainer = trainer_of(
        tmp_path, tiny_bert, transfer(6), selector={"minimax": {"keep": 1, "of": 2}}, num_train_epochs=epochs
    )
    trainer.train()
    assert trainer.choice.trace is not None
    trace = trainer.choice.trace.result(trainer.ranks)
    scored = ~np.isnan(trace.divergence)
    assert (scored.reshape(2, K // 2, -1).sum(axis=1) == 1).all()  # each once in K / 2 epochs, then again
    for divergence, picked in zip(trace.divergence.reshape(-1, K), trace.picked.reshape(-1, K), strict=True):
        assert np.nanargmax(divergence) == picked.argmax()
        assert picked.sum() == 1


def test_candidates_of_no_weight_are_not_forwarded_at_all(tmp_path: Path, tiny_bert: Path) -> None:
    trainer = trainer_of(tmp_path, tiny_bert, transfer(6), selector=MINIMAX, candidate_weight=0.0)
    trainer.train()
    assert (trainer.rows["training"], trainer.rows["scoring"]) == (6, 0)


# ---- mode ----


def test_training_runs_with_dropout_and_scoring_without_although_evaluations_come_between(
    tmp_path: Path, tiny_bert: Path
) -> None:
    seen: list[tuple[bool, bool] | str] = []

    def validation(student: Classifier) -> dict[str, float]:
        student.predict([("a cat", None)])
        seen.append("evaluated")
        return {"accuracy": 0.5}

    given = {"selector": MINIMAX, "eval_strategy": "steps", "eval_steps": 1, "validation": validation}
    trainer = trainer_of(tmp_path, tiny_bert, transfer(8), per_device_train_batch_size=2, **given)
    trainer.student.model.register_forward_pre_hook(
        lambda module, args: seen.append((torch.is_grad_enabled(), module.training))
    )
    trainer.train()
    step = [(False, False), (True, True), (False, False), "evaluated"]  # scoring, training, validation
    assert seen == step * 4


def test_a_training_step_in_eval_mode_is_an_error(tmp_path: Path, tiny_bert: Path) -> None:
    trainer = trainer_of(tmp_path, tiny_bert, transfer(2))
    inputs = trainer.data.collate([0, 1])
    trainer.student.model.eval()
    with pytest.raises(AssertionError, match="eval mode"):
        trainer.compute_loss(trainer.student.model, inputs)
    trainer.student.model.train()
    assert trainer.compute_loss(trainer.student.model, inputs).isfinite()


# ---- resume ----


class Killed(BaseException):
    """A kill, as seen from inside the process."""


RESUMABLE = {"num_train_epochs": 3, "per_device_train_batch_size": 4, "save_strategy": "epoch", "save_every": 3}


def killed_at(step: int) -> Any:
    def progress(done: int, total: int | None) -> None:
        if done == step:
            raise Killed

    return progress


class KilledAfterSaving(TrainerCallback):
    """A kill as soon as so many checkpoints are written."""

    def __init__(self, checkpoints: int):
        self._left = checkpoints

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._left -= 1
        if not self._left:
            raise Killed


@pytest.mark.parametrize("refresh", [1, 2])
def test_a_killed_run_resumes_to_the_very_weights_of_an_unbroken_one(
    tmp_path: Path, tiny_bert: Path, refresh: int
) -> None:
    given = {**RESUMABLE, "selector": MINIMAX, "refresh": refresh}
    data = transfer(8)  # 2 steps an epoch, 6 in all
    whole = trainer_of(tmp_path / "whole", tiny_bert, data, **given)
    whole.resume()
    broken = trainer_of(tmp_path / "broken", tiny_bert, data, progress=killed_at(4), **given)
    with pytest.raises(Killed):
        broken.resume()
    # cut off while writing: every file but the marker, which is written last; step 3, within an epoch, is left
    newest = tmp_path / "broken" / "checkpoint-4"
    shutil.rmtree(newest, ignore_errors=True)
    shutil.copytree(tmp_path / "broken" / "checkpoint-3", newest)
    (newest / "augkd.json").unlink()
    (newest / "model.safetensors").write_bytes(b"half")
    assert not torch.equal(weights(broken), weights(whole))
    again = trainer_of(tmp_path / "broken", tiny_bert, data, **given)
    again.resume()
    assert again.state.global_step == whole.state.global_step == 6
    assert torch.equal(weights(again), weights(whole))
    assert again.rows == whole.rows


def test_another_seed_gives_other_weights(tmp_path: Path, tiny_bert: Path) -> None:
    runs = []
    for seed in (0, 0, 1):
        runs.append(trainer_of(tmp_path / str(seed), tiny_bert, transfer(8), seed=seed))
        runs[-1].train()
    assert torch.equal(weights(runs[0]), weights(runs[1]))
    assert not torch.equal(weights(runs[0]), weights(runs[2]))


def test_the_last_whole_checkpoint_is_found_by_number_and_newer_halves_are_removed(tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path) is None
    for step, whole in ((9, True), (10, True), (100, False)):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if whole:
            mark_whole(tmp_path / f"checkpoint-{step}", {})
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-10"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-9"]


# ---- loss ----


def loss(out: Path, bert: Path, data: TransferSet, **given: Any) -> float:
    trainer = trainer_of(out, bert, data, **given)
    trainer.student.model.train()
    value: Tensor = trainer.compute_loss(trainer.student.model, trainer.data.collate(range(len(data))))
    return value.item()


@pytest.mark.parametrize("selector", ["minimax", "random", "nearest"])
def test_the_candidates_weight_is_the_same_however_many_are_kept(
    tmp_path: Path, plain_bert: Path, selector: str
) -> None:
    data = transfer(4, copies=True)
    all_of_them = loss(tmp_path, plain_bert, data, selector={"everything": {}})
    for keep in (1, 2, 9):
        assert loss(tmp_path, plain_bert, data, selector={selector: {"keep": keep}}) == pytest.approx(all_of_them)


def test_the_loss_grows_with_the_candidates_weight_from_that_of_the_originals_alone(
    tmp_path: Path, plain_bert: Path
) -> None:
    data = transfer(4, copies=True)
    without, single, double = (loss(tmp_path, plain_bert, data, candidate_weight=weight) for weight in (0.0, 1.0, 2.0))
    assert without == pytest.approx(loss(tmp_path, plain_bert, transfer(4, copies=True, k=0)))
    assert single > without
    assert double - single == pytest.approx(single - without, rel=1e-4)


def test_the_loss_is_the_weighted_sum_written_out(tmp_path: Path, plain_bert: Path) -> None:
    data = transfer(3)
    student = student_of(plain_bert)
    candidates = data.candidates()
    original = student.predict([(text, None) for text in data.column("text")]).log_softmax(-1)
    labels = [LABELS.index(name) for name in data.column("label")]
    ce = -sum(original[row, label].item() for row, label in enumerate(labels)) / 3

    def kd(texts: list[str], teacher: Any) -> float:
        softened = (student.predict([(text, None) for text in texts]) / 2).log_softmax(-1)
        target = (torch.from_numpy(teacher) / 2).log_softmax(-1)
        return 4 * (target.exp() * (target - softened)).sum().item() / len(texts)

    wanted = 0.5 * ce + 0.5 * kd(data.column("text"), data.teacher()) + 0.5 * kd(candidates.text, candidates.teacher)
    assert loss(tmp_path, plain_bert, data) == pytest.approx(wanted, rel=1e-5)


def test_a_regression_student_of_one_output_learns(tmp_path: Path, plain_bert: Path) -> None:
    data = transfer(8, labels=())
    trainer = trainer_of(tmp_path, plain_bert, data, num_train_epochs=5, selector=MINIMAX, learning_rate=1e-2)
    texts = [(text, None) for text in data.column("text")]
    target = torch.tensor(data.column("label"))[:, None]
    before = (trainer.student.predict(texts) - target).square().mean()
    trainer.train()
    after = (trainer.student.predict(texts) - target).square().mean()
    assert after.isfinite()
    assert after < 0.8 * before


# ---- data ----


def test_a_batch_holds_the_candidates_of_its_originals_and_no_others(tiny_bert: Path) -> None:
    student, data = student_of(tiny_bert), transfer(6)
    dataset = DistillationDataset(student, data)
    batch = dataset.collate([4, 1])["batch"]
    assert batch.rows.tolist() == [4, 1]
    assert batch.pool.owner.tolist() == [0] * 4 + [1] * 4
    assert batch.pool.row.tolist() == [16, 17, 18, 19, 4, 5, 6, 7]
    assert torch.equal(batch.pool.teacher, torch.from_numpy(data.candidates().teacher)[batch.pool.row])
    assert batch.labels.tolist() == [LABELS.index(data.column("label")[row]) for row in (4, 1)]
    texts = [(data.candidates().text[row], None) for row in batch.pool.row.tolist()]
    assert torch.equal(batch.pool.tokens.ids, student.tokens(texts).ids)


def test_the_sampler_gives_each_row_once_in_an_order_of_its_seed_and_epoch() -> None:
    lengths = torch.randint(3, 30, (50,), generator=torch.Generator().manual_seed(0))
    sampler = LengthGrouped(lengths, 8, seed=0)
    first, again = list(sampler), list(sampler)
    assert sorted(row for batch in first for row in batch) == list(range(50))
    assert first == again
    assert len(first) == len(sampler) == 7
    sampler.set_epoch(1)
    assert list(sampler) != first
    assert list(LengthGrouped(lengths, 8, seed=1)) != first


def test_a_resumed_run_that_forgot_its_stale_scores_would_score_again(
    tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {**RESUMABLE, "selector": MINIMAX, "refresh": 2}
    with pytest.raises(Killed):
        trainer_of(tmp_path, tiny_bert, transfer(8), progress=killed_at(4), **given).resume()
    read = module.read_state
    forgotten = {"divergence": torch.full((8 * K,), torch.nan)}
    monkeypatch.setattr(module, "read_state", lambda folder, part: read(folder, part) | forgotten)
    again = trainer_of(tmp_path, tiny_bert, transfer(8), **given)
    again.resume()
    # epochs 0 and 2 are scored in full; the half of epoch 1 that was still to come, again
    assert again.rows["scoring"] == 2 * 8 * K + 4 * K


@pytest.mark.parametrize("saved", [2, 5, *(pytest.param(step, marks=pytest.mark.slow) for step in (1, 3, 4, 6))])
def test_a_run_killed_after_any_checkpoint_has_every_validation_and_the_same_best_student(
    tmp_path: Path, plain_bert: Path, saved: int
) -> None:
    given = RESUMABLE | {
        "save_every": 1,
        "eval_strategy": "epoch",
        "load_best_model_at_end": True,
        "metric_for_best_model": "closeness",
        "greater_is_better": True,
    }
    data, first = transfer(8), weights(trainer_of(tmp_path, plain_bert, transfer(8)))

    def attempt(folder: Path, kill_after: int = 0) -> DistillationTrainer:
        def closeness(student: Any) -> dict[str, float]:  # the first epoch's student is the best
            return {"closeness": -float((weights(trainer) - first).square().sum())}

        trainer = trainer_of(folder, plain_bert, data, validation=closeness, **given)
        if kill_after:
            trainer.add_callback(KilledAfterSaving(kill_after))
        trainer.resume()
        return trainer

    whole = attempt(tmp_path / "whole")
    with pytest.raises(Killed):
        attempt(tmp_path / "broken", kill_after=saved)
    again = attempt(tmp_path / "broken")
    figures = [log["eval_closeness"] for log in whole.state.log_history if "eval_closeness" in log]
    assert figures == sorted(figures, reverse=True)
    assert len(figures) == 3
    assert [log["eval_closeness"] for log in again.state.log_history if "eval_closeness" in log] == figures
    assert whole.state.best_global_step == again.state.best_global_step == 2
    assert torch.equal(weights(again), weights(whole))


def test_older_checkpoints_go_only_when_the_new_one_is_whole(tmp_path: Path, plain_bert: Path) -> None:
    trainer = trainer_of(tmp_path, plain_bert, transfer(8), save_every=1, save_total_limit=1)
    trainer.train()
    assert [path.name for path in sorted(tmp_path.glob("checkpoint-*"))] == ["checkpoint-2"]
