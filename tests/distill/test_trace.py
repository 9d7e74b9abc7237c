"""The trace holds every divergence and pick of all epochs within its bound, and survives a checkpoint bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from torch import Tensor

from augkd.distill.trace import SelectionTrace, Trace
from augkd.errors import WorkspaceError

START = torch.tensor([0, 2, 2, 5])  # three originals: two candidates, none, three
NAN = np.nan


def recorded() -> SelectionTrace:
    """Two epochs over START's candidates, in batches, the second without scores of the last original."""
    trace = SelectionTrace(START, 2)
    trace.record(0, torch.tensor([2, 3, 4]), torch.tensor([0.5, 0.25, 2.0]), torch.tensor([4]))
    trace.record(0, torch.tensor([0, 1]), torch.tensor([1.0, 8.0]), torch.tensor([1]))
    trace.record(1, torch.tensor([0, 1]), torch.tensor([0.125, 4.0]), torch.tensor([1]))
    trace.record(1, torch.tensor([2, 3, 4]), None, torch.tensor([2, 3]))
    return trace


def test_a_trace_holds_every_value_at_its_epoch_and_candidate() -> None:
    trace = recorded().result()
    np.testing.assert_array_equal(trace.divergence, [[1.0, 8.0, 0.5, 0.25, 2.0], [0.125, 4.0, NAN, NAN, NAN]])
    np.testing.assert_array_equal(trace.picked, [[0, 1, 0, 0, 1], [0, 1, 1, 1, 0]])
    assert (trace.divergence.dtype, trace.picked.dtype, trace.total) == (np.float16, np.uint8, 5)
    assert trace.candidates.tolist() == [0, 1, 2, 3, 4]


def test_a_batch_recorded_again_in_its_epoch_replaces_the_earlier_record() -> None:
    trace = recorded()
    trace.record(1, torch.tensor([2, 3, 4]), torch.tensor([1.0, 2.0, 3.0]), torch.tensor([4]))
    assert trace.result().picked[1].tolist() == [0, 1, 0, 0, 1]
    assert trace.result().divergence[1].tolist() == [0.125, 4.0, 1.0, 2.0, 3.0]


def test_texts_generated_for_a_step_leave_no_trace() -> None:
    trace = recorded()
    before = trace.result()
    trace.record(1, torch.tensor([-1, 0, -1]), torch.tensor([9.0, 0.125, 9.0]), torch.tensor([-1]))
    after = trace.result()
    np.testing.assert_array_equal(before.divergence, after.divergence)
    np.testing.assert_array_equal(before.picked, after.picked)


def test_a_divergence_beyond_float16_is_its_largest_number_and_not_infinite() -> None:
    trace = SelectionTrace(START, 1)
    trace.record(0, torch.tensor([0]), torch.tensor([1e9]), torch.tensor([0]))
    assert trace.result().divergence[0, 0] == 65504.0
    with np.errstate(over="ignore"):
        assert np.isinf(np.float32(1e9).astype(np.float16))  # what a plain conversion would have written


def test_epochs_after_an_early_stop_are_left_out_and_unpicked_ones_between_are_not() -> None:
    trace = SelectionTrace(START, 9)
    for epoch in (0, 2):
        trace.record(epoch, torch.tensor([0]), None, torch.tensor([0]))
    assert trace.result().picked.tolist() == [[1, 0, 0, 0, 0], [0, 0, 0, 0, 0], [1, 0, 0, 0, 0]]
    assert trace.result().stages.tolist() == [3]
    assert SelectionTrace(START, 9).result().picked.shape == (0, 5)


