"""Which FAISS index a corpus gets, and how hard it is searched.

Up to 200,000 vectors search is exact. Beyond, inverted lists of 4-bit product codes, scanned in registers (fast scan),
whose best are ranked again by 8-bit vectors on disk; under a memory budget, the first smaller code that still reaches
the recall. How hard a query looks is not guessed but measured, and a code that misses the recall is followed by a finer
one. Always inner product, which on unit vectors is cosine.

The trial behind the order: 100,000 of 326,000 real questions (read back from 8 bits), 384 dimensions, 1024 lists, 500
held-out queries, CPU time of one thread on a busy machine, one run each. How much faster than exact search at
recall@10 >= 0.90 and >= 0.95 (-: not reached), the highest recall seen, bytes per vector in the file:

    IVF,PQ96x4fs,Refine(SQ8)      15x   8x   0.992 all lists     464   kept: the fastest below 512 bytes
    IVF,PQ192x4fs,Refine(SQ8)     15x   8x   0.976 a quarter     519   no faster and larger
    IVF,SQ8                        3x   1x   0.975 a quarter     408   kept for dimensions no product code divides
    IVF,RaBitQ,Refine(SQ8)         6x   2x   0.975 a quarter     464
    IVF,RaBitQfs,Refine(SQ8)       4x   1x   0.975 a quarter     473
    IVF,PQ96x4fs,Refine(SQ6)      11x   2x   0.973 all lists     368   kept, for budgets (tried at 64, 128, 1024 lists)
    IVF,SQ6                        3x   1x   0.960 a quarter     312
    IVF,PQ96x4fs,Refine(SQ4)       2x   -    0.918 all lists     272
    IVF,RaBitQ4                    3x   -    0.940 a quarter     236   kept, for budgets: beats SQ4
    IVF,SQ4                        1x   -    0.913 a quarter     216
    IVF,RaBitQ                     -    -    0.753 a quarter      80   kept, for budgets
    HNSW32,SQ8                     9x   3x   0.985 efSearch 256  656   larger, 27 s to add against 1, cannot remove

Vectors of a static encoder, 720,000 reviews, 256 dimensions, 4096 lists, 1,000 queries on two cores, 256 lists visited;
recall and seconds with 16 and with 64 candidates ranked again per neighbour:

    PQ64x4fs                      0.879 0.7 s (64)         at most 0.886 with 1024 lists
    PQ64x4fsr                     0.838 0.24 s, 0.925 0.36 s
    PQ128x4fs                     0.903 0.23 s, 0.946 0.38 s
    PQ128x4fsr                    0.946 0.23 s, 0.954 0.34 s     kept: r, codes of what a list's centroid leaves over
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import faiss
import numpy as np

from augkd.errors import RecipeError, shown
from augkd.recipe.units import show_bytes
from augkd.retrieval.dense.size import plan

if TYPE_CHECKING:
    from numpy.typing import NDArray

# k_factor: candidates ranked again, per neighbour asked for. 16 was enough for MiniLM; vectors of a static encoder
# reached recall 0.88 with 16 and 0.97 with 64
_REFINED = (64.0, 32.0, 16.0, 8.0, 4.0, 2.0, 1.0)
_SLACK = 0.005  # recall that is not worth more effort once the target is out of reach


@dataclass(frozen=True)
class Effort:
    """How hard a query looks; 0 where the index has no such dial."""

    nprobe: int = 0  # lists visited
    efSearch: int = 0  # nodes kept in view while walking a graph
    k_factor: float = 0  # candidates ranked again per neighbour asked for

    def facts(self) -> dict[str, float]:
        """For the manifest: nprobe always, the others where they mean something."""
        facts: dict[str, float] = {"nprobe": self.nprobe}
        return facts | {name: v for name in ("efSearch", "k_factor") if (v := getattr(self, name))}


def choose(count: int, dim: int, factory: str = "auto", *, recall: float = 0.95, memory: int | None = None) -> str:
    """The factory string for `count` vectors of `dim`: auto decided, anything else checked.

    Raises RecipeError, with the plan, when nothing reaches `recall` within `memory` (bytes; None: no budget).
    """
    if factory != "auto":
        _check_explicit(count, dim, factory, memory)
        return factory
    planned = plan(count, dim, memory, recall)
    if planned.chosen is None:
        options = "; ".join(f"{option.factory} {option.refused}" for option in planned.options)
        raise RecipeError(
            f"no index of {count} vectors of {dim} reaches recall {recall} in {_within(memory)}: {options}; "
            "raise the memory or lower the recall"
        )
    return planned.chosen.factory


def _check_explicit(count: int, dim: int, factory: str, memory: int | None) -> None:
    empty = create(dim, factory)
    lists = _lists(empty)
    if lists > count:
        raise RecipeError(f"faiss factory {shown(factory)} has {lists} lists for {count} texts; use fewer, or auto")
    needed = count * _code_bytes(empty)
    if memory is not None and needed > memory:
        raise RecipeError(
            f"faiss factory {shown(factory)} needs {show_bytes(needed)} for {count} vectors, the memory budget is "
            f"{_within(memory)}; raise it, or use auto"
        )


def _code_bytes(index: Any) -> int:
    """Bytes per vector of an index that nothing has been planned for: its codes, without lists, links and tables."""
    if isinstance(index, faiss.IndexRefine):
        return sum(_code_bytes(faiss.downcast_index(part)) for part in (index.base_index, index.refine_index))
    if isinstance(index, faiss.IndexPreTransform):
        return _code_bytes(faiss.downcast_index(index.index))
    if isinstance(index, faiss.IndexHNSW):
        return _code_bytes(faiss.downcast_index(index.storage))
    return int(getattr(index, "code_size", 0)) + (8 if inverted(index) is not None else 0)


def _within(memory: int | None) -> str:
    return "any memory" if memory is None else show_bytes(memory)


def create(dim: int, factory: str) -> Any:
    """An empty FAISS index; raises RecipeError for a string that FAISS cannot make an index of."""
    try:
        index = faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as exc:
        raise RecipeError(
            f"faiss factory {shown(factory)} is not usable for {dim} dimensions ({reason(exc)}); "
            "use auto, Flat or like IVF1024,SQ8"
        ) from exc
    if isinstance(index, faiss.IndexIDMap | faiss.IndexIDMap2):
        raise RecipeError(f"faiss factory {shown(factory)} maps ids, but ids are row numbers here; drop the IDMap")
    return index


def reason(exc: Exception) -> str:
    """FAISS's own words, without where in its source they were raised."""
    last = str(exc).strip().split("\n")[0]
    return last.rsplit(".cpp:", 1)[-1].split(": ", 1)[-1][:120]


