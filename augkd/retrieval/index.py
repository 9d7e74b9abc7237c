"""From a stream of texts to a folder that answers "which texts are like this one?".

`build_index` writes, the frozen `Index` reads. The corpus is encoded in chunks of fixed size, each a text part that
stays and a vector part that goes. A resumed build skips the chunks that are whole, and since chunk borders never
move, it ends with what an uninterrupted build writes, byte for byte. Only the FAISS index itself is ever held whole
in memory.
"""

from __future__ import annotations

import dataclasses
import itertools
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import faiss
import numpy as np
import pyarrow as pa

from augkd.data.corpus import CorpusCounts, CorpusSource, check_not_empty, stream_corpus
from augkd.errors import IndexFolderError, RecipeError, WorkspaceError, shown
from augkd.retrieval import factory as factories
from augkd.retrieval.texts import TextStore, drop_texts_from, read_texts, text_path, write_texts
from augkd.workspace import begin, end, file_fingerprint, finished, read_manifest, replacing

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from augkd.retrieval.encoder import IndexEncoder

CHUNK = 16_384  # texts encoded, written and counted as done together
RECALL_AT = 10
_QUERIES = 200  # sampled to measure recall: standard error below 1 point at recall 0.95
_TRAINING_POINTS = 64  # per list; FAISS wants 39 at least and uses 256 at most

Progress = Callable[[int, int | None], None]  # texts done, texts to come in all if known


def build_index(
    folder: Path,
    source: CorpusSource,
    encoder: IndexEncoder,
    *,
    factory: str = "auto",
    recall: float = 0.95,
    seed: int = 0,
    recipe: dict[str, Any] | None = None,
    progress: Progress | None = None,
    chunk: int = CHUNK,
) -> Index:
    """Builds the index of `source` in `folder`, resumes an unfinished build, or opens the finished one.

    `factory` is auto or any FAISS factory string; `recall` in (0, 1] is what an inverted file is tuned to.
    The caller holds `workspace.locked(folder)` where two builds could meet.
    """
    if not 0 < recall <= 1:
        raise RecipeError(f"faiss recall is {recall}; give a share above 0 and up to 1, like 0.95")
    if factory != "auto":
        factories.create(encoder.dim, factory)  # a typo shows before hours of encoding, not after
    made_from = {
        "corpus": source.fingerprint(),
        "encoder": encoder.fingerprint,
        "faiss": {"factory": factory, "recall": recall, "seed": seed, "chunk": chunk},
    }
    if finished(folder, "index", made_from):
        shutil.rmtree(folder / "build", ignore_errors=True)  # left by a kill right after the manifest
        return Index.open(folder)
    begin(folder, "index", made_from)

    counts = CorpusCounts()
    spool = _encode(folder, source, counts, encoder, chunk, progress)
    check_not_empty(source, counts)
    facts = _write_vectors(folder / "vectors.faiss", spool, factory, recall, seed)

    end(
        folder,
        "index",
        made_from,
        recipe=recipe,
        seed=seed,
        encoder={"model": getattr(encoder, "name", type(encoder).__name__)},
        corpus=dataclasses.asdict(counts),
        **facts,
    )
    shutil.rmtree(folder / "build")
    return Index.open(folder)


