"""A student made of teacher layers has their weights, the teacher's embeddings and head, and the task's labels."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.architectures import write_model
from support.tiny import LABELS, sentences

from augkd.errors import ModelError
from augkd.models.classifier import Classifier, load_backbone, load_classifier
from augkd.models.layers import from_layers, layer_list

TEXTS = [(f"{text}{' and more' * (number % 4)}", None) for number, (text, _) in enumerate(sentences()[:12])]
SHUFFLED = ("tool", "animal", "food")


def enlarged(bert: Path, labels: tuple[str, ...] = LABELS, seed: int = 0) -> Classifier:
    """The tiny BERT with matrices ten times as large, so that texts differ by more than rounding."""
    classifier = load_backbone(str(bert), labels, 32, seed=seed, precision="float32")
    with torch.no_grad():
        for parameter in classifier.model.parameters():
            parameter.mul_(10 if parameter.dim() == 2 else 1)
    return classifier


@pytest.fixture
def shuffled(tiny_bert: Path, tmp_path: Path) -> Path:
    """A saved teacher whose outputs are in another order than the task's labels."""
    enlarged(tiny_bert, SHUFFLED).save(tmp_path / "shuffled")
    return tmp_path / "shuffled"


@pytest.mark.parametrize("layers", [[0, 2], [1], [0, 1, 2], [2, 0]])
def test_a_student_has_the_weights_of_the_chosen_layers_and_all_that_is_not_a_layer(
    tiny_bert: Path, layers: list[int]
) -> None:
    teacher = enlarged(tiny_bert)
    student = from_layers(teacher, layers)
    assert student.model.config.num_hidden_layers == len(layer_list(student.model)) == len(layers)
    for student_layer, layer in zip(layer_list(student.model), layers, strict=True):
        expected = layer_list(teacher.model)[layer].state_dict()
        assert all(torch.equal(value, expected[name]) for name, value in student_layer.state_dict().items())
    state = teacher.model.state_dict()
    shared = [(name, value) for name, value in student.model.state_dict().items() if ".layer." not in name]
    assert {"classifier.weight", "classifier.bias"} <= {name for name, _ in shared}
    assert all(torch.equal(value, state[name]) for name, value in shared)


def test_a_student_of_all_layers_is_the_teacher_and_one_of_fewer_is_not(tiny_bert: Path) -> None:
    teacher = enlarged(tiny_bert)
    before = teacher.predict(TEXTS)
    assert torch.equal(from_layers(teacher, [0, 1, 2]).predict(TEXTS), before)
    assert not torch.allclose(from_layers(teacher, [0, 2]).predict(TEXTS), before, atol=1e-3)


def test_training_the_student_leaves_the_teacher_as_it_was(tiny_bert: Path) -> None:
    teacher = enlarged(tiny_bert)
    before = teacher.predict(TEXTS)
    student = from_layers(teacher, [0, 2])
    with torch.no_grad():
        for parameter in student.model.parameters():
            parameter.add_(1)
    assert torch.equal(teacher.predict(TEXTS), before)
    assert len(layer_list(teacher.model)) == 3


@pytest.mark.parametrize("layers", [[3], [0, 12], [-1], []])
def test_a_layer_that_the_teacher_does_not_have_is_refused(tiny_bert: Path, layers: list[int]) -> None:
    with pytest.raises(ModelError, match="the teacher has layers 0 to 2"):
        from_layers(enlarged(tiny_bert), layers)


def test_a_student_has_the_task_s_label_order_in_its_head_and_configuration(shuffled: Path, tmp_path: Path) -> None:
    teacher = load_classifier(str(shuffled), LABELS, 32, precision="float32")
    student = from_layers(teacher, [0, 1, 2])
    assert student.model.config.id2label == dict(enumerate(LABELS))
    assert student.model.config.label2id == {label: place for place, label in enumerate(LABELS)}
    assert torch.equal(student.model.classifier.weight, teacher.model.classifier.weight[[1, 2, 0]])
    assert torch.allclose(student.predict(TEXTS), teacher.predict(TEXTS), atol=1e-6)
    student.save(tmp_path / "student")
    again = load_classifier(str(tmp_path / "student"), LABELS, 32, precision="float32")
    assert again.order == (0, 1, 2)
    assert torch.allclose(again.predict(TEXTS), teacher.predict(TEXTS), atol=1e-6)


# ---- other architectures ----


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        *((name, [0, 2]) for name in ("roberta", "distilbert", "electra", "deberta-v2", "xlm-roberta", "mpnet")),
        *(("modernbert", layers) for layers in ([0, 2], [0, 1])),
        *(("gpt2", [1, 2]), ("qwen2", [0, 2]), ("qwen2", [2])),
    ],
)
def test_a_student_of_any_architecture_predicts_the_same_once_saved_and_loaded(
    name: str, layers: list[int], tmp_path: Path
) -> None:
    teacher = load_classifier(
        str(write_model(name, tmp_path / "teacher", labels=SHUFFLED)), LABELS, 32, precision="float32"
    )
    torch.testing.assert_close(from_layers(teacher, [0, 1, 2]).predict(TEXTS), teacher.predict(TEXTS))
    student = from_layers(teacher, layers)
    assert not torch.allclose(student.predict(TEXTS), teacher.predict(TEXTS), atol=1e-3)
    student.save(tmp_path / "student")
    again = load_classifier(str(tmp_path / "student"), LABELS, 32, precision="float32")
    assert again.model.config.num_hidden_layers == len(layers)
    torch.testing.assert_close(again.predict(TEXTS), student.predict(TEXTS), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("name", "layers"), [("modernbert", [0, 2]), ("qwen2", [2, 0])])
def test_settings_that_list_one_value_per_layer_keep_those_of_the_layers(
    name: str, layers: list[int], tmp_path: Path
) -> None:
    folder = write_model(name, tmp_path / name, labels=LABELS)
    teacher = load_classifier(str(folder), LABELS, 32)
    kinds = teacher.model.config.layer_types
    assert len(set(kinds)) == 2
    assert from_layers(teacher, layers).model.config.layer_types == [kinds[layer] for layer in layers]
    assert teacher.model.config.layer_types == kinds


@pytest.mark.parametrize(
    ("name", "layers", "message"),
    [
        ("t5", [0, 1], "T5ForSequenceClassification has an encoder and a decoder"),
        ("albert", [0, 1], "all layers of AlbertForSequenceClassification share their weights"),
        ("modernbert", [1, 2], r"the layers are not all alike \(model.layers.0.attn_norm.weight\); choose others"),
    ],
)
def test_layers_that_would_not_load_again_as_they_were_trained_are_refused(
    name: str, layers: list[int], message: str, tmp_path: Path
) -> None:
    teacher = load_classifier(str(write_model(name, tmp_path / name, labels=LABELS)), LABELS, 32)
    with pytest.raises(ModelError, match=message) as caught:
        from_layers(teacher, layers)
    assert str(caught.value).endswith("give student.model or student.scratch instead")
    assert "\n" not in str(caught.value)
