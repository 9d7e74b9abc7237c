"""A recipe's encoder decides the kind of index; shards, additions and removals from recipes and files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from support.manifests import change_manifest
from support.sentence_models import write_sentence_model

from augkd.data.cleaning import normalised
from augkd.errors import AugkdError, IndexFolderError, RecipeError
from augkd.recipe import IndexRecipe
from augkd.retrieval.build import (
    Removed,
    add_to_index,
    build_index,
    build_shard,
    merge_shards,
    remove_from_index,
    verify_index,
)
from augkd.retrieval.dense.changes import Added
from augkd.retrieval.dense.retriever import DenseRetriever
from augkd.retrieval.lexical.index import LexicalIndex
from augkd.retrieval.manifest import index_identity, read_index_manifest
from augkd.retrieval.open import open_index
from augkd.workspace.checksums import table_of
from augkd.workspace.fingerprints import fingerprint
from augkd.workspace.progress import silent


def _dim(encoder: dict[str, Any]) -> dict[str, int]:
    return {"dim": 16} if encoder.get("kind") == "static" else {}


@pytest.fixture
def recipe(corpus_file: Path, tiny_bert: Path) -> Any:
    def load(**encoder: Any) -> IndexRecipe:
        table = {
            "corpus": str(corpus_file),
            "encoder": {"model": str(tiny_bert), "max_length": 32, **_dim(encoder), **encoder},
        }
        return IndexRecipe.model_validate(table)

    return load


def test_each_kind_of_encoder_gives_an_index_that_finds_a_text_by_itself(recipe: Any, tmp_path: Path) -> None:
    for kind, expected in (("sentence", DenseRetriever), ("static", DenseRetriever), ("lexical", LexicalIndex)):
        index = build_index(recipe(kind=kind), tmp_path / kind, silent)
        assert isinstance(index, expected)
        text = index.texts([7])[0]
        assert index.texts(index.search([text], 1).ids[0]) == [text], kind
        again = open_index(tmp_path / kind)
        verify_index(tmp_path / kind)
        np.testing.assert_array_equal(again.search([text], 5).ids, index.search([text], 5).ids)


@pytest.mark.parametrize("kind", ["sentence", "lexical"])
def test_a_changed_file_is_detected_by_its_checksum(kind: str, recipe: Any, tmp_path: Path) -> None:
    folder = tmp_path / "index"
    build_index(recipe(kind=kind), folder, silent)
    largest = max(
        (p for p in folder.rglob("*") if p.suffix in (".faiss", ".npy", ".bin")), key=lambda p: p.stat().st_size
    )
    content = bytearray(largest.read_bytes())
    content[-1] ^= 1
    largest.write_bytes(content)
    with pytest.raises(IndexFolderError, match=folder.name):
        verify_index(folder)


def test_reranking_gives_the_cosines_of_the_full_model(recipe: Any, tmp_path: Path) -> None:
    full = build_index(recipe(), tmp_path / "full", silent)
    plain = build_index(recipe(kind="static", max_length=None), tmp_path / "static", silent)
    ranked = build_index(recipe(kind="static", rerank=50, max_length=None), tmp_path / "ranked", silent)
    query = ["a hammer was in the house 41"]
    truth = full.search(query, 3)
    np.testing.assert_allclose(ranked.search(query, 3).scores, truth.scores, atol=5e-3)
    assert np.abs(plain.search(query, 3).scores - truth.scores).max() > 5e-3


def test_a_finished_index_takes_another_depth_of_reranking_without_a_rebuild(recipe: Any, tmp_path: Path) -> None:
    plain = build_index(recipe(kind="static", max_length=None), tmp_path / "index", silent)
    built = (tmp_path / "index" / "vectors.faiss").stat().st_mtime_ns
    ranked = build_index(recipe(kind="static", rerank=50, max_length=None), tmp_path / "index", silent)
    assert (tmp_path / "index" / "vectors.faiss").stat().st_mtime_ns == built
    assert index_identity(ranked.manifest) == index_identity(plain.manifest) | {"rerank": 50}

    query = ["a hammer was in the house 41"]
    scores = ranked.search(query, 3).scores
    assert np.abs(plain.search(query, 3).scores - scores).max() > 5e-3
    np.testing.assert_array_equal(open_index(tmp_path / "index").search(query, 3).scores, scores)
    again = build_index(recipe(kind="static", max_length=None), tmp_path / "index", silent)  # the twin: and back
    np.testing.assert_array_equal(again.search(query, 3).scores, plain.search(query, 3).scores)


def test_a_static_encoder_is_fitted_to_as_many_of_the_corpus_s_first_texts_as_the_recipe_says(
    recipe: Any, tmp_path: Path, corpus_file: Path
) -> None:
    first = [line for line in corpus_file.read_text().splitlines() if line][:5]
    stages: list[str] = []
    for count, name in ((5, "few"), (20_000, "all")):
        static = recipe(kind="static", sample=count, max_length=None)
        build_index(static, tmp_path / name, lambda stage, *_: stages.append(stage))
    assert list(dict.fromkeys(stages)) == ["static vectors", "index"], "a model that runs reports progress"
    facts = {
        name: json.loads(next((tmp_path / name).glob(".cache/static-*/manifest.json")).read_text())["facts"]
        for name in ("few", "all")
    }
    assert facts["few"]["texts"] == fingerprint(first)
    assert facts["few"]["pairs"] < facts["all"]["pairs"]


def test_shards_of_a_recipe_merge_to_its_index(recipe: Any, tmp_path: Path) -> None:
    whole = build_index(recipe(), tmp_path / "whole", silent)
    for number in (1, 2):
        build_shard(recipe(), tmp_path / f"shard-{number}", (number, 2), silent)
    merged = merge_shards([tmp_path / "shard-2", tmp_path / "shard-1"], tmp_path / "merged")
    assert (tmp_path / "merged/vectors.faiss").read_bytes() == (tmp_path / "whole/vectors.faiss").read_bytes()
    assert len(merged) == len(whole)
    with pytest.raises(RecipeError, match="has no shards"):
        build_shard(recipe(kind="lexical"), tmp_path / "no", (1, 2), silent)


def test_texts_are_added_and_removed_for_good(recipe: Any, tmp_path: Path) -> None:
    folder = tmp_path / "index"
    build_index(recipe(), folder, silent)
    with (folder / "dropped.jsonl").open("a") as stream:  # as if it had once been dropped as a duplicate
        row = {"rule": "duplicates", "file": "c.txt", "row": 3, "text": "an unheard-of zeppelin lands"}
        stream.write(json.dumps(row) + "\n" + json.dumps(row | {"text": "a balloon"}) + "\n")
    change_manifest(folder, files=table_of(folder))
    (tmp_path / "new.txt").write_text("an unheard-of zeppelin lands\nan unheard-of zeppelin lands\n")
    assert add_to_index(folder, str(tmp_path / "new.txt"), "text", silent) == Added(added=1, duplicates=0)
    query = ["a zeppelin has landed"]
    index = open_index(folder)
    assert index.texts(index.search(query, 1).ids[0]) == ["an unheard-of zeppelin lands"]
    verify_index(folder)

    (tmp_path / "takedown.txt").write_text("An unheard-of ZEPPELIN lands!\n")
    assert remove_from_index(folder, tmp_path / "takedown.txt") == Removed(
        asked=1, removed=1, texts=("an unheard-of zeppelin lands",), missing=()
    )
    index = open_index(folder)
    assert "zeppelin" not in index.texts(index.search(query, 1).ids[0])[0]
    stored = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert b"zeppelin" not in stored
    assert b"a balloon" in stored
    changes = json.loads((folder / "manifest.json").read_text())["changes"]
    assert [change["change"] for change in changes] == ["add", "remove"]
    assert normalised("An unheard-of ZEPPELIN lands!") == normalised("an unheard-of zeppelin lands")


def test_added_files_are_read_as_they_are_and_not_as_the_corpus_of_the_index(recipe: Any, tmp_path: Path) -> None:
    (tmp_path / "old.csv").write_bytes("text;n\r\nein größerer Zug, heute;1\r\nein Schiff;2\r\n".encode("cp1252"))
    options = {"dataset": str(tmp_path / "old.csv"), "encoding": "cp1252", "delimiter": ";"}
    table = recipe().model_dump() | {"corpus": options}
    build_index(IndexRecipe.model_validate(table), tmp_path / "index", silent)
    (tmp_path / "new.csv").write_text("text,n\nein schöner Zeppelin; bald,3\n")
    assert add_to_index(tmp_path / "index", str(tmp_path / "new.csv"), "text", silent).added == 1
    index = open_index(tmp_path / "index")
    assert index.texts(range(3)) == ["ein größerer Zug, heute", "ein Schiff", "ein schöner Zeppelin; bald"]


def test_a_lexical_index_cannot_be_changed_or_sharded(recipe: Any, tmp_path: Path) -> None:
    build_index(recipe(kind="lexical"), tmp_path / "index", silent)
    (tmp_path / "new.txt").write_text("x\n")
    with pytest.raises(AugkdError, match="is a lexical index, which cannot be added to"):
        add_to_index(tmp_path / "index", str(tmp_path / "new.txt"), "text", silent)
    with pytest.raises(AugkdError, match="is a lexical index, which cannot be removed from"):
        remove_from_index(tmp_path / "index", tmp_path / "new.txt")


def test_a_folder_with_a_kept_encoder_is_built_into_and_keeps_it(recipe: Any, tmp_path: Path) -> None:
    folder = tmp_path / "index"
    build_index(recipe(kind="static", dim=16, max_length=None), folder, silent)
    kept = {path: path.stat().st_mtime_ns for path in (folder / ".cache").rglob("*.safetensors")}
    assert kept
    open_index(folder).search(["a cat"], 1)
    assert {path: path.stat().st_mtime_ns for path in (folder / ".cache").rglob("*.safetensors")} == kept


def test_prompts_and_length_of_vectors_are_used_on_both_sides_and_recorded(recipe: Any, tmp_path: Path) -> None:
    model = write_sentence_model(tmp_path / "e5", prompts={"query": "query: ", "passage": "passage: "})
    folder, query = tmp_path / "index", ["the saw is here"]
    build_index(recipe(model=str(model), precision="float32", dim=6), folder, silent)
    (tmp_path / "new.txt").write_text("an unheard-of zeppelin lands\n")
    add_to_index(folder, str(tmp_path / "new.txt"), "text", silent)
    index = open_index(folder)
    manifest = read_index_manifest(folder)
    assert (manifest.encoder.query_prompt, manifest.encoder.document_prompt) == ("query: ", "passage: ")
    assert manifest.dim == 6

    def own(texts: list[str], prompt: str) -> np.ndarray:
        vectors = SentenceTransformer(str(model), device="cpu").encode(texts, prompt=prompt, truncate_dim=6)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    texts = index.texts(range(len(index)))
    assert "an unheard-of zeppelin lands" in texts
    prompted = np.sort((own(query, "query: ") @ own(texts, "passage: ").T)[0])[::-1]
    bare = np.sort((own(query, "") @ own(texts, "").T)[0])[::-1]
    scores = index.search(query, len(texts)).scores[0]
    np.testing.assert_allclose(scores, prompted, atol=1e-4)  # bf16 on some CPUs
    assert np.abs(scores - bare).max() > 1e-2  # the twin; the nearest five differ by less than 1e-3 on some CPUs


def test_a_length_of_vectors_cuts_a_sentence_encoder_s(recipe: Any, tmp_path: Path) -> None:
    build_index(recipe(dim=8), tmp_path / "index", silent)
    assert read_index_manifest(tmp_path / "index").dim == 8
