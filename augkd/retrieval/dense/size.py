"""How many bytes and seconds an index of n vectors takes, estimated before any work starts.

The same arithmetic serves `factory: auto`, the memory budget and `augkd index plan`, so what is estimated, rejected and
chosen agrees. Sizes are exact formulas; seconds are extrapolated from constants that speed.py measures on the spot.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from augkd.recipe.units import format_bytes
from augkd.retrieval.memory import NO_OVERHEAD, Overhead

EXACT_UP_TO = 200_000  # vectors: below, exact search of a batch is a few seconds and nothing needs tuning
POINTS_PER_LIST = 39  # fewer training points per list and FAISS warns that the clustering is poor
TRAINING_POINTS = 64  # per list, sampled; FAISS uses 256 at most
GRAPH_ABOVE = 16384  # lists: above, a build finds a vector's list through an HNSW graph; see `vectors._fill`
ENCODER_SAMPLE = 100_000  # most vectors that codes are trained on; FAISS copies them
_FEWEST_SAMPLED = 65_536  # enough for any quantiser
_ROUNDS = 10  # of k-means
_BLOCK = 32  # fast-scan codes come in blocks of 32 vectors
_WIDEST = 8  # dimensions of a subquantiser that 4 bits still describe
_BUFFERS = 6 * 16_384  # float32 vectors in memory while one chunk is read, normalised, assigned and encoded


@dataclass(frozen=True)
class Code:
    """How a vector is stored in a list, and about the highest recall@10 that this allows."""

    name: str  # in the factory string; `{m}` is the number of subquantisers
    ceiling: float  # highest seen on real sentence vectors of 384 dimensions, rounded: the table in choice.py
    listed: float  # bytes per dimension in the list
    refined: float = 0.0  # bytes per dimension in the second, memory-mapped table, which re-ranks the best
    extra: int = 0  # bytes per vector
    width: int = 4  # least dimensions of a subquantiser

    def factory(self, count: int, dim: int) -> str:
        """The whole factory string for `count` vectors."""
        if self.name == "Flat":
            return "Flat"
        return f"IVF{auto_lists(count)},{self.name.format(m=subquantisers(dim, self.width))}"

    def bytes(self, dim: int) -> tuple[int, int]:
        """Bytes per vector: in the list, and in the second table."""
        if "{m}" in self.name:
            return math.ceil(subquantisers(dim, self.width) / 2), math.ceil(self.refined * dim)
        return math.ceil(self.listed * dim) + self.extra, math.ceil(self.refined * dim)


EXACT = Code("Flat", 1.0, 4.0)
# in order of preference: fast first, then small; the reasons are in choice.py
INVERTED = (
    Code("PQ{m}x4fs,Refine(SQ8)", 0.99, 0.125, 1.0),
    Code("PQ{m}x4fsr,Refine(SQ8)", 0.99, 0.25, 1.0, width=2),
    Code("SQ8", 0.99, 1.0),
    Code("PQ{m}x4fs,Refine(SQ6)", 0.97, 0.125, 0.75),
    Code("RaBitQ4", 0.94, 0.5, extra=20),
    Code("RaBitQ", 0.75, 0.125, extra=8),
)


@dataclass(frozen=True)
class Constants:
    """Measured speeds of one machine; `texts` is nan if no encoder was given."""

    dim: int
    flops: float  # of a float32 matrix product, per second
    graph_seconds: float  # to find a vector's list among GRAPH_ABOVE with the graph
    code_seconds: float  # to encode one vector
    disk_bytes: float  # written and flushed per second
    texts: float = math.nan  # encoded per second


@dataclass(frozen=True)
class Option:
    """One factory: what it would take, and why it is rejected ('' if it is not)."""

    factory: str
    ceiling: float
    index_bytes: int
    build_bytes: int  # peak memory of FAISS in the build
    process_bytes: int  # peak memory of the whole process: FAISS, Python, the encoder
    resident_bytes: int  # of an index while it is searched: everything that is not memory-mapped
    disk_bytes: int  # peak: the index and the float16 vectors it is built from
    seconds: dict[str, float]  # by step; empty without constants
    rejected: str = ""


@dataclass(frozen=True)
class IndexPlan:
    """All options for one corpus, in order of preference."""

    vectors: int
    dim: int
    memory: int | None  # bytes; None: no limit
    recall: float
    overhead: Overhead
    options: tuple[Option, ...]
    constants: Constants | None

    @property
    def chosen(self) -> Option | None:
        """The first option that is not rejected, for `factory: auto`; None if there is none."""
        return next((option for option in self.options if not option.rejected), None)

    def trials(self, *, fine: bool = False) -> list[Option]:
        """What `factory: auto` builds until one reaches the recall: the chosen, then those with as high a ceiling.

        `fine` leaves out the coarser of two product codes, for vectors that are known to need the finer.
        """
        chosen = self.chosen
        if chosen is None:
            return []
        after = self.options[self.options.index(chosen) + 1 :]
        trials = [chosen, *(option for option in after if not option.rejected and option.ceiling >= chosen.ceiling)]
        product_codes = [option for option in trials[:2] if "x4fs" in option.factory]
        return trials[1:] if fine and len(product_codes) == 2 else trials

    @property
    def machines(self) -> int:
        """How many machines with this memory hold the smallest index that reaches the recall; 0: none does."""
        enough = [option.build_bytes for option in self.options if option.ceiling >= self.recall]
        if not enough or self.memory is None:
            return len(enough[:1])
        left = self.memory - self.overhead.held
        return 0 if left <= 0 or self.overhead.peak > self.memory else math.ceil(min(enough) / left)


def auto_lists(count: int) -> int:
    """The power of two nearest 4·sqrt(count) that leaves every list its training points."""
    ideal = 4 * math.sqrt(count)
    below = 2 ** int(math.log2(ideal))
    lists = below if ideal - below <= 2 * below - ideal else 2 * below
    while lists > 1 and lists * POINTS_PER_LIST > count:
        lists //= 2
    return int(lists)


def subquantisers(dim: int, width: int = 4) -> int:
    """The most that divide `dim` with `width` dimensions or more each (4 bits for 4 hold as much as 4 × 1)."""
    return max(m for m in range(1, max(1, dim // width) + 1) if dim % m == 0)


def sample_size(count: int, lists: int) -> int:
    """How many vectors an index is trained on."""
    return min(count, max(TRAINING_POINTS * lists, _FEWEST_SAMPLED))


def plan_index(
    vectors: int,
    dim: int,
    memory: int | None = None,  # bytes
    recall: float = 0.95,
    constants: Constants | None = None,
    overhead: Overhead = NO_OVERHEAD,
) -> IndexPlan:
    """What an index of `vectors` vectors would take with each factory that auto knows; pure arithmetic.

    `memory` bounds the whole process, of which `overhead` is not FAISS's.
    """
    exact = [EXACT] if vectors <= EXACT_UP_TO or recall > INVERTED[0].ceiling else []
    fine = dim / subquantisers(dim) <= _WIDEST  # a prime dimension has no useful product code
    codes = [code for code in INVERTED if fine or "{m}" not in code.name]
    options = [_option(code, vectors, dim, memory, recall, constants, overhead) for code in (*exact, *codes)]
    return IndexPlan(vectors, dim, memory, recall, overhead, tuple(options), constants)


def _option(
    code: Code,
    vectors: int,
    dim: int,
    memory: int | None,
    recall: float,
    constants: Constants | None,
    overhead: Overhead,
) -> Option:
    lists = 0 if code.name == "Flat" else auto_lists(vectors)
    listed, refined = code.bytes(dim)
    blocks = listed * _BLOCK // 2 * lists if "fs" in code.name else 0  # each list's last block is half empty
    centroids = lists * (4 * dim + 8)
    tables = (4 * 16 * dim if "fs" in code.name else 0) + 8 * dim
    size = vectors * (listed + refined + (8 if lists else 0)) + blocks + centroids + (tables if lists else 0)

    sample = sample_size(vectors, lists) if lists else 0
    training = 4 * dim * (sample + min(sample, ENCODER_SAMPLE) + 3 * lists)  # centroids: old, new, summed
    build = max(size + 4 * dim * _BUFFERS, training)
    process = max(overhead.peak, overhead.held + build)
    mapped = vectors * (refined or (listed if "fs" not in code.name else 0))
    return Option(
        factory=code.factory(vectors, dim),
        ceiling=code.ceiling,
        index_bytes=size,
        build_bytes=build,
        process_bytes=process,
        resident_bytes=size - mapped,
        disk_bytes=size + 2 * dim * vectors,
        seconds=_seconds(constants, vectors, dim, lists, sample, size) if constants else {},
        rejected=_rejection(code, process, memory, recall),
    )


def _rejection(code: Code, needed: int, memory: int | None, recall: float) -> str:
    if code.ceiling < recall:
        return f"recall@10 stays below about {code.ceiling:.2f}"
    if memory is not None and needed > memory:
        return f"needs {format_bytes(needed)}"
    return ""


def _seconds(constants: Constants, vectors: int, dim: int, lists: int, sample: int, size: int) -> dict[str, float]:
    assign = 2.0 * dim * lists / constants.flops
    if lists > GRAPH_ABOVE:  # a graph's search grows with the logarithm of its nodes
        assign = constants.graph_seconds * math.log(lists) / math.log(GRAPH_ABOVE)
    return {
        "encode": vectors / constants.texts,
        "train": _ROUNDS * sample * 2.0 * dim * lists / constants.flops,
        "assign": vectors * assign,
        "code": vectors * constants.code_seconds if lists else 0.0,
        "write": (2.0 * dim * vectors + size) / constants.disk_bytes,
    }


FORMULA = (
    "index = n·(code + id 8 + refine) + lists·(4·dim + 8); lists = power of two nearest 4·√n",
    f"build = max(index + {_BUFFERS}·4·dim, (sample + {ENCODER_SAMPLE} + 3·lists)·4·dim)",
    "process = max(encoder's peak, Python and encoder + build)",
    f"sample = max({TRAINING_POINTS}·lists, {_FEWEST_SAMPLED}), at most n",
    "disk = index + n·2·dim",
    f"seconds = n/texts + {_ROUNDS}·sample·lists·2·dim/flops + n·assign + n·code + (n·2·dim + index)/disk",
    f"assign = lists·2·dim/flops, or graph·log(lists)/log({GRAPH_ABOVE}) beyond {GRAPH_ABOVE} lists",
)


def describe(plan: IndexPlan) -> Iterator[str]:
    """The plan in lines: the formulas, the measured constants, one line per factory, the choice."""
    budget = "no memory budget" if plan.memory is None else f"memory {format_bytes(plan.memory)}"
    yield f"{plan.vectors:,} vectors of {plan.dim}, recall@10 {plan.recall}, {budget}"
    yield (
        f"Python and encoder: {format_bytes(plan.overhead.held)}, at most {format_bytes(plan.overhead.peak)} while the "
        "encoder is made or works"
    )
    yield from FORMULA
    if (constants := plan.constants) is not None:
        yield (
            f"measured here: flops {constants.flops:.3g}/s, graph {constants.graph_seconds:.3g} s, "
            f"code {constants.code_seconds:.3g} s, disk {constants.disk_bytes:.3g} B/s, "
            f"texts {'not measured' if math.isnan(constants.texts) else f'{constants.texts:.0f}/s'}"
        )
    for option in plan.options:
        parts = ("process", option.process_bytes), ("resident", option.resident_bytes), ("disk", option.disk_bytes)
        yield (
            f"{option.factory}: index {format_bytes(option.index_bytes)} "
            f"({option.index_bytes / plan.vectors:.0f} B/vector), "
            + ", ".join(f"{name} {format_bytes(size)}" for name, size in parts)
            + f"{_duration(option)}{f'; rejected: {option.rejected}' if option.rejected else ''}"
        )
    if plan.chosen is not None:
        yield f"chosen: {plan.chosen.factory}"
    elif plan.machines:
        yield f"nothing fits; {plan.machines} machines with this memory could each index a share of the corpus"
    else:
        yield f"no known factory reaches recall@10 {plan.recall}; ask for {INVERTED[0].ceiling} or less"


def _duration(option: Option) -> str:
    known = {step: seconds for step, seconds in option.seconds.items() if not math.isnan(seconds)}
    if not known:
        return ""
    steps = " + ".join(f"{step} {_hours(seconds)}" for step, seconds in known.items())
    return f"; build {_hours(sum(known.values()))} = {steps}"


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds:.1f} s"
