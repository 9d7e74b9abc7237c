"""Each kind of encoder through the whole life of an index by its commands: build, shards and merge, add, remove."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.command_line import Augkd, Done
from support.seed_encoder import files_of
from support.tiny import sentences

from augkd.retrieval.engines.local import build_dense
from augkd.retrieval.engines.shards import encode_shard
from augkd.retrieval.open import open_index

KINDS = {
    "sentence": "{kind: sentence, max_length: 32",
    "static": "{kind: static, dim: 16, sample: 100",
    "static re-ranked": "{kind: static, dim: 16, sample: 100, rerank: 20",
    "int8": "{kind: sentence, max_length: 32, precision: int8",
}


class Desk:
    """Runs `augkd index` in a folder, with a recipe of one kind of encoder."""

    def __init__(self, augkd: Augkd, folder: Path, corpus: Path, encoder: str):
        self._augkd, self.folder, self.recipe = augkd, folder, folder / "index.yaml"
        self.recipe.write_text(f"corpus: {{dataset: {corpus}}}\nencoder: {encoder}\n")
        (folder / "new.txt").write_text("a spade that nobody has seen before\n")
        (folder / "takedown.txt").write_text("a spade that nobody has seen before\n")

    def __call__(self, command: str, *rest: object) -> Done:
        return self._augkd("index", command, *rest)

    def ok(self, command: str, *rest: object) -> Done:
        done = self(command, *rest)
        assert done.code == 0, done.err
        return done


@pytest.fixture
def augkd(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Augkd:
    """Builds in chunks of 50 texts."""
    for build in (encode_shard, build_dense):
        monkeypatch.setattr(build, "__kwdefaults__", build.__kwdefaults__ | {"chunk": 50})
    return Augkd(monkeypatch, capsys)


def best(folder: Path, text: str) -> str:
    index = open_index(folder)
    return index.texts(index.search([text], 1).ids[0])[0]


@pytest.mark.parametrize("kind", [*list(KINDS)[:3], pytest.param("int8", marks=pytest.mark.slow)])
def test_a_kind_is_built_sharded_merged_added_to_and_removed_from(
    augkd: Augkd, tmp_path: Path, corpus_file: Path, tiny_bert: Path, kind: str
) -> None:
    if kind == "int8":
        pytest.importorskip("onnxruntime")
    desk = Desk(augkd, tmp_path, corpus_file, f"{KINDS[kind]}, model: {tiny_bert}}}")
    text = f"{sentences(40)[0][0]} and 0"
    desk.ok("build", desk.recipe, "--out", tmp_path / "whole")
    assert best(tmp_path / "whole", text) == text

    first, second = tmp_path / "shard-1", tmp_path / "shard-2"
    desk.ok("build", desk.recipe, "--out", first, "--shard", "1/2")
    others = ("--encoder", first) if "static" in kind else ()
    desk.ok("build", desk.recipe, "--out", second, "--shard", "2/2", *others)
    desk.ok("merge", second, first, "--out", tmp_path / "merged")
    for folder in ("whole", "merged"):
        assert best(tmp_path / folder, text) == text
        desk.ok("add", tmp_path / folder, tmp_path / "new.txt")
        assert best(tmp_path / folder, "a spade that nobody has seen") == "a spade that nobody has seen before"
        desk.ok("remove", tmp_path / folder, tmp_path / "takedown.txt", "--yes")
        assert best(tmp_path / folder, "a spade that nobody has seen") != "a spade that nobody has seen before"
        desk.ok("info", tmp_path / folder, "--verify")


def test_a_lexical_index_is_built_and_says_that_it_has_no_shards_and_no_changes(
    augkd: Augkd, tmp_path: Path, corpus_file: Path
) -> None:
    desk = Desk(augkd, tmp_path, corpus_file, "{kind: lexical}")
    desk.ok("build", desk.recipe, "--out", tmp_path / "whole")
    assert best(tmp_path / "whole", sentences(40)[0][0]).startswith(sentences(40)[0][0])
    for command, rest in (
        ("build", (desk.recipe, "--out", tmp_path / "shard", "--shard", "1/2")),
        ("add", (tmp_path / "whole", tmp_path / "new.txt")),
        ("remove", (tmp_path / "whole", tmp_path / "takedown.txt")),
    ):
        done = desk(command, *rest)
        assert (done.code, len(done.err.splitlines())) == (1, 1)
        assert "a lexical index" in done.err or "is a lexical index" in done.err
    assert not (tmp_path / "shard" / "manifest.json").exists()


@pytest.fixture
def static(augkd: Augkd, tmp_path: Path, corpus_file: Path, tiny_bert: Path) -> Desk:
    """Two finished shards of a static encoder."""
    desk = Desk(augkd, tmp_path, corpus_file, f"{{kind: static, dim: 16, sample: 100, model: {tiny_bert}}}")
    desk.ok("build", desk.recipe, "--out", tmp_path / "shard-1", "--shard", "1/2")
    desk.ok("build", desk.recipe, "--out", tmp_path / "shard-2", "--shard", "2/2", "--encoder", tmp_path / "shard-1")
    return desk


def test_merged_static_shards_are_the_bytes_of_one_build_and_of_its_encoder(static: Desk, tmp_path: Path) -> None:
    static.ok("merge", tmp_path / "shard-1", tmp_path / "shard-2", "--out", tmp_path / "merged")
    static.ok("build", static.recipe, "--out", tmp_path / "whole", "--encoder", tmp_path / "merged")

    def vectors(folder: str) -> dict[str, bytes]:
        return {
            name: content
            for name, content in files_of(tmp_path / folder).items()
            if name.endswith((".faiss", ".arrow", ".safetensors", "tokenizer.json"))
        }

    assert "vectors.faiss" in vectors("merged")
    assert any(name.startswith(".cache/static-") for name in vectors("merged"))
    assert vectors("merged") == vectors("whole")


def test_a_second_shard_without_the_encoder_of_the_first_is_refused_before_it_works(
    static: Desk, tmp_path: Path
) -> None:
    done = static("build", static.recipe, "--out", tmp_path / "own", "--shard", "2/2")
    assert done.code == 1
    assert "shard 2/2 would fit a static encoder of its own; build shard 1/2 first, and give its folder" in done.err
    assert not (tmp_path / "own" / ".cache").exists()


@pytest.mark.parametrize("fault", ["no encoder", "another encoder", "a damaged encoder", "a damaged part"])
def test_a_refused_merge_leaves_nothing_behind(static: Desk, tmp_path: Path, fault: str) -> None:
    first = tmp_path / "shard-1"
    (kept,) = (first / ".cache").glob("static-*")
    if fault == "no encoder":
        shutil.rmtree(kept)
    elif fault == "another encoder":
        other = ("--set", "encoder.sample=50")
        static.ok("build", static.recipe, "--out", tmp_path / "other", *other)
        shutil.rmtree(kept)
        shutil.copytree(next((tmp_path / "other" / ".cache").glob("static-*")), kept)
    else:
        path = kept / "model.safetensors" if fault == "a damaged encoder" else next((first / "texts").iterdir())
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    done = static("merge", first, tmp_path / "shard-2", "--out", tmp_path / "merged")
    assert (done.code, done.err.count("\n")) == (1, 1), done.err
    assert "Traceback" not in done.err
    left = [path for path in (tmp_path / "merged").rglob("*") if path.name != ".lock"]
    assert left == []


def test_an_encoder_is_taken_over_only_where_one_is_fitted_and_only_if_it_fits(
    static: Desk, tmp_path: Path, corpus_file: Path
) -> None:
    wider = static(
        "build", static.recipe, "--out", tmp_path / "x", "--encoder", tmp_path / "shard-1", "--set", "encoder.dim=8"
    )
    assert "has no static encoder of" in wider.err
    assert "with 8 dimensions" in wider.err
    (tmp_path / "index.yaml").write_text(f"corpus: {{dataset: {corpus_file}}}\nencoder: {{kind: lexical}}\n")
    lexical = static("build", static.recipe, "--out", tmp_path / "y", "--encoder", tmp_path / "shard-1")
    assert (lexical.code, "drop --encoder" in lexical.err) == (1, True)
