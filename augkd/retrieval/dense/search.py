"""A finished index folder, read-only: which texts are similar to this one?

The vectors are memory-mapped, not read, and only after the checksums of all files have been compared with the manifest:
FAISS follows whatever a file says. `builder` makes such folders, `changes` changes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import faiss
import numpy as np

from augkd.errors import IndexFolderError, short_repr
from augkd.retrieval.dense.choice import faiss_reason
from augkd.retrieval.dense.tuning import SearchParameters, set_parameters
from augkd.retrieval.manifest import check_index, read_dense_manifest
from augkd.retrieval.texts import TextStore
from augkd.workspace.manifest_kinds import DenseManifest

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Index:
    """A finished index folder, read-only and memory-mapped; make one with `Index.open`."""

    folder: Path
    manifest: DenseManifest
    _vectors: Any  # faiss.Index
    _texts: TextStore

    @classmethod
    def open(cls, folder: Path) -> Index:
        """Opens `folder`; raises IndexFolderError, before FAISS parses the vectors, if any file is damaged."""
        manifest = read_dense_manifest(folder)
        check_index(folder, manifest)
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


def load_vectors(folder: Path, manifest: DenseManifest, *, mapped: bool) -> Any:
    """The FAISS index, memory-mapped, or read whole so that it can be changed; the caller has compared its checksum."""
    path = folder / manifest.vectors
    try:  # IFC maps the codes of flat and inverted indexes alike; plain MMAP only inverted lists
        vectors = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC if mapped else 0)
    except RuntimeError as exc:
        raise IndexFolderError(f"{path} cannot be read ({faiss_reason(exc)}); build the index again") from exc
    set_parameters(vectors, tuned_parameters(manifest))
    return vectors


def tuned_parameters(manifest: DenseManifest) -> SearchParameters:
    """The search parameters that the index was tuned to."""
    return SearchParameters(manifest.nprobe, manifest.ef_search, manifest.k_factor)
