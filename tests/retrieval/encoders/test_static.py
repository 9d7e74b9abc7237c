"""StaticEncoder against closed forms over SentenceTransformer's own vectors of single words, and scikit-learn's PCA."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sklearn.decomposition import PCA
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from augkd.errors import RecipeError, WorkspaceError
from augkd.retrieval.encoders.distillation import distill
from augkd.retrieval.encoders.sentence import _TOKENS_PER_BATCH
from augkd.retrieval.encoders.static import Pairs, StaticEncoder

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused0]")
WORDS = ("the", "a", "is", "in", "cat", "dog", "horse", "bread", "soup", "apple", "hammer", "saw", "drill", "spade")
TEXTS = ["the cat is in a soup", "dog", "", "xyzzy", "hammer saw hammer", "the the the horse", "bread xyzzy apple"]


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of width 16 with 14 words."""
    folder = tmp_path_factory.mktemp("words")
    torch.manual_seed(0)
    config = BertConfig(vocab_size=20, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
    BertModel(config).save_pretrained(folder)
    vocabulary = {token: place for place, token in enumerate(SPECIAL + WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, mask_token="[MASK]", **names).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def words(model_folder: Path) -> np.ndarray:
    """(14, 16): the model's own vector of each word, by sentence-transformers."""
    return SentenceTransformer(str(model_folder), device="cpu").encode(list(WORDS))


def weighted_mean(text: str, vectors: np.ndarray, weights: np.ndarray) -> np.ndarray:
    rows = [WORDS.index(word) for word in text.split()]
    total = (vectors[rows] * weights[rows, None]).sum(axis=0)
    return total / np.linalg.norm(total)


def zipf_weights() -> np.ndarray:
    frequency = 1 / np.arange(2, 16)
    return 1e-4 / (1e-4 + frequency / frequency.sum())


def test_a_text_is_the_weighted_mean_of_its_words_centred_vectors(model_folder: Path, words: np.ndarray) -> None:
    encoder = distill(str(model_folder), dim=16)
    expected = weighted_mean("the cat is in a soup", words - words.mean(axis=0), zipf_weights())
    plain = weighted_mean("the cat is in a soup", words - words.mean(axis=0), np.ones(14))
    np.testing.assert_allclose(encoder.encode(["the cat is in a soup"])[0], expected, atol=1e-5)
    assert np.abs(plain - expected).max() > 1e-3  # the twin: without weights it is another vector


def test_fewer_dimensions_are_those_of_pca(model_folder: Path, words: np.ndarray) -> None:
    encoder = distill(str(model_folder), dim=5)
    pca = PCA(5).fit(words)
    texts = [text for text in TEXTS if text and "xyzzy" not in text]
    expected = np.stack([weighted_mean(text, pca.transform(words), zipf_weights()) for text in texts])
    vectors = encoder.encode(texts)
    assert vectors.shape == (4, 5)
    np.testing.assert_allclose(vectors @ vectors.T, expected @ expected.T, atol=1e-4)  # axes may differ in sign
    assert encoder.facts["explained"] == pytest.approx(pca.explained_variance_ratio_.sum(), abs=1e-5)


def test_special_reserved_and_unknown_tokens_count_for_nothing(model_folder: Path) -> None:
    encoder = distill(str(model_folder), dim=8)
    assert encoder.facts["entries"] == len(WORDS)
    with_them, without, other = encoder.encode(["[MASK] cat xyzzy [unused0]", "cat", "cat dog"])
    assert with_them.tobytes() == without.tobytes()
    assert np.abs(other - without).max() > 0.1  # the twin: a known word counts


def test_texts_without_a_known_word_get_the_first_axis(model_folder: Path) -> None:
    vectors = distill(str(model_folder), dim=8).encode(["", "xyzzy", "cat"])
    assert vectors[:2].tolist() == [[1, 0, 0, 0, 0, 0, 0, 0]] * 2
    assert vectors[2].tolist() != vectors[0].tolist()


def test_rows_are_float32_unit_vectors_and_no_texts_give_no_rows(model_folder: Path) -> None:
    encoder = distill(str(model_folder), dim=8)
    vectors = encoder.encode(TEXTS)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert encoder.encode([]).shape == (0, 8)


@pytest.mark.parametrize("fitted", [False, True])
def test_other_texts_in_the_call_change_no_byte(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch, fitted: bool
) -> None:
    encoder = distill(str(model_folder), dim=8, texts=TEXTS * 2 if fitted else None)
    assert (encoder.facts["pairs"] > 0) == fitted
    together = encoder.encode(TEXTS * 50)[: len(TEXTS)]
    alone = np.concatenate([encoder.encode([text]) for text in TEXTS])
    monkeypatch.setattr("augkd.retrieval.encoders.static._WINDOW", 3)
    assert together.tobytes() == alone.tobytes() == encoder.encode(TEXTS).tobytes()


def test_fitted_to_texts_the_vectors_of_other_texts_come_nearer_to_the_models(model_folder: Path) -> None:
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, size=4)) for _ in range(400)]
    sample, held_out = texts[:300], texts[300:]
    targets = SentenceTransformer(str(model_folder), device="cpu").encode(held_out, normalize_embeddings=True)
    plain = distill(str(model_folder), dim=16).encode(held_out)
    near = distill(str(model_folder), dim=16, texts=sample).encode(held_out)
    narrow = distill(str(model_folder), dim=8, texts=sample).encode(held_out)
    exact = targets @ targets.T
    errors = [np.abs(vectors @ vectors.T - exact).mean() for vectors in (near, narrow, plain)]
    assert errors[0] < 0.5 * errors[2]  # the twin: without the texts
    assert errors[1] < 0.6 * errors[2]
    assert distill(str(model_folder), dim=16, texts=sample).encode(held_out).tobytes() == near.tobytes()


