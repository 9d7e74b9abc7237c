"""Every architecture as teacher, as student and as both: kd on minimax-selected neighbours, export, `pipeline`.

A row of the matrix is one kind of model with its own kind of tokenizer (`support.architectures`). Each is fine-tuned as
the teacher of a student of its own layers, or of a smaller model where its layers cannot be taken; and, as a finished
checkpoint in half precision and several files, teaches another one, whose tokenizer is another.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from support.architectures import TOKENIZERS, write_model
from support.tiny import LABELS, sentences

from augkd.errors import ModelError
from augkd.models.classifier import Classifier, load_classifier
from augkd.recipe import IndexRecipe, Recipe
from augkd.retrieval.build import build_index
from augkd.runs.plan import plan
from augkd.runs.run import Run
from augkd.ship import export as exporting
from augkd.ship.export import export_student

NAMES = list(TOKENIZERS)
WITHOUT_LAYERS = {"albert": "all layers of Albert.* share their weights", "t5": "T5.* has an encoder and a decoder"}
ILL_CONDITIONED = {"t5"}  # attention that is not scaled makes some hundredths of a logit of float32's rounding
SCRATCH = {"scratch": {"layers": 1, "width": 16, "heads": 2, "intermediate": 16}}
LENGTH = 24  # tokens that texts are cut to in training


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A task of 30 texts, one of them long, with a BM25 index of others."""
    folder = tmp_path_factory.mktemp("architectures")
    rows = [row for number in range(3) for row in sentences(number)[:: 5 + number]]
    splits = {
        "train": rows[:30],
        "validation": rows[30:36],
        "test": [*rows[36:41], ("the cat is here and " * 20, "animal")],
    }
    (folder / "task").mkdir()
    for split, examples in splits.items():
        with (folder / "task" / f"{split}.csv").open("w", newline="") as stream:
            csv.writer(stream).writerows([("text", "label"), *examples])
    (folder / "corpus.txt").write_text("\n".join(text for text, _ in sentences(40)) + "\n")
    corpus = {"corpus": str(folder / "corpus.txt"), "encoder": {"kind": "lexical"}}
    build_index(IndexRecipe.model_validate(corpus), folder / "index")
    return folder


def recipe_of(place: Path, teacher: dict[str, Any], student: dict[str, Any]) -> Recipe:
    return Recipe.model_validate(
        {
            "task": str(place / "task"),
            "teacher": teacher,
            "student": student,
            "data": {"neighbours": {"index": str(place / "index"), "k": 2}, "select": {"minimax": {"keep": 1}}},
            "training": {
                **{"kd": {"weight": 0.5, "temperature": 2.0}, "ce": {"weight": 0.5}},
                **{"epochs": 1, "learning_rate": 1e-2, "batch_size": 8, "max_length": LENGTH, "precision": "float32"},
            },
        }
    )


def texts_of_test(place: Path) -> list[str]:
    with (place / "task" / "test.csv").open(newline="") as stream:
        return [row["text"] for row in csv.DictReader(stream)]


def piped(folder: Path, texts: list[str], batch_size: int) -> torch.Tensor:  # (n, classes)
    """The probabilities that `pipeline` gives, in the task's order of labels."""
    classify = transformers.pipeline("text-classification", model=str(folder), device="cpu", top_k=None)
    rows = classify(texts, truncation=True, batch_size=batch_size)
    return torch.tensor([[next(e["score"] for e in row if e["label"] == name) for name in LABELS] for row in rows])


def check_student(place: Path, out: Path, results: Any) -> None:
    """Candidates were chosen, and the saved student gives in a `pipeline` what the run recorded."""
    assert results["data"]["candidates"] == 60
    assert results["cost"]["scoring_rows"] == 60
    assert results["cost"]["training_rows"] == 30 * 2
    own = load_file(out / "student" / "predictions.safetensors")["test"].softmax(1)
    spread = float((own - own.mean(dim=0)).abs().max())  # a random model's texts differ by little
    for batch_size in (1, 4):
        assert (piped(out / "student", texts_of_test(place), batch_size) - own).abs().max() < spread / 5


@pytest.mark.parametrize("name", NAMES)
def test_an_architecture_teaches_a_student_of_its_own(name: str, place: Path, tmp_path: Path) -> None:
    backbone = write_model(name, tmp_path / name, labels=LABELS)
    teacher = {"model": str(backbone), "epochs": 1, "learning_rate": 1e-2, "batch_size": 8}
    student: dict[str, Any] = {"layers": [0, 2]}
    if name in WITHOUT_LAYERS:
        with pytest.raises(ModelError, match=WITHOUT_LAYERS[name]):
            list(plan(recipe_of(place, teacher, student)))
        student = SCRATCH
    out = tmp_path / "out"
    check_student(place, out, Run(recipe_of(place, teacher, student), out).results())


@pytest.mark.parametrize(("name", "other"), zip(NAMES, [*NAMES[3:], *NAMES[:3]], strict=True))
def test_a_checkpoint_in_half_precision_and_several_files_teaches_another_architecture(
    name: str, other: str, place: Path, tmp_path: Path
) -> None:
    checkpoint = write_model(name, tmp_path / "checkpoint", labels=LABELS[::-1])
    model = transformers.AutoModelForSequenceClassification.from_pretrained(checkpoint, dtype=torch.float32)
    half = torch.bfloat16 if NAMES.index(name) % 2 else torch.float16
    (checkpoint / "model.safetensors").unlink()
    model.to(half).save_pretrained(checkpoint, max_shard_size="2KB")
    assert len(list(checkpoint.glob("model-*-of-*.safetensors"))) > 1

    teacher, student = (
        {"model": str(checkpoint)},
        {"model": str(write_model(other, tmp_path / "student", seed=1, labels=LABELS))},
    )
    out = tmp_path / "out"
    check_student(place, out, Run(recipe_of(place, teacher, student), out).results())
    loaded = load_classifier(str(checkpoint), LABELS, LENGTH, precision="float32")
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.float32}
    expected = loaded.predict([(text, None) for text in texts_of_test(place)])
    recorded = load_file(out / "student" / "predictions.safetensors")["teacher_test"]
    torch.testing.assert_close(recorded, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_an_exported_student_is_the_student(name: str, tmp_path: Path) -> None:
    folder = write_model(name, tmp_path / name, labels=LABELS)
    record = export_student(folder).record
    check = record["checks"]["float32"]
    assert check["logit_difference"]["max"] < 1e-4 or name in ILL_CONDITIONED
    assert check["same_class"] >= 0.95
    assert {"onnx/model.onnx", "onnx/model_quantized.onnx"} == set(record["files"])


@pytest.mark.slow
def test_a_wrong_graph_of_a_model_that_makes_much_of_a_rounding_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, export_graph = write_model("t5", tmp_path / "t5", labels=LABELS), exporting.export_graph

    def wrong(classifier: Classifier) -> Any:
        bias = classifier.model.classification_head.out_proj.bias.data
        bias += 1.0  # the logits reach 13
        graph = export_graph(classifier)
        bias -= 1.0
        return graph

    monkeypatch.setattr(exporting, "export_graph", wrong)
    with pytest.raises(ModelError, match=r"T5For.* differs from PyTorch by 1.* \(allowed: 0\..*; no ONNX was written"):
        export_student(folder)
    assert not (folder / "onnx").exists()
