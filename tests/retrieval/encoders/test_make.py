"""make_encoder: which encoder a recipe's section means, and what is kept for the next time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from augkd.errors import RecipeError
from augkd.retrieval.encoders.make import make_encoder
from augkd.retrieval.encoders.sentence import SentenceEncoder
from augkd.retrieval.encoders.static import StaticEncoder

TEXTS = ["a cat is in the house", "where is my hammer ?"]


def test_kind_defaults_to_a_sentence_encoder_with_the_given_options(tiny_bert: Path, tmp_path: Path) -> None:
    options = {"model": str(tiny_bert), "max_length": 16, "precision": "float32", "workers": 1}
    expected = SentenceEncoder.load(str(tiny_bert), max_length=16, precision="float32", workers=1)
    for given in (options, {"kind": "sentence", "dim": None, **options}):
        made = make_encoder(given, tmp_path)
        assert isinstance(made, SentenceEncoder)
        assert made.fingerprint == expected.fingerprint
        assert made.encode(TEXTS).tobytes() == expected.encode(TEXTS).tobytes()
    assert not list(tmp_path.iterdir())  # nothing to keep


def test_token_vectors_are_distilled_once_and_kept(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"kind": "static", "model": str(tiny_bert), "dim": 8}
    made = make_encoder(options, tmp_path / "cache")
    assert isinstance(made, StaticEncoder)

    def distilled_again(*_: Any, **__: Any) -> StaticEncoder:
        raise AssertionError("distilled again")

    monkeypatch.setattr(StaticEncoder, "distill", distilled_again)
    kept = make_encoder(options, tmp_path / "cache")
    assert kept.fingerprint == made.fingerprint
    assert kept.encode(TEXTS).tobytes() == made.encode(TEXTS).tobytes()
    with pytest.raises(AssertionError, match="distilled again"):  # the twin: for another width they are
        make_encoder({**options, "dim": 7}, tmp_path / "cache")


def test_kept_token_vectors_are_fitted_anew_only_when_the_sample_is_another(tiny_bert: Path, tmp_path: Path) -> None:
    options = {"kind": "static", "model": str(tiny_bert), "dim": 8}
    sample = [*TEXTS, "bread and soup"] * 5
    made = make_encoder(options, tmp_path, texts=sample)
    assert make_encoder(options, tmp_path).fingerprint == made.fingerprint  # opened later, without the corpus
    assert make_encoder(options, tmp_path, texts=sample[1:]).fingerprint != made.fingerprint


def test_token_vectors_half_kept_by_a_killed_process_are_distilled_again(tiny_bert: Path, tmp_path: Path) -> None:
    options = {"kind": "static", "model": str(tiny_bert), "dim": 8}
    made = make_encoder(options, tmp_path)
    (folder,) = tmp_path.iterdir()
    (folder / "manifest.json").unlink()
    (folder / "model.safetensors").write_bytes(b"half")
    assert make_encoder(options, tmp_path).fingerprint == made.fingerprint


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "statik"}, "kind is 'statik'; did you mean 'static'"),
        ({"kind": "static", "precision": "int8"}, "static encoder has no option 'precision'"),
        ({"dims": 8}, "sentence encoder has no option 'dims'"),
        ({"precision": "int4"}, "precision is 'int4'; did you mean 'int8'"),
    ],
)
def test_options_that_make_no_sense_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        make_encoder(options, tmp_path)
    assert "\n" not in str(caught.value)
