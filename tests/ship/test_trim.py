"""Trimmed vocabularies against whole ones: the same tokens and, bit for bit, the same logits."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.tiny import sentences
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
    pipeline,
)

from augkd.errors import ModelError
from augkd.models.classifier import Classifier, load_backbone, load_classifier
from augkd.ship import tokenizer_kinds
from augkd.ship.trim import trim

TEXTS = [text for text, _ in sentences()] + ["naïve café ☃ 東京", "", "don't re-tokenise UNBELIEVABLY"]
SPECIAL = ["<pad>", "<unk>", "<s>", "</s>"]


def classifier_with(tokenizer: Any, pad: int = 0) -> Classifier:
    """A tiny random BERT with this tokenizer."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=64, pad_token_id=pad, num_labels=3,
    )  # fmt: skip
    return Classifier(BertForSequenceClassification(config).eval(), tokenizer, ("a", "b", "c"), 64, precision="float32")


def wrapped(backend: Tokenizer) -> Any:
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> $B </s>",
        special_tokens=[(token, backend.token_to_id(token)) for token in ("<s>", "</s>")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


def unigram(entries: Sequence[tuple[str, float]]) -> Any:
    backend = Tokenizer(models.Unigram([*((token, 0.0) for token in SPECIAL), *entries], unk_id=1))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    return wrapped(backend)


def byte_level() -> Any:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(
        [*TEXTS, "the unbelievable house was there and the weather gathered others"] * 3, trainer
    )
    return wrapped(backend)


def assert_exact(before: Classifier, folder: Path, texts: Sequence[str], kept: np.ndarray[Any, Any]) -> None:
    after = load_classifier(str(folder), before.labels, before.max_length, before.labels, precision="float32")
    pairs = [(text, None) for text in texts]
    old, new = before.tokens(pairs), after.tokens(pairs)
    assert kept[new.ids.numpy()].tolist() == old.ids.tolist()
    assert torch.equal(before.predict(pairs), after.predict(pairs))
    assert after.model.get_input_embeddings().weight.shape[0] == len(after.tokenizer) == len(kept)


def copied(classifier: Classifier) -> Classifier:
    import copy

    return Classifier(
        copy.deepcopy(classifier.model),
        classifier.tokenizer,
        classifier.labels,
        classifier.max_length,
        precision="float32",
    )


@pytest.fixture(scope="module")
def bert(tiny_bert: Path) -> Classifier:
    """The tiny BERT with a head and the bundled WordPiece tokenizer."""
    classifier = load_backbone(str(tiny_bert), ("animal", "food", "tool"), 32, 0, "float32")
    classifier.model.eval()
    return classifier


# ---- WordPiece ----


def test_wordpiece_is_exact_on_its_texts_and_much_smaller(bert: Classifier, tmp_path: Path) -> None:
    vocabulary = trim(copied(bert), lambda: TEXTS, tmp_path)
    assert vocabulary.before == 30522
    assert len(vocabulary.kept) < 2500  # about 2,000 of them single characters
    assert_exact(bert, tmp_path, TEXTS, vocabulary.kept)


def test_a_trimmed_student_opens_in_a_transformers_pipeline(bert: Classifier, tmp_path: Path) -> None:
    trim(copied(bert), lambda: TEXTS, tmp_path)
    (scores,) = pipeline("text-classification", str(tmp_path), top_k=None)([TEXTS[0]])
    expected = bert.predict([(TEXTS[0], None)]).softmax(-1)[0]
    assert {row["label"]: pytest.approx(row["score"], abs=1e-6) for row in scores} == dict(
        zip(bert.labels, expected.tolist(), strict=True)
    )


def test_new_words_are_split_into_characters_and_without_them_become_unknown(bert: Classifier, tmp_path: Path) -> None:
    new = "zygomorphic"
    for characters, unknown in ((True, False), (False, True)):
        folder = tmp_path / str(characters)
        trim(copied(bert), lambda: TEXTS, folder, characters=characters)
        tokens = AutoTokenizer.from_pretrained(folder).tokenize(new)
        assert ("[UNK]" in tokens) is unknown
        assert unknown or "".join(token.removeprefix("##") for token in tokens) == new


def word_pieces() -> Any:
    """`abcd` is unknown: greedy matching takes `abc`, and there is no `##d`. With `ab` alone, `##cd` would match."""
    ids = {token: i for i, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "ab", "abc", "##cd", "x"])}
    backend = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    )


def test_an_unknown_word_stays_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["ab abcd", "xcd"]  # ab and ##cd occur, abc does not
    whole = classifier_with(word_pieces())
    assert whole.tokenizer.tokenize("abcd") == ["[UNK]"]
    vocabulary = trim(copied(whole), lambda: texts, tmp_path / "right")
    assert_exact(whole, tmp_path / "right", texts, vocabulary.kept)

    monkeypatch.setattr(
        tokenizer_kinds, "_greedy_matches", lambda *_: set()
    )  # the twin: without `abc`, abcd is ab + ##cd
    with pytest.raises(ModelError, match=r"splits 'ab abcd' differently .* export without --trim"):
        trim(copied(whole), lambda: texts, tmp_path / "wrong")


