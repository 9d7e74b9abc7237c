"""Two processes train what one would: the same gradients at every step, the same course, checkpoints that fit both."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.ranks import Case, Killed, finish, start, train
from support.tiny import LABELS
from support.transfer import transfer

from augkd.distill.arguments import DistillationArguments
from augkd.distill.dataset import DistillationDataset
from augkd.distill.parallel import Ranks, named_if_lost
from augkd.distill.trainer import DistillationTrainer
from augkd.errors import ProcessLostError
from augkd.models.classifier import load_backbone

LAYERED = {"stages": [{"annealed": {}, "freelb": {"steps": 2}}, {"ce": {}, "kd": {}}]}
CASES = {
    "kd": Case(select={"everything": {}}),
    "minimax": Case(),
    "freelb": Case({"freelb": {"steps": 2}}, select={"random": {"keep": 1}}),
    "alp alone": Case({"stages": [{"structure": {"alp": {}}}]}, alp=True),  # the classifier has no gradient
    "generator": Case(generator=True, select={"everything": {}}),
    "all together": Case(LAYERED, alp=True, generator=True),
    "one row left": Case(originals=17),  # for the first process; the second has none
    "accumulated": Case({"batch_size": 5, "accumulation": 2}, originals=17),
    "scored every other epoch": Case({"epochs": 4}, refresh=2),
    "scored in turn": Case({"epochs": 3}, select={"minimax": {"keep": 1, "of": 2}}),
    "bilstm": Case(student="bilstm"),
    "static": Case(student="static"),
}
RESUMED = Case({**LAYERED, "epochs": 2, "checkpoints": 1}, refresh=2, alp=True, generator=True)
KILLED = replace(RESUMED, killed_at=4)  # after the checkpoint of step 3, which lies between two entries of the log
MEANS = Case({"batch_size": 5}, originals=15, mean_of_means=True)  # 3 rows here and 2 there


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """As in the processes that are compared."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(plain_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two processes did every case, and in `cases.pt` what they came to."""
    folder = tmp_path_factory.mktemp("pair")
    with pytest.raises(Killed):
        train(KILLED, folder / "begun by one", plain_bert)
    more = {"begun by one": RESUMED, "begun by two": KILLED, "means": MEANS, "budget": Case({"budget": "1s"})}
    cases = {name: asdict(case) for name, case in (CASES | more).items()}
    (folder / "cases.json").write_text(json.dumps(cases))
    for code, out, err in finish(start(["-m", "support.ranks", folder / "cases.json", plain_bert])):
        assert code == 0, out + err[-3000:]
    return folder


@pytest.fixture(scope="module")
def pair(folder: Path) -> dict[str, Any]:
    results: dict[str, Any] = torch.load(folder / "cases.pt", weights_only=True)
    return results