def test_pairs_of_words_are_part_of_a_fitted_text(model_folder: Path) -> None:
    """The model reads words in order, so two words side by side mean more than their sum."""
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS[:6], size=2)) for _ in range(300)]
    encoder = distill(str(model_folder), dim=16, texts=texts)
    targets = SentenceTransformer(str(model_folder), device="cpu").encode(texts[:50], normalize_embeddings=True)
    vectors = encoder.encode(texts[:50])
    encoder._pairs = Pairs.none(16)
    without = encoder.encode(texts[:50])
    assert (vectors * targets).sum(axis=1).mean() > (without * targets).sum(axis=1).mean()
    first, second = WORDS[:2]
    assert np.array_equal(*encoder.encode([f"{first} {second}", f"{second} {first}"]))


@pytest.mark.parametrize("texts", [None, TEXTS * 2])
def test_saved_and_loaded_it_gives_the_same_bytes(model_folder: Path, tmp_path: Path, texts: list[str] | None) -> None:
    encoder = distill(str(model_folder), dim=8, texts=texts)
    encoder.save(tmp_path / "static")
    loaded = StaticEncoder.load(tmp_path / "static")
    assert loaded.encode(TEXTS).tobytes() == encoder.encode(TEXTS).tobytes()
    assert (loaded.fingerprint, loaded.name, loaded.dim) == (encoder.fingerprint, str(model_folder), 8)
    assert loaded.facts == encoder.facts
    assert loaded.fingerprint != distill(str(model_folder), dim=7).fingerprint  # the twin


def test_distilling_twice_gives_the_same_bytes(model_folder: Path) -> None:
    once, twice = (distill(str(model_folder), dim=8) for _ in range(2))
    assert once.fingerprint == twice.fingerprint


@pytest.mark.parametrize("place", [3, -3])  # in the header, in the numbers
def test_a_damaged_file_is_refused(model_folder: Path, tmp_path: Path, place: int) -> None:
    distill(str(model_folder), dim=8).save(tmp_path / "static")
    path = tmp_path / "static" / "model.safetensors"
    damaged = bytearray(path.read_bytes())
    damaged[place] ^= 0xFF
    path.write_bytes(damaged)
    with pytest.raises(WorkspaceError, match=r"model\.safetensors is damaged: .*; remove ") as caught:
        StaticEncoder.load(tmp_path / "static")
    assert "\n" not in str(caught.value)


def test_an_unfinished_folder_is_refused(model_folder: Path, tmp_path: Path) -> None:
    distill(str(model_folder), dim=8).save(tmp_path / "static")
    (tmp_path / "static" / "manifest.json").unlink()
    with pytest.raises(WorkspaceError, match="unfinished"):
        StaticEncoder.load(tmp_path / "static")


def test_more_dimensions_than_the_model_has_are_refused(model_folder: Path) -> None:
    with pytest.raises(RecipeError, match=r"dim is 17; .* takes 1 to 16"):
        distill(str(model_folder), dim=17)


@pytest.mark.parametrize(
    ("texts", "expected"), [(None, [(14, 14)]), (TEXTS, [(14, 21), (15, 21), (16, 21), (18, 21), (21, 21)])]
)
def test_progress_counts_vocabulary_entries_and_the_texts_fitted_to(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch, texts: list[str] | None, expected: list[tuple[int, int]]
) -> None:
    monkeypatch.setitem(_TOKENS_PER_BATCH, "cpu", 12)  # the longest text first, then 1, 2 and 3
    calls: list[tuple[int, int | None]] = []
    distill(str(model_folder), dim=8, texts=texts, progress=lambda *call: calls.append(call))
    assert calls == expected
