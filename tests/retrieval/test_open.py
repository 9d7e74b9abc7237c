"""Opening an index: which encoder it gets, that another is refused, and that no model is loaded before it is needed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentence_transformers
from support.manifests import change_manifest
from support.seed_encoder import SeedEncoder, lines

from augkd.errors import IndexFolderError, ModelError
from augkd.recipe import IndexRecipe
from augkd.retrieval.build import build_index
from augkd.retrieval.dense.retriever import DenseRetriever
from augkd.retrieval.dense.search import Index
from augkd.retrieval.encoders.sentence_model import stated_max_length
from augkd.retrieval.engines.local import build_dense
from augkd.retrieval.lexical.index import LexicalIndex, build_lexical
from augkd.retrieval.manifest import index_identity, read_index_manifest
from augkd.retrieval.open import open_index, open_retriever
from augkd.workspace.progress import silent

QUERIES = ["line number 3", "number"]


PROMPTS = {"query_prompt": None, "document_prompt": None}


class OtherEncoder(SeedEncoder):
    """Another model, for re-ranking."""

    name, fingerprint = "other", "other-16"

    def encode(self, texts: Any) -> np.ndarray:
        return super().encode([text[::-1] for text in texts])


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("indexes")
    source = lines(root, "corpus.txt", range(40))
    build_dense(root / "dense", source, SeedEncoder(), recipe={"encoder": {"kind": "static", "model": "some/model"}})
    build_lexical(root / "lexical", source, recipe={"encoder": {"kind": "lexical"}})
    return {"dense": root / "dense", "lexical": root / "lexical"}


def copy_with(folder: Path, target: Path, **changes: Any) -> Path:
    """A copy of the index in `folder` with another manifest."""
    shutil.copytree(folder, target)
    change_manifest(target, **changes)
    return target


def recording(options_seen: list[dict[str, Any]]) -> Any:
    """A `load` that records the options; a sentence model is the full one."""

    def load(options: Mapping[str, Any]) -> SeedEncoder:
        options_seen.append(dict(options))
        return OtherEncoder() if options["kind"] == "sentence" else SeedEncoder()

    return load


# --- which encoder --------------------------------------------------------------------------------------------------


def test_a_lexical_folder_is_opened_without_an_encoder(folders: dict[str, Path]) -> None:
    seen: list[dict[str, Any]] = []
    assert isinstance(open_retriever(folders["lexical"], recording(seen)), LexicalIndex)
    assert seen == []


def test_a_dense_folder_is_opened_with_the_encoder_of_its_recipe(folders: dict[str, Path]) -> None:
    seen: list[dict[str, Any]] = []
    opened = open_retriever(folders["dense"], recording(seen))
    assert seen == [
        {"kind": "static", "model": "some/model", "max_length": None, "precision": "auto", "rerank": 0, **PROMPTS}
    ]
    plain = DenseRetriever(Index.open(folders["dense"]), SeedEncoder())
    np.testing.assert_array_equal(opened.search(QUERIES, 5).ids, plain.search(QUERIES, 5).ids)


def test_rerank_in_the_recipe_makes_the_static_encoders_source_model(folders: dict[str, Path], tmp_path: Path) -> None:
    recipe = {"encoder": {"kind": "static", "model": "some/model", "max_length": 32, "rerank": 20}}
    folder = copy_with(folders["dense"], tmp_path / "index", recipe=recipe)
    seen: list[dict[str, Any]] = []
    opened = open_retriever(folder, recording(seen))
    assert seen[1] == {
        "kind": "sentence",
        "model": "some/model",
        "max_length": 32,
        "precision": "auto",
        "rerank": 0,
        **PROMPTS,
    }
    expected = DenseRetriever(Index.open(folder), SeedEncoder(), reranker=OtherEncoder(), rerank=20)
    np.testing.assert_array_equal(opened.search(QUERIES, 5).ids, expected.search(QUERIES, 5).ids)


def test_a_recipe_without_a_kind_means_a_sentence_model_without_reranking(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    recipe = {"encoder": {"model": "some/model", "max_length": 64, "precision": "float32"}}
    manifest = read_index_manifest(folders["dense"]).on_disk()
    made_from = {**manifest["made_from"], "encoder": OtherEncoder.fingerprint}
    encoder = {"kind": "sentence", "model": "some/model"}
    folder = copy_with(folders["dense"], tmp_path / "index", recipe=recipe, made_from=made_from, encoder=encoder)
    seen: list[dict[str, Any]] = []
    open_retriever(folder, recording(seen))
    assert seen == [
        {"kind": "sentence", "model": "some/model", "max_length": 64, "precision": "float32", "rerank": 0, **PROMPTS}
    ]


def test_a_length_that_an_older_recipe_recorded_without_meaning_it_cuts_no_vectors(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    table = {"kind": "sentence", "model": "some/model", "dim": 256}  # as written when it was for static encoders only
    made_from = {**read_index_manifest(folders["dense"]).on_disk()["made_from"], "encoder": OtherEncoder.fingerprint}
    encoder = {"kind": "sentence", "model": "some/model"}
    changes: dict[str, Any] = {"made_from": made_from, "encoder": encoder}
    for number, (more, expected) in enumerate([({}, None), (PROMPTS, 256)]):
        recipe = {"encoder": table | more}
        folder = copy_with(folders["dense"], tmp_path / f"index-{number}", recipe=recipe, **changes)
        seen: list[dict[str, Any]] = []
        open_retriever(folder, recording(seen))
        assert seen[0].get("dim") == expected


def test_an_encoder_other_than_that_of_the_build_is_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(ModelError, match=r"encoder 'some/model' is not the one that .*dense was built with; build the"):
        open_retriever(folders["dense"], lambda options: OtherEncoder())


def test_a_folder_without_an_index_is_refused(tmp_path: Path, folders: dict[str, Path]) -> None:
    with pytest.raises(IndexFolderError, match="does not exist"):
        open_retriever(tmp_path / "nowhere", recording([]))
    with pytest.raises(IndexFolderError, match="holds a dense index, not a lexical one"):
        LexicalIndex.open(folders["dense"])


# --- nothing is loaded twice, and nothing before it is needed -------------------------------------------------------


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders that sentence-transformers has loaded a model from so far."""
    folders: list[str] = []
    load = sentence_transformers.SentenceTransformer

    def counting(folder: str, *args: Any, **options: Any) -> Any:
        folders.append(folder)
        return load(folder, *args, **options)

    monkeypatch.setattr(sentence_transformers, "SentenceTransformer", counting)
    return folders


