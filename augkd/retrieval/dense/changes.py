"""New text into a finished index, and text out of it for good (a takedown list).

A change writes the files of the next state beside the present ones, and the manifest, which names the files that count,
replaces the old in one step: a kill leaves the old index or the new one. Row number == FAISS id holds afterwards, since
ids are renumbered on removal. `made_from` stays, so a recipe still finds its index here; `changes` says what happened,
and `build_index` never replaces a changed folder. A removed text comes back if it is added again: no list is kept.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Collection, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import faiss
import numpy as np
import xxhash

from augkd.data.cleaning import normalised
from augkd.data.corpus import CorpusCounts, CorpusSource, stream_corpus
from augkd.data.dropped import DROPPED, forget_dropped
from augkd.errors import IndexFolderError
from augkd.retrieval.dense import choice as factories
from augkd.retrieval.dense.choice import Effort, Probes
from augkd.retrieval.dense.search import effort_of, load_vectors
from augkd.retrieval.dense.vectors import RECALL, RECALL_AT, add, read_probes, with_vectors, without, write_vectors
from augkd.retrieval.manifest import read_index_manifest
from augkd.retrieval.spool import CHUNK, Spool, encode_parts, spool_of
from augkd.retrieval.texts import TextStore, checksum, read_texts, text_path, text_paths, write_texts
from augkd.workspace.files import replacing, write_json
from augkd.workspace.folders import begin
from augkd.workspace.manifests import MANIFEST
from augkd.workspace.progress import Steps

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from augkd.retrieval.encoders.encoder import IndexEncoder


def add_texts(
    folder: Path,
    source: CorpusSource,
    encoder: IndexEncoder,
    progress: Steps | None = None,
    *,
    chunk: int = CHUNK,
) -> dict[str, int]:
    """Adds the texts of `source` that the index does not hold yet; how many were `added` and were `duplicates`.

    Killed before its end it leaves the index as it was, and the same call continues. The index is held in memory whole.
    Raises IndexFolderError for another encoder. The caller holds `workspace.locked(folder)`.
    """
    manifest = _checked(folder)
    if encoder.fingerprint != manifest["made_from"]["encoder"]:
        raise IndexFolderError(
            f"{folder} was built with another encoder or other weights than {getattr(encoder, 'name', 'this one')}; "
            f"add with {manifest['encoder']['model']} as it was then"
        )
    staging = folder / "change"
    begin(staging, "index-change", {"add": source.fingerprint(), "to": manifest["sha256"], "chunk": chunk})
    counts = CorpusCounts()
    total = source.known_size()
    told = None if progress is None else lambda done: progress(done, total)
    texts = _unknown(stream_corpus(source, counts), _known(folder, manifest))
    added = encode_parts(staging, texts, encoder, chunk=chunk, progress=told)
    duplicates = counts.kept - added
    if added:
        change = {"change": "add", "added": added, "duplicates": duplicates, "corpus": dataclasses.asdict(counts)}
        _append(folder, manifest, staging, spool_of(staging, added, encoder.dim, chunk), change)
    shutil.rmtree(staging)
    return {"added": added, "duplicates": duplicates}


def remove_texts(folder: Path, texts: Iterable[str]) -> int:
    """Takes every text that equals one of `texts` (after `normalised`) off the disk, its vector too; how many.

    Raises IndexFolderError when nothing would be left, and for factories FAISS cannot remove from (graphs).
    The index is held in memory whole. The caller holds `workspace.locked(folder)`.
    """
    manifest = _checked(folder)
    shutil.rmtree(folder / "change", ignore_errors=True)  # of an unfinished add: may hold what is to go
    shutil.rmtree(folder / "build", ignore_errors=True)  # left by a kill right after the manifest
    wanted = {_key(text) for text in texts}
    forget_dropped(folder / DROPPED, partial(_begins_any, wanted))
    store = TextStore.open(folder, manifest.get("texts"))
    kept = np.array([_key(text) not in wanted for part in store.parts() for text in part], dtype=bool)
    removed = int((~kept).sum())
    if not removed:
        return 0
    if not kept.any():
        raise IndexFolderError(f"{folder} would be left without a text; remove the folder instead")

    suffix = f"-{len(manifest.get('changes', [])) + 1}"
    renumbered = np.where(kept, np.cumsum(kept) - 1, -1).astype(np.int64)
    index = load_vectors(folder, manifest, mapped=False)
    _take_out(index, np.flatnonzero(~kept), renumbered, folder)
    probes = read_probes(folder, manifest)
    probes = without(probes, renumbered) if probes is not None else None
    names = _rewritten(folder, _names(folder, manifest), kept, suffix)
    _commit(folder, manifest, index, probes, names, suffix, {"change": "remove", "removed": removed})
    return removed


def _checked(folder: Path) -> dict[str, Any]:
    """The manifest, with files of an unfinished or replaced state swept away."""
    manifest = read_index_manifest(folder)
    _sweep(folder, manifest)
    return manifest


def _sweep(folder: Path, manifest: dict[str, Any]) -> None:
    named = {
        manifest.get("vectors", "vectors.faiss"),
        manifest.get("probes", {}).get("file"),
        *_names(folder, manifest),
    }
    for pattern in ("vectors*.faiss", "probes*.safetensors", "texts/part-*.arrow", ".*.tmp", "texts/.*.tmp"):
        for path in folder.glob(pattern):
            if path.name not in named:
                path.unlink()


def _names(folder: Path, manifest: dict[str, Any]) -> list[str]:
    return list(manifest["texts"]) if "texts" in manifest else [path.name for path in text_paths(folder)]


def _key(text: str) -> str:
    cleaned = " ".join(text.split())
    return normalised(cleaned) or cleaned  # signs alone, like '?!', are only equal to themselves


def _begins_any(wanted: Collection[str], text: str) -> bool:
    """Whether a dropped text is one of `wanted`, or, where it was cut, the beginning of one."""
    if not text.endswith("…"):
        return _key(text) in wanted
    beginning = _key(text[:-1])
    return any(key.startswith(beginning) for key in wanted)


def _digest(text: str) -> int:
    return xxhash.xxh3_64_intdigest(_key(text).encode())


def _known(folder: Path, manifest: dict[str, Any]) -> NDArray[np.uint64]:  # sorted
    """Digests of all texts: 8 bytes each, where the texts themselves might not fit."""
    parts = TextStore.open(folder, manifest.get("texts")).parts()
    digests = [np.fromiter(map(_digest, part), dtype=np.uint64, count=len(part)) for part in parts]
    return np.sort(np.concatenate(digests))


def _unknown(texts: Iterable[str], known: NDArray[np.uint64]) -> Iterator[str]:
    met: set[int] = set()
    for text in texts:
        digest = _digest(text)
        place = int(np.searchsorted(known, np.uint64(digest)))
        if digest not in met and (place == len(known) or int(known[place]) != digest):
            met.add(digest)
            yield text


def _append(folder: Path, manifest: dict[str, Any], staging: Path, spool: Spool, change: dict[str, Any]) -> None:
    index = load_vectors(folder, manifest, mapped=False)
    probes = read_probes(folder, manifest)
    first = int(index.ntotal)
    add(index, spool)
    if probes is not None:
        for part, vectors in enumerate(spool.parts()):
            probes = with_vectors(probes, vectors, first + part * spool.chunk)

    names = _names(folder, manifest)
    number = max(int(Path(name).stem.split("-")[1]) for name in names) + 1
    for part, path in enumerate(text_paths(staging)):
        target = text_path(folder, number + part)
        with replacing(target) as temporary:
            shutil.copyfile(path, temporary)
        names.append(target.name)
    suffix = f"-{len(manifest.get('changes', [])) + 1}"
    _commit(folder, manifest, index, probes, names, suffix, change)


def _rewritten(folder: Path, names: list[str], kept: NDArray[np.bool_], suffix: str) -> list[str]:
    """Writes the parts that lose texts anew; the names of all parts, those left empty dropped."""
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


def _commit(
    folder: Path,
    manifest: dict[str, Any],
    index: Any,
    probes: Probes | None,
    names: list[str],
    suffix: str,
    change: dict[str, Any],
) -> None:
    """Writes the next state's files, then its manifest (from here on it counts), then sweeps the old files away."""
    effort, measured = _tuned(index, probes, manifest)
    facts = write_vectors(folder, index, suffix, effort, measured, probes)
    kept = {key: value for key, value in manifest.items() if key not in ("k_factor", "efSearch", "probes")}
    log = {**change, "count": facts["count"], RECALL: facts[RECALL]}
    texts = {name: checksum(folder / "texts" / name) for name in names}
    changed = {**kept, **facts, "texts": texts, "changes": [*manifest.get("changes", []), log]}
    write_json(folder / MANIFEST, changed)
    _sweep(folder, changed)


