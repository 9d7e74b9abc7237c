"""Adds texts to a finished index, and removes texts from it for good (a takedown list).

A change writes the files of the next state beside the present ones, and then replaces the manifest, which names the
files that count, in one step: a kill leaves the old index or the new one. Row number == FAISS id holds afterwards,
since a removal renumbers the ids. `made_from` stays, so a recipe still finds its index here; `changes` lists what
happened, and a build never replaces a changed folder. A removed text comes back if it is added again: no list is kept.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import faiss
import numpy as np
import xxhash

from augkd.data.cleaning import identity
from augkd.data.corpus import CorpusCounts, CorpusSource, stream_corpus
from augkd.data.dropped import forget_dropped
from augkd.errors import IndexFolderError
from augkd.retrieval.dense.choice import faiss_reason, inverted
from augkd.retrieval.dense.held_out import (
    KEY,
    RECALL,
    RECALL_AT,
    HeldOutQueries,
    read_queries,
    with_vectors,
    without,
)
from augkd.retrieval.dense.search import load_vectors, tuned_parameters
from augkd.retrieval.dense.takedown import Confirm, Wanted
from augkd.retrieval.dense.tuning import SearchParameters, tune
from augkd.retrieval.dense.vectors import add, vector_files, write_vectors
from augkd.retrieval.manifest import check_index, read_dense_manifest
from augkd.retrieval.spool import CHUNK, Spool, encode_parts, open_spool, recorded_files
from augkd.retrieval.texts import TextStore, part_number, read_texts, text_path, text_paths, write_texts
from augkd.workspace.checksums import checksum, table_of
from augkd.workspace.files import replacing
from augkd.workspace.folders import begin, unfinished
from augkd.workspace.manifest_kinds import DenseManifest
from augkd.workspace.manifests import MANIFEST, parse_manifest, rewrite_manifest
from augkd.workspace.progress import Steps

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from augkd.retrieval.encoders.encoder import IndexEncoder


@dataclasses.dataclass(frozen=True)
class Added:
    """How many texts a change has added, and how many the index held already."""

    added: int
    duplicates: int


def add_texts(
    folder: Path,
    source: CorpusSource,
    encoder: IndexEncoder,
    progress: Steps | None = None,
    *,
    chunk: int = CHUNK,
) -> Added:
    """Adds the texts of `source` that the index does not hold yet.

    If it is killed, the index stays as it was, and the same call continues. The whole index is read into memory.
    Raises IndexFolderError for another encoder. The caller holds `workspace.locks.locked(folder)`.
    """
    manifest = _clean_manifest(folder)
    if encoder.fingerprint != manifest.made_from.encoder:
        raise IndexFolderError(
            f"{folder} was built with another encoder or other weights than {getattr(encoder, 'name', 'this one')}; "
            f"add with {manifest.encoder.model} as it was then"
        )
    staging = folder / "change"
    if not unfinished(staging):
        shutil.rmtree(staging, ignore_errors=True)  # a kill while it was removed, after the change
    begin(staging, "index-change", {"add": source.fingerprint(), "to": manifest.sha256, "chunk": chunk})
    counts = CorpusCounts()
    total = source.known_size()
    report = None if progress is None else lambda done: progress(done, total)
    texts = _without_known(stream_corpus(source, counts), _known_digests(folder, manifest))
    added = encode_parts(staging, texts, encoder, chunk=chunk, progress=report)
    duplicates = counts.kept - added
    if added:
        change = {"change": "add", "added": added, "duplicates": duplicates, "corpus": dataclasses.asdict(counts)}
        _append(folder, manifest, staging, open_spool(staging, added, encoder.dim, chunk), change)
    shutil.rmtree(staging)
    return Added(added, duplicates)


def remove_texts(folder: Path, texts: Iterable[str], *, exact: bool = False, confirm: Confirm | None = None) -> int:
    """Removes every text that equals one of `texts`, and its vector, from disk; how many.

    Texts are equal when their `identity` is, with `exact` when they are the same character by character, once cleaned.
    `confirm` sees what will be removed; when it returns False, nothing is. Raises IndexFolderError when nothing would
    be left, and for factories that FAISS cannot remove from (graphs). The whole index is read into memory. The caller
    holds `workspace.locks.locked(folder)`.
    """
    manifest = _clean_manifest(folder)
    wanted = Wanted(texts, exact)
    takedown = wanted.find(TextStore.open(folder, manifest.texts))
    if confirm is not None and not confirm(takedown):
        return 0
    shutil.rmtree(folder / "change", ignore_errors=True)  # an unfinished add may hold what is to be removed
    shutil.rmtree(folder / "build", ignore_errors=True)  # left by a kill right after the manifest
    removed = len(takedown.rows)
    kept = np.ones(manifest.count, dtype=bool)
    kept[takedown.rows] = False
    if not kept.any():
        raise IndexFolderError(f"{folder} would be left without a text; remove the folder instead")
    dropped = forget_dropped(folder / manifest.dropped, wanted.begins_any).name
    if not removed:
        if dropped != manifest.dropped:
            _replace_manifest(folder, manifest.on_disk(), dropped)
        return 0

    suffix = _next_suffix(manifest)
    renumbered = np.where(kept, np.cumsum(kept) - 1, -1).astype(np.int64)
    index = load_vectors(folder, manifest, mapped=False)
    _remove_vectors(index, np.flatnonzero(~kept), renumbered, folder)
    queries = read_queries(folder, manifest)
    queries = without(queries, renumbered) if queries is not None else None
    names = _rewrite_texts(folder, list(manifest.texts), kept, suffix)
    state = _State(index, queries, names, dropped)
    _commit(folder, manifest, state, {"change": "remove", "removed": removed})
    return removed


def _clean_manifest(folder: Path) -> DenseManifest:
    """The manifest, after files of an unfinished or replaced state have been deleted.

    Everything that it lists is compared first, all bytes: damage is neither signed again nor taken for a leftover.
    """
    manifest = read_dense_manifest(folder)
    if unlisted := _named(manifest) - manifest.files.keys():
        raise IndexFolderError(
            f"{folder / MANIFEST} names {min(unlisted)}, which is not among its files; build the index again"
        )
    check_index(folder, manifest, manifest.files)
    _sweep(folder, manifest)
    return manifest


def _named(manifest: DenseManifest) -> set[str]:
    """The files of the vectors, the held-out queries and the texts, as the manifest lists them."""
    queries = manifest.held_out_queries
    return {manifest.vectors, *(f"texts/{name}" for name in manifest.texts), *([queries.file] if queries else [])}


def _sweep(folder: Path, manifest: DenseManifest) -> None:
    queries = manifest.held_out_queries
    named = {manifest.vectors, manifest.dropped, *manifest.texts, *([queries.file] if queries else [])}
    patterns = ("vectors*.faiss", f"{KEY}*.safetensors", "dropped*.jsonl", "texts/part-*.arrow")
    for pattern in (*patterns, ".*.tmp", "texts/.*.tmp"):
        for path in folder.glob(pattern):
            if path.name not in named:
                path.unlink()


def _next_suffix(manifest: DenseManifest) -> str:
    return f"-{len(manifest.changes) + 1}"


def _digest(text: str) -> int:
    return xxhash.xxh3_64_intdigest(identity(text).encode())


def _known_digests(folder: Path, manifest: DenseManifest) -> NDArray[np.uint64]:  # sorted
    """Digests of all texts: 8 bytes each, where the texts themselves might not fit into memory."""
    parts = TextStore.open(folder, manifest.texts).parts()
    digests = [np.fromiter(map(_digest, part), dtype=np.uint64, count=len(part)) for part in parts]
    return np.sort(np.concatenate(digests))


def _without_known(texts: Iterable[str], known: NDArray[np.uint64]) -> Iterator[str]:
    new: set[int] = set()
    for text in texts:
        digest = _digest(text)
        place = int(np.searchsorted(known, np.uint64(digest)))
        if digest not in new and (place == len(known) or int(known[place]) != digest):
            new.add(digest)
            yield text


def _append(folder: Path, manifest: DenseManifest, staging: Path, spool: Spool, change: dict[str, Any]) -> None:
    index = load_vectors(folder, manifest, mapped=False)
    queries = read_queries(folder, manifest)
    first = int(index.ntotal)
    add(index, spool)
    if queries is not None:
        for part, vectors in enumerate(spool.parts()):
            queries = with_vectors(queries, vectors, first + part * spool.chunk)

    names = list(manifest.texts)
    number = max(part_number(Path(name)) for name in names) + 1
    for part, path in enumerate(text_paths(staging)):
        (entry,) = recorded_files(staging, [path]).values()
        target = text_path(folder, number + part)
        with replacing(target) as temporary:
            shutil.copyfile(path, temporary)
            if checksum(temporary) != entry["xxh3"]:
                raise IndexFolderError(f"{path} changed while it was copied; run the same command")
        names.append(target.name)
    _commit(folder, manifest, _State(index, queries, names, manifest.dropped), change)


def _rewrite_texts(folder: Path, names: list[str], kept: NDArray[np.bool_], suffix: str) -> list[str]:
    """Writes new files for the parts that lose texts; the names of all parts that are not empty."""
    result, start = [], 0
    for name in names:
        texts = read_texts(folder / "texts" / name)
        rows = kept[start : start + len(texts)]
        start += len(texts)
        if rows.all():
            result.append(name)
        elif rows.any():
            number = Path(name).stem.split("-")[1]
            result.append(f"part-{number}{suffix}.arrow")
            write_texts(folder / "texts" / result[-1], texts.filter(rows).to_pylist())
    return result


@dataclasses.dataclass(frozen=True, eq=False)
class _State:
    """The next state of an index: its vectors in memory, its texts and dropped texts on disk already."""

    index: Any  # faiss.Index
    queries: HeldOutQueries | None
    names: list[str]  # of the text parts
    dropped: str


def _commit(folder: Path, manifest: DenseManifest, state: _State, change: dict[str, Any]) -> None:
    """Writes the next state's files, then its manifest (from then on it counts), then deletes the old files."""
    parameters, measured = _retune(state.index, state.queries, manifest)
    facts = write_vectors(folder, state.index, _next_suffix(manifest), parameters, measured, state.queries)
    kept = {key: value for key, value in manifest.on_disk().items() if key not in ("k_factor", "efSearch", KEY)}
    entry = {**change, "count": facts["count"], RECALL: facts[RECALL]}
    known = kept["files"]  # compared when the change began: what has not changed is not signed again
    parts = {f"texts/{name}" for name in state.names}
    files = {name: known[name] for name in parts & known.keys()}
    files |= table_of(folder, [*(parts - known.keys()), *vector_files(facts)])
    texts = {name: files[f"texts/{name}"]["xxh3"] for name in state.names}
    changed = {**kept, **facts, "texts": texts, "changes": [*manifest.changes, entry]}
    listed = {name: known[name] for name in (manifest.dropped,) if name in known}
    _replace_manifest(folder, {**changed, "files": files | listed}, state.dropped)


