"""Students of other kinds read, save, load and export as a transformer does; padding and other rows change no logit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from sklearn.decomposition import PCA
from support.architectures import write_model
from support.tiny import LABELS
from torch import Tensor, nn

from augkd.data.target import Target
from augkd.errors import ModelError
from augkd.models import small_students
from augkd.models.classifier import Classifier, load_backbone, load_classifier
from augkd.models.layers import layer_list
from augkd.models.small_students.bilstm import BiLSTMConfig, BiLSTMForSequenceClassification
from augkd.models.small_students.siamese import compare_texts, text_masks
from augkd.models.small_students.static import StaticConfig, StaticForSequenceClassification
from augkd.models.student_kinds import STUDENTS, build_student, embeddings_from, smaller
from augkd.models.tokens import takes_token_types

OPTIONS: dict[str, dict[str, Any]] = {
    "bilstm": {"width": 16, "hidden": 8, "layers": 2, "dense": 12},
    "static": {"width": 16},
    "scratch": {"width": 16, "heads": 2, "intermediate": 24},
}
SINGLE = [("the cat is here", None), ("a dog", None), ("she bought bread and a very long saw in the house", None)]
PAIRS = [("the cat is here", "a cat"), ("a dog", "two of them saw a horse in the house"), ("soup", "soup")]


@pytest.fixture(scope="module")
def teacher(tiny_bert: Path) -> Classifier:
    return load_backbone(str(tiny_bert), LABELS, 32, seed=0, precision="float32")


def build(kind: str, teacher: Classifier, pairs: bool = False, seed: int = 0, **changes: Any) -> Classifier:
    student = build_student(kind, OPTIONS[kind] | changes, teacher, seed, pairs)
    student.model.eval()
    return student


def enlarge(student: Classifier) -> Classifier:
    """Ten times the matrices where they start small, so that texts differ by more than rounding."""
    with torch.no_grad():
        for parameter in student.model.parameters():
            parameter.mul_(10 if parameter.dim() == 2 and float(parameter.std()) < 0.1 else 1)
    return student


def padded(student: Classifier, texts: list[Any]) -> dict[str, Tensor]:
    inputs = student.tokens(texts).padded(student.pad_id)
    return {
        name: value for name, value in inputs.items() if name != "token_type_ids" or takes_token_types(student.model)
    }


# ---- every kind ----


@pytest.mark.parametrize("pairs", [False, True], ids=["single", "pairs"])
@pytest.mark.parametrize("kind", sorted(STUDENTS))
def test_a_saved_student_predicts_the_same_when_loaded(
    kind: str, pairs: bool, teacher: Classifier, tmp_path: Path
) -> None:
    student = enlarge(build(kind, teacher, pairs))
    texts = PAIRS if pairs else SINGLE
    logits = student.predict(texts)
    student.save(tmp_path)
    again = load_classifier(str(tmp_path), LABELS, 32, precision="float32")
    assert torch.equal(again.predict(texts), logits)
    assert again.model.config.id2label == dict(enumerate(LABELS))
    assert (tmp_path / "model.safetensors").exists()
    pipeline = transformers.pipeline("text-classification", str(tmp_path), top_k=None)
    text, other = texts[0]
    entries = pipeline([{"text": text, "text_pair": other} if pairs else text])[0]
    scores = torch.tensor([next(entry["score"] for entry in entries if entry["label"] == label) for label in LABELS])
    torch.testing.assert_close(scores, logits[0].softmax(0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pairs", [False, True], ids=["single", "pairs"])
@pytest.mark.parametrize("kind", sorted(STUDENTS))
def test_neither_padding_nor_other_rows_change_a_logit(kind: str, pairs: bool, teacher: Classifier) -> None:
    student = enlarge(build(kind, teacher, pairs))
    texts = PAIRS if pairs else SINGLE
    together = student.predict(texts)
    alone = torch.cat([student.predict([text]) for text in texts])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    wide = {name: nn.functional.pad(value, (0, 7)) for name, value in padded(student, texts).items()}
    with torch.no_grad():
        torch.testing.assert_close(student.model(**wide).logits, together, rtol=1e-4, atol=1e-5)
        wide["attention_mask"][:] = 1  # and it is the mask that does it
        assert not torch.allclose(student.model(**wide).logits, together, atol=1e-4)


@pytest.mark.parametrize("kind", ["bilstm", "static"])
@pytest.mark.parametrize("pairs", [False, True], ids=["single", "pairs"])
def test_padding_on_the_left_changes_no_logit(kind: str, pairs: bool, teacher: Classifier) -> None:
    student = enlarge(build(kind, teacher, pairs))
    texts = PAIRS if pairs else SINGLE
    left = {name: nn.functional.pad(value, (5, 0)) for name, value in padded(student, texts).items()}
    with torch.no_grad():
        torch.testing.assert_close(student.model(**left).logits, student.predict(texts), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", sorted(STUDENTS))
def test_a_student_is_drawn_from_its_seed_and_leaves_the_global_one_alone(kind: str, teacher: Classifier) -> None:
    torch.manual_seed(5)
    wanted = torch.rand(1)
    torch.manual_seed(5)
    heads = [build(kind, teacher, seed=seed).model.classifier.weight for seed in (0, 0, 1)]
    assert torch.equal(torch.rand(1), wanted)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


@pytest.mark.parametrize("kind", sorted(STUDENTS))
def test_a_student_of_a_regression_has_one_output(kind: str, tiny_bert: Path) -> None:
    student = build(kind, load_backbone(str(tiny_bert), (), 32, seed=0, precision="float32"))
    assert student.predict(SINGLE).shape == (3, 1)
    assert student.model.config.problem_type == "regression"


@pytest.mark.parametrize("kind", ["bilstm", "static"])
def test_the_loss_is_that_of_its_logits(kind: str, teacher: Classifier) -> None:
    student = build(kind, teacher)
    labels = torch.tensor([0, 2, 1])
    output = student.model(**padded(student, SINGLE), labels=labels)
    torch.testing.assert_close(output.loss, nn.functional.cross_entropy(output.logits, labels))


@pytest.mark.parametrize("pairs", [False, True], ids=["single", "pairs"])
@pytest.mark.parametrize("kind", ["bilstm", "static"])
def test_vectors_given_instead_of_ids_give_the_same_logits(kind: str, pairs: bool, teacher: Classifier) -> None:
    student = build(kind, teacher, pairs)
    inputs = padded(student, PAIRS if pairs else SINGLE)
    with torch.no_grad():
        expected = student.model(**inputs).logits
        vectors = student.model.get_input_embeddings()(inputs.pop("input_ids"))
        assert torch.equal(student.model(inputs_embeds=vectors, **inputs).logits, expected)


@pytest.mark.parametrize("kind", ["bilstm", "static"])
def test_bf16_predicts_nearly_the_same(kind: str, teacher: Classifier) -> None:
    student = build(kind, teacher)
    logits = student.predict(SINGLE)
    student.precision = "bfloat16"
    torch.testing.assert_close(student.predict(SINGLE), logits, rtol=0.05, atol=0.02)


# ---- augkd's own architectures ----


def test_a_bilstm_is_torch_s_over_each_text_alone() -> None:
    torch.manual_seed(0)
    model = BiLSTMForSequenceClassification(BiLSTMConfig(vocab_size=50, width=6, hidden=4, num_labels=3)).eval()
    layer = model.layers[0]
    oracle = nn.LSTM(6, 4, batch_first=True, bidirectional=True)
    state = {f"{name}": value for name, value in layer.forward_lstm.state_dict().items()}
    state |= {f"{name}_reverse": value for name, value in layer.backward_lstm.state_dict().items()}
    oracle.load_state_dict(state)
    ids = torch.randint(0, 50, (1, 9))
    with torch.no_grad():
        _, (last, _) = oracle(model.embedding(ids))
        wanted = model.classifier(model.dense(torch.cat([last[0], last[1]], dim=-1)).relu())
        torch.testing.assert_close(model(ids).logits, wanted)


def test_a_static_student_is_a_linear_layer_on_the_weighted_mean() -> None:
    torch.manual_seed(0)
    model = StaticForSequenceClassification(StaticConfig(vocab_size=50, width=4, num_labels=3)).eval()
    ids = torch.tensor([[3, 7, 7, 9]])
    table = model.embedding.weight.detach()
    assert torch.equal(table[:, 4], torch.zeros(50))  # log-weights: it starts as the plain mean
    plain = model.classifier(table[ids[0], :4].mean(dim=0))
    torch.testing.assert_close(model(ids).logits[0], plain)
    with torch.no_grad():
        model.embedding.weight[7, 4] = np.log(3.0)
    weights = torch.tensor([1.0, 3.0, 3.0, 1.0])
    wanted = model.classifier((weights[:, None] * table[ids[0], :4]).sum(0) / 8)
    torch.testing.assert_close(model(ids).logits[0], wanted)
    assert StaticForSequenceClassification(StaticConfig(width=4, weighted=False)).embedding.weight.shape[1] == 4


@pytest.mark.parametrize("kind", ["bilstm", "static"])
def test_the_texts_of_a_pair_are_read_separately_and_as_one_by_a_model_of_single_texts(
    kind: str, teacher: Classifier
) -> None:
    separate, joined = build(kind, teacher, True), build(kind, teacher)
    assert (separate.model.config.type_vocab_size, joined.model.config.type_vocab_size) == (2, 1)
    inputs = padded(separate, PAIRS)
    with torch.no_grad():
        by_types = separate.model(**inputs).logits
        by_separator = separate.model(inputs["input_ids"], inputs["attention_mask"]).logits
        swapped = separate.model(**padded(separate, [(b, a) for a, b in PAIRS])).logits
    assert torch.equal(by_types, by_separator)
    assert not torch.allclose(by_types[:2], swapped[:2], atol=1e-5)
    assert joined.predict(PAIRS).shape == (3, 3)


def test_without_token_types_the_second_text_begins_after_the_first_separator() -> None:
    ids = torch.tensor([[0, 5, 2, 2, 6, 2, 1], [0, 5, 5, 2, 1, 1, 1]])  # <s> a </s> </s> b </s>, and a single text
    mask = (ids != 1).long()
    first, second = text_masks(ids, mask, None, 2)
    assert first.tolist() == [[True] * 3 + [False] * 4, [True] * 4 + [False] * 3]
    assert second.tolist() == [[False] * 3 + [True] * 3 + [False], [False] * 7]
    with pytest.raises(ValueError, match="needs token_type_ids"):
        text_masks(None, mask, None, 2)


def test_two_vectors_are_compared_as_in_the_paper() -> None:
    first, second = torch.tensor([[1.0, -2.0]]), torch.tensor([[3.0, 4.0]])
    assert compare_texts([first, second]).tolist() == [[1, -2, 3, 4, 2, 6, 3, -8]]
    assert compare_texts([first]) is first


@pytest.mark.parametrize("kind", ["bilstm", "static"])
def test_an_empty_text_is_zeros_and_its_gradient_is_finite(kind: str, teacher: Classifier) -> None:
    student = build(kind, teacher, True)
    inputs = padded(student, [("a cat", None)])
    student.model(**inputs).logits.sum().backward()
    gradient = student.model.get_input_embeddings().weight.grad
    assert gradient is not None
    assert bool(gradient.isfinite().all())
    assert float(gradient.abs().sum()) > 0


def test_the_layers_of_a_bilstm_are_found_as_a_transformer_s_are(teacher: Classifier) -> None:
    assert len(layer_list(build("bilstm", teacher).model)) == 2


@pytest.mark.slow
@pytest.mark.parametrize("pairs", [False, True], ids=["single", "pairs"])
@pytest.mark.parametrize("kind", ["bilstm", "static"])
def test_an_exported_student_predicts_the_same_for_any_batch_and_length(
    kind: str, pairs: bool, teacher: Classifier, tmp_path: Path
) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    shallow = {"layers": 1} if kind == "bilstm" else {}  # the time of an export grows with its LSTMs
    student = enlarge(build(kind, teacher, pairs, **shallow))
    inputs = padded(student, PAIRS if pairs else SINGLE)
    free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    path = str(tmp_path / "student.onnx")
    # torch 2.13 replaces the LSTM's kernel while it exports, but the first export of a process leaves the old one in
    # this cache, and the next export unrolls the LSTM at one fixed length
    torch.ops.aten.lstm.input._dispatch_cache.clear()
    torch.onnx.export(
        student.model,
        kwargs=inputs,
        f=path,
        dynamo=True,
        dynamic_shapes=dict.fromkeys(inputs, free),
        input_names=list(inputs),
        output_names=["logits"],
        verbose=False,
    )
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for rows in (inputs, padded(student, (PAIRS if pairs else SINGLE)[:1]), padded(student, [*PAIRS, *PAIRS[:2]])):
        logits = session.run(None, {name: value.numpy() for name, value in rows.items()})[0]
        with torch.no_grad():
            np.testing.assert_allclose(logits, student.model(**rows).logits.numpy(), rtol=1e-4, atol=1e-5)


def test_registering_twice_prints_nothing_and_leaves_both_kinds_known(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    small_students.register_models()
    small_students.register_models()
    assert (caplog.text, *capsys.readouterr(), len(recwarn)) == ("", "", "", 0)
    assert type(transformers.AutoConfig.for_model("augkd_bilstm")) is BiLSTMConfig
    config = transformers.AutoConfig.for_model("augkd_static", vocab_size=9, width=4)
    model = transformers.AutoModelForSequenceClassification.from_config(config)
    assert type(model) is StaticForSequenceClassification


# ---- initialisation ----


def test_reduced_vectors_are_scikit_learn_s_principal_components(teacher: Classifier) -> None:
    table = teacher.model.get_input_embeddings().weight.detach()
    reduced = embeddings_from(teacher.model, 5)
    expected = PCA(5, svd_solver="full").fit_transform(table.double().numpy())
    np.testing.assert_allclose(reduced.abs().numpy(), np.abs(expected), rtol=1e-3, atol=1e-5)
    assert torch.equal(embeddings_from(teacher.model, 32), table)


@pytest.mark.parametrize("kind", ["bilstm", "static"])
def test_a_student_starts_from_the_teacher_s_vectors_unless_pretrained_is_false(kind: str, teacher: Classifier) -> None:
    initial = build(kind, teacher).model.embedding.weight.detach()[:, :16]
    expected = embeddings_from(teacher.model, 16)
    torch.testing.assert_close(initial, expected / expected.square().mean().sqrt())
    assert float(initial.square().mean()) == pytest.approx(1.0, rel=1e-3)
    fresh = build(kind, teacher, pretrained=False).model.embedding.weight.detach()[:, :16]
    assert float(fresh.std()) == pytest.approx(1.0, rel=0.01)
    assert not torch.allclose(fresh, initial, atol=0.1)


def test_a_smaller_transformer_has_the_sizes_asked_for_and_nothing_of_the_teacher_s_weights(
    teacher: Classifier,
) -> None:
    student = build("scratch", teacher)
    config = student.model.config
    assert (config.num_hidden_layers, config.hidden_size, config.num_attention_heads) == (2, 16, 2)
    assert config.intermediate_size == 24
    assert type(student.model) is type(teacher.model)
    assert student.tokenizer is teacher.tokenizer
    assert student.max_length == 32


@pytest.mark.parametrize("kind", ["DistilBertConfig", "RobertaConfig", "ElectraConfig", "ModernBertConfig"])
def test_other_architectures_are_made_smaller_too(kind: str) -> None:
    config = getattr(transformers, kind)(vocab_size=60, pad_token_id=0)
    model = smaller(config, Target(LABELS), layers=1, width=16, heads=2, intermediate=24)
    assert sum(parameter.numel() for parameter in model.parameters()) < 120_000
    assert model.config.num_labels == 3
    logits = model(input_ids=torch.tensor([[1, 5, 6, 2]]), attention_mask=torch.ones(1, 4).long()).logits
    assert logits.shape == (1, 3)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("bilsmt", {}, "there is no student 'bilsmt'; did you mean 'bilstm'"),
        ("bilstm", {"hiden": 4}, "did you mean 'hidden'"),
        ("bilstm", {"width": 33}, "width 33 is more than .* have \\(32\\)"),
        ("static", {"dropout": 1.0}, "student.static.dropout is 1.0"),
        ("static", {"width": 0}, "student.static.width is 0"),
        ("static", {"pretrained": 1}, "give true or false"),
        ("scratch", {"width": 10, "heads": 4}, "width 10 is not a multiple of its 4 heads"),
    ],
)
def test_what_cannot_be_built_is_refused_in_one_line(
    kind: str, options: dict[str, Any], message: str, teacher: Classifier
) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        build_student(kind, options, teacher, seed=0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["qwen2", "t5", "modernbert", "gpt2"])
def test_a_smaller_model_of_any_architecture_has_all_its_sizes(name: str, tmp_path: Path) -> None:
    teacher = load_classifier(str(write_model(name, tmp_path / name, labels=LABELS)), LABELS, 32, precision="float32")
    student = build_student("scratch", {"layers": 2, "width": 24, "heads": 4, "intermediate": 20}, teacher, 0)
    config = student.model.config
    assert (config.num_hidden_layers, config.hidden_size, config.num_attention_heads) == (2, 24, 4)
    assert getattr(config, "num_key_value_heads", 4) == 4
    assert getattr(config, "num_decoder_layers", 2) == 2
    student.save(tmp_path / "student")
    again = load_classifier(str(tmp_path / "student"), LABELS, 32, precision="float32")
    texts = [("the cat", None), ("is here and there", None)]
    torch.testing.assert_close(again.predict(texts), student.predict(texts), atol=1e-5, rtol=0)