@pytest.fixture
def recipe(corpus_file: Path, tiny_bert: Path) -> Any:
    def make(**encoder: Any) -> IndexRecipe:
        dim = {"dim": 16} if encoder.get("kind") == "static" else {}
        return IndexRecipe.model_validate(
            {"corpus": str(corpus_file), "encoder": {"model": str(tiny_bert), **dim, **encoder}}
        )

    return make


@pytest.mark.parametrize("options", [{}, {"max_length": 32}, {"precision": "float32"}])
def test_a_build_and_its_search_load_the_model_once_and_opening_loads_none(
    recipe: Any, tmp_path: Path, loads: list[str], options: dict[str, Any]
) -> None:
    built = build_index(recipe(**options), tmp_path / "index", silent)
    hits = built.search(QUERIES, 3)
    assert len(loads) == 1

    for opened in (build_index(recipe(**options), tmp_path / "index", silent), open_index(tmp_path / "index")):
        loads.clear()
        assert index_identity(opened.manifest) == index_identity(read_index_manifest(tmp_path / "index"))
        assert opened.texts([0]) == built.texts([0])
        assert loads == []
        assert opened.search(QUERIES, 3).scores.tobytes() == hits.scores.tobytes()
        opened.search(QUERIES, 3)
        assert len(loads) == 1