@pytest.fixture(scope="module")
def unbroken(plain_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one process comes to that is not killed."""
    return train(RESUMED, tmp_path_factory.mktemp("unbroken"), plain_bert)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_two_processes_have_the_gradients_and_the_course_of_one(
    name: str, pair: dict[str, Any], plain_bert: Path, tmp_path: Path
) -> None:
    one, two = train(CASES[name], tmp_path, plain_bert), pair[name]
    assert len(one["gradients"]) == len(two["gradients"]) >= 2
    for alone, shared in zip(one["gradients"], two["gradients"], strict=True):
        size, difference = alone.abs().max(), (alone - shared).abs().max()
        assert size > 1e-4
        assert difference < min(1e-6 * max(1.0, size), 1e-5 * size)  # float32 has 7 digits
    same_course(one, two)


def same_course(one: dict[str, Any], two: dict[str, Any]) -> None:
    """The same log, rows, best scores, choice of candidates and weights, but for rounding."""
    assert one["course"]["rows"] == two["course"]["rows"]
    assert two["course"]["best"] == pytest.approx(one["course"]["best"], rel=1e-4)
    assert len(one["course"]["log"]) == len(two["course"]["log"]) >= 2
    for alone, shared in zip(one["course"]["log"], two["course"]["log"], strict=True):
        assert shared == pytest.approx(alone, rel=1e-4, abs=1e-6)
    assert one["trace"][1] == two["trace"][1]
    assert torch.allclose(torch.tensor(one["trace"][0]), torch.tensor(two["trace"][0]), rtol=2e-3, equal_nan=True)
    assert torch.allclose(one["weights"], two["weights"], atol=2e-6)


@pytest.mark.slow
def test_dividing_by_the_rows_of_each_process_would_be_another_gradient(
    pair: dict[str, Any], plain_bert: Path, tmp_path: Path
) -> None:
    one = train(replace(MEANS, mean_of_means=False), tmp_path, plain_bert)
    assert (one["gradients"][0] - pair["means"]["gradients"][0]).abs().max() > 1e-3


@pytest.mark.slow
def test_one_process_continues_what_two_began_and_two_what_one_began(
    folder: Path, pair: dict[str, Any], unbroken: dict[str, Any], plain_bert: Path
) -> None:
    assert pair["begun by two"] == {}, "it was to be killed"
    assert (folder / "begun by two" / "stage-1" / "checkpoint-3").is_dir()
    one = train(RESUMED, folder / "begun by two", plain_bert)
    two = pair["begun by one"]
    for resumed in (one, two):
        assert 0 < len(resumed["gradients"]) < len(unbroken["gradients"])
        same_course(unbroken, resumed)


@pytest.mark.slow
def test_processes_with_a_time_budget_stop_at_the_same_step(pair: dict[str, Any]) -> None:
    """By the first one's clock; with a clock each, one would wait for the other at the last step."""
    assert pair["budget"]["course"]["rows"]["training"] >= 24
    assert pair["budget"]["course"]["log"][-1]["step"] > 1


# ---- one process, without the other ----


@pytest.mark.parametrize("size", [1, 2, 7, 32])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_shares_of_a_batch_are_the_batch(size: int, count: int) -> None:
    shares = [Ranks(index, count).share(range(size)) for index in range(count)]
    assert sorted(row for share in shares for row in share) == list(range(size))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_share_has_rows_of_every_length_a_batch_has() -> None:
    assert Ranks(1, 2).share([10, 11, 12, 13, 40]) == [11, 13]


def test_one_process_alone_does_what_it_is_asked_and_waits_for_nobody() -> None:
    alone = Ranks()
    weights = torch.nn.Parameter(torch.ones(2))
    weights.grad = torch.tensor([1.0, 2.0])
    alone.sum_gradients([weights])
    assert weights.grad.tolist() == [1, 2]
    assert alone.from_first(lambda: 5) == alone.first_before_others(lambda: 5) == 5
    assert alone.total({"a": 1, "b": 0.5}) == {"a": 1, "b": 0.5}
    assert alone.sum(torch.tensor([3.0])).tolist() == [3]


def test_every_process_drops_other_places(tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one seed for all, two processes would draw the same mask for different texts."""
    student = load_backbone(str(tiny_bert), LABELS, 32, seed=0, precision="float32")
    arguments = DistillationArguments(output_dir=str(tmp_path), report_to="none", disable_tqdm=True)
    trainer = DistillationTrainer(student, arguments, DistillationDataset(student, transfer(4)))
    monkeypatch.setattr(Ranks, "sum_gradients", lambda ranks, parameters: None)
    seeds = []
    for index in (0, 1, 0):
        trainer.ranks = Ranks(index, 2)
        torch.manual_seed(0)
        trainer.training_step(student.model, trainer._collate([0, 1, 2, 3]))
        seeds.append(torch.initial_seed())
    assert seeds[0] != seeds[1]
    assert seeds[0] == seeds[2]


def test_a_broken_connection_is_named_and_no_other_error_is() -> None:
    with pytest.raises(ProcessLostError, match="another process of the training has ended"), named_if_lost():
        raise RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer")
    with pytest.raises(RuntimeError, match="shapes"), named_if_lost():
        raise RuntimeError("shapes do not fit")
