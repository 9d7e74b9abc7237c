"""Students are cut from what the teacher has, labels are matched by name, and batching changes no logit."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from support.tiny import LABELS, sentences

from augkd.errors import ModelError
from augkd.models.classifier import (
    Classifier,
    from_layers,
    layer_list,
    load_backbone,
    load_classifier,
    match_labels,
    run,
    uses_bf16,
)

TEXTS = [(f"{text}{' and more' * (number % 4)}", None) for number, (text, _) in enumerate(sentences()[:12])]
SHUFFLED = ("tool", "animal", "food")


def trunk(bert: Path, labels: tuple[str, ...] = LABELS, seed: int = 0) -> Classifier:
    """The tiny BERT with matrices ten times as large, so that texts differ by more than rounding."""
    one = load_backbone(str(bert), labels, 32, seed=seed, precision="float32")
    with torch.no_grad():
        for parameter in one.model.parameters():
            parameter.mul_(10 if parameter.dim() == 2 else 1)
    return one


@pytest.fixture
def shuffled(tiny_bert: Path, tmp_path: Path) -> Path:
    """A saved teacher whose outputs are in another order than the task's labels."""
    trunk(tiny_bert, SHUFFLED).save(tmp_path / "shuffled")
    return tmp_path / "shuffled"


# ---- layers ----


@pytest.mark.parametrize("layers", [[0, 2], [1], [0, 1, 2], [2, 0]])
def test_a_student_has_the_weights_of_the_chosen_layers_and_all_beside_them(tiny_bert: Path, layers: list[int]) -> None:
    teacher = trunk(tiny_bert)
    student = from_layers(teacher, layers)
    assert student.model.config.num_hidden_layers == len(layer_list(student.model)) == len(layers)
    for mine, layer in zip(layer_list(student.model), layers, strict=True):
        wanted = layer_list(teacher.model)[layer].state_dict()
        assert all(torch.equal(value, wanted[name]) for name, value in mine.state_dict().items())
    state = teacher.model.state_dict()
    shared = [(name, value) for name, value in student.model.state_dict().items() if ".layer." not in name]
    assert {"classifier.weight", "classifier.bias"} <= {name for name, _ in shared}
    assert all(torch.equal(value, state[name]) for name, value in shared)


def test_a_student_of_all_layers_is_the_teacher_and_one_of_fewer_is_not(tiny_bert: Path) -> None:
    teacher = trunk(tiny_bert)
    said = teacher.predict(TEXTS)
    assert torch.equal(from_layers(teacher, [0, 1, 2]).predict(TEXTS), said)
    assert not torch.allclose(from_layers(teacher, [0, 2]).predict(TEXTS), said, atol=1e-3)


def test_training_the_student_leaves_the_teacher_as_it_was(tiny_bert: Path) -> None:
    teacher = trunk(tiny_bert)
    said = teacher.predict(TEXTS)
    student = from_layers(teacher, [0, 2])
    with torch.no_grad():
        for parameter in student.model.parameters():
            parameter.add_(1)
    assert torch.equal(teacher.predict(TEXTS), said)
    assert len(layer_list(teacher.model)) == 3


@pytest.mark.parametrize("layers", [[3], [0, 12], [-1], []])
def test_a_layer_the_teacher_has_not_is_refused(tiny_bert: Path, layers: list[int]) -> None:
    with pytest.raises(ModelError, match="the teacher has layers 0 to 2"):
        from_layers(trunk(tiny_bert), layers)


# ---- labels ----


def test_logits_of_a_teacher_with_other_label_order_come_in_the_task_s(shuffled: Path, tiny_bert: Path) -> None:
    plain = load_classifier(str(shuffled), SHUFFLED, 32, precision="float32")
    matched = load_classifier(str(shuffled), LABELS, 32, precision="float32")
    assert plain.order == (0, 1, 2)
    assert matched.order == (1, 2, 0)
    assert torch.equal(matched.predict(TEXTS), plain.predict(TEXTS)[:, [1, 2, 0]])


def test_a_student_cut_from_it_has_the_task_s_order_in_its_head_and_configuration(
    shuffled: Path, tmp_path: Path
) -> None:
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


def test_labels_are_matched_whatever_their_case() -> None:
    assert match_labels("m", {0: "Tool", 1: "ANIMAL", 2: "food"}, LABELS) == (1, 2, 0)


def test_outputs_without_names_are_refused_until_they_are_given() -> None:
    unnamed = {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}
    with pytest.raises(ModelError, match=r"names its outputs LABEL_0….*labels: \[animal, food, tool\]"):
        match_labels("m", unnamed, LABELS)
    assert match_labels("m", unnamed, LABELS, given=SHUFFLED) == (1, 2, 0)
    assert match_labels("m", unnamed, ("LABEL_1", "LABEL_0", "LABEL_2")) == (1, 0, 2)  # a task may be so named


@pytest.mark.parametrize(
    ("names", "given", "said"),
    [
        (("animal", "food"), None, "has 2 outputs .*, the task 3 labels"),
        (("animal", "food", "plant"), None, "has no output 'tool'"),
        (("LABEL_0", "LABEL_1", "LABEL_2"), ("animal", "food"), "has 3 outputs"),
        (("LABEL_0", "LABEL_1", "LABEL_2"), ("animal", "food", "plant"), "has no output 'tool'"),
    ],
)
def test_outputs_that_are_not_the_task_s_labels_are_refused(
    names: tuple[str, ...], given: tuple[str, ...] | None, said: str
) -> None:
    with pytest.raises(ModelError, match=said):
        match_labels("m", dict(enumerate(names)), LABELS, given)


