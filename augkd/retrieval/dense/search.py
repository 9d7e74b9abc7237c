"""A finished index folder, read-only: which texts are similar to this one?

The vectors are memory-mapped, not read, and only after their sha256 has been compared with the manifest: FAISS files
from elsewhere are untrusted. `builder` makes such folders, `changes` changes them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import faiss
import numpy as np

from augkd.errors import IndexFolderError, short_repr
from augkd.retrieval.dense.choice import faiss_reason
from augkd.retrieval.dense.tuning import SearchParameters, set_parameters
from augkd.retrieval.manifest import read_dense_manifest
from augkd.retrieval.texts import TextStore, checksum
from augkd.workspace.files import read_json, write_json
from augkd.workspace.fingerprints import file_fingerprint
from augkd.workspace.manifest_kinds import DenseManifest

if TYPE_CHECKING:
    from numpy.typing import NDArray

REMEMBERED_FROM = 64 * 2**20  # bytes: hashing a smaller file takes under 0.1 s and is done at every opening
_STAMP = ".verified.json"


@dataclass(frozen=True, eq=False)
class Index:
    """A finished index folder, read-only and memory-mapped; make one with `Index.open`."""

    folder: Path
    manifest: DenseManifest
    _vectors: Any  # faiss.Index
    _texts: TextStore

    @classmethod
    def open(cls, folder: Path) -> Index:
        """Opens `folder`; raises IndexFolderError, before FAISS parses the vectors, if their sha256 is wrong."""
        manifest = read_dense_manifest(folder)
        vectors = load_vectors(folder, manifest, mapped=True)
        texts = TextStore.open(folder, manifest.texts)
        if len(texts) != vectors.ntotal or vectors.ntotal != manifest.count:
            raise IndexFolderError(
                f"{folder} has {len(texts)} texts and {vectors.ntotal} vectors, its manifest states "
                f"{manifest.count}; remove the folder and build it again"
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
        return self.manifest.encoder.model

    def search(
        self,
        vectors: NDArray[np.float32],  # (n, dim) unit rows
        k: int,
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:  # both (n, k)
        """Cosines and ids of the k nearest texts, best first; id -1 where a query's lists hold fewer.

        Pass all queries at once: FAISS shares them among its threads and reads a list once for many of them.
        """
        scores, ids = self._vectors.search(self._queries(vectors), k)
        return scores, ids

    def search_and_reconstruct(
        self,
        vectors: NDArray[np.float32],  # (n, dim) unit rows
        k: int,
    ) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]:  # (n, k), (n, k), (n, k, dim)
        """`search`, and the neighbours' vectors as the index stores them, unit rows; zeros where the id is -1.

        Raises IndexFolderError for the few explicit factories (a bare fast scan) that cannot reconstruct vectors.
        """
        try:
            scores, ids, stored = self._vectors.search_and_reconstruct(self._queries(vectors), k)
        except RuntimeError as exc:
            raise IndexFolderError(
                f"index {self.folder} ({self.manifest.factory}) cannot reconstruct its vectors "
                f"({faiss_reason(exc)}); build it with faiss factory auto"
            ) from exc
        stored = np.where(ids[:, :, None] >= 0, stored, 0).astype(np.float32)
        flat = stored.reshape(-1, self.dim)
        faiss.normalize_L2(flat)  # leaves zeros alone
        return scores, ids, flat.reshape(stored.shape)

    def texts(self, ids: Sequence[int] | NDArray[np.int64]) -> list[str]:
        """The texts with these ids, in their order."""
        return self._texts.texts(ids)

    def _queries(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        if vectors.ndim != 2 or vectors.shape[1] != self.dim:
            raise IndexFolderError(
                f"index {self.folder} holds vectors of {self.dim}, the queries are {short_repr(vectors.shape)}; "
                f"encode them with {self.encoder_name}"
            )
        return np.ascontiguousarray(vectors, dtype=np.float32)


@dataclass(frozen=True)
class Verified:
    """What `verify` has compared with the manifest."""

    files: int
    bytes: int


def verify(folder: Path) -> Verified:
    """Reads every byte of an index and compares it with the manifest.

    Raises IndexFolderError, naming the file, for the first that is damaged or missing.
    """
    manifest = read_dense_manifest(folder)
    recorded = {folder / manifest.vectors: (file_fingerprint, manifest.sha256)}
    if manifest.held_out_queries is not None:
        recorded[folder / manifest.held_out_queries.file] = (file_fingerprint, manifest.held_out_queries.sha256)
    recorded |= {folder / "texts" / name: (checksum, value) for name, value in manifest.texts.items()}
    for path, (digest, value) in recorded.items():
        if not path.is_file():
            raise IndexFolderError(f"{path} is missing; build the index again")
        if digest(path) != value:
            raise IndexFolderError(f"{path} is damaged: its checksum is not the manifest's; build the index again")
    return Verified(len(recorded), sum(path.stat().st_size for path in recorded))


def load_vectors(folder: Path, manifest: DenseManifest, *, mapped: bool) -> Any:
    """The FAISS index, memory-mapped, or read whole so that it can be changed; the sha256 is checked first."""
    path = folder / manifest.vectors
    if not path.is_file():
        raise IndexFolderError(f"{path} is missing; build the index again")
    _check(path, manifest, remembered=mapped)
    try:  # IFC maps the codes of flat and inverted indexes alike; plain MMAP only inverted lists
        vectors = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC if mapped else 0)
    except RuntimeError as exc:
        raise IndexFolderError(f"{path} cannot be read ({faiss_reason(exc)}); build the index again") from exc
    set_parameters(vectors, tuned_parameters(manifest))
    return vectors


def tuned_parameters(manifest: DenseManifest) -> SearchParameters:
    """The search parameters that the index was tuned to."""
    return SearchParameters(manifest.nprobe, manifest.ef_search, manifest.k_factor)


def _check(path: Path, manifest: DenseManifest, *, remembered: bool) -> None:
    """Compares the file with the manifest's sha256; a large file once per inode, size and time of change.

    A copy has another inode and a rewritten file another time, so the stamp vouches for neither.
    """
    stamp = path.parent / _STAMP
    state = _state(path, manifest.sha256)
    large = path.stat().st_size >= REMEMBERED_FROM
    if remembered and large and stamp.is_file() and read_json(stamp) == state:
        return
    sha256 = file_fingerprint(path)
    if sha256 != manifest.sha256:
        raise IndexFolderError(
            f"{path} is damaged: its sha256 is {sha256[:12]}…, the manifest states "
            f"{manifest.sha256[:12]}…; remove the folder and build it again"
        )
    if large and os.access(path.parent, os.W_OK):
        write_json(stamp, state)


def _state(path: Path, sha256: str) -> dict[str, Any]:
    status = path.stat()
    return {
        "sha256": sha256,
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "ctime_ns": status.st_ctime_ns,  # cannot be set back, unlike mtime
        "inode": status.st_ino,
        "device": status.st_dev,
    }
