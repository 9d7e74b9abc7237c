"""What a build takes of one core, stage by stage: seconds as sums of measured costs times amounts of work.

The same sums are fitted to measurements and used to predict (tests/benchmarks/bench_cluster_plan.py), so what is
checked there is what `augkd index plan --cluster` says. Amounts are counted in the code's own steps: ten rounds of
k-means and a last assignment, a pass over the spool for the sample, one for adding and two for the true neighbours of
the queries.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from augkd.recipe.cluster import CostOptions
from augkd.retrieval.dense.size import GRAPH_ABOVE, Code, auto_lists, sample_size

HELD_OUT = 1000  # queries that recall is measured with
NEIGHBOURS = 10  # of a query
_ASSIGNMENTS = 11  # of the sample to its lists: k-means' rounds, and one for the codes
MOST_REFINED = 64  # candidates re-ranked per neighbour while the number of lists is tuned
STAGES = ("read", "encode", "spool", "copy", "train", "graph", "add", "truth", "tune", "write")

Terms = dict[str, float]  # name of a cost → how many times it is paid


@dataclass(frozen=True)
class Workload:
    """One build: texts, vectors, and the index that they get."""

    texts: int
    dim: int
    code: Code
    characters: float  # of a text
    visited: float  # lists that a query visits
    refined: float  # candidates re-ranked per neighbour asked for
    index_bytes: int
    graph_growth: float = 0.0  # exponents of the number of lists: of a walk through the graph of them,
    link_growth: float = 0.0  # and of linking one into it
    sentences: bool = False  # encoded by a sentence model, not by a static encoder

    @property
    def lists(self) -> int:
        """Inverted lists."""
        return auto_lists(self.texts)

    @property
    def spool_bytes(self) -> float:
        """Texts and float16 vectors on their way into the index; 4 bytes tell where a text begins."""
        return self.texts * (2 * self.dim + self.characters + 4)


def stage_terms(stage: str, work: Workload) -> Terms:
    """The costs of one stage, and how often each is paid."""
    n, dim, lists = work.texts, work.dim, work.lists
    values = float(n) * dim  # of all vectors
    if stage in ("read", "encode"):
        name = "encode_sentences" if stage == "encode" and work.sentences else stage
        return {name: n * work.characters}
    if stage in ("spool", "copy"):
        return {"copied" if stage == "copy" else stage: work.spool_bytes}
    if stage == "train":
        return {"load": values, "product": _ASSIGNMENTS * sample_size(n, lists) * lists * 2.0 * dim, "codes": dim}
    if stage == "graph":
        return {} if lists <= GRAPH_ABOVE else {"link": lists * dim * (lists / GRAPH_ABOVE) ** work.link_growth}
    if stage == "add":
        walk = (lists / GRAPH_ABOVE) ** work.graph_growth
        assign = {"product": values * 2.0 * lists} if lists <= GRAPH_ABOVE else {"graph": values * walk}
        return {"load": values, "code": values, **assign}
    if stage == "truth":
        return {"load": 2 * values, "compare": HELD_OUT * 2.0 * values}
    if stage == "tune":
        return _tune_terms(work)
    assert stage == "write", stage
    return {"write": work.index_bytes}


def search_terms(work: Workload, queries: float, visited: float, refined: float) -> Terms:
    """The costs of a search: all centroids, the lists that are visited and the codes in them, candidates re-ranked."""
    listed, _ = work.code.bytes(work.dim)
    codes = visited * work.texts / work.lists
    return {
        "coarse": queries * work.lists * 2.0 * work.dim,
        "visit": queries * visited * work.dim,
        "scan": queries * codes * listed,
        "refine": queries * min(NEIGHBOURS * refined, codes) * work.dim,
    }


def _tune_terms(work: Workload) -> Terms:
    """Lists 1, 2, 4 … up to enough and three numbers between, with the most candidates; then fewer candidates."""
    doublings = math.ceil(math.log2(max(work.visited, 2)))
    tried = [2.0**power for power in range(doublings + 1)] + [work.visited] * 3
    fewer = [2.0**power for power in range(6) if 2.0**power >= work.refined / 2]
    rounds = [(visited, MOST_REFINED) for visited in tried] + [
        (work.visited, refined) for refined in (*fewer, work.refined)
    ]
    terms: Terms = {}
    for visited, refined in rounds:
        for name, amount in search_terms(work, HELD_OUT, visited, refined).items():
            terms[name] = terms.get(name, 0.0) + amount
    return terms


def seconds(terms: Terms, costs: CostOptions) -> float:
    """What these terms take of one core."""
    return float(sum(getattr(costs, name) * amount for name, amount in terms.items()))
