"""Model and tokenizer agree on padding, on the longest text and on token types, whatever their files say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from support.architectures import PLACES, write_model
from support.tiny import LABELS, sentences

from augkd.errors import ModelError
from augkd.models.classifier import Classifier, load_backbone, load_classifier
from augkd.models.layers import from_layers
from augkd.models.student_kinds import build_student

TEXTS: list[tuple[str, str | None]] = [
    (f"{text}{' and more' * (n % 4)}", None) for n, (text, _) in enumerate(sentences()[::9])
]
PAIRS: list[tuple[str, str | None]] = [(text, other) for (text, _), (other, _) in zip(TEXTS, TEXTS[::-1], strict=True)]
LONG: list[tuple[str, str | None]] = [("the cat is here and " * 30, None)]


def load(folder: Path, max_length: int = 512) -> Classifier:
    return load_classifier(str(folder), LABELS, max_length, precision="float32")


def edit(path: Path, **changes: Any) -> None:
    """Changes settings of a JSON file; None removes one."""
    settings = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in settings.items() if value is not None}))


def alone(classifier: Classifier, texts: list[tuple[str, str | None]]) -> torch.Tensor:
    return torch.cat([classifier.predict([text]) for text in texts])


def piped(folder: Path, texts: list[tuple[str, str | None]], batch_size: int) -> torch.Tensor:
    """The probabilities that `pipeline` gives, in the task's order of labels."""
    classify = transformers.pipeline("text-classification", model=str(folder), device="cpu", top_k=None)
    inputs: list[Any] = [text if pair is None else {"text": text, "text_pair": pair} for text, pair in texts]
    rows = classify(inputs, truncation=True, batch_size=batch_size)
    return torch.tensor([[next(e["score"] for e in row if e["label"] == name) for name in LABELS] for row in rows])


# ---- padding ----


@pytest.mark.parametrize("name", ["qwen2", "gpt2"])
def test_a_tokenizer_without_a_padding_token_pads_with_the_model_s(tmp_path: Path, name: str) -> None:
    folder = write_model(name, tmp_path / name, labels=LABELS)
    edit(folder / "tokenizer_config.json", pad_token=None)
    edit(folder / "config.json", pad_token_id=7)
    classifier = load(folder)
    assert (classifier.pad_id, classifier.tokenizer.pad_token_id, classifier.model.config.pad_token_id) == (7, 7, 7)
    torch.testing.assert_close(classifier.predict(TEXTS), alone(classifier, TEXTS), atol=1e-5, rtol=0)
    classifier.tokenizer.pad_token = "<|endoftext|>"  # the twin: with another, the last "token" of a text is padding
    assert not torch.allclose(classifier.predict(TEXTS), alone(classifier, TEXTS), atol=1e-3)


@pytest.mark.parametrize("name", ["gpt2", "qwen2"])
def test_a_decoder_without_a_padding_token_scores_a_text_the_same_alone_in_a_batch_and_in_a_pipeline(
    tmp_path: Path, name: str
) -> None:
    folder = write_model(name, tmp_path / name, labels=LABELS)
    edit(folder / "tokenizer_config.json", pad_token=None, padding_side="left")
    classifier = load(folder)
    expected = alone(classifier, TEXTS)
    torch.testing.assert_close(classifier.predict(TEXTS), expected, atol=1e-5, rtol=0)
    from_layers(classifier, [0, 1, 2]).save(tmp_path / "student")
    for batch_size in (1, 4):
        torch.testing.assert_close(
            piped(tmp_path / "student", TEXTS, batch_size), expected.softmax(1), atol=1e-5, rtol=0
        )


def test_a_padding_token_beyond_the_model_s_vocabulary_is_replaced(tmp_path: Path) -> None:
    folder = write_model("gpt2", tmp_path / "gpt2", labels=LABELS)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})  # and the model was never resized
    tokenizer.save_pretrained(folder)
    classifier = load(folder)
    assert classifier.pad_id < classifier.model.config.vocab_size <= tokenizer.pad_token_id
    torch.testing.assert_close(classifier.predict(TEXTS), alone(classifier, TEXTS), atol=1e-5, rtol=0)


def test_a_decoder_whose_only_special_token_ends_every_text_is_refused(tmp_path: Path) -> None:
    folder = write_model("gpt2", tmp_path / "gpt2", labels=LABELS)
    path = folder / "tokenizer.json"
    settings = json.loads(path.read_text())
    settings["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"]}},
    }
    path.write_text(json.dumps(settings))
    with pytest.raises(ModelError, match=r"has no padding token and no special token .*; set tokenizer.pad_token"):
        load(folder)


def test_a_text_without_any_token_is_one_padding_token(tmp_path: Path) -> None:
    classifier = load(write_model("gpt2", tmp_path / "gpt2", labels=LABELS))
    texts = [("", None), *TEXTS]
    assert classifier.tokens(texts).lengths[0] == 1
    torch.testing.assert_close(classifier.predict(texts), alone(classifier, texts), atol=1e-5, rtol=0)


