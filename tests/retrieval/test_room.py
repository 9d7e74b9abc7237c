"""An index that cannot fit on the disk is an error before its first text is encoded."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from augkd.errors import WorkspaceError
from augkd.recipe import IndexRecipe
from augkd.retrieval.build import build_index, build_shard, merge_shards
from augkd.retrieval.dense.size import plan_index
from augkd.retrieval.room import index_bytes
from augkd.workspace import disk


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.parquet"
    pq.write_table(pa.table({"text": [f"a goat and {number}" for number in range(60)]}), path)
    return path


def recipe(corpus: Path, encoder: dict[str, object]) -> IndexRecipe:
    return IndexRecipe.model_validate({"corpus": {"dataset": str(corpus)}, "encoder": encoder})


def free(monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    monkeypatch.setattr(disk, "free_bytes", lambda _: room)


def test_an_index_takes_its_texts_and_what_its_vectors_or_postings_take(corpus: Path, tiny_bert: Path) -> None:
    texts = corpus.stat().st_size
    assert index_bytes(recipe(corpus, {"kind": "lexical"})) == 3 * texts
    chosen = plan_index(60, 32, None, 0.95).chosen  # the tiny model's width
    assert chosen is not None
    assert index_bytes(recipe(corpus, {"model": str(tiny_bert)})) == texts + chosen.disk_bytes
    lines = corpus.with_suffix(".txt")
    lines.write_text("a goat\n")
    assert index_bytes(recipe(lines, {"model": str(tiny_bert)})) == 7, "lines are counted only by reading them"


@pytest.mark.parametrize("kind", ["dense", "lexical", "shard"])
def test_a_build_that_cannot_fit_writes_nothing_and_with_room_it_begins(
    corpus: Path, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    parsed = recipe(corpus, {"kind": "lexical"} if kind == "lexical" else {"model": str(tiny_bert), "max_length": 32})
    needed = index_bytes(parsed) // (2 if kind == "shard" else 1) // 3
    out = tmp_path / "out"

    def build() -> object:
        return build_shard(parsed, out, (1, 2)) if kind == "shard" else build_index(parsed, out)

    free(monkeypatch, needed - 1)
    what = "shard" if kind == "shard" else "index"
    with pytest.raises(WorkspaceError, match=rf"out has too little room for the {what}: .* needed, .* free"):
        build()
    assert not out.exists()
    free(monkeypatch, needed)
    build()
    free(monkeypatch, 0)
    build()  # it is finished: nothing is written


def test_a_merge_needs_room_for_the_texts_of_its_shards(
    corpus: Path, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed = recipe(corpus, {"model": str(tiny_bert), "max_length": 32})
    shards = [tmp_path / "one", tmp_path / "two"]
    for number, shard in enumerate(shards, 1):
        build_shard(parsed, shard, (number, 2))
    texts = sum(path.stat().st_size for shard in shards for path in shard.glob("texts/*"))
    free(monkeypatch, texts - 1)
    with pytest.raises(WorkspaceError, match="index has too little room for the texts of the index"):
        merge_shards(shards, tmp_path / "index")
    assert not (tmp_path / "index").exists()
    free(monkeypatch, texts)
    assert merge_shards(shards, tmp_path / "index").manifest.count == 60