def inverted(index: Any) -> Any | None:
    """The inverted file inside `index`, or None when it has no lists."""
    return faiss.try_extract_index_ivf(index)


def _graph(index: Any) -> Any | None:
    return index.hnsw if isinstance(index, faiss.IndexHNSW) else None


def is_exact(index: Any) -> bool:
    """Whether search compares with every vector as it is."""
    return isinstance(index, faiss.IndexFlat)


def _lists(index: Any) -> int:
    ivf = inverted(index)
    return int(ivf.nlist) if ivf is not None else 0


def set_effort(index: Any, effort: Effort) -> None:
    """Lets every query look this hard; a dial at 0 is left alone."""
    ivf, graph = inverted(index), _graph(index)
    if ivf is not None and effort.nprobe:
        ivf.nprobe = effort.nprobe
    if graph is not None and effort.efSearch:
        graph.efSearch = effort.efSearch
    if isinstance(index, faiss.IndexRefine) and effort.k_factor:
        index.k_factor = effort.k_factor


@dataclass(frozen=True, eq=False)
class Probes:
    """Held-out corpus vectors and their true neighbours: what recall is measured with."""

    queries: NDArray[np.float32]  # (n, dim) unit rows
    own: NDArray[np.int64]  # (n,) id of each query, which does not count as its neighbour
    ids: NDArray[np.int64]  # (n, depth) the true neighbours, best first, -1 where there are fewer
    scores: NDArray[np.float32]  # (n, depth) their cosines

    def __len__(self) -> int:
        return len(self.own)


