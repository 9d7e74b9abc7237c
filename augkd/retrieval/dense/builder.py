"""From a stream of texts to an index folder, on one machine or on many.

`build_index` encodes the corpus in chunks, then samples, trains and adds in bounded memory; killed anywhere, it
continues and ends with the bytes of an uninterrupted build. With `shard`, a machine encodes its share of the chunks
only, and `merge_shards` makes of all shares the very folder that one machine would have made.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from augkd.data.corpus import CorpusCounts, CorpusSource, check_not_empty, stream_corpus
from augkd.data.dropped import DROPPED, Dropped
from augkd.errors import IndexFolderError, RecipeError, WorkspaceError
from augkd.retrieval.dense import choice as factories
from augkd.retrieval.dense.search import Index
from augkd.retrieval.dense.size import Option, plan
from augkd.retrieval.dense.vectors import RECALL, make_vectors
from augkd.retrieval.manifest import read_index_manifest
from augkd.retrieval.spool import CHUNK, Spool, encode_parts, spool_of, vectors_path
from augkd.retrieval.texts import checksum, text_paths
from augkd.workspace.files import replacing
from augkd.workspace.folders import begin, end
from augkd.workspace.manifests import MANIFEST, finished, read_manifest
from augkd.workspace.progress import Steps

if TYPE_CHECKING:
    from augkd.retrieval.encoders.encoder import IndexEncoder

SHARD = "index-shard"


def build_index(
    folder: Path,
    source: CorpusSource,
    encoder: IndexEncoder,
    *,
    factory: str = "auto",
    recall: float = 0.95,
    memory: int | None = None,
    seed: int = 0,
    recipe: dict[str, Any] | None = None,
    progress: Steps | None = None,
    chunk: int = CHUNK,
) -> Index:
    """Builds the index of `source` in `folder`, resumes an unfinished build, or opens the finished one.

    `factory` is auto or any FAISS factory string; `recall` in (0, 1] is what it is tuned to; `memory` in bytes (None:
    no budget) bounds the build beside Python and the encoder: what would not fit is refused, with the plan, before any
    text is encoded. An index that was changed by `add_texts` or `remove_texts` counts as finished for what it was made
    from, and is never replaced. The caller holds `workspace.locked(folder)` where two builds could meet.
    """
    made_from = _made_from(source, encoder, factory, recall, memory, seed, chunk)
    if _already(folder, "index", made_from):
        shutil.rmtree(folder / "build", ignore_errors=True)  # left by a kill right after the manifest
        return Index.open(folder)
    _check_plan(source, encoder.dim, factory, recall, memory)
    begin(folder, "index", made_from)

    counts = _encode(folder, source, encoder, chunk, (1, 1), progress)
    _finish(folder, made_from, _described(recipe, seed, encoder, counts), counts["kept"], encoder.dim)
    return Index.open(folder)


def build_shard(
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
) -> dict[str, Any]:
    """Encodes share i of n, `shard` = (i, n) with i from 1, for `merge_shards`; the manifest. Resumes as a build does.

    Every machine reads the whole corpus, which is cheap, and encodes every n-th chunk of it.
    """
    number, shards = shard
    if not 1 <= number <= shards:
        raise RecipeError(f"shard is {number}/{shards}; give i/n with i from 1 to n, like 1/4")
    whole = _made_from(source, encoder, factory, recall, memory, seed, chunk)
    made_from = {**whole, "shard": [number, shards]}
    if _already(folder, SHARD, made_from):
        return read_manifest(folder, SHARD)
    _check_plan(source, encoder.dim, factory, recall, memory)
    begin(folder, SHARD, made_from)

    counts = _encode(folder, source, encoder, chunk, shard, progress)
    mine = range(number - 1, -(-counts["kept"] // chunk), shards)
    vectors = {path.name: checksum(path) for path in (vectors_path(folder, part) for part in mine)}
    facts = _described(recipe, seed, encoder, counts)
    end(folder, SHARD, made_from, **facts, dim=encoder.dim, texts=_checksums(folder), vectors=vectors)
    return read_manifest(folder, SHARD)


def merge_shards(folders: Sequence[Path], out: Path) -> Index:
    """The index of all shards of one corpus in `out`: byte for byte what an unsharded build writes.

    Raises IndexFolderError for a shard that is missing, given twice, of another build, or damaged.
    """
    manifests = [_read_shard(folder) for folder in folders]
    _check_shards(folders, manifests)
    first = manifests[0]
    made_from = {key: value for key, value in first["made_from"].items() if key != "shard"}
    if _already(out, "index", made_from):
        shutil.rmtree(out / "build", ignore_errors=True)
        return Index.open(out)

    begin(out, "index", made_from)
    for folder, manifest in zip(folders, manifests, strict=True):
        for name, value in manifest["texts"].items():
            _copy(folder / "texts" / name, out / "texts" / name, value)
        for name, value in manifest["vectors"].items():
            _copy(folder / "build" / name, out / "build" / name, value)
    shutil.copyfile(folders[0] / DROPPED, out / DROPPED)  # every shard has read the whole corpus
    facts = {key: first[key] for key in ("recipe", "seed", "encoder", "corpus")}
    _finish(out, made_from, facts, first["corpus"]["kept"], first["dim"])
    return Index.open(out)


def _made_from(
    source: CorpusSource,
    encoder: IndexEncoder,
    factory: str,
    recall: float,
    memory: int | None,
    seed: int,
    chunk: int,
) -> dict[str, Any]:
    if not 0 < recall <= 1:
        raise RecipeError(f"faiss recall is {recall}; give a share above 0 and up to 1, like 0.95")
    if memory is not None and memory < 1:
        raise RecipeError(f"faiss memory is {memory} bytes; give more, or leave it out for no budget")
    if factory != "auto":
        factories.create(encoder.dim, factory)  # a typo shows before hours of encoding, not after
    faiss = {"factory": factory, "recall": recall, "seed": seed, "chunk": chunk}
    return {
        "corpus": source.fingerprint(),
        "encoder": encoder.fingerprint,
        "faiss": faiss | ({} if memory is None else {"memory": memory}),
    }


def _already(folder: Path, kind: str, made_from: dict[str, Any]) -> bool:
    """Whether `folder` is finished; raises IndexFolderError rather than have changes by hand lost in a rebuild."""
    if finished(folder, kind, made_from):
        return True
    if kind == "index" and (folder / MANIFEST).exists() and (changes := read_index_manifest(folder).get("changes")):
        raise IndexFolderError(
            f"{folder} was made from something else and holds {len(changes)} changes (add, remove) that a new build "
            "would lose; choose another folder, or remove this one"
        )
    return False


def _check_plan(source: CorpusSource, dim: int, factory: str, recall: float, memory: int | None) -> None:
    """Refuses what cannot fit; without a budget there is nothing to refuse."""
    if memory is None:
        return
    count = source.known_size()
    if count is None:  # reading is cheap beside encoding
        count = sum(1 for _ in stream_corpus(source, CorpusCounts()))
    if count:
        factories.choose(count, dim, factory, recall=recall, memory=memory)


def _encode(
    folder: Path,
    source: CorpusSource,
    encoder: IndexEncoder,
    chunk: int,
    shard: tuple[int, int],
    progress: Steps | None,
) -> dict[str, Any]:
    for leftover in folder.rglob(".*.tmp"):  # of a killed write
        leftover.unlink()
    counts = CorpusCounts()
    total = source.known_size()
    told = None if progress is None else lambda done: progress(done, total)
    dropped = Dropped()
    texts = stream_corpus(source, counts, dropped, scratch=folder)
    encode_parts(folder, texts, encoder, chunk=chunk, shard=shard, progress=told)
    check_not_empty(source, counts)
    dropped.write(folder / DROPPED)
    return dataclasses.asdict(counts)


def _described(
    recipe: dict[str, Any] | None, seed: int, encoder: IndexEncoder, counts: dict[str, Any]
) -> dict[str, Any]:
    name = getattr(encoder, "name", type(encoder).__name__)
    kind = (recipe or {}).get("encoder", {}).get("kind", "sentence")
    return {"recipe": recipe, "seed": seed, "encoder": {"kind": kind, "model": name}, "corpus": counts}


def _finish(folder: Path, made_from: dict[str, Any], facts: dict[str, Any], count: int, dim: int) -> None:
    """Makes the FAISS index of the spooled parts, then the manifest; the spool goes last."""
    options = made_from["faiss"]
    memory, recall = options.get("memory"), options["recall"]
    chosen = factories.choose(count, dim, options["factory"], recall=recall, memory=memory)
    spool = spool_of(folder, count, dim, options["chunk"])
    if options["factory"] == "auto":
        trials = plan(count, dim, memory, recall).trials(fine=facts["encoder"]["kind"] == "static")
        made = _reaching(folder, spool, trials, recall, options["seed"])
    else:
        made = make_vectors(folder, spool, chosen, recall, options["seed"])
    end(folder, "index", made_from, **facts, **made, texts=_checksums(folder), changes=[])
    shutil.rmtree(folder / "build")


def _reaching(folder: Path, spool: Spool, options: Sequence[Option], recall: float, seed: int) -> dict[str, Any]:
    """The first of the factories that reaches `recall` when it is measured, else the one that comes nearest.

    How fine a code must be depends on the vectors: of a static encoder 4 bits for 4 dimensions lose what they keep of
    a sentence model. The best so far waits aside while the next is built. Facts about the vectors file, with what was
    planned for it.
    """
    best, aside = options[0], folder / "build" / "best"
    facts = make_vectors(folder, spool, best.factory, recall, seed)
    for option in options[1:]:
        if facts[RECALL] >= recall:
            break
        _move_vectors(folder, aside)
        made = make_vectors(folder, spool, option.factory, recall, seed)
        if made[RECALL] > facts[RECALL]:
            best, facts = option, made
        else:
            _move_vectors(aside, folder)
    planned = {"index": best.index_bytes, "build": best.build_bytes, "disk": best.disk_bytes}
    return facts | {"memory_plan": planned}


def _move_vectors(source: Path, target: Path) -> None:
    target.mkdir(exist_ok=True)
    for name in ("vectors.faiss", "probes.safetensors"):
        if (source / name).exists():  # an exact index has no probes
            (source / name).replace(target / name)


def _checksums(folder: Path) -> dict[str, str]:
    return {path.name: checksum(path) for path in text_paths(folder)}


def _read_shard(folder: Path) -> dict[str, Any]:
    try:
        return read_manifest(folder, SHARD)
    except WorkspaceError as exc:
        raise IndexFolderError(str(exc)) from exc


def _check_shards(folders: Sequence[Path], manifests: Sequence[dict[str, Any]]) -> None:
    if not manifests:
        raise IndexFolderError("no shard given; name the folders of all of them")
    wanted = {**manifests[0]["made_from"], "shard": None}
    seen: dict[int, Path] = {}
    for folder, manifest in zip(folders, manifests, strict=True):
        number, shards = manifest["made_from"]["shard"]
        same = {**manifest["made_from"], "shard": None} == wanted and manifest["corpus"] == manifests[0]["corpus"]
        if not same or shards != manifests[0]["made_from"]["shard"][1]:
            raise IndexFolderError(f"{folder} is a shard of another build than {folders[0]}; merge shards of one build")
        if number in seen:
            raise IndexFolderError(f"{folder} and {seen[number]} are both shard {number}/{shards}; give each once")
        seen[number] = folder
    shards = manifests[0]["made_from"]["shard"][1]
    if missing := sorted(set(range(1, shards + 1)) - set(seen)):
        raise IndexFolderError(f"shard {missing[0]}/{shards} is missing; build it with --shard {missing[0]}/{shards}")


def _copy(source: Path, target: Path, wanted: str) -> None:
    if not source.is_file() or checksum(source) != wanted:
        raise IndexFolderError(f"{source} is missing or damaged; remove that shard and build it again")
    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)
