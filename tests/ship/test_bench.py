"""The bench's bookkeeping against closed forms, and one real round over every form of a tiny student."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny import LABELS
from typer.testing import CliRunner

from augkd.cli.app import app
from augkd.models.classifier import load_backbone
from augkd.models.student_kinds import build_student
from augkd.ship import bench as bench_student
from augkd.ship.bench import Contender, Times, bench, table
from augkd.ship.export import export
from augkd.workspace.files import write_json
from augkd.workspace.manifests import write_manifest

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")


@pytest.fixture
def run_folder(tmp_path: Path, tiny_bert: Path, task_folder: Path) -> Path:
    """A run with a BERT for a teacher and a static student that is not exported yet."""
    run = tmp_path / "run"
    teacher = load_backbone(str(tiny_bert), LABELS, 32, 0, "float32")
    teacher.save(run / "teacher")
    build_student("static", {"width": 16}, teacher, 0).save(run / "student")
    told: dict[str, Any] = {"max_length": 32, "precision": "auto"}
    options = {"model": "x", "epochs": 1.0}
    recipe = {"task": {"dataset": str(task_folder)}, "teacher": options, "training": told, "data": {}}
    write_manifest(run / "teacher", "teacher", {"task": "t", "teacher": {**options, "model": None}, **told})
    write_manifest(run / "student", "student", {"task": "t"}, recipe=recipe)
    write_manifest(run, "run", {}, recipe=recipe, seed=0)
    write_json(run / "results.json", {"teacher": {"validation": 0.5}, "student": {"validation": 0.25}})
    return run


def contender(name: str = "teacher") -> Contender:
    return Contender(name, "float32", None, lambda inputs: None, 10, None)  # type: ignore[arg-type]


def test_figures_are_medians_percentiles_and_the_median_of_paired_ratios() -> None:
    first, second = Times([4.0, 8.0, 100.0], 96), Times([1.0, 2.0, 10.0], 96)
    row = bench_student._row(contender("student"), second, [first, second])
    assert row["median_ms"] == 2000
    assert row["p95_ms"] == pytest.approx(1000 * (2 + 0.9 * 8))  # linear between the two largest
    assert row["texts_per_second"] == pytest.approx(96 / 13)
    assert row["times_first"] == 4  # of 4, 4 and 10; the ratio of the means would be 8.6
    assert bench_student._row(contender(), first, [first, second])["times_first"] == 1


def test_every_batch_goes_through_all_contenders_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, int]] = []

    def of(name: str) -> Contender:
        return Contender(name, "", None, lambda inputs: seen.append((name, inputs["n"])), 0, None)  # type: ignore

    batches = [{"n": place, "input_ids": torch.zeros(2, 1)} for place in range(5)]
    monkeypatch.setattr(bench_student, "_batches", lambda *_: batches)
    rows = bench_student._measured([of("a"), of("b")], [], 2, 0.0)
    timed = seen[2 * 3 :]  # after three warm-up batches each
    assert timed == [("a", timed[0][1]), ("b", timed[0][1])]  # no time at all: one batch
    assert [row["batches"] for row in rows] == [1, 1]


def test_every_form_of_a_student_is_timed_beside_its_teacher(run_folder: Path) -> None:
    before = torch.get_num_threads()
    without = bench(run_folder, batch_sizes=[4], seconds=0)
    assert [(r["name"], r["precision"]) for r in without["batch_sizes"]["4"]][:2] == [
        ("teacher", "float32"),
        ("student", "float32"),
    ]
    assert any("augkd export" in note for note in without["notes"])

    export(run_folder)
    export(run_folder, trimmed=True, int8=False)
    found = bench(run_folder, batch_sizes=[1, 4], seconds=0, threads=1)
    rows = {(row["name"], row["precision"]): row for row in found["batch_sizes"]["4"]}
    wanted = {
        ("teacher", "float32"),
        ("student", "float32"),
        ("student", "onnx"),
        ("student", "int8"),
        ("trimmed", "onnx"),
    }
    assert set(rows) - {("student", "bfloat16")} == wanted
    assert rows["student", "int8"]["bytes"] == (run_folder / "student/onnx/model_quantized.onnx").stat().st_size
    assert rows["teacher", "float32"]["score"] == 0.5
    assert rows["student", "float32"]["score"] == 0.25
    assert (found["texts"], found["threads"], found["notes"]) == (18, 1, [])
    assert torch.get_num_threads() == before
    lines = list(table(found))
    assert sum(line.startswith("batch ") for line in lines) == 2
    assert sum("× teacher" in line for line in lines) == 2


def test_without_its_teacher_a_student_is_the_measure_and_the_table_says_so(run_folder: Path) -> None:
    (run_folder / "teacher/manifest.json").unlink()
    result = CliRunner().invoke(app, ["bench-student", str(run_folder), "--batch", "4", "--seconds", "0"])
    assert result.exit_code == 0, result.output
    assert "× student" in result.output
    assert "note: no teacher to compare with; name its folder with --teacher" in result.output
    given = bench(run_folder, batch_sizes=[4], seconds=0, teacher=run_folder / "teacher")
    assert given["batch_sizes"]["4"][0]["name"] == "teacher"
    assert given["batch_sizes"]["4"][0]["score"] is None  # another model than the one that was scored


def test_trimming_options_without_trim_are_wrong_usage(run_folder: Path) -> None:
    result = CliRunner().invoke(app, ["export", str(run_folder), "--no-index"])
    assert result.exit_code == 2
    assert "go with --trim" in result.output