def _tuned(index: Any, probes: Probes | None, manifest: dict[str, Any]) -> tuple[Effort, float]:
    """Tuned again; an exact index stays exact, and without a probe left the figures are those last measured."""
    if probes is None or not len(probes):
        return effort_of(manifest), float(manifest[RECALL])
    return factories.tune(index, probes, manifest["made_from"]["faiss"]["recall"], RECALL_AT)


def _take_out(index: Any, gone: NDArray[np.int64], renumbered: NDArray[np.int64], folder: Path) -> None:
    """Removes the vectors `gone`; codes of the others are not touched, their ids become `renumbered[id]`."""
    refined = isinstance(index, faiss.IndexRefine)
    ivf = factories.inverted(index)
    chosen = faiss.IDSelectorBatch(gone)
    try:
        if refined:
            faiss.downcast_index(index.refine_index).remove_ids(chosen)
        target = faiss.downcast_index(index.base_index) if refined else index
        sizes = _sizes(ivf)
        target.remove_ids(chosen)
    except RuntimeError as exc:
        raise IndexFolderError(
            f"{folder} is of a kind FAISS cannot remove from ({factories.reason(exc)}); build it again without them"
        ) from exc
    index.ntotal = target.ntotal
    if ivf is not None:
        _renumber(ivf, renumbered)
        _blank(ivf, sizes)


def _sizes(ivf: Any) -> list[int]:
    return [] if ivf is None else [ivf.invlists.list_size(number) for number in range(ivf.nlist)]


def _renumber(ivf: Any, renumbered: NDArray[np.int64]) -> None:
    for number, size in enumerate(_sizes(ivf)):
        if size:
            ids = faiss.rev_swig_ptr(ivf.invlists.get_ids(number), size)
            ids[:] = renumbered[ids]


def _blank(ivf: Any, sizes: list[int]) -> None:
    """Zeroes what fast scan leaves behind the last vector of a block of 32: a removed code would be written to disk."""
    lists: Any = faiss.downcast_InvertedLists(ivf.invlists)
    if not hasattr(lists, "n_per_block"):  # not fast scan: a list is written up to its size
        return
    rows = int(lists.n_per_block)
    nothing = np.zeros(int(lists.packer.code_size), dtype=np.uint8)
    for number, (before, now) in enumerate(zip(sizes, _sizes(ivf), strict=True)):
        if before == now or now % rows == 0:
            continue
        blocks = -(-now // rows)
        codes = faiss.rev_swig_ptr(lists.get_codes(number), blocks * int(lists.block_size))
        for slot in range(now, blocks * rows):
            lists.packer.pack_1(nothing, slot, codes.reshape(blocks, -1))
