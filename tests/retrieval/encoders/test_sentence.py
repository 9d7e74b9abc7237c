"""SentenceEncoder against SentenceTransformer, and the batching that makes it faster."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from augkd.errors import ModelError, RecipeError
from augkd.retrieval.encoders.sentence import SentenceEncoder, resolve_precision, token_batches

TEXTS = [
    "what is the capital of france ?",
    "",
    "Paris",
    "how many moons does Jupiter have, and which of them was the first to be seen through a telescope?",
    "a",
    "the quick brown fox jumps over the lazy dog. " * 12,
    "who wrote Faust",
]
QUESTIONS = [
    "How can I lose weight without going to the gym?",
    "What was the score of the game against Villanova at home in the 1998 season?",
    "where was franz kafka born",
    "Which of these elements has the chemical symbol Fe?",
    "what type of music does the group from Ohio play",
    "Who was the Roman god of war, and what day of the week is named after him in French?",
    "why ?",
    "Is it worth buying a used car that has done more than 100,000 miles?",
]


@pytest.fixture(scope="module")
def encoder() -> SentenceEncoder:
    return SentenceEncoder.load(precision="float32", tokens_per_batch=64)


def test_vectors_are_those_of_sentence_transformers(encoder: SentenceEncoder) -> None:
    expected = encoder._model.encode(TEXTS, normalize_embeddings=True, show_progress_bar=False)
    vectors = encoder.encode(TEXTS)
    assert vectors.shape == (len(TEXTS), 384)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, expected, atol=1e-5)


def test_bfloat16_keeps_the_cosine_with_sentence_transformers_above_0_999(encoder: SentenceEncoder) -> None:
    expected = encoder._model.encode(TEXTS, normalize_embeddings=True, show_progress_bar=False)
    vectors = SentenceEncoder.load(precision="bfloat16").encode(TEXTS)
    cosines = (vectors * expected).sum(axis=1)
    assert cosines.min() > 0.999
    assert cosines.min() < 1 - 1e-7  # the twin: bfloat16 was in use


def test_rows_are_unit_vectors(encoder: SentenceEncoder) -> None:
    np.testing.assert_allclose(np.linalg.norm(encoder.encode(TEXTS), axis=1), 1, atol=1e-6)


def test_order_and_batch_mates_change_vectors_by_rounding_only(encoder: SentenceEncoder) -> None:
    forward = encoder.encode(TEXTS)
    backward = encoder.encode(TEXTS[::-1])[::-1]
    alone = np.concatenate([encoder.encode([text]) for text in TEXTS])
    np.testing.assert_allclose(backward, forward, atol=1e-6)
    np.testing.assert_allclose(alone, forward, atol=1e-6)
    assert np.abs(forward - np.roll(forward, 1, axis=0)).max() > 0.1  # the twin: rows in another order do differ


@pytest.mark.parametrize(("precision", "bound"), [("float32", 1e-6), ("bfloat16", 4e-3)])
def test_batch_mates_change_an_entry_by_no_more_than_the_stated_bound(precision: str, bound: float) -> None:
    encoder = SentenceEncoder.load(
        precision=precision, tokens_per_batch=100_000
    )  # one batch, all padded to the longest
    together = encoder.encode(QUESTIONS + TEXTS)[: len(QUESTIONS)]
    alone = np.concatenate([encoder.encode([text]) for text in QUESTIONS])
    assert np.abs(together - alone).max() <= bound
    if precision == "bfloat16":  # the twin: these are not float32's vectors
        assert np.abs(together - SentenceEncoder.load(precision="float32").encode(QUESTIONS)).max() > 1e-4


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_number_of_workers_and_of_torch_threads_changes_no_byte(precision: str) -> None:
    before = torch.get_num_threads()
    texts = QUESTIONS + TEXTS
    encodings = []
    try:
        for workers, threads in ((1, 1), (1, 2), (3, 2)):
            torch.set_num_threads(threads)
            encoder = SentenceEncoder.load(precision=precision, tokens_per_batch=64, workers=workers)
            encodings.append(encoder.encode(texts).tobytes())
            assert torch.get_num_threads() == threads  # restored
    finally:
        torch.set_num_threads(before)
    assert encodings[0] == encodings[1] == encodings[2]


def test_an_error_in_a_worker_reaches_the_caller_and_the_thread_count_is_restored(
    encoder: SentenceEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_memory(*_: object) -> None:
        raise MemoryError("no room")

    before = torch.get_num_threads()
    monkeypatch.setattr(encoder, "_forward", out_of_memory)
    with pytest.raises(MemoryError, match="no room"):
        encoder.encode(TEXTS)
    assert torch.get_num_threads() == before
    monkeypatch.undo()
    assert encoder.encode(TEXTS).shape == (len(TEXTS), 384)  # the twin: and the next call works


def test_the_same_call_gives_the_same_bytes(encoder: SentenceEncoder) -> None:
    assert encoder.encode(TEXTS).tobytes() == encoder.encode(TEXTS).tobytes()


def test_no_texts_give_no_rows(encoder: SentenceEncoder) -> None:
    assert encoder.encode([]).shape == (0, 384)


def test_fingerprint_changes_with_what_changes_vectors_and_with_nothing_else(encoder: SentenceEncoder) -> None:
    same = SentenceEncoder.load(precision="float32", tokens_per_batch=8192)
    shorter = SentenceEncoder.load(precision="float32", max_length=16)
    coarser = SentenceEncoder.load(precision="bfloat16")
    assert same.fingerprint == encoder.fingerprint
    assert len({encoder.fingerprint, shorter.fingerprint, coarser.fingerprint}) == 3


def test_max_length_truncates_texts(encoder: SentenceEncoder) -> None:
    short = SentenceEncoder.load(precision="float32", max_length=5)
    long_text, its_start = (
        "paris berlin rome madrid lisbon",
        "paris berlin rome",
    )  # 3 words, 2 special tokens
    np.testing.assert_allclose(short.encode([long_text]), short.encode([its_start]), atol=1e-6)
    assert float((encoder.encode([long_text]) @ encoder.encode([its_start]).T).item()) < 0.999


def test_batches_hold_every_row_once_in_order_of_length_within_the_token_limit() -> None:
    lengths = np.array([5, 3, 9, 3, 40, 1])
    batches = [rows.tolist() for rows in token_batches(lengths, 12)]
    assert batches == [[5, 1, 3], [0], [2], [4]]  # 3 x 3 = 9; 4 x 5 = 20 > 12; 2 x 9 > 12; 40 > 12 goes alone


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "float23"}, r"precision is 'float23'; did you mean 'float32'\?"),
        ({"workers": 0}, "workers is 0; give at least 1"),
        ({"tokens_per_batch": 0}, "tokens_per_batch is 0; give at least 1"),
        ({"max_length": 100_000}, "max_length is 100000; .* takes 3 to 512 tokens"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        SentenceEncoder.load(**options)
    assert "\n" not in str(caught.value)


def test_a_missing_model_folder_is_refused() -> None:
    with pytest.raises(ModelError, match="does not exist"):
        SentenceEncoder.load("./no-such-model")


def test_auto_precision_follows_the_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    for native, expected in ((True, "bfloat16"), (False, "float32")):
        for check in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
            monkeypatch.setattr(torch.cpu, check, lambda native=native: native)
        assert resolve_precision("auto", "cpu") == expected