def _replace_manifest(folder: Path, manifest: dict[str, Any], dropped: str) -> None:
    """Writes a manifest whose dropped texts are the file `dropped`, then deletes what it does not name."""
    files = manifest["files"]
    if dropped not in files and (folder / dropped).exists():
        files = {name: entry for name, entry in files.items() if not name.startswith("dropped")}
        files |= table_of(folder, [dropped])
    manifest = {**manifest, "files": dict(sorted(files.items())), "dropped": dropped}
    rewrite_manifest(folder, manifest)
    _sweep(folder, parse_manifest(folder, manifest, DenseManifest))


def _retune(index: Any, queries: HeldOutQueries | None, manifest: DenseManifest) -> tuple[SearchParameters, float]:
    """New search parameters and recall; an exact index stays exact, and without a query left the old ones are kept."""
    if queries is None or not len(queries):
        return tuned_parameters(manifest), manifest.recall
    return tune(index, queries, manifest.made_from.faiss.recall, RECALL_AT)


def _remove_vectors(index: Any, removed: NDArray[np.int64], renumbered: NDArray[np.int64], folder: Path) -> None:
    """Removes the vectors with ids `removed`; the others keep their codes and get the ids `renumbered[id]`."""
    refined = isinstance(index, faiss.IndexRefine)
    ivf = inverted(index)
    selector = faiss.IDSelectorBatch(removed)
    try:
        if refined:
            faiss.downcast_index(index.refine_index).remove_ids(selector)
        target = faiss.downcast_index(index.base_index) if refined else index
        sizes = _list_sizes(ivf)
        target.remove_ids(selector)
    except RuntimeError as exc:
        raise IndexFolderError(
            f"{folder} has a factory that FAISS cannot remove from ({faiss_reason(exc)}); build it again without them"
        ) from exc
    index.ntotal = target.ntotal
    if ivf is not None:
        _renumber(ivf, renumbered)
        _blank(ivf, sizes)