def tune(index: Any, probes: Probes, recall: float, k: int) -> tuple[Effort, float]:
    """The least effort whose recall@k surely reaches `recall`, and the recall that it measured.

    Surely: with its one-sided 95 % bound. The first effort that passes is the luckiest of those tried; with one
    standard error off, fresh queries then measured 0.9495 where 0.95 was wanted. Where no effort does: the least within
    half a point of the best. The index is left at the returned effort. Nothing is timed, so the same index is always
    tuned to the same effort.
    """
    if is_exact(index) or not (probes.ids >= 0).any():
        return Effort(**_dials(index, max(1, _lists(index) // 16), 0.0)), 1.0
    highest = _lists(index) or (max(16, index.ntotal) if _graph(index) is not None else 1)
    k_factor = _REFINED[0] if isinstance(index, faiss.IndexRefine) else 0.0

    tried: dict[int, tuple[float, float]] = {}  # dial → recall, standard error

    def reaches(dial: int) -> bool:
        set_effort(index, Effort(**_dials(index, dial, k_factor)))
        tried[dial] = measure(index, probes, k)
        return _bound(*tried[dial]) >= recall

    dial = min(1 if _lists(index) else 16, highest)
    while not reaches(dial) and dial < highest:
        dial = min(dial * 2, highest)
    if _bound(*tried[dial]) >= recall:
        dial = _finer(dial, reaches)
    else:
        best = max(value for value, _ in tried.values())
        dial = min(at for at, (value, _) in tried.items() if value >= best - _SLACK)

    effort = Effort(**_dials(index, dial, _least_refined(index, probes, dial, k, recall) if k_factor else 0.0))
    set_effort(index, effort)
    return effort, measure(index, probes, k)[0]


def _dials(index: Any, dial: int, k_factor: float) -> dict[str, Any]:
    if _lists(index):
        return {"nprobe": dial, "k_factor": k_factor}
    return {"efSearch": dial if _graph(index) is not None else 0, "k_factor": k_factor}


def _finer(dial: int, reaches: Any) -> int:
    """Halves the step between the last dial that failed and `dial` three times: at most an eighth too much effort."""
    low, high = dial // 2, dial
    for _ in range(3):
        middle = (low + high) // 2
        if middle in (low, high):
            break
        low, high = (low, middle) if reaches(middle) else (middle, high)
    return high


def _least_refined(index: Any, probes: Probes, dial: int, k: int, recall: float) -> float:
    """The fewest candidates ranked again that keep the target, or, where it is missed, all of them."""
    kept = _REFINED[0]
    for k_factor in _REFINED[1:]:
        set_effort(index, Effort(**_dials(index, dial, k_factor)))
        if _bound(*measure(index, probes, k)) < recall:
            break
        kept = k_factor
    return kept


def _bound(recall: float, error: float) -> float:
    """The recall that is passed with 95 % certainty, of a measured one and its standard error."""
    return recall - 1.645 * error


def measure(index: Any, probes: Probes, k: int) -> tuple[float, float]:
    """Share of the true k nearest that `index` finds, the queries themselves left out, and its standard error."""
    _, found = index.search(probes.queries, k + 1)
    shares = []
    for ids, own, truth in zip(found, probes.own, probes.ids[:, :k], strict=True):
        wanted = truth[truth >= 0]
        if len(wanted):
            shares.append(len(np.intersect1d(ids[ids != own][:k], wanted)) / len(wanted))
    return float(np.mean(shares)), float(np.std(shares) / np.sqrt(len(shares)))