def test_the_count_of_loads_sees_an_encoder_that_is_not_lazy(recipe: Any, tmp_path: Path, loads: list[str]) -> None:
    """The twin: an encoder loaded by the caller counts before any search."""
    from augkd.retrieval.encoders.sentence import SentenceEncoder

    build_index(recipe(), tmp_path / "index", silent)
    loads.clear()
    open_retriever(tmp_path / "index", lambda options: SentenceEncoder.load(options["model"]))
    assert len(loads) == 1


def test_a_static_encoder_loads_its_model_once_to_distil_it_and_never_again(
    recipe: Any, tmp_path: Path, loads: list[str]
) -> None:
    build_index(recipe(kind="static"), tmp_path / "index", silent).search(QUERIES, 3)
    assert len(loads) == 1
    build_index(recipe(kind="static"), tmp_path / "index", silent).search(QUERIES, 3)
    open_index(tmp_path / "index").search(QUERIES, 3)
    assert len(loads) == 1


def test_a_reranker_is_loaded_with_the_first_search(recipe: Any, tmp_path: Path, loads: list[str]) -> None:
    build_index(recipe(kind="static", rerank=10), tmp_path / "index", silent)
    loads.clear()
    opened = open_index(tmp_path / "index")
    assert loads == []
    opened.search(QUERIES, 3)
    opened.search(QUERIES, 3)
    assert len(loads) == 1


def test_a_changed_model_is_refused_without_loading_it(
    recipe: Any, tiny_bert: Path, tmp_path: Path, loads: list[str]
) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_bert, model)
    build_index(recipe(model=str(model)), tmp_path / "index", silent)
    weights = bytearray((model / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (model / "model.safetensors").write_bytes(weights)
    loads.clear()
    with pytest.raises(ModelError, match="is not the one that"):
        open_index(tmp_path / "index")
    assert loads == []


def test_a_model_that_changes_between_opening_and_searching_is_refused(
    recipe: Any, tiny_bert: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_bert, model)
    build_index(recipe(model=str(model)), tmp_path / "index", silent)
    opened = open_index(tmp_path / "index")
    weights = bytearray((model / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (model / "model.safetensors").write_bytes(weights)
    with pytest.raises(ModelError, match="has changed on disk since it was opened"):
        opened.search(QUERIES, 3)


def test_the_length_limit_read_from_files_is_that_of_sentence_transformers(tiny_bert: Path, tmp_path: Path) -> None:
    from augkd.models.locate import BUNDLED, locate

    saved = tmp_path / "saved"
    sentence_transformers.SentenceTransformer(str(tiny_bert), device="cpu").save(str(saved))
    limited = tmp_path / "limited"
    model = sentence_transformers.SentenceTransformer(str(tiny_bert), device="cpu")
    model.max_seq_length = 24
    model.save(str(limited))
    endless = tmp_path / "endless"
    shutil.copytree(tiny_bert, endless)
    tokenizer = json.loads((endless / "tokenizer_config.json").read_text())
    (endless / "tokenizer_config.json").write_text(json.dumps({**tokenizer, "model_max_length": 10**30}))

    limits = {}
    for folder in (locate(BUNDLED), tiny_bert, saved, limited, endless):
        expected = sentence_transformers.SentenceTransformer(str(folder), device="cpu").max_seq_length
        limits[folder] = stated_max_length(folder)
        assert limits[folder] == expected, folder
    assert sorted(set(limits.values())) == [24, 64, 256]


def test_a_length_limit_that_only_loading_tells_makes_the_encoder_load_at_once(
    recipe: Any, tiny_bert: Path, tmp_path: Path, loads: list[str]
) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_bert, model)
    config = json.loads((model / "config.json").read_text())
    del config["max_position_embeddings"]  # 512 by default, which the checkpoint's 64 positions do not fit
    (model / "config.json").write_text(json.dumps(config))
    assert stated_max_length(model) is None
    with pytest.raises(ModelError, match="cannot be loaded"):
        build_index(recipe(model=str(model)), tmp_path / "index", silent)
    assert len(loads) == 1
