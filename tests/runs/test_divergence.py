"""What diverges in a run stops it with one line, and a lower learning rate in the same folder goes on from there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.command_line import Augkd

from augkd.errors import ModelError, TrainingError
from augkd.recipe import load_recipe
from augkd.retrieval.encoders.distillation import distill
from augkd.runs.run import Run


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def run(recipe: Path, out: Path, *sets: str) -> dict[str, object]:
    return dict(Run(load_recipe(str(recipe), sets), out).results())


def test_a_student_that_diverges_is_no_student_and_a_lower_rate_makes_one(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, augkd = tmp_path / "out", Augkd(monkeypatch, capsys)
    done = augkd("run", recipe_file, "--out", out, "--set", "training.learning_rate=1e6")
    assert done.code == 1
    line = done.err.splitlines()[-1]
    assert line.startswith("error: student: the training diverged: ")
    assert "lower the learning rate (1e+06)" in line
    assert not (out / "student" / "manifest.json").exists()
    assert not (out / "results.json").exists()

    done = augkd("run", recipe_file, "--out", out, "--set", "training.learning_rate=1e-3")
    assert done.code == 0, done.err
    assert all(tensor.isfinite().all() for tensor in load_file(out / "student" / "model.safetensors").values())
    for path in out.rglob("*.json"):
        json.loads(path.read_text(), parse_constant=lambda name, path=path: pytest.fail(f"{path} has {name}"))


def test_a_teacher_that_diverges_is_no_teacher(recipe_file: Path, tmp_path: Path) -> None:
    with pytest.raises(
        TrainingError, match=r"^teacher: the (training diverged|model's outputs are not finite).*lower the learning"
    ):
        run(recipe_file, tmp_path / "out", "teacher.learning_rate=1e6")
    assert not (tmp_path / "out" / "teacher" / "manifest.json").exists()


def test_an_adaptation_that_diverges_is_no_masked_lm(recipe_file: Path, tiny_bert: Path, tmp_path: Path) -> None:
    generator = f"data.generator={{model: {tiny_bert}, adapt: {{steps: 40, batch_size: 8, learning_rate: 1.0e+6}}}}"
    with pytest.raises(TrainingError, match=r"^masked language model: the training diverged.*\(1e\+06\)"):
        run(recipe_file, tmp_path / "out", generator)
    assert not list((tmp_path / "out").glob("masked_lm*/manifest.json"))


def test_a_generator_that_diverges_stops_the_student(recipe_file: Path, tiny_bert: Path, tmp_path: Path) -> None:
    adapt = "adapt: {steps: 2, batch_size: 8}"
    generator = f"data.generator={{model: {tiny_bert}, {adapt}, learning_rate: 1.0e+30, ascend: 8, every: 2}}"
    with pytest.raises(
        TrainingError,
        match=r"^student: the generator diverged: .* step 8; lower data.generator.learning_rate \(1e\+30\)",
    ):
        run(recipe_file, tmp_path / "out", generator)


@pytest.fixture
def damaged_bert(tiny_bert: Path, tmp_path: Path) -> Path:
    """The tiny BERT with one weight that is nan."""
    folder = tmp_path / "damaged"
    shutil.copytree(tiny_bert, folder)
    weights = load_file(folder / "model.safetensors")
    weights["encoder.layer.1.output.dense.weight"][0, 0] = torch.nan
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def test_a_teacher_of_nan_labels_nothing(recipe_file: Path, damaged_bert: Path, tmp_path: Path) -> None:
    from augkd.models.classifier import load_backbone

    with torch.random.fork_rng():
        load_backbone(str(damaged_bert), ("animal", "food", "tool"), 32, 0).save(tmp_path / "teacher-of-nan")
    with pytest.raises(ModelError, match="the teacher's outputs are not finite for "):
        run(recipe_file, tmp_path / "out", f"teacher={{model: {tmp_path / 'teacher-of-nan'}}}")


def test_an_encoder_of_nan_builds_no_index(recipe_file: Path, damaged_bert: Path, tmp_path: Path) -> None:
    encoder = f"data.neighbours.index.encoder={{model: {damaged_bert}, max_length: 32}}"
    with pytest.raises(ModelError, match="the encoder's vectors are not finite for 200 of 200 texts"):
        run(recipe_file, tmp_path / "out", encoder)
    assert not (tmp_path / "out" / "index" / "manifest.json").exists()


@pytest.mark.parametrize("texts", [None, ["a cat", "a dog", "a cat and a dog"] * 20], ids=["plain", "fitted"])
def test_no_static_encoder_is_made_of_a_model_of_nan(damaged_bert: Path, texts: list[str] | None) -> None:
    with pytest.raises(ModelError, match=r"token vectors made from .* are not finite"):
        distill(str(damaged_bert), dim=8, texts=texts)
