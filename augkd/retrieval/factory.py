"""Which FAISS index a corpus gets, and how hard it is searched.

Up to 200,000 vectors exact search is fast enough; beyond, an inverted file of 8-bit vectors takes a quarter of the
memory. How many of its lists a query visits is not guessed but measured: the fewest that reach the wanted recall.
Always inner product, which on unit vectors is cosine.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import faiss
import numpy as np

from augkd.errors import RecipeError, shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

EXACT_UP_TO = 200_000  # vectors
POINTS_PER_LIST = 39  # fewer training points per list and FAISS warns that the clustering is poor


def choose(count: int, dim: int, factory: str = "auto") -> str:
    """The factory string for `count` vectors of `dim`: auto decided, anything else checked."""
    if factory != "auto":
        lists = _lists(create(dim, factory))
        if lists > count:
            raise RecipeError(f"faiss factory {shown(factory)} has {lists} lists for {count} texts; use fewer, or auto")
        return factory
    if count <= EXACT_UP_TO:
        return "Flat"
    return f"IVF{auto_lists(count)},SQ8"


def auto_lists(count: int) -> int:
    """The power of two nearest 4·sqrt(count) that leaves every list its training points."""
    wanted = 4 * math.sqrt(count)
    below = 2 ** int(math.log2(wanted))
    lists = below if wanted - below <= 2 * below - wanted else 2 * below
    while lists > 1 and lists * POINTS_PER_LIST > count:
        lists //= 2
    return int(lists)


def create(dim: int, factory: str) -> Any:
    """An empty FAISS index; raises RecipeError for a string that FAISS cannot make an index of."""
    try:
        index = faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as exc:
        raise RecipeError(
            f"faiss factory {shown(factory)} is not usable for {dim} dimensions ({reason(exc)}); "
            "use auto, Flat or like IVF1024,SQ8"
        ) from exc
    if isinstance(faiss.downcast_index(index), faiss.IndexIDMap | faiss.IndexIDMap2):
        raise RecipeError(f"faiss factory {shown(factory)} maps ids, but ids are row numbers here; drop the IDMap")
    return index


def reason(exc: Exception) -> str:
    """FAISS's own words, without where in its source they were raised."""
    last = str(exc).strip().split("\n")[0]
    return last.rsplit(".cpp:", 1)[-1].split(": ", 1)[-1][:120]


def inverted(index: Any) -> Any | None:
    """The inverted file inside `index`, or None when it has no lists."""
    return faiss.try_extract_index_ivf(index)


def _lists(index: Any) -> int:
    ivf = inverted(index)
    return int(ivf.nlist) if ivf is not None else 0


def default_nprobe(lists: int) -> int:
    """Lists to visit when there is nothing to measure with: a sixteenth, at least one; 0 for an index without."""
    return max(1, lists // 16) if lists else 0


def set_nprobe(index: Any, nprobe: int) -> None:
    """Lets a query visit `nprobe` lists; nothing to do for an index without lists."""
    ivf = inverted(index)
    if ivf is not None and nprobe:
        ivf.nprobe = nprobe


def tune(
    index: Any,
    queries: NDArray[np.float32],  # (n, dim) sampled corpus vectors
    truth_ids: NDArray[np.int64],  # (n, k) exact neighbours, -1 where there are fewer
    recall: float,
    k: int,
    *,
    own: NDArray[np.int64] | None = None,  # (n,) id of each query, which does not count as its neighbour
) -> tuple[int, float]:
    """The smallest power-of-two nprobe that reaches `recall`@k, and what it measured; all lists if none does.

    An exact index is 0 (nothing to set), 1.0. The index is left at the returned nprobe.
    """
    if isinstance(faiss.downcast_index(index), faiss.IndexFlat):
        return 0, 1.0
    lists = _lists(index)
    if not (truth_ids >= 0).any():
        return default_nprobe(lists), 1.0

    nprobe = min(1, lists)
    while True:
        set_nprobe(index, nprobe)
        measured = measure(index, queries, truth_ids, k, own=own)
        if measured >= recall or nprobe >= lists:
            return nprobe, measured
        nprobe = min(nprobe * 2, lists)


def measure(
    index: Any,
    queries: NDArray[np.float32],  # (n, dim)
    truth_ids: NDArray[np.int64],  # (n, k)
    k: int,
    *,
    own: NDArray[np.int64] | None = None,  # (n,)
) -> float:
    """Share of the exact neighbours that `index` finds among its k best, the queries themselves left out."""
    _, found = index.search(queries, k + (own is not None))
    hits = 0
    for row, (ids, truth) in enumerate(zip(found, truth_ids, strict=True)):
        others = ids if own is None else ids[ids != own[row]]
        hits += len(np.intersect1d(others[:k], truth[truth >= 0]))
    return hits / int((truth_ids >= 0).sum())