def test_above_the_bound_whole_originals_of_a_seeded_draw_are_kept_for_all_epochs() -> None:
    start = torch.arange(0, 4 * 101, 4)  # 100 originals × 4
    trace = SelectionTrace(start, 5, seed=3, cells=600)
    everything = torch.arange(400)
    trace.record(4, everything, everything.float(), everything[::2])
    result = trace.result()
    assert result.divergence.shape == (5, 120)  # 30 originals: 30 · 4 · 5 = 600 cells
    owners, counts = np.unique(result.candidates // 4, return_counts=True)
    assert (len(owners), set(counts.tolist())) == (30, {4})
    np.testing.assert_array_equal(result.divergence[4], result.candidates)
    np.testing.assert_array_equal(result.picked[4], (result.candidates % 2 == 0))
    kept = [SelectionTrace(start, 5, seed=seed, cells=600).result().candidates.tolist() for seed in (3, 4)]
    assert kept[0] == result.candidates.tolist() != kept[1]


def test_the_bound_is_for_all_stages_so_that_their_traces_join() -> None:
    start = torch.arange(0, 4 * 101, 4)
    whole = [SelectionTrace(start, epochs, planned=5, cells=600).result() for epochs in (2, 3)]
    assert np.array_equal(whole[0].candidates, whole[1].candidates)
    apart = [SelectionTrace(start, epochs, cells=600).result() for epochs in (2, 3)]
    assert not np.array_equal(apart[0].candidates, apart[1].candidates)
    with pytest.raises(AssertionError, match="different transfer sets"):
        Trace.join(apart)


def test_stages_follow_one_another() -> None:
    joined = Trace.join([recorded().result(), recorded().result()])
    assert joined.picked.tolist() == 2 * [[0, 1, 0, 0, 1], [0, 1, 1, 1, 0]]
    assert joined.stages.tolist() == [2, 2]


def test_a_trace_comes_back_from_disk_and_its_bytes_repeat(tmp_path: Path) -> None:
    for name in ("a", "b"):
        recorded().result().write(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    read, written = Trace.read(tmp_path / "a"), recorded().result()
    for name in ("divergence", "picked", "candidates", "stages"):
        np.testing.assert_array_equal(getattr(read, name), getattr(written, name))
    assert read.total == 5
    (tmp_path / "a").write_bytes(b"no")
    with pytest.raises(WorkspaceError, match="is not a selection trace"):
        Trace.read(tmp_path / "a")


def test_a_training_that_resumes_from_a_checkpoint_has_the_whole_trace() -> None:
    first = SelectionTrace(START, 2)
    first.record(0, torch.tensor([0, 1]), torch.tensor([1.0, 8.0]), torch.tensor([1]))
    state = first.state()
    first.record(0, torch.tensor([0]), torch.tensor([7.0]), torch.tensor([0]))  # lost in the kill
    second = SelectionTrace(START, 2)
    second.load_state(state)
    second.record(1, torch.tensor([0, 1]), torch.tensor([2.0, 3.0]), torch.tensor([0]))
    assert second.result().divergence[:, :2].tolist() == [[1.0, 8.0], [2.0, 3.0]]
    assert second.result().picked[:, :2].tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize("state", [{}, SelectionTrace(START, 3).state()])
def test_a_checkpoint_without_this_trace_is_rejected_in_one_line(state: dict[str, Tensor]) -> None:
    with pytest.raises(WorkspaceError, match=r"no selection trace of 2 epochs and 5 candidates") as caught:
        SelectionTrace(START, 2).load_state(state)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"divergence": np.zeros((2, 2), np.float16)},
        {"divergence": np.zeros((2, 3), np.float32)},
        {"picked": np.zeros((3, 3), np.uint8)},
        {"picked": np.zeros(6, np.uint8)},
        {"candidates": np.array([0, 2, 9])},
        {"candidates": np.array([2, 1, 0])},
        {"candidates": np.array([[0, 1, 2]])},
        {"candidates": np.array([0.0, 1.0, 2.0])},
        {"stages": np.array([1])},
        {"stages": np.array(2)},
        {"stages": np.array([3, -1])},
        {"total": np.zeros(0, np.int64)},
        {"total": np.array([-5])},
        {"total": np.array([np.inf])},
    ],
)
def test_arrays_that_do_not_fit_each_other_are_no_trace(tmp_path: Path, changes: dict[str, Any]) -> None:
    arrays = {
        **{"divergence": np.zeros((2, 3), np.float16), "picked": np.zeros((2, 3), np.uint8)},
        **{"candidates": np.arange(3), "stages": np.array([2]), "total": np.array([9])},
    }
    save_file(arrays, tmp_path / "trace.safetensors")
    assert Trace.read(tmp_path / "trace.safetensors").total == 9
    save_file(arrays | changes, tmp_path / "trace.safetensors")
    with pytest.raises(WorkspaceError, match="is not a selection trace"):
        Trace.read(tmp_path / "trace.safetensors")
