"""The INT8 session against the float32 model it was exported from."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from augkd.errors import ModelError, WorkspaceError
from augkd.retrieval.encoders.sentence import SentenceEncoder

TEXTS = ["a cat is in the house", "", "where is my hammer ?", "bread and soup and rice and cake and more of it"]

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def cache(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the INT8 file of the tiny BERT."""
    folder = tmp_path_factory.mktemp("cache")
    SentenceEncoder.load(str(tiny_bert), precision="int8", cache=folder)
    return folder


def test_int8_vectors_are_near_float32_ones_for_any_number_and_length_of_texts(tiny_bert: Path, cache: Path) -> None:
    exact = SentenceEncoder.load(str(tiny_bert), precision="float32")
    coarse = SentenceEncoder.load(str(tiny_bert), precision="int8", cache=cache)
    for texts in (TEXTS, TEXTS[:1], TEXTS * 5):
        cosines = (exact.encode(texts) * coarse.encode(texts)).sum(axis=1)
        assert cosines.min() > 0.99
        assert cosines.min() < 1 - 1e-6  # the twin: int8 was in use
    assert coarse.fingerprint != exact.fingerprint
    assert coarse.dim == 32


def test_int8_bytes_do_not_depend_on_workers(tiny_bert: Path, cache: Path) -> None:
    single, triple = (
        SentenceEncoder.load(str(tiny_bert), precision="int8", cache=cache, workers=workers, tokens_per_batch=16)
        for workers in (1, 3)
    )
    assert single.encode(TEXTS * 3).tobytes() == triple.encode(TEXTS * 3).tobytes()


def test_the_file_is_exported_once(tiny_bert: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exported_again(*_: object) -> None:
        raise AssertionError("exported again")

    monkeypatch.setattr("augkd.retrieval.encoders.int8._quantise", exported_again)
    SentenceEncoder.load(str(tiny_bert), precision="int8", cache=cache)
    with pytest.raises(AssertionError, match="exported again"):  # the twin: without a cache it is
        SentenceEncoder.load(str(tiny_bert), precision="int8")


def test_a_damaged_file_is_refused(tiny_bert: Path, cache: Path) -> None:
    (path,) = cache.rglob("*.onnx")
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"?")
    try:
        with pytest.raises(WorkspaceError, match=r"onnx is damaged: .*; remove") as caught:
            SentenceEncoder.load(str(tiny_bert), precision="int8", cache=cache)
    finally:
        path.write_bytes(whole)
    assert "\n" not in str(caught.value)


def test_without_the_extra_int8_names_it(tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "onnxruntime" else find(name, *a))
    with pytest.raises(ModelError, match=r"int8 needs onnxruntime; pip install 'augkd\[onnx\]'"):
        SentenceEncoder.load(str(tiny_bert), precision="int8")


def test_int8_gives_the_same_bytes_twice(tiny_bert: Path, cache: Path) -> None:
    first, second = (SentenceEncoder.load(str(tiny_bert), precision="int8", cache=cache) for _ in range(2))
    np.testing.assert_array_equal(first.encode(TEXTS), second.encode(TEXTS))
