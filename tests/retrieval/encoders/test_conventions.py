"""An encoder keeps the conventions of its model: prompts of queries and documents, shorter vectors, other modules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from support.sentence_models import (
    WIDTH,
    old_layout,
    write_router,
    write_sentence_model,
    write_static_embedding,
)
from support.tiny import sentences

from augkd.errors import ModelError, RecipeError
from augkd.retrieval.encoders.conventions import Conventions
from augkd.retrieval.encoders.encoder import for_queries
from augkd.retrieval.encoders.make import make_encoder
from augkd.retrieval.encoders.sentence import SentenceEncoder

TEXTS = [*(text for text, _ in sentences()[::9]), "", "the cat is here and " * 30]
E5 = {"query": "query: ", "passage": "passage: "}


def own(folder: Path, texts: list[str] = TEXTS, **options: Any) -> np.ndarray:
    """The vectors that sentence-transformers itself gives."""
    model = SentenceTransformer(str(folder), device="cpu")
    return model.encode(texts, normalize_embeddings=True, show_progress_bar=False, **options)


def load(folder: Path, **options: Any) -> SentenceEncoder:
    return SentenceEncoder.load(str(folder), precision="float32", **options)


def same(left: np.ndarray, right: np.ndarray) -> bool:
    return bool(np.abs(left - right).max() < 1e-5)


# ---- prompts ----


def test_queries_and_documents_get_the_prompts_of_the_model_s_own_configuration(tmp_path: Path) -> None:
    folder = write_sentence_model(tmp_path / "e5", prompts=E5)
    encoder = load(folder)
    plain = own(folder, prompt="")
    assert same(encoder.encode(TEXTS), own(folder, prompt="passage: "))
    assert same(for_queries(encoder).encode(TEXTS), own(folder, prompt="query: "))
    assert not same(encoder.encode(TEXTS), plain)  # the twin: prompts matter to this model
    assert same(load(folder, query_prompt="", document_prompt="").encode(TEXTS), plain)


def test_a_default_prompt_is_used_on_both_sides_as_the_model_s_own_encode_does(tmp_path: Path) -> None:
    folder = write_sentence_model(tmp_path / "m", prompts={"both": "represent: "}, default_prompt_name="both")
    encoder = load(folder)
    for side in (encoder, for_queries(encoder)):
        assert same(side.encode(TEXTS), own(folder))
    assert not same(encoder.encode(TEXTS), own(folder, prompt=""))


def test_prompts_that_are_given_replace_the_model_s(tmp_path: Path) -> None:
    folder = write_sentence_model(tmp_path / "e5", prompts=E5)
    encoder = load(folder, query_prompt="find: ", document_prompt="query: ")
    assert same(for_queries(encoder).encode(TEXTS), own(folder, prompt="find: "))
    assert same(encoder.encode(TEXTS), own(folder, prompt="query: "))


@pytest.mark.parametrize("include_prompt", [True, False])
def test_a_pooling_that_leaves_out_the_prompt_does_so(tmp_path: Path, include_prompt: bool) -> None:
    folder = write_sentence_model(tmp_path / "m", prompts=E5, include_prompt=include_prompt)
    encoder = load(folder)
    assert same(encoder.encode(TEXTS[:-2]), own(folder, TEXTS[:-2], prompt="passage: "))
    assert same(for_queries(encoder).encode(TEXTS[:-2]), own(folder, TEXTS[:-2], prompt="query: "))


def test_the_fingerprint_knows_prompts_and_dimensions_and_is_the_same_before_the_model_is_loaded(
    tmp_path: Path,
) -> None:
    plain, prompted = write_sentence_model(tmp_path / "a"), write_sentence_model(tmp_path / "b", prompts=E5)
    options: list[dict[str, Any]] = [{}, {"query_prompt": "q: "}, {"document_prompt": "d: "}, {"dim": 8}]
    for folder in (plain, prompted):
        loaded = [load(folder, **each).fingerprint for each in options]
        assert len(set(loaded)) == len(options)
        lazy = [
            make_encoder({"model": str(folder), "precision": "float32", **each}, tmp_path).fingerprint
            for each in options
        ]
        assert lazy == loaded
    assert load(prompted, query_prompt="", document_prompt="").encode(["a"]).shape == (1, WIDTH)


def test_a_lazy_encoder_has_both_sides(tmp_path: Path) -> None:
    folder = write_sentence_model(tmp_path / "e5", prompts=E5)
    lazy = make_encoder({"model": str(folder), "precision": "float32"}, tmp_path)
    assert same(lazy.encode(TEXTS), own(folder, prompt="passage: "))
    assert same(for_queries(lazy).encode(TEXTS), own(folder, prompt="query: "))


def test_prompts_that_are_no_table_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config_sentence_transformers.json").write_text(json.dumps({"prompts": ["query: "]}))
    with pytest.raises(ModelError, match="states no table of prompts"):
        Conventions.of(tmp_path)


# ---- dimensions ----


def test_a_shorter_vector_is_its_beginning_normalised_again(tmp_path: Path) -> None:
    folder = write_sentence_model(tmp_path / "m")
    vectors = load(folder, dim=6).encode(TEXTS)
    whole = own(folder)[:, :6]
    assert vectors.shape == (len(TEXTS), 6)
    assert same(vectors, whole / np.linalg.norm(whole, axis=1, keepdims=True))


def test_a_length_in_the_model_s_own_configuration_is_kept_unless_another_is_given(tmp_path: Path) -> None:
    folder = write_sentence_model(tmp_path / "m", truncate_dim=6)
    encoder = load(folder)
    assert encoder.dim == 6
    assert same(encoder.encode(TEXTS), own(folder))
    assert load(folder, dim=WIDTH).encode(TEXTS).shape == (len(TEXTS), WIDTH)


def test_more_dimensions_than_the_model_has_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=rf"encoder dim is 99; '.*' takes 1 to {WIDTH}"):
        load(write_sentence_model(tmp_path / "m"), dim=99)


# ---- other modules, layouts and settings ----


@pytest.mark.parametrize("pooling", ["cls", "max", "lasttoken"])
def test_pooling_is_the_model_s_own(tmp_path: Path, pooling: str) -> None:
    folder = write_sentence_model(tmp_path / "m", pooling=pooling)
    assert same(load(folder).encode(TEXTS), own(folder))


def test_static_token_vectors_of_sentence_transformers_are_an_encoder(tmp_path: Path) -> None:
    folder = write_static_embedding(tmp_path / "static", prompts=E5)
    encoder = load(folder)
    words = [text for text in TEXTS if text]
    assert same(encoder.encode(words), own(folder, words, prompt="passage: "))
    assert same(for_queries(encoder).encode(words), own(folder, words, prompt="query: "))
    assert np.array_equal(encoder.encode(words[:1]), encoder.encode(words)[:1])
    with pytest.raises(RecipeError, match=r"max_length is 16; .* reads texts whole, drop it"):
        load(folder, max_length=16)
    with pytest.raises(RecipeError, match=r"precision is int8; .* is no transformer, drop it"):
        SentenceEncoder.load(str(folder), precision="int8")


def test_a_model_of_two_routes_sends_queries_by_theirs(tmp_path: Path) -> None:
    folder = write_router(tmp_path / "router")
    model, encoder = SentenceTransformer(str(folder), device="cpu"), load(folder)
    words = [text for text in TEXTS if text]
    assert same(encoder.encode(words), model.encode_document(words, normalize_embeddings=True))
    assert same(for_queries(encoder).encode(words), model.encode_query(words, normalize_embeddings=True))
    assert not same(encoder.encode(words), for_queries(encoder).encode(words))


def test_a_folder_of_the_old_layout_is_an_encoder(tmp_path: Path) -> None:
    folder = write_sentence_model(tmp_path / "m")
    expected = load(folder).encode(TEXTS)
    assert same(load(old_layout(folder)).encode(TEXTS), expected)


def test_lower_casing_that_the_model_asks_for_is_done(tmp_path: Path) -> None:
    folder = write_sentence_model(tmp_path / "m", architecture="roberta")
    upper = [text.upper() for text in TEXTS]
    assert not same(load(folder).encode(upper), load(folder).encode(TEXTS))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 64, "do_lower_case": True}))
    assert same(load(folder).encode(upper), load(folder).encode(TEXTS))
    assert same(load(folder).encode(upper), own(folder, upper))


def test_a_long_text_gets_no_position_that_a_roberta_does_not_have(tmp_path: Path) -> None:
    folder = write_sentence_model(tmp_path / "m", architecture="roberta")
    for config in (None, {"max_seq_length": 66}):
        if config:
            (folder / "sentence_bert_config.json").write_text(json.dumps(config))
        encoder = load(folder)
        assert encoder.encode(TEXTS).shape == (len(TEXTS), WIDTH)
        lazy = make_encoder({"model": str(folder), "precision": "float32"}, tmp_path)
        assert lazy.fingerprint == encoder.fingerprint
        assert same(lazy.encode(TEXTS), encoder.encode(TEXTS))
