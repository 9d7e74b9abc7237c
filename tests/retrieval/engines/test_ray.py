"""An index encoded by the workers of a Ray cluster has the bytes of one built here, whatever is killed meanwhile."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash
from support.seed_encoder import files_of

from augkd.data.corpus import CorpusSource
from augkd.errors import RecipeError
from augkd.models.cluster import Cluster
from augkd.recipe import IndexRecipe
from augkd.retrieval.build import build_index
from augkd.retrieval.dense import retriever as dense
from augkd.retrieval.encoders.make import make_encoder
from augkd.retrieval.engines import ray as engine
from augkd.retrieval.engines.local import build_dense
from augkd.retrieval.engines.ray_search import RayRetriever, on_cluster
from augkd.retrieval.open import open_index
from augkd.retrieval.spool import Chunk
from augkd.workspace.folders import CACHE
from augkd.workspace.progress import silent

pytestmark = pytest.mark.xdist_group("ray")

TESTS = Path(__file__).parents[2]
CHUNK = 50
TEXTS = [f"line number {number} of {number % 7} things" for number in range(620)]  # 13 chunks


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.txt"
    path.write_text("".join(f"{text}\n" for text in TEXTS))
    return path


@pytest.fixture(scope="module")
def token_vectors(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with a static encoder, which workers load faster than a sentence model."""
    cache = tmp_path_factory.mktemp("cache")
    make_encoder(encoder_of(tiny_bert), cache)
    return cache


@pytest.fixture
def build(corpus: Path, tiny_bert: Path, token_vectors: Path, tmp_path: Path) -> Callable[..., Any]:
    def in_chunks(name: str, cluster: Cluster | None = None, **more: Any) -> Any:
        shutil.copytree(token_vectors, tmp_path / name / CACHE, dirs_exist_ok=True)
        return build_in_chunks(tmp_path / name, corpus, tiny_bert, cluster, **more)

    return in_chunks


def encoder_of(model: Path) -> dict[str, Any]:
    return {"kind": "static", "model": str(model), "dim": 16}


def build_in_chunks(folder: Path, corpus: Path, model: Path, cluster: Cluster | None, **more: Any) -> Any:
    """A build as `build_index` does it, in chunks that are small enough for a test."""
    options = encoder_of(model)
    encoder = make_encoder(options, folder / CACHE)
    if cluster is not None:
        more["encode"] = engine.encode_on(cluster, options)
    return build_dense(folder, CorpusSource(str(corpus)), encoder, factory="IVF4,SQ8", chunk=CHUNK, **more)


def checksum(numbered: Iterable[tuple[int, str]]) -> str:
    return xxhash.xxh3_128_hexdigest(repr(list(numbered)).encode())


@pytest.mark.parametrize("workers", [2, 4])
def test_workers_build_the_bytes_of_a_build_here_although_one_is_killed(
    ray_address: str, build: Callable[..., Any], tmp_path: Path, workers: int
) -> None:
    build("here")
    with Cluster.connect(ray_address, workers=workers) as cluster:
        progress: list[int] = []

        def kill_one(done: int, total: int | None) -> None:
            progress.append(done)
            if len(progress) == 3:
                pool = cluster._pool
                assert pool is not None
                os.kill(pool[1].processes[0], signal.SIGKILL)

        build("ray", cluster, progress=kill_one)
    assert files_of(tmp_path / "ray") == files_of(tmp_path / "here")
    assert progress == sorted(progress)
    assert (len(progress), progress[-1]) == (13, len(TEXTS)), "every chunk was written once"
    index, ids = build("ray"), range(len(TEXTS))
    assert len(index) == len(TEXTS)
    assert checksum(zip(ids, index.texts(ids), strict=True)) == checksum(enumerate(TEXTS)), "none lost, none twice"


DRIVER = """
import os, signal, sys
sys.path[:0] = [{tests!r}, {root!r}]
from pathlib import Path
import importlib.util
spec = importlib.util.spec_from_file_location("ray_build", {here!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
from augkd.models.cluster import Cluster
calls = []
def stop(done, total):
    calls.append(done)
    if len(calls) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
with Cluster.connect({address!r}, workers=2) as cluster:
    module.build_in_chunks(Path({folder!r}), Path({corpus!r}), Path({model!r}), cluster, progress=stop)
"""