def test_regression_needs_one_output() -> None:
    assert match_labels("m", {0: "LABEL_0"}, ()) is None
    with pytest.raises(ModelError, match="has 2 outputs; a regression task needs 1"):
        match_labels("m", {0: "a", 1: "b"}, ())


# ---- loading ----


def test_a_fresh_head_is_drawn_from_its_seed_and_leaves_the_global_one_alone(tiny_bert: Path) -> None:
    torch.manual_seed(5)
    wanted = torch.rand(1)
    torch.manual_seed(5)
    heads = [trunk(tiny_bert, seed=seed).model.classifier.weight for seed in (0, 0, 1)]
    assert torch.equal(torch.rand(1), wanted)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])
    assert heads[0].shape == (3, 32)
    assert trunk(tiny_bert, ()).model.classifier.weight.shape == (1, 32)


def test_a_saved_classifier_says_the_same_when_loaded(tiny_bert: Path, tmp_path: Path) -> None:
    one = trunk(tiny_bert)
    one.save(tmp_path / "saved")
    again = load_classifier(str(tmp_path / "saved"), LABELS, 32, precision="float32")
    assert torch.equal(again.predict(TEXTS), one.predict(TEXTS))


def test_a_missing_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        load_classifier(str(tmp_path / "none"), LABELS, 32)


def test_the_length_is_cut_to_what_the_model_can_take(tiny_bert: Path) -> None:
    assert load_backbone(str(tiny_bert), LABELS, 512, 0).max_length == 64  # its positions
    assert trunk(tiny_bert).max_length == 32


# ---- tokens and logits ----


def test_a_pair_is_cut_at_its_longer_text_and_has_two_token_types(tiny_bert: Path) -> None:
    one = trunk(tiny_bert)
    pair = one.tokens([("cat " * 50, "dog dog")])
    assert pair.lengths.tolist() == [32]
    assert one.tokenizer.decode(pair.ids).endswith("[SEP] dog dog [SEP]")
    assert pair.types.tolist() == [0] * 29 + [1] * 3
    assert one.tokens([("cat", None)]).types.tolist() == [0, 0, 0]


@pytest.mark.parametrize("budget", [1, 20, 50])
def test_logits_do_not_depend_on_which_rows_share_a_batch(tiny_bert: Path, budget: int) -> None:
    one = trunk(tiny_bert)
    one.model.eval()
    tokens, rows = one.tokens(TEXTS), Counter[str]()
    with torch.no_grad():
        together = run(one.model, tokens, one.pad_id, "float32", rows, "all", budget=10**6)
        apart = run(one.model, tokens, one.pad_id, "float32", rows, "apart", budget=budget)
    assert torch.allclose(together, apart, atol=1e-5)
    assert rows == {"all": 12, "apart": 12}
    assert not torch.allclose(together, together.roll(1, 0), atol=1e-5)  # the order of rows would be seen


def test_what_is_predicted_of_a_text_does_not_depend_on_the_texts_asked_with_it(tiny_bert: Path) -> None:
    one = trunk(tiny_bert)
    one.precision = "bfloat16"
    masks = []
    hook = one.model.register_forward_pre_hook(
        lambda _, __, inputs: masks.append(inputs["attention_mask"]), with_kwargs=True
    )
    texts = [*TEXTS, ("cat " * 25, None)]  # a long one, for whose sake others would be padded
    together = one.predict(texts)
    for place in range(len(texts)):
        assert torch.equal(one.predict(texts[place : place + 1])[0], together[place])
    assert torch.equal(one.predict(texts[::-1]), together.flip(0))
    assert all(bool(mask.all()) for mask in masks)
    hook.remove()


def test_a_pad_token_that_is_not_masked_would_be_seen(tiny_bert: Path) -> None:
    one = trunk(tiny_bert)
    one.model.eval()
    inputs = one.tokens(TEXTS[:4]).padded(one.pad_id)
    with torch.no_grad():
        masked = one.model(**inputs).logits
        unmasked = one.model(input_ids=inputs["input_ids"]).logits
    assert not torch.allclose(masked, unmasked, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_predict_runs_without_dropout_and_restores_the_mode(tiny_bert: Path, training: bool) -> None:
    one = trunk(tiny_bert)
    one.model.train(training)
    assert torch.equal(one.predict(TEXTS), one.predict(TEXTS))
    assert one.model.training is training
    one.model.train()
    dropped = [one.logits(one.tokens(TEXTS), "x") for _ in range(2)]
    assert not torch.equal(*dropped)
    assert dropped[0].requires_grad


def test_no_rows_give_no_logits(tiny_bert: Path) -> None:
    one = trunk(tiny_bert)
    assert len(one.predict([])) == 0
    assert one.rows["evaluation"] == 0


def test_precision_is_what_was_asked_for() -> None:
    cpu = torch.device("cpu")
    assert uses_bf16("bfloat16", cpu) is True
    assert uses_bf16("float32", cpu) is False
