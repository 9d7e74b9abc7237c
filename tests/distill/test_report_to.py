"""`training.report_to`: trackers get the log as it is written; the student is the same with and without them."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny import LABELS, sentences
from transformers.integrations import INTEGRATION_TO_CALLBACK

from augkd.data.transfer_set import TransferSet, in_memory
from augkd.distill.arguments import arguments, logs_of
from augkd.distill.dataset import DistillationDataset
from augkd.distill.stages import train_stages
from augkd.errors import RecipeError
from augkd.models.classifier import Classifier, load_backbone
from augkd.recipe import Recipe, TrainingOptions, dump, load_recipe
from augkd.recipe.training import TRACKERS

WATCHED = "training.report_to=tensorboard"
COMMON = {"batch_size": 4, "epochs": 1, "learning_rate": 1e-2, "precision": "float32"}


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    """Tag → step → value of TensorBoard's files, read by its own reader."""
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = reader.EventAccumulator(str(folder))
    events.Reload()
    return {tag: {event.step: event.value for event in events.Scalars(tag)} for tag in events.Tags()["scalars"]}


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    torch.set_num_threads(1)


def transfer() -> TransferSet:
    """Eight originals with two candidates each."""
    draw = torch.Generator().manual_seed(0)
    texts = iter(sentences())

    def row(**more: Any) -> dict[str, Any]:
        text, label = next(texts)
        logits = torch.randn(3, generator=draw).tolist()
        return {"id": text, "text": text, "text_pair": None, "label": label, "teacher_logits": logits, **more}

    def candidate() -> dict[str, Any]:
        values = row(source="neighbours", score=float(torch.rand(1, generator=draw)))
        del values["label"]
        return values

    return in_memory([row(candidates=[candidate(), candidate()]) for _ in range(8)], LABELS)


def trained(tiny_bert: Path, student: Path, report_to: str | None, *stages: dict[str, Any]) -> tuple[Classifier, Any]:
    """A student trained as a run trains one in folder `student`, its checkpoints removed."""
    classifier = load_backbone(str(tiny_bert), LABELS, 32, seed=0, precision="float32")
    stage_arguments = []
    for number, stage in enumerate(stages, 1):
        options = TrainingOptions.model_validate({**COMMON, "report_to": report_to, **stage})
        output = student / "checkpoints" / f"stage-{number}"
        stage_arguments.append(arguments(output, options, 0, "accuracy", selector={"minimax": {"keep": 1}}))
        stage_arguments[-1].logging_steps = 1
    done = train_stages(
        classifier, stage_arguments, DistillationDataset(classifier, transfer()), lambda _: {"accuracy": 0.5}
    )
    shutil.rmtree(student / "checkpoints")
    return classifier, done


def test_tensorboard_shows_the_figures_of_the_log_including_the_selection(tiny_bert: Path, tmp_path: Path) -> None:
    _, done = trained(tiny_bert, tmp_path, "tensorboard", {"kd": {}})
    shown = scalars(tmp_path / "logs" / "stage-1")
    for key, tag in (
        ("loss", "train/loss"),
        ("eval_accuracy", "eval/accuracy"),
        ("selection/similarity", "train/selection/similarity"),
        ("selection/divergence_picked", "train/selection/divergence_picked"),
        ("selection/divergence_pool", "train/selection/divergence_pool"),
    ):
        logged = {entry["step"]: entry[key] for entry in done.log if key in entry}
        assert logged
        assert shown[tag] == pytest.approx(logged, rel=1e-6), key


def test_the_student_is_the_same_with_a_tracker_and_without(tiny_bert: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    watched, _ = trained(tiny_bert, tmp_path / "watched", "tensorboard", {"kd": {}})
    alone, _ = trained(tiny_bert, tmp_path / "alone", None, {"kd": {}})
    for name, value in alone.model.state_dict().items():
        assert torch.equal(watched.model.state_dict()[name], value), name
    assert list((tmp_path / "watched" / "logs").rglob("events.out.tfevents.*"))
    assert not list((tmp_path / "alone").rglob("*"))


def test_each_stage_has_its_own_folder(tiny_bert: Path, tmp_path: Path) -> None:
    _, done = trained(tiny_bert, tmp_path, "tensorboard", {"logit_regression": {}}, {"ce": {}})
    for stage in (1, 2):
        shown = scalars(tmp_path / "logs" / f"stage-{stage}")
        logged = {entry["step"]: entry["loss"] for entry in done.log if entry["stage"] == stage and "loss" in entry}
        assert shown["train/loss"] == pytest.approx(logged, rel=1e-6)


def test_logs_are_beside_the_checkpoints_and_never_among_them() -> None:
    assert logs_of(Path("one/student/checkpoints/stage-2")) == Path("one/student/logs/stage-2")
    assert logs_of(Path("one/teacher/checkpoints")) == Path("one/teacher/logs")
    assert logs_of(Path("own")) == Path("own/logs")


def options_of(**given: Any) -> TrainingOptions:
    return TrainingOptions.model_validate({"kd": {}, **given})


def test_nothing_is_reported_unless_it_is_asked_for(tmp_path: Path) -> None:
    assert arguments(tmp_path, options_of(), 0, "accuracy").report_to == []
    assert arguments(tmp_path, options_of(report_to="none"), 0, "accuracy").report_to == []
    pytest.importorskip("tensorboard")
    assert arguments(tmp_path, options_of(report_to=["tensorboard"]), 0, "accuracy").report_to == ["tensorboard"]


def test_report_to_is_in_no_fingerprint_but_in_a_plain_dump(recipe_file: Path) -> None:
    pytest.importorskip("tensorboard")
    plain, watched = load_recipe(str(recipe_file)), load_recipe(str(recipe_file), [WATCHED])
    assert dump(watched) == dump(plain)
    assert "report_to" not in dump(watched)["training"]
    copied = Recipe.model_validate(watched.model_dump(mode="json"))  # as controls are made
    assert copied.training.trackers == ["tensorboard"]


def test_every_tracker_is_one_that_transformers_knows() -> None:
    assert set(INTEGRATION_TO_CALLBACK) - set(TRACKERS) <= {"kubeflow"}  # reports to a server, has no package
    assert set(TRACKERS) <= set(INTEGRATION_TO_CALLBACK)


def test_a_misspelt_or_missing_tracker_is_an_error_before_anything_runs(
    recipe_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RecipeError, match="no tracker 'tensorbord'; did you mean 'tensorboard'"):
        load_recipe(str(recipe_file), ["training.report_to=tensorbord"])
    training = importlib.import_module("augkd.recipe.training")
    monkeypatch.setattr(training, "find_spec", lambda name: None)
    with pytest.raises(RecipeError, match=r"tensorboard is not installed; pip install 'augkd\[tensorboard\]'"):
        load_recipe(str(recipe_file), [WATCHED])


def test_a_stage_cannot_have_its_own_tracker(recipe_file: Path) -> None:
    stages = "training={stages: [{ce: {}, report_to: tensorboard}]}"
    with pytest.raises(RecipeError, match="stage 1 has 'report_to', which all stages share"):
        load_recipe(str(recipe_file), [stages])
