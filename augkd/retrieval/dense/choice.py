"""Which FAISS index a corpus gets.

Up to 200,000 vectors search is exact. Beyond that: inverted lists of 4-bit product codes, scanned in registers (fast
scan), whose best are re-ranked with 8-bit vectors on disk; under a memory budget, the first smaller code that still
reaches the recall. How hard a query searches is measured (tuning.py), and a code that misses the recall is followed by
a finer one. The metric is always inner product, which on unit vectors is cosine.

The trial behind the order: 100,000 of 326,000 real questions (decoded from 8 bits), 384 dimensions, 1024 lists, 500
held-out queries, CPU time of one thread on a busy machine, one run each. Speed relative to exact search at
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
recall and seconds with 16 and with 64 candidates re-ranked per neighbour:

    PQ64x4fs                      0.879 0.7 s (64)         at most 0.886 with 1024 lists
    PQ64x4fsr                     0.838 0.24 s, 0.925 0.36 s
    PQ128x4fs                     0.903 0.23 s, 0.946 0.38 s
    PQ128x4fsr                    0.946 0.23 s, 0.954 0.34 s     kept: r, codes of the residual to a list's centroid
"""

from __future__ import annotations

from typing import Any

import faiss

from augkd.errors import RecipeError, short_repr
from augkd.recipe.units import format_bytes
from augkd.retrieval.dense.size import plan_index
from augkd.retrieval.memory import NO_OVERHEAD, Overhead

# FAISS asks for 39 training points for each of the 256 centroids of its codes and warns hundreds of times below; with
# fewer than it has dimensions it aborts the process or runs for hours (385 vectors of 384: stopped after a minute).
OPQ_POINTS = 39 * 256


def choose(
    count: int,
    dim: int,
    factory: str = "auto",
    *,
    recall: float = 0.95,
    memory: int | None = None,
    overhead: Overhead = NO_OVERHEAD,
) -> str:
    """The factory string for `count` vectors of `dim` dimensions: auto resolved, anything else checked.

    Raises RecipeError, with the plan, when nothing reaches `recall` within `memory` (bytes; None: no limit), of which
    `overhead` goes to Python and the encoder.
    """
    if factory != "auto":
        _check_explicit(count, dim, factory, memory, overhead)
        return factory
    plan = plan_index(count, dim, memory, recall, overhead=overhead)
    if plan.chosen is None:
        options = "; ".join(f"{option.factory} {option.rejected}" for option in plan.options)
        raise RecipeError(
            f"no index of {count} vectors of {dim} reaches recall {recall} in {_budget(memory)}"
            f"{_of_which(overhead)}: {options}; raise the memory or lower the recall"
        )
    return plan.chosen.factory


def _of_which(overhead: Overhead) -> str:
    if overhead == NO_OVERHEAD:
        return ""
    held, peak = format_bytes(overhead.held), format_bytes(overhead.peak)
    return f" (of which Python and the encoder hold {held}, and {peak} at most)"


def _check_explicit(count: int, dim: int, factory: str, memory: int | None, overhead: Overhead) -> None:
    empty = create(dim, factory)
    lists = list_count(empty)
    if lists > count:
        raise RecipeError(
            f"faiss factory {short_repr(factory)} has {lists} lists for {count} texts; use fewer, or auto"
        )
    if rotated(empty) and count < OPQ_POINTS:
        raise RecipeError(
            f"faiss factory {short_repr(factory)} learns a rotation (OPQ), which takes {OPQ_POINTS:,} texts or more, "
            f"not {count:,}; leave out the OPQ, or use auto"
        )
    needed = max(overhead.peak, overhead.held + count * _code_bytes(empty))
    if memory is not None and needed > memory:
        raise RecipeError(
            f"faiss factory {short_repr(factory)} needs {format_bytes(needed)} for {count} vectors, the memory budget "
            f"is {_budget(memory)}; raise it, or use auto"
        )


def _code_bytes(index: Any) -> int:
    """Bytes per vector of an index that has no plan: its codes, without lists, links and tables."""
    if isinstance(index, faiss.IndexRefine):
        return sum(_code_bytes(faiss.downcast_index(part)) for part in (index.base_index, index.refine_index))
    if isinstance(index, faiss.IndexPreTransform):
        return _code_bytes(faiss.downcast_index(index.index))
    if isinstance(index, faiss.IndexHNSW):
        return _code_bytes(faiss.downcast_index(index.storage))
    return int(getattr(index, "code_size", 0)) + (8 if inverted(index) is not None else 0)


def _budget(memory: int | None) -> str:
    return "any memory" if memory is None else format_bytes(memory)


def create(dim: int, factory: str) -> Any:
    """An empty FAISS index; raises RecipeError for a factory string that FAISS rejects or that maps ids."""
    try:
        index = faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as exc:
        raise RecipeError(
            f"faiss factory {short_repr(factory)} is not usable for {dim} dimensions ({faiss_reason(exc)}); "
            "use auto, Flat or like IVF1024,SQ8"
        ) from exc
    if isinstance(index, faiss.IndexIDMap | faiss.IndexIDMap2):
        raise RecipeError(f"faiss factory {short_repr(factory)} maps ids, but ids are row numbers here; drop the IDMap")
    return index


def faiss_reason(exc: Exception) -> str:
    """The message of a FAISS exception, without the place in its source."""
    first = str(exc).strip().split("\n")[0]
    return first.rsplit(".cpp:", 1)[-1].split(": ", 1)[-1][:120]


def inverted(index: Any) -> Any | None:
    """The inverted file inside `index`, or None if it has no lists."""
    return faiss.try_extract_index_ivf(index)


def list_count(index: Any) -> int:
    """The number of inverted lists; 0 if there are none."""
    ivf = inverted(index)
    return int(ivf.nlist) if ivf is not None else 0


def rotated(index: Any) -> bool:
    """Whether a rotation is learned before the codes: optimised product quantisation (Ge et al. 2013)."""
    if isinstance(index, faiss.IndexRefine):
        return rotated(faiss.downcast_index(index.base_index))
    if not isinstance(index, faiss.IndexPreTransform):
        return False
    chain: Any = index.chain
    steps = (faiss.downcast_VectorTransform(chain.at(place)) for place in range(chain.size()))
    return any(isinstance(step, faiss.OPQMatrix) for step in steps)


def graph(index: Any) -> Any | None:
    """The HNSW graph of `index`, or None if it has none."""
    return index.hnsw if isinstance(index, faiss.IndexHNSW) else None


def is_exact(index: Any) -> bool:
    """Whether search compares with every vector as it is."""
    return isinstance(index, faiss.IndexFlat)
