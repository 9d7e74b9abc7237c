"""Labels are matched by name, loading restores what was saved, and batching changes no logit."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny import LABELS, sentences
from torch.utils._python_dispatch import TorchDispatchMode

from augkd.data.target import Target
from augkd.errors import ModelError
from augkd.models.classifier import Classifier, load_backbone, load_classifier, match_labels
from augkd.models.devices import uses_bf16
from augkd.models.tokens import RowGroups

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


# ---- labels ----


def test_logits_come_in_the_task_s_label_order_whatever_the_model_s(shuffled: Path, tiny_bert: Path) -> None:
    plain = load_classifier(str(shuffled), SHUFFLED, 32, precision="float32")
    matched = load_classifier(str(shuffled), LABELS, 32, precision="float32")
    assert plain.order == (0, 1, 2)
    assert matched.order == (1, 2, 0)
    assert torch.equal(matched.predict(TEXTS), plain.predict(TEXTS)[:, [1, 2, 0]])


def test_labels_are_matched_whatever_their_case() -> None:
    assert match_labels("m", {0: "Tool", 1: "ANIMAL", 2: "food"}, Target(LABELS)) == (1, 2, 0)


@pytest.mark.parametrize(
    ("labels", "outputs", "order"),
    [
        (("us", "US", "num"), ("US", "num", "us"), (2, 0, 1)),
        (("us", "US", "num"), ("us", "Us", "NUM"), (0, 1, 2)),  # what is left after exact names is clear
        (("caf\u00e9", "x"), ("x ", "cafe\u0301"), (1, 0)),
    ],
)
def test_labels_that_differ_in_case_only_are_matched_exactly_first(
    labels: tuple[str, ...], outputs: tuple[str, ...], order: tuple[int, ...]
) -> None:
    assert match_labels("m", dict(enumerate(outputs)), Target(labels)) == order


@pytest.mark.parametrize("outputs", [("Us", "uS", "num"), ("us", "us", "num"), ("US", "other", "num")])
def test_outputs_that_could_be_several_labels_are_refused(outputs: tuple[str, ...]) -> None:
    with pytest.raises(ModelError, match=r"has no output 'us' of its own .*labels: "):
        match_labels("m", dict(enumerate(outputs)), Target(("us", "US", "num")))


def test_outputs_without_names_are_refused_until_they_are_given() -> None:
    unnamed = {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}
    with pytest.raises(ModelError, match=r"names its outputs LABEL_0….*labels: \[animal, food, tool\]"):
        match_labels("m", unnamed, Target(LABELS))
    assert match_labels("m", unnamed, Target(LABELS), SHUFFLED) == (1, 2, 0)
    assert match_labels("m", unnamed, Target(("LABEL_1", "LABEL_0", "LABEL_2"))) == (
        1,
        0,
        2,
    )  # a task may have these names


@pytest.mark.parametrize(
    ("names", "output_names", "message"),
    [
        (("animal", "food"), None, "has 2 outputs .*, the task 3 labels"),
        (("animal", "food", "plant"), None, "has no output 'tool'"),
        (("LABEL_0", "LABEL_1", "LABEL_2"), ("animal", "food"), "has 3 outputs"),
        (("LABEL_0", "LABEL_1", "LABEL_2"), ("animal", "food", "plant"), "has no output 'tool'"),
    ],
)
def test_outputs_that_are_not_the_task_s_labels_are_refused(
    names: tuple[str, ...], output_names: tuple[str, ...] | None, message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        match_labels("m", dict(enumerate(names)), Target(LABELS), output_names)


def test_regression_needs_one_output() -> None:
    assert match_labels("m", {0: "LABEL_0"}, Target()) is None
    with pytest.raises(ModelError, match="has 2 outputs; a regression task needs 1"):
        match_labels("m", {0: "a", 1: "b"}, Target())


# ---- loading ----


def test_a_fresh_head_is_drawn_from_its_seed_and_leaves_the_global_one_alone(tiny_bert: Path) -> None:
    torch.manual_seed(5)
    wanted = torch.rand(1)
    torch.manual_seed(5)
    heads = [enlarged(tiny_bert, seed=seed).model.classifier.weight for seed in (0, 0, 1)]
    assert torch.equal(torch.rand(1), wanted)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])
    assert heads[0].shape == (3, 32)
    assert enlarged(tiny_bert, ()).model.classifier.weight.shape == (1, 32)


def test_a_saved_classifier_predicts_the_same_when_loaded(tiny_bert: Path, tmp_path: Path) -> None:
    classifier = enlarged(tiny_bert)
    classifier.save(tmp_path / "saved")
    again = load_classifier(str(tmp_path / "saved"), LABELS, 32, precision="float32")
    assert torch.equal(again.predict(TEXTS), classifier.predict(TEXTS))


def test_a_missing_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        load_classifier(str(tmp_path / "none"), LABELS, 32)


def test_max_length_is_limited_to_the_positions_of_the_model(tiny_bert: Path) -> None:
    assert load_backbone(str(tiny_bert), LABELS, 512, 0).max_length == 64  # its positions
    assert enlarged(tiny_bert).max_length == 32


# ---- tokens and logits ----


def test_a_pair_is_truncated_at_its_longer_text_and_has_two_token_types(tiny_bert: Path) -> None:
    classifier = enlarged(tiny_bert)
    pair = classifier.tokens([("cat " * 50, "dog dog")])
    assert pair.lengths.tolist() == [32]
    assert classifier.tokenizer.decode(pair.ids).endswith("[SEP] dog dog [SEP]")
    assert pair.types.tolist() == [0] * 29 + [1] * 3
    assert classifier.tokens([("cat", None)]).types.tolist() == [0, 0, 0]


@pytest.mark.parametrize("token_budget", [1, 20, 50])
def test_logits_do_not_depend_on_which_rows_share_a_batch(tiny_bert: Path, token_budget: int) -> None:
    classifier = enlarged(tiny_bert)
    classifier.model.eval()
    tokens = classifier.tokens(TEXTS)
    with torch.no_grad():
        together = classifier.logits(tokens, "together", 10**6)
        apart = classifier.logits(tokens, "apart", token_budget)
    assert torch.allclose(together, apart, atol=1e-5)
    assert classifier.rows == {"together": 12, "apart": 12}
    assert not torch.allclose(together, together.roll(1, 0), atol=1e-5)  # a wrong order of rows would show


def test_a_text_s_prediction_does_not_depend_on_the_texts_predicted_with_it(tiny_bert: Path) -> None:
    classifier = enlarged(tiny_bert)
    classifier.precision = "bfloat16"
    masks = []
    hook = classifier.model.register_forward_pre_hook(
        lambda _, __, inputs: masks.append(inputs["attention_mask"]), with_kwargs=True
    )
    texts = [*TEXTS, ("cat " * 25, None)]  # a long one, to which the others would be padded
    together = classifier.predict(texts)
    for place in range(len(texts)):
        assert torch.equal(classifier.predict(texts[place : place + 1])[0], together[place])
    assert torch.equal(classifier.predict(texts[::-1]), together.flip(0))
    lengths = classifier.tokens(texts).widths
    assert all(mask.shape[1] in lengths and int(mask.sum(dim=1).min()) > mask.shape[1] - 4 for mask in masks)
    hook.remove()


def test_a_pad_token_that_is_not_masked_changes_logits(tiny_bert: Path) -> None:
    classifier = enlarged(tiny_bert)
    classifier.model.eval()
    inputs = classifier.tokens(TEXTS[:4]).padded(classifier.pad_id)
    with torch.no_grad():
        masked = classifier.model(**inputs).logits
        unmasked = classifier.model(input_ids=inputs["input_ids"]).logits
    assert not torch.allclose(masked, unmasked, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_predict_runs_without_dropout_and_restores_the_mode(tiny_bert: Path, training: bool) -> None:
    classifier = enlarged(tiny_bert)
    classifier.model.train(training)
    assert torch.equal(classifier.predict(TEXTS), classifier.predict(TEXTS))
    assert classifier.model.training is training
    classifier.model.train()
    dropped = [classifier.logits(classifier.tokens(TEXTS), "x") for _ in range(2)]
    assert not torch.equal(*dropped)
    assert dropped[0].requires_grad


def test_no_rows_give_no_logits(tiny_bert: Path) -> None:
    classifier = enlarged(tiny_bert)
    assert len(classifier.predict([])) == 0
    assert classifier.rows["evaluation"] == 0


def test_precision_is_what_was_asked_for() -> None:
    cpu = torch.device("cpu")
    assert uses_bf16("bfloat16", cpu) is True
    assert uses_bf16("float32", cpu) is False


class Casts(TorchDispatchMode):
    """Counts the matrices that are rounded to bf16, by their shape."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: Counter[torch.Size] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._to_copy.default and (kwargs or {}).get("dtype") is torch.bfloat16:
            self.shapes[args[0].shape] += 1
        return func(*args, **(kwargs or {}))


def test_a_prediction_rounds_each_weight_once_and_training_goes_on_after_it(tiny_bert: Path) -> None:
    classifier = load_backbone(str(tiny_bert), LABELS, 32, seed=0, precision="bfloat16")
    tokens = classifier.tokens(TEXTS)
    groups = RowGroups.of(tokens, 64)
    assert len(list(groups)) > 2
    layers = classifier.model.bert.encoder.layer
    weight = layers[0].intermediate.dense.weight  # no activations have its shape
    with torch.no_grad():
        with Casts() as casts:
            logits = classifier.logits(tokens, "scoring", groups=groups)
        alone = [classifier.logits(tokens.take(rows), "scoring") for rows in groups]
    assert casts.shapes[weight.shape] == len(layers)
    assert logits.equal(groups.restore(alone)), "the same bytes as group by group"
    classifier.logits(tokens, "training", groups=groups).sum().backward()
    assert weight.grad is not None
