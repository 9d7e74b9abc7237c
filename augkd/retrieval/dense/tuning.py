"""How hard a query searches: the cheapest search parameters whose measured recall reaches the target.

Nothing is timed, so the same index is always tuned to the same parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np

from augkd.retrieval.dense.choice import graph, inverted, is_exact, list_count
from augkd.retrieval.dense.held_out import HeldOutQueries

# k_factor: candidates re-ranked per neighbour asked for. 16 was enough for MiniLM; vectors of a static encoder
# reached recall 0.88 with 16 and 0.97 with 64
_K_FACTORS = (64.0, 32.0, 16.0, 8.0, 4.0, 2.0, 1.0)
_SLACK = 0.005  # once the target is out of reach, this much recall is given up for a cheaper search


@dataclass(frozen=True)
class SearchParameters:
    """How hard a query searches; 0 for a parameter that the index does not have."""

    nprobe: int = 0  # inverted lists visited
    efSearch: int = 0  # nodes kept in view while walking a graph
    k_factor: float = 0  # candidates re-ranked per neighbour asked for

    def facts(self) -> dict[str, float]:
        """For the manifest: nprobe always, the others if they are set."""
        facts: dict[str, float] = {"nprobe": self.nprobe}
        return facts | {name: v for name in ("efSearch", "k_factor") if (v := getattr(self, name))}


def set_parameters(index: Any, parameters: SearchParameters) -> None:
    """Makes every later query use these parameters; one that is 0 is left as it is."""
    ivf, hnsw = inverted(index), graph(index)
    if ivf is not None and parameters.nprobe:
        ivf.nprobe = parameters.nprobe
    if hnsw is not None and parameters.efSearch:
        hnsw.efSearch = parameters.efSearch
    if isinstance(index, faiss.IndexRefine) and parameters.k_factor:
        index.k_factor = parameters.k_factor


def tune(index: Any, queries: HeldOutQueries, recall: float, k: int) -> tuple[SearchParameters, float]:
    """The cheapest parameters whose recall@k reaches `recall` with 95 % certainty, and the recall measured with them.

    The one-sided 95 % bound matters: the first setting that passes is the luckiest of those tried; with one standard
    error as the margin, fresh queries measured 0.9495 where 0.95 was the target. If no setting passes: the cheapest
    within half a point of the best. The index is left at the returned parameters.
    """
    if is_exact(index) or not (queries.ids >= 0).any():
        return _parameters(index, max(1, list_count(index) // 16), 0.0), 1.0
    highest = list_count(index) or (max(16, index.ntotal) if graph(index) is not None else 1)
    k_factor = _K_FACTORS[0] if isinstance(index, faiss.IndexRefine) else 0.0

    tried: dict[int, tuple[float, float]] = {}  # nprobe or efSearch → recall, standard error

    def reaches(value: int) -> bool:
        set_parameters(index, _parameters(index, value, k_factor))
        tried[value] = measure(index, queries, k)
        return _lower_bound(*tried[value]) >= recall

    value = min(1 if list_count(index) else 16, highest)
    while not reaches(value) and value < highest:
        value = min(value * 2, highest)
    if _lower_bound(*tried[value]) >= recall:
        value = _bisect(value, reaches)
    else:
        best = max(measured for measured, _ in tried.values())
        value = min(number for number, (measured, _) in tried.items() if measured >= best - _SLACK)

    k_factor = _least_k_factor(index, queries, value, k, recall) if k_factor else 0.0
    parameters = _parameters(index, value, k_factor)
    set_parameters(index, parameters)
    return parameters, measure(index, queries, k)[0]


def _parameters(index: Any, value: int, k_factor: float) -> SearchParameters:
    """`value` as nprobe or as efSearch, whichever the index has."""
    if list_count(index):
        return SearchParameters(nprobe=value, k_factor=k_factor)
    return SearchParameters(efSearch=value if graph(index) is not None else 0, k_factor=k_factor)


def _bisect(value: int, reaches: Callable[[int], bool]) -> int:
    """Halves the step between the last value that failed and `value` three times: at most an eighth too much work."""
    low, high = value // 2, value
    for _ in range(3):
        middle = (low + high) // 2
        if middle in (low, high):
            break
        low, high = (low, middle) if reaches(middle) else (middle, high)
    return high


def _least_k_factor(index: Any, queries: HeldOutQueries, value: int, k: int, recall: float) -> float:
    """The smallest k_factor that keeps the target, or the largest if the target is missed."""
    least = _K_FACTORS[0]
    for k_factor in _K_FACTORS[1:]:
        set_parameters(index, _parameters(index, value, k_factor))
        if _lower_bound(*measure(index, queries, k)) < recall:
            break
        least = k_factor
    return least


def _lower_bound(recall: float, error: float) -> float:
    """The recall that is exceeded with 95 % certainty, from a measured recall and its standard error."""
    return recall - 1.645 * error


def measure(index: Any, queries: HeldOutQueries, k: int) -> tuple[float, float]:
    """Recall@k against the true neighbours, each query's own text left out, and its standard error."""
    _, hits = index.search(queries.vectors, k + 1)
    shares = []
    for ids, own, truth in zip(hits, queries.own, queries.ids[:, :k], strict=True):
        neighbours = truth[truth >= 0]
        if len(neighbours):
            shares.append(len(np.intersect1d(ids[ids != own][:k], neighbours)) / len(neighbours))
    return float(np.mean(shares)), float(np.std(shares) / np.sqrt(len(shares)))
