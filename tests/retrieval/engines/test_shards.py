"""Shards merge into the bytes of one build, resume, and are refused when they do not belong together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.seed_encoder import SeedEncoder, files_of, lines

from augkd.data.corpus import CorpusSource
from augkd.errors import IndexFolderError, RecipeError
from augkd.retrieval.dense.search import Index
from augkd.retrieval.engines.local import build_dense
from augkd.retrieval.engines.shards import encode_shard, merge_encoded_shards
from augkd.workspace.checksums import signed_text


def shards(tmp_path: Path, source: CorpusSource, count: int, factory: str = "IVF4,SQ8") -> list[Path]:
    folders = [tmp_path / f"shard-{number}" for number in range(1, count + 1)]
    for number, folder in enumerate(folders, 1):
        encode_shard(folder, source, SeedEncoder(), (number, count), factory=factory, chunk=50, recipe={"a": 1})
    return folders


@pytest.mark.parametrize("factory", ["auto", "IVF4,SQ8", "IVF4,PQ4x4fs,Refine(SQ8)", "IVF4,PQ8x4fsr,Refine(SQ8)"])
def test_merged_shards_are_byte_identical_to_one_build(tmp_path: Path, factory: str) -> None:
    source = lines(tmp_path, "c.txt", range(330))
    build_dense(tmp_path / "whole", source, SeedEncoder(), factory=factory, chunk=50, recipe={"a": 1})
    folders = shards(tmp_path, source, 3, factory)
    assert [len(list((folder / "texts").iterdir())) for folder in folders] == [3, 2, 2]  # of 7 chunks
    merge_encoded_shards([folders[2], folders[0], folders[1]], tmp_path / "merged")
    assert files_of(tmp_path / "merged") == files_of(tmp_path / "whole")
    assert len(merge_encoded_shards(folders, tmp_path / "merged")) == 330  # finished: opened


def test_shards_made_without_a_recipe_merge_though_their_manifests_do_not_say_so(tmp_path: Path) -> None:
    folders = shards(tmp_path, lines(tmp_path, "c.txt", range(120)), 2)
    for folder in folders:
        manifest = json.loads((folder / "manifest.json").read_text())
        del manifest["recipe"], manifest["checksum"]
        (folder / "manifest.json").write_text(signed_text(manifest))
    merge_encoded_shards(folders, tmp_path / "merged")
    assert len(Index.open(tmp_path / "merged")) == 120


def test_a_shard_encodes_its_chunks_only_and_resumes(tmp_path: Path) -> None:
    source = lines(tmp_path, "c.txt", range(330))
    with pytest.raises(KeyboardInterrupt):
        encode_shard(tmp_path / "s", source, SeedEncoder(fail_after=1), (1, 2), chunk=50)
    resumed = SeedEncoder()
    encode_shard(tmp_path / "s", source, resumed, (1, 2), chunk=50)
    assert resumed.calls == 3  # chunks 0, 2, 4, 6, of which 0 was done
    with pytest.raises(IndexFolderError, match="index-shard"):
        Index.open(tmp_path / "s")


def test_shards_that_are_not_one_whole_build_are_refused(tmp_path: Path) -> None:
    source = lines(tmp_path, "c.txt", range(120))
    first, second = shards(tmp_path, source, 2)
    with pytest.raises(IndexFolderError, match="shard 2/2 is missing"):
        merge_encoded_shards([first], tmp_path / "m")
    with pytest.raises(IndexFolderError, match="both shard 1/2"):
        merge_encoded_shards([first, first], tmp_path / "m")
    (tmp_path / "other").mkdir()
    foreign = shards(tmp_path / "other", lines(tmp_path, "d.txt", range(121)), 2)[1]
    with pytest.raises(IndexFolderError, match="another build"):
        merge_encoded_shards([first, foreign], tmp_path / "m")
    with pytest.raises(IndexFolderError, match="no shard given"):
        merge_encoded_shards([], tmp_path / "m")
    part = second / "texts" / "part-00001.arrow"
    part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(IndexFolderError, match=r"part-00001\.arrow is damaged"):
        merge_encoded_shards([first, second], tmp_path / "m")
    with pytest.raises(RecipeError, match="shard is 3/2"):
        encode_shard(tmp_path / "s", source, SeedEncoder(), (3, 2))


@pytest.mark.parametrize("name", ["../../payload", "/tmp/payload", "../part-00000.arrow", "part-00000.arrow/../x", "."])
@pytest.mark.parametrize("table", ["texts", "vectors"])
def test_a_shard_whose_manifest_leads_elsewhere_is_refused_before_anything_is_written(
    tmp_path: Path, table: str, name: str
) -> None:
    folders = shards(tmp_path, lines(tmp_path, "c.txt", range(120)), 2)
    manifest = json.loads((folders[0] / "manifest.json").read_text())
    manifest[table][name] = manifest[table].pop(min(manifest[table]))
    (folders[0] / "manifest.json").write_text(signed_text(manifest))
    before = files_of(tmp_path)
    with pytest.raises(IndexFolderError, match=rf"manifest.json: {table}\..* is "):
        merge_encoded_shards(folders, tmp_path / "out" / "merged")
    assert files_of(tmp_path) == before