@dataclass(frozen=True)
class _Spool:
    """The encoded corpus on disk: vector parts of `chunk` rows, the last may be shorter."""

    folder: Path
    parts: int
    chunk: int
    count: int
    dim: int

    def load(self, part: int) -> NDArray[np.float32]:  # (rows, dim), unit rows
        stored = np.load(_vectors_path(self.folder, part), allow_pickle=False)
        vectors: NDArray[np.float32] = stored.astype(np.float32)
        faiss.normalize_L2(vectors)  # float16 took up to 5e-4 off their length
        return vectors

    def take(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:  # (len(ids), dim); ids ascending
        borders = np.searchsorted(ids, np.arange(self.parts + 1) * self.chunk)
        taken = np.empty((len(ids), self.dim), dtype=np.float32)
        for part, (start, stop) in enumerate(itertools.pairwise(borders)):
            if start < stop:
                taken[start:stop] = self.load(part)[ids[start:stop] - part * self.chunk]
        return taken


def _vectors_path(folder: Path, part: int) -> Path:
    return folder / "build" / f"vectors-{part:05d}.npy"


def _encode(
    folder: Path,
    source: CorpusSource,
    counts: CorpusCounts,
    encoder: IndexEncoder,
    chunk: int,
    progress: Progress | None,
) -> _Spool:
    """Encodes what is not yet on disk. The stream is read from its start even so: it alone knows the counts."""
    for leftover in folder.rglob(".*.tmp"):  # of a killed write
        leftover.unlink()

    total = source.known_size()
    parts = 0
    for texts in _chunks(stream_corpus(source, counts), chunk):
        if not _part_done(folder, parts, texts):
            _write_part(folder, parts, texts, encoder.encode(texts))
        parts += 1
        if progress is not None:
            progress(counts.kept, total)

    drop_texts_from(folder, parts)
    return _Spool(folder, parts, chunk, counts.kept, encoder.dim)


def _chunks(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    stream = iter(texts)
    while part := list(itertools.islice(stream, size)):
        yield part


def _part_done(folder: Path, part: int, texts: list[str]) -> bool:
    path = text_path(folder, part)
    if not path.exists() or not _vectors_path(folder, part).exists():
        return False
    return bool(read_texts(path).equals(pa.array(texts, pa.string())))


def _write_part(folder: Path, part: int, texts: list[str], vectors: NDArray[np.float32]) -> None:
    write_texts(folder, part, texts)
    with replacing(_vectors_path(folder, part)) as path, path.open("wb") as stream:
        np.save(stream, vectors.astype(np.float16), allow_pickle=False)


def _write_vectors(path: Path, spool: _Spool, factory: str, recall: float, seed: int) -> dict[str, Any]:
    """Trains, fills, tunes and writes the FAISS index; the facts about it for the manifest."""
    chosen = factories.choose(spool.count, spool.dim, factory)
    rng = np.random.default_rng(seed)
    index = factories.create(spool.dim, chosen)
    try:
        _train(index, spool, rng, seed)
        for part in range(spool.parts):
            index.add(spool.load(part))
    except RuntimeError as exc:
        raise RecipeError(
            f"faiss factory '{chosen}' failed on {spool.count} vectors ({factories.reason(exc)}); use auto"
        ) from exc

    own = _sample(rng, spool.count, _QUERIES)
    queries = spool.take(own)
    nprobe, measured = factories.tune(
        index, queries, _exact(spool, queries, own, RECALL_AT), recall, RECALL_AT, own=own
    )
    with replacing(path) as temporary:
        faiss.write_index(index, str(temporary))
    return {
        "count": spool.count,
        "dim": spool.dim,
        "factory": chosen,
        "nprobe": nprobe,
        f"recall@{RECALL_AT}": round(measured, 4),
        "bytes_per_vector": round(path.stat().st_size / spool.count, 1),
        "sha256": file_fingerprint(path),
    }


def _train(index: Any, spool: _Spool, rng: np.random.Generator, seed: int) -> None:
    if index.is_trained:
        return
    ivf = factories.inverted(index)
    if ivf is not None:
        ivf.cp.seed = seed
    wanted = _TRAINING_POINTS * max(ivf.nlist if ivf is not None else 0, 1024)  # 65,536 suit any quantiser
    index.train(spool.take(_sample(rng, spool.count, wanted)))


def _sample(rng: np.random.Generator, count: int, size: int) -> NDArray[np.int64]:  # ascending
    if size >= count:
        return np.arange(count, dtype=np.int64)
    return np.sort(rng.choice(count, size, replace=False, shuffle=False)).astype(np.int64)


def _exact(
    spool: _Spool,
    queries: NDArray[np.float32],  # (n, dim)
    own: NDArray[np.int64],  # (n,) ids of the queries, left out
    k: int,
) -> NDArray[np.int64]:  # (n, k), -1 where there are fewer
    """The true neighbours, by brute force over one vector part at a time."""
    best = np.full((len(queries), k), -np.inf, dtype=np.float32)
    ids = np.full((len(queries), k), -1, dtype=np.int64)
    for part in range(spool.parts):
        vectors = spool.load(part)
        scores = queries @ vectors.T
        numbers = part * spool.chunk + np.arange(len(vectors), dtype=np.int64)
        scores[own[:, None] == numbers] = -np.inf
        best = np.concatenate([best, scores], axis=1)
        ids = np.concatenate([ids, np.broadcast_to(numbers, scores.shape)], axis=1)
        order = np.argsort(-best, axis=1, kind="stable")[:, :k]
        best, ids = np.take_along_axis(best, order, axis=1), np.take_along_axis(ids, order, axis=1)
    return np.where(np.isneginf(best), -1, ids)


@dataclass(frozen=True, eq=False)
class Index:
    """A finished index folder, read-only and memory-mapped; make one with `Index.open`."""

    folder: Path
    manifest: dict[str, Any]
    _vectors: Any  # faiss.Index
    _texts: TextStore

    @classmethod
    def open(cls, folder: Path) -> Index:
        """Opens `folder`; vectors whose sha256 is not the manifest's are refused before FAISS parses them."""
        try:
            manifest = read_manifest(folder, "index")
        except WorkspaceError as exc:
            raise IndexFolderError(str(exc)) from exc
        vectors = _open_vectors(folder / "vectors.faiss", manifest)
        texts = TextStore.open(folder)
        if len(texts) != vectors.ntotal or vectors.ntotal != manifest["count"]:
            raise IndexFolderError(
                f"{folder} has {len(texts)} texts and {vectors.ntotal} vectors, manifest says {manifest['count']}; "
                "remove the folder and build it again"
            )
        return cls(folder, manifest, vectors, texts)

    def __len__(self) -> int:
        return len(self._texts)

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return int(self._vectors.d)

    @property
    def encoder_name(self) -> str:
        """The model that queries must be encoded with."""
        return str(self.manifest["encoder"]["model"])

    def search(
        self,
        vectors: NDArray[np.float32],  # (n, dim) unit rows
        k: int,
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:  # both (n, k)
        """Cosines and ids of the k nearest texts, best first; id -1 where a query's lists hold fewer."""
        if vectors.ndim != 2 or vectors.shape[1] != self.dim:
            raise IndexFolderError(
                f"index {self.folder} holds vectors of {self.dim}, the queries are {shown(vectors.shape)}; "
                f"encode them with {self.encoder_name}"
            )
        scores, ids = self._vectors.search(np.ascontiguousarray(vectors, dtype=np.float32), k)
        return scores, ids

    def texts(self, ids: Sequence[int] | NDArray[np.int64]) -> list[str]:
        """The texts with these ids, in their order."""
        return self._texts.texts(ids)


def _open_vectors(path: Path, manifest: dict[str, Any]) -> Any:
    if not path.is_file():
        raise IndexFolderError(f"{path} is missing; build the index again")
    sha256 = file_fingerprint(path)
    if sha256 != manifest.get("sha256"):
        raise IndexFolderError(
            f"{path} is damaged: its sha256 is {sha256[:12]}…, the manifest says {str(manifest.get('sha256'))[:12]}…; "
            "remove the folder and build it again"
        )
    try:  # IFC maps the codes of flat and inverted indexes alike; plain MMAP only inverted lists
        vectors = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as exc:
        raise IndexFolderError(f"{path} cannot be read ({factories.reason(exc)}); build the index again") from exc
    factories.set_nprobe(vectors, manifest["nprobe"])
    return vectors
