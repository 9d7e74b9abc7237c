"""make_encoder: the encoder that a recipe's table describes, what is kept for later, and that nothing loads early."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from augkd.errors import RecipeError
from augkd.retrieval.encoders import make
from augkd.retrieval.encoders.lazy import LazyEncoder
from augkd.retrieval.encoders.make import make_encoder
from augkd.retrieval.encoders.sentence import SentenceEncoder
from augkd.retrieval.encoders.static import StaticEncoder

TEXTS = ["a cat is in the house", "where is my hammer ?"]


def test_kind_defaults_to_a_sentence_encoder_with_the_given_options(tiny_bert: Path, tmp_path: Path) -> None:
    options = {"model": str(tiny_bert), "max_length": 16, "precision": "float32", "workers": 1}
    expected = SentenceEncoder.load(str(tiny_bert), max_length=16, precision="float32", workers=1)
    for given in (options, {"kind": "sentence", "dim": None, **options}):
        encoder = make_encoder(given, tmp_path)
        assert isinstance(encoder, LazyEncoder)
        assert encoder.fingerprint == expected.fingerprint
        assert encoder.encode(TEXTS).tobytes() == expected.encode(TEXTS).tobytes()
        assert isinstance(encoder.loaded, SentenceEncoder)
        assert encoder.dim == expected.dim == 32
    assert not list(tmp_path.iterdir())  # nothing to keep


def test_token_vectors_are_distilled_once_and_kept(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"kind": "static", "model": str(tiny_bert), "dim": 8}
    encoder = make_encoder(options, tmp_path / "cache")
    assert isinstance(encoder, StaticEncoder)

    def distilled_again(*_: Any, **__: Any) -> StaticEncoder:
        raise AssertionError("distilled again")

    monkeypatch.setattr(make, "distill", distilled_again)
    kept = make_encoder(options, tmp_path / "cache")
    assert kept.fingerprint == encoder.fingerprint
    assert kept.encode(TEXTS).tobytes() == encoder.encode(TEXTS).tobytes()
    with pytest.raises(AssertionError, match="distilled again"):  # the twin: for another width they are
        make_encoder({**options, "dim": 7}, tmp_path / "cache")


def test_kept_token_vectors_are_distilled_again_only_for_another_sample(tiny_bert: Path, tmp_path: Path) -> None:
    options = {"kind": "static", "model": str(tiny_bert), "dim": 8}
    sample = [*TEXTS, "bread and soup"] * 5
    encoder = make_encoder(options, tmp_path, texts=sample)
    assert make_encoder(options, tmp_path).fingerprint == encoder.fingerprint  # opened later, without the corpus
    assert make_encoder(options, tmp_path, texts=sample[1:]).fingerprint != encoder.fingerprint


def test_token_vectors_half_written_by_a_killed_process_are_distilled_again(tiny_bert: Path, tmp_path: Path) -> None:
    options = {"kind": "static", "model": str(tiny_bert), "dim": 8}
    encoder = make_encoder(options, tmp_path)
    (folder,) = tmp_path.iterdir()
    (folder / "manifest.json").unlink()
    (folder / "model.safetensors").write_bytes(b"half")
    assert make_encoder(options, tmp_path).fingerprint == encoder.fingerprint


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "statik"}, "kind is 'statik'; did you mean 'static'"),
        ({"kind": "static", "precision": "int8"}, "static encoder has no option 'precision'"),
        ({"dims": 8}, "sentence encoder has no option 'dims'"),
        ({"workers": 0}, "workers is 0; give at least 1"),
        ({"precision": "int4"}, "precision is 'int4'; did you mean 'int8'"),
    ],
)
def test_unknown_kinds_and_options_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        make_encoder(options, tmp_path)
    assert "\n" not in str(caught.value)