# ---- positions ----


@pytest.mark.parametrize("name", ["roberta", "xlm-roberta", "mpnet"])
def test_a_model_that_counts_positions_from_its_padding_token_takes_as_many_tokens_as_are_left(
    tmp_path: Path, name: str
) -> None:
    folder = write_model(name, tmp_path / name, labels=LABELS)
    edit(folder / "tokenizer_config.json", model_max_length=None)
    classifier = load(folder)
    assert classifier.model.config.max_position_embeddings == PLACES + 2
    assert classifier.max_length == PLACES
    assert classifier.tokens(LONG).lengths.tolist() == [PLACES]
    assert classifier.predict(LONG).shape == (1, 3)


def test_a_model_of_plain_positions_takes_all_of_them(tmp_path: Path) -> None:
    folder = write_model("distilbert", tmp_path / "distilbert", labels=LABELS)
    edit(folder / "tokenizer_config.json", model_max_length=None)
    assert load(folder).max_length == PLACES


# ---- token types ----


def test_pairs_get_the_token_types_they_were_trained_with_though_the_tokenizer_gives_none(tmp_path: Path) -> None:
    folder = write_model("bert", tmp_path / "bert", labels=LABELS)
    edit(folder / "tokenizer_config.json", model_input_names=["input_ids", "attention_mask"])
    classifier = load(folder)
    own = classifier.predict(PAIRS).softmax(1)
    assert (piped(folder, PAIRS, 1) - own).abs().max() > 1e-3  # the twin: as the teacher's files are
    from_layers(classifier, [0, 1, 2]).save(tmp_path / "student")
    for batch_size in (1, 4):
        torch.testing.assert_close(piped(tmp_path / "student", PAIRS, batch_size), own, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "name", ["bert", "roberta"]
)  # one with token types that its tokenizer does not give, one without
@pytest.mark.parametrize("kind", ["scratch", "bilstm", "static"])
def test_a_small_student_of_pairs_predicts_in_a_pipeline_what_the_run_predicts(
    tmp_path: Path, name: str, kind: str
) -> None:
    folder = write_model(name, tmp_path / name, labels=LABELS)
    edit(folder / "tokenizer_config.json", model_input_names=["input_ids", "attention_mask"])
    student = build_student(kind, {"width": 8}, load(folder, 24), seed=0, pairs=True)
    with torch.no_grad():
        for parameter in student.model.parameters():
            parameter.mul_(8 if parameter.dim() == 2 else 1)  # so that texts differ by more than rounding
    pairs = [*PAIRS, ("the cat is here and " * 20, "a dog")]
    own = student.predict(pairs).softmax(1)
    assert not torch.allclose(own, student.predict([(pair, text) for text, pair in pairs]).softmax(1), atol=1e-4)
    student.save(tmp_path / "student")
    for batch_size in (1, 4):
        torch.testing.assert_close(piped(tmp_path / "student", pairs, batch_size), own, atol=1e-5, rtol=0)


def test_a_model_without_token_types_gets_none_though_the_tokenizer_gives_them(tmp_path: Path) -> None:
    folder = write_model("roberta", tmp_path / "roberta", labels=LABELS)
    transformers.AutoTokenizer.from_pretrained(write_model("bert", tmp_path / "bert")).save_pretrained(folder)
    classifier = load(folder)
    with pytest.raises(Exception, match=r"index|token_type"):
        piped(folder, PAIRS, 1)  # the twin: RoBERTa has one token type only
    classifier.save(tmp_path / "saved")
    torch.testing.assert_close(
        piped(tmp_path / "saved", PAIRS, 4), classifier.predict(PAIRS).softmax(1), atol=1e-5, rtol=0
    )


# ---- weights ----


def test_a_backbone_without_a_head_is_no_teacher(tmp_path: Path) -> None:
    folder = write_model("bert", tmp_path / "bert")
    with pytest.raises(ModelError, match=r"is no trained classifier: it has no weights for classifier.bias; fine-tune"):
        load_classifier(str(folder), ("no", "yes"), 32, output_names=("no", "yes"))
    assert load_backbone(str(folder), ("no", "yes"), 32, seed=0).model.config.num_labels == 2


def test_a_checkpoint_without_part_of_its_backbone_is_refused(tmp_path: Path) -> None:
    folder = write_model("bert", tmp_path / "bert")
    edit(folder / "config.json", num_hidden_layers=4)
    with pytest.raises(ModelError, match=r"no weights of this shape for bert.encoder.layer.3"):
        load_backbone(str(folder), LABELS, 32, seed=0)
    edit(folder / "config.json", num_hidden_layers=3, intermediate_size=48)
    with pytest.raises(ModelError, match=r"no weights of this shape for bert.encoder.layer.0.intermediate"):
        load_backbone(str(folder), LABELS, 32, seed=0)
