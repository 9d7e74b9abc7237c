"""Builds a dense index on several machines: each encodes a shard of the corpus, and one of them merges the shards.

The merged folder is byte for byte the one that a single machine would have built.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from augkd.data.corpus import CorpusSource
from augkd.data.dropped import DROPPED
from augkd.errors import IndexFolderError, RecipeError, WorkspaceError
from augkd.retrieval.dense.builder import (
    BuildOptions,
    check_plan,
    checksums_of,
    describe_sources,
    finish,
    is_finished,
    made_from,
)
from augkd.retrieval.dense.search import Index
from augkd.retrieval.engines.local import fill_spool
from augkd.retrieval.manifest import check_index
from augkd.retrieval.spool import CHUNK, encode_parts, recorded_files, vectors_path
from augkd.retrieval.texts import text_path
from augkd.workspace.checksums import checksum, table_of
from augkd.workspace.chunk_log import record_chunk
from augkd.workspace.files import replacing
from augkd.workspace.folders import begin, end
from augkd.workspace.manifest_kinds import ShardManifest
from augkd.workspace.manifests import finished, read_manifest
from augkd.workspace.progress import Steps

if TYPE_CHECKING:
    from augkd.retrieval.encoders.encoder import IndexEncoder

KIND = "index-shard"


def encode_shard(
    folder: Path,
    source: CorpusSource,
    encoder: IndexEncoder,
    shard: tuple[int, int],
    *,
    factory: str = "auto",
    recall: float = 0.95,
    memory: int | None = None,
    seed: int = 0,
    recipe: dict[str, Any] | None = None,
    progress: Steps | None = None,
    chunk: int = CHUNK,
) -> ShardManifest:
    """Encodes shard i of n, `shard` = (i, n) with i from 1, for `merge_encoded_shards`; its manifest.

    Options and resuming as of `build_dense`. Every machine reads the whole corpus, which takes little time, and encodes
    every n-th chunk of it.
    """
    number, shards = shard
    if not 1 <= number <= shards:
        raise RecipeError(f"shard is {number}/{shards}; give i/n with i from 1 to n, like 1/4")
    options = BuildOptions(factory, recall, memory, seed, chunk)
    sources = {**made_from(source, encoder, options), "shard": [number, shards]}
    if finished(folder, KIND, sources):
        return read_manifest(folder, ShardManifest)
    check_plan(source, encoder.dim, options, recipe)
    begin(folder, KIND, sources)

    counts = fill_spool(folder, source, partial(encode_parts, encoder=encoder, shard=shard), chunk, progress=progress)
    parts = range(number - 1, -(-counts.kept // chunk), shards)
    texts = recorded_files(folder, [text_path(folder, part) for part in parts])
    vectors = recorded_files(folder, [vectors_path(folder, part) for part in parts])
    facts = describe_sources(recipe, seed, encoder, counts) | {"dim": encoder.dim}
    facts |= {"texts": checksums_of(texts), "vectors": checksums_of(vectors)}
    end(folder, KIND, sources, **facts, files=texts | vectors | table_of(folder, [DROPPED]))
    return read_manifest(folder, ShardManifest)


def read_shards(folders: Sequence[Path]) -> list[ShardManifest]:
    """The manifests of all shards of one build; raises IndexFolderError for one that is missing or does not belong."""
    manifests = [_read_shard(folder) for folder in folders]
    _check_shards(folders, manifests)
    return manifests


def merge_encoded_shards(folders: Sequence[Path], out: Path, prepare: Callable[[], None] | None = None) -> Index:
    """Builds the index in `out` from all shards of one corpus: byte for byte what an unsharded build writes.

    `prepare` puts what the index needs besides into `out`, when every shard is known to be whole. Raises
    IndexFolderError, before anything is written, for a shard that is missing, given twice, of another build, or
    damaged.
    """
    manifests = read_shards(folders)
    first = manifests[0]
    sources = {key: value for key, value in first.made_from.on_disk().items() if key != "shard"}
    if is_finished(out, sources):
        return Index.open(out)

    for folder, manifest in zip(folders, manifests, strict=True):
        check_index(folder, manifest)
    if prepare is not None:
        prepare()
    begin(out, "index", sources)
    for folder, manifest in zip(folders, manifests, strict=True):
        for text, vectors in zip(sorted(manifest.texts), sorted(manifest.vectors), strict=True):
            _copy(folder / "texts" / text, out / "texts" / text, manifest.texts[text])
            _copy(folder / "build" / vectors, out / "build" / vectors, manifest.vectors[vectors])
            record_chunk(out, [out / "texts" / text, out / "build" / vectors])
    shutil.copyfile(folders[0] / DROPPED, out / DROPPED)  # every shard has read the whole corpus
    written = first.on_disk()  # a shard made from Python may have no recipe
    facts = {"recipe": None} | {key: written[key] for key in written if key in ("recipe", "seed", "encoder", "corpus")}
    finish(out, sources, facts, first.corpus.kept, first.dim)
    return Index.open(out)


def _read_shard(folder: Path) -> ShardManifest:
    try:
        return read_manifest(folder, ShardManifest)
    except WorkspaceError as exc:
        raise IndexFolderError(str(exc)) from exc


def _check_shards(folders: Sequence[Path], manifests: Sequence[ShardManifest]) -> None:
    if not manifests:
        raise IndexFolderError("no shard given; name the folders of all shards")
    shards = manifests[0].made_from.shard[1]
    folder_of: dict[int, Path] = {}
    for folder, manifest in zip(folders, manifests, strict=True):
        number = manifest.made_from.shard[0]
        if _build_of(manifest) != _build_of(manifests[0]):
            raise IndexFolderError(f"{folder} is a shard of another build than {folders[0]}; merge shards of one build")
        if number in folder_of:
            raise IndexFolderError(f"{folder} and {folder_of[number]} are both shard {number}/{shards}; give each once")
        folder_of[number] = folder
    if missing := sorted(set(range(1, shards + 1)) - set(folder_of)):
        raise IndexFolderError(f"shard {missing[0]}/{shards} is missing; build it with --shard {missing[0]}/{shards}")


def _build_of(manifest: ShardManifest) -> tuple[object, ...]:
    """What all shards of one build have in common."""
    return manifest.made_from.on_disk() | {"shard": None}, manifest.corpus, manifest.made_from.shard[1]


def _copy(source: Path, target: Path, expected: str) -> None:
    if not source.is_file() or checksum(source) != expected:
        raise IndexFolderError(f"{source} is missing or damaged; remove that shard and build it again")
    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)
        if checksum(temporary) != expected:
            raise IndexFolderError(f"{source} changed while it was copied; build that shard again")