# ---- Unigram ----

ENTRIES = [
    *(("▁", -3.0), ("a", -4.0), ("b", -12.0), ("c", -4.5), ("d", -7.0), ("e", -7.5), ("ab", -5.0), ("▁ab", -6.0)),
    *(("cde", -14.0), ("de", -9.0), ("bcde", -2.0), ("zzz", -40.0)),
]


def test_unigram_is_exact_on_its_texts(tmp_path: Path) -> None:
    texts = ["ab cde", "abcde a☃b", "de ab ab", "bb", "abba cab"]
    whole = classifier_with(unigram(ENTRIES))
    vocabulary = trim(copied(whole), lambda: texts, tmp_path)
    assert len(vocabulary.kept) < vocabulary.before
    assert_exact(whole, tmp_path, texts, vocabulary.kept)


def test_unigram_needs_its_least_likely_entry_and_its_characters(tmp_path: Path) -> None:
    """Without `zzz` at -40, a character without an entry scores -24 and not -50: ☃☃ would be likelier than before."""
    whole = classifier_with(unigram(ENTRIES))
    vocabulary = trim(copied(whole), lambda: ["ab"], tmp_path)
    kept = {whole.tokenizer.convert_ids_to_tokens(int(token)) for token in vocabulary.kept}
    assert {"zzz", "▁", *"abcde"} <= kept
    assert not {"bcde", "cde", "de"} & kept
    with pytest.raises(ModelError, match="exact only with its single characters; export without --no-characters"):
        trim(copied(whole), lambda: ["ab"], tmp_path, characters=False)


# ---- byte-level BPE ----


def test_byte_level_bpe_is_exact_on_its_texts(tmp_path: Path) -> None:
    texts = TEXTS[:5] + TEXTS[-3:]
    whole = classifier_with(byte_level())
    vocabulary = trim(copied(whole), lambda: texts, tmp_path)
    assert len(vocabulary.kept) < vocabulary.before - 50
    assert_exact(whole, tmp_path, texts, vocabulary.kept)


def test_byte_level_bpe_without_intermediate_merges_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer_kinds, "merges_of", lambda *_: set())
    with pytest.raises(ModelError, match="differently from the whole one"):
        trim(classifier_with(byte_level()), lambda: TEXTS, tmp_path)


def test_merges_of_a_token_build_it(tmp_path: Path) -> None:
    model = json.loads(byte_level().backend_tokenizer.to_str())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    ranks = {merge: rank for rank, merge in enumerate(merges)}
    for token in model["vocab"]:
        if token in SPECIAL:
            continue
        parts = list(token)
        for rank in sorted(tokenizer_kinds.merges_of(token, ranks)):  # each in turn, wherever it fits
            first, second = merges[rank]
            parts = (
                "\0".join(["", *parts, ""]).replace(f"\0{first}\0{second}\0", f"\0{first}{second}\0").split("\0")[1:-1]
            )
        assert len(parts) <= max(1, len(token) // 2)
        assert "".join(parts) == token


def test_a_roberta_keeps_its_positions(tmp_path: Path) -> None:
    """Its positions start after the id of the padding token, which therefore must not change."""
    tokenizer = byte_level()
    torch.manual_seed(1)
    config = RobertaConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=66, pad_token_id=0, bos_token_id=2, eos_token_id=3, type_vocab_size=1, num_labels=3,
    )  # fmt: skip
    whole = Classifier(
        RobertaForSequenceClassification(config).eval(), tokenizer, ("a", "b", "c"), 64, precision="float32"
    )
    vocabulary = trim(copied(whole), lambda: TEXTS[:9], tmp_path)
    assert_exact(whole, tmp_path, TEXTS[:9], vocabulary.kept)


# ---- what cannot be trimmed ----


def word_level() -> Tokenizer:
    return Tokenizer(models.WordLevel({token: i for i, token in enumerate([*SPECIAL, "a"])}, unk_token="<unk>"))


def ignoring_merges() -> Tokenizer:
    backend = byte_level().backend_tokenizer
    backend.model.ignore_merges = True
    return backend


def by_letters() -> Tokenizer:
    backend = byte_level().backend_tokenizer
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return backend


@pytest.mark.parametrize("make", [word_level, ignoring_merges, by_letters])
def test_other_tokenizers_are_a_one_line_error(make: Callable[[], Tokenizer], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"cannot be trimmed.*; WordPiece, Unigram and byte-level BPE can") as caught:
        trim(classifier_with(wrapped(make())), lambda: ["a"], tmp_path)
    assert "\n" not in str(caught.value)