def _list_sizes(ivf: Any) -> list[int]:
    return [] if ivf is None else [ivf.invlists.list_size(number) for number in range(ivf.nlist)]


def _renumber(ivf: Any, renumbered: NDArray[np.int64]) -> None:
    for number, size in enumerate(_list_sizes(ivf)):
        if size:
            ids = faiss.rev_swig_ptr(ivf.invlists.get_ids(number), size)
            ids[:] = renumbered[ids]


def _blank(ivf: Any, sizes: list[int]) -> None:
    """Zeroes what fast scan leaves after the last vector of a block of 32: a removed code would be written to disk."""
    lists: Any = faiss.downcast_InvertedLists(ivf.invlists)
    if not hasattr(lists, "n_per_block"):  # not fast scan: a list is written up to its size
        return
    rows = int(lists.n_per_block)
    nothing = np.zeros(int(lists.packer.code_size), dtype=np.uint8)
    for number, (before, now) in enumerate(zip(sizes, _list_sizes(ivf), strict=True)):
        if before == now or now % rows == 0:
            continue
        blocks = -(-now // rows)
        codes = faiss.rev_swig_ptr(lists.get_codes(number), blocks * int(lists.block_size))
        for slot in range(now, blocks * rows):
            lists.packer.pack_1(nothing, slot, codes.reshape(blocks, -1))