def test_a_driver_that_is_killed_resumes_with_the_chunks_that_are_not_on_disk(
    ray_address: str,
    build: Callable[..., Any],
    corpus: Path,
    tiny_bert: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    build("here")
    program = DRIVER.format(
        tests=str(TESTS),
        root=str(TESTS.parent),
        here=__file__,
        address=ray_address,
        folder=str(tmp_path / "ray"),
        corpus=str(corpus),
        model=str(tiny_bert),
    )
    killed = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=120, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert not (tmp_path / "ray" / "manifest.json").exists()
    on_disk = {int(path.stem.split("-")[1]) for path in (tmp_path / "ray" / "build").glob("vectors-*.npy")}
    assert len(on_disk) == 4

    written: list[int] = []
    write = engine.write_part

    def write_and_note(folder: Path, part: Chunk, vectors: Any) -> None:
        written.append(part.number)
        write(folder, part, vectors)

    monkeypatch.setattr(engine, "write_part", write_and_note)
    with Cluster.connect(ray_address, workers=2) as cluster:
        build("ray", cluster)
    assert sorted(written) == sorted(set(range(13)) - on_disk), "what was on disk is not encoded again"
    assert files_of(tmp_path / "ray") == files_of(tmp_path / "here")


@pytest.mark.parametrize("kind", ["sentence", "static"])
def test_a_recipes_index_is_the_same_with_files_that_are_sent_to_the_workers(
    ray_address: str, corpus_file: Path, tiny_bert: Path, tmp_path: Path, kind: str
) -> None:
    encoder = {"kind": kind, "model": str(tiny_bert), "max_length": None} | ({"dim": 16} if kind == "static" else {})
    recipe = IndexRecipe.model_validate({"corpus": str(corpus_file), "encoder": encoder})
    here = build_index(recipe, tmp_path / "here", silent)
    with Cluster.connect(ray_address, workers=2, in_place=False) as cluster:
        build_index(recipe, tmp_path / "ray", silent, cluster=cluster)
    assert len(here) > 100
    assert files_of(tmp_path / "ray") == files_of(tmp_path / "here")


def test_a_lexical_index_is_not_built_by_a_cluster(corpus_file: Path, tmp_path: Path) -> None:
    recipe = IndexRecipe.model_validate({"corpus": str(corpus_file), "encoder": {"kind": "lexical"}})
    with pytest.raises(RecipeError, match="a lexical index encodes no vectors; build it on one machine"):
        build_index(recipe, tmp_path / "index", silent, cluster=Cluster("node", 1, 1.0, 0.0))


@pytest.mark.parametrize("kind", ["sentence", "lexical"])
def test_a_search_by_workers_gives_the_hits_of_a_search_here(
    ray_address: str,
    corpus_file: Path,
    tiny_bert: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    monkeypatch.setattr(dense, "QUERIES_AT_ONCE", 16)
    monkeypatch.setattr("augkd.retrieval.lexical.index.QUERIES_AT_ONCE", 16)
    encoder = {"kind": kind, "model": str(tiny_bert), "max_length": None}
    recipe = IndexRecipe.model_validate({"corpus": str(corpus_file), "encoder": encoder})
    here = build_index(recipe, tmp_path / "index", silent)
    queries = corpus_file.read_text().split("\n")[:70]
    with Cluster.connect(ray_address, workers=2) as cluster:
        there = on_cluster(open_index(tmp_path / "index"), cluster)
        assert isinstance(there, RayRetriever)
        for vectors in (False, True) if kind == "sentence" else (False,):
            steps: list[tuple[int, int | None]] = []
            expected = here.search(queries, 5, vectors=vectors)
            found = there.search(queries, 5, vectors=vectors, progress=lambda *step, to=steps: to.append(step))
            assert steps == [(16, 70), (32, 70), (48, 70), (64, 70), (70, 70)]
            np.testing.assert_array_equal(found.ids, expected.ids)
            np.testing.assert_array_equal(found.scores, expected.scores)
            if vectors:
                np.testing.assert_array_equal(found.vectors, expected.vectors)
        assert there.search(queries[:3], 5).ids.shape == (3, 5)
        assert there.search_average([queries[:3]], 5).ids.shape == (1, 5)
