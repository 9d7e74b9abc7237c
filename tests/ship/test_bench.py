"""The arithmetic of a benchmark against closed forms, and one real benchmark of every form of a tiny student."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.manifests import complete_manifest
from support.tiny import LABELS
from typer.testing import CliRunner

from augkd.cli.app import app
from augkd.models.classifier import load_backbone
from augkd.models.student_kinds import build_student
from augkd.recipe import Recipe, dump
from augkd.ship import bench as bench_module
from augkd.ship.bench import BatchTimes, Contender, bench_student, benchmark_lines
from augkd.ship.export import export_student
from augkd.workspace.files import write_json

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")


@pytest.fixture
def run_folder(tmp_path: Path, tiny_bert: Path, task_folder: Path) -> Path:
    """A run with a BERT teacher and a static student that is not exported yet."""
    run = tmp_path / "run"
    teacher = load_backbone(str(tiny_bert), LABELS, 32, 0, "float32")
    teacher.save(run / "teacher")
    build_student("static", {"width": 16}, teacher, 0).save(run / "student")
    tree = {"task": str(task_folder), "teacher": {"model": "x", "epochs": 1.0}, "student": {"static": {}}}
    recipe = dump(Recipe.model_validate({**tree, "training": {"kd": {}, "max_length": 32}}))
    complete_manifest(run / "student", "student", {"task": "t"}, recipe=recipe)
    complete_manifest(run, "run", {}, recipe=recipe, seed=0, stages={name: name for name in ("teacher", "student")})
    write_json(run / "results.json", {"teacher": {"validation": 0.5}, "student": {"validation": 0.25}})
    return run


def contender(name: str = "teacher") -> Contender:
    return Contender(name, "float32", None, lambda inputs: None, 10, None)  # type: ignore[arg-type]


def test_figures_are_medians_percentiles_and_the_median_of_paired_ratios() -> None:
    first, second = BatchTimes([4.0, 8.0, 100.0], 96), BatchTimes([1.0, 2.0, 10.0], 96)
    timing = bench_module._timing(contender("student"), second, first)
    assert timing.median_ms == 2000
    assert timing.p95_ms == pytest.approx(1000 * (2 + 0.9 * 8))  # linear between the two largest
    assert timing.texts_per_second == pytest.approx(96 / 13)
    assert timing.speedup == 4  # of 4, 4 and 10; the ratio of the means would be 8.6
    assert bench_module._timing(contender(), first, first).speedup == 1


def test_every_batch_goes_through_all_contenders_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, int]] = []

    def recording(name: str) -> Contender:
        return Contender(name, "", None, lambda inputs: calls.append((name, inputs["n"])), 0, None)  # type: ignore

    batches = [{"n": place, "input_ids": torch.zeros(2, 1)} for place in range(5)]
    monkeypatch.setattr(bench_module, "_batches", lambda *_: batches)
    timings = bench_module._timings([recording("a"), recording("b")], [], 2, 0.0)
    timed = calls[2 * 3 :]  # after three warm-up batches each
    assert timed == [("a", timed[0][1]), ("b", timed[0][1])]  # no time at all: one batch
    assert [timing.batches for timing in timings] == [1, 1]


def test_every_form_of_a_student_is_timed_beside_its_teacher(run_folder: Path) -> None:
    before = torch.get_num_threads()
    without = bench_student(run_folder, batch_sizes=[4], seconds=0)
    assert [(timing.name, timing.precision) for timing in without.batch_sizes[4]][:2] == [
        ("teacher", "float32"),
        ("student", "float32"),
    ]
    assert any("augkd export" in note for note in without.notes)

    export_student(run_folder)
    export_student(run_folder, trimmed=True, int8=False)
    benchmark = bench_student(run_folder, batch_sizes=[1, 4], seconds=0, threads=1)
    timings = {(timing.name, timing.precision): timing for timing in benchmark.batch_sizes[4]}
    expected = {
        ("teacher", "float32"),
        ("student", "float32"),
        ("student", "onnx"),
        ("student", "int8"),
        ("trimmed", "onnx"),
    }
    assert set(timings) - {("student", "bfloat16")} == expected
    assert timings["student", "int8"].bytes == (run_folder / "student/onnx/model_quantized.onnx").stat().st_size
    assert timings["teacher", "float32"].score == 0.5
    assert timings["student", "float32"].score == 0.25
    assert (benchmark.texts, benchmark.threads, benchmark.notes) == (18, 1, [])
    assert torch.get_num_threads() == before
    lines = list(benchmark_lines(benchmark))
    assert sum(line.startswith("batch ") for line in lines) == 2
    assert sum("× teacher" in line for line in lines) == 2


def test_without_its_teacher_speedups_are_over_the_student_and_a_note_says_so(run_folder: Path) -> None:
    (run_folder / "teacher").rename(run_folder / "moved")
    result = CliRunner().invoke(app, ["bench-student", str(run_folder), "--batch", "4", "--seconds", "0"])
    assert result.exit_code == 0, result.output
    assert "× student" in result.output
    assert "note: no teacher to compare with; name its folder with --teacher" in result.output
    first = bench_student(run_folder, batch_sizes=[4], seconds=0, teacher=run_folder / "moved").batch_sizes[4][0]
    assert (first.name, first.score) == ("teacher", None)  # no score: it may be another model than the run's


def test_trimming_options_without_trim_are_a_usage_error(run_folder: Path) -> None:
    result = CliRunner().invoke(app, ["export", str(run_folder), "--no-index"])
    assert result.exit_code == 2
    assert "need --trim" in result.output
