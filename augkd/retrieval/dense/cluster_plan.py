"""How long an index takes on a cluster, and what it costs: encoded by many machines, built and searched by one.

That is what `augkd index build --engine ray` and `--shard i/n` do: the corpus is read in order, since what is a
duplicate depends on all that came before, and one machine trains, adds and tunes. Work of one core comes from `work`;
here it is divided among the cores that share it, and bounded by network and disks. Of the bounds of a stage the slowest
counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from augkd.errors import RecipeError
from augkd.recipe.cluster import ClusterOptions, CostOptions, MachineOptions
from augkd.recipe.units import format_bytes, format_seconds
from augkd.retrieval.dense.size import EXACT_UP_TO, INVERTED, Code, Option, auto_lists, plan_index
from augkd.retrieval.dense.work import MOST_REFINED, Terms, Workload, search_terms, seconds, stage_terms
from augkd.retrieval.memory import Overhead

_ONE_CORE = {"read", "spool", "copied", "load", "link", "write"}  # costs that no second core shares
_BUILDING = ("train", "graph", "add", "truth", "tune", "write")
_PASSES = {"train": 1, "add": 1, "truth": 2}  # over the vectors on disk


@dataclass(frozen=True)
class Stage:
    """A step of the build: how long, on how many machines, and what it waits for."""

    name: str
    machines: int
    seconds: float
    waits_for: str
    core_seconds: float


@dataclass(frozen=True)
class ClusterPlan:
    """What an index of so many texts takes; without stages where the builder cannot hold it."""

    texts: int
    dim: int
    recall: float
    options: ClusterOptions
    chosen: Option | None
    needed: int  # bytes of memory of the builder, for the chosen index or the smallest that reaches the recall
    disk_bytes: float = 0.0  # of the builder
    network_bytes: float = 0.0  # into and out of the builder
    stages: tuple[Stage, ...] = ()
    lists: int = 0
    visited: float = 0.0
    queries_per_second: float = 0.0
    search_seconds: float = 0.0
    costs: dict[str, float] = field(default_factory=dict)  # of workers, builder, search and all

    @property
    def build_seconds(self) -> float:
        """From the first text to the finished index."""
        return sum(stage.seconds for stage in self.stages)


def workload(texts: int, dim: int, code: Code, costs: CostOptions, *, sentences: bool = False) -> Workload:
    """The work of an index of this code, with the measured growth of the lists that a query visits."""
    plan = plan_index(texts, dim)
    (option,) = [option for option in plan.options if option.factory == code.factory(texts, dim)]
    lists = auto_lists(texts)
    visited = min(max(1.0, costs.visited * lists**costs.visited_growth), float(lists))
    refined = min(max(1.0, costs.refined * lists**costs.refined_growth), float(MOST_REFINED))
    return Workload(
        texts,
        dim,
        code,
        costs.characters,
        visited,
        refined,
        option.index_bytes,
        costs.graph_growth,
        costs.link_growth,
        sentences,
    )


def plan_cluster(
    texts: int,
    dim: int,
    options: ClusterOptions,
    *,
    recall: float = 0.95,
    sentences: bool = True,
    overhead: Overhead,
) -> ClusterPlan:
    """The plan of `texts` texts on these machines; raises RecipeError where search would be exact."""
    if texts <= EXACT_UP_TO:
        raise RecipeError(f"{texts:,} vectors are searched exactly by one machine; plan them without --cluster")
    if recall > INVERTED[0].ceiling:
        raise RecipeError(f"recall {recall} takes exact search; ask for {INVERTED[0].ceiling} or less")
    sizes = plan_index(texts, dim, options.builder.memory_bytes, recall, overhead=overhead)
    fitting = sizes.trials(fine=not sentences)
    if not fitting:
        enough = [option.process_bytes for option in sizes.options if option.ceiling >= recall]
        return ClusterPlan(texts, dim, recall, options, None, min(enough))
    chosen = fitting[0]
    code = next(code for code in INVERTED if code.factory(texts, dim) == chosen.factory)
    work = workload(texts, dim, code, options.costs, sentences=sentences)
    return _timed(work, chosen, options, recall)


def _timed(work: Workload, chosen: Option, options: ClusterOptions, recall: float) -> ClusterPlan:
    builder, workers, costs = options.builder, options.workers, options.costs
    stages = [*_encoding(work, options), *(_building(name, work, options) for name in _BUILDING)]
    stages = [stage for stage in stages if stage.seconds > 0]
    per_query = seconds(search_terms(work, 1, work.visited, work.refined), costs)
    rate = builder.parallel / per_query
    encoding = stages[0].seconds
    building, searching = sum(stage.seconds for stage in stages), options.queries / rate
    prices = {
        "workers": workers.count * workers.price * encoding / 3600,
        "builder": builder.price * building / 3600,
        "search": builder.price * searching / 3600,
    }
    return ClusterPlan(
        texts=work.texts,
        dim=work.dim,
        recall=recall,
        options=options,
        chosen=chosen,
        needed=chosen.process_bytes,
        disk_bytes=chosen.disk_bytes + work.texts * (work.characters + 4),
        network_bytes=work.spool_bytes,
        stages=tuple(stages),
        lists=work.lists,
        visited=work.visited,
        queries_per_second=rate,
        search_seconds=searching,
        costs=prices | {"all": sum(prices.values())},
    )


def _encoding(work: Workload, options: ClusterOptions) -> Iterator[Stage]:
    """Reading and encoding, at the same time; shards are copied afterwards."""
    builder, workers, costs = options.builder, options.workers, options.costs
    terms = {name: stage_terms(name, work) for name in ("read", "encode", "spool", "copy")}
    read, encode, spool, copy = (seconds(terms[name], costs) for name in ("read", "encode", "spool", "copy"))
    encoded = work.texts / workers.texts if workers.texts else encode / workers.parallel
    bounds = {"the workers' cores" if workers.texts is None else "the workers": encoded / workers.count}
    if options.engine == "shards":
        bounds |= {"one core of each worker, which reads": read / workers.speed + spool / workers.speed / workers.count}
        bounds |= {"the workers' disks": work.spool_bytes / workers.count / workers.disk_bytes}
        yield _slowest("read, encode", workers.count, bounds, workers.count * read + encode + spool)
        bounds = {"one core of the builder": copy / builder.speed, "network": work.spool_bytes / builder.network_bytes}
        bounds |= {"the builder's disk": work.spool_bytes / builder.disk_bytes}
        yield _slowest("copy", 1, bounds, copy)
        return
    network = min(builder.network_bytes, workers.count * workers.network_bytes)
    there, back = work.texts * work.characters, 2.0 * work.texts * work.dim  # both ways at once
    bounds |= {"one core of the builder, which reads": (read + spool) / builder.speed}
    bounds |= {"network": max(there, back) / network}
    bounds |= {"the builder's disk": work.spool_bytes / builder.disk_bytes}
    yield _slowest("read, encode", workers.count + 1, bounds, read + encode + spool)


def _building(name: str, work: Workload, options: ClusterOptions) -> Stage:
    builder, costs = options.builder, options.costs
    terms = stage_terms(name, work)
    alone, shared = _divided(terms, costs)
    written = work.index_bytes if name == "write" else _PASSES.get(name, 0) * 2.0 * work.texts * work.dim
    waits_for = "one core" if alone / builder.speed > shared / builder.parallel else "cores"
    bounds = {waits_for: alone / builder.speed + shared / builder.parallel, "disk": written / builder.disk_bytes}
    return _slowest(name, 1, bounds, alone + shared)


def _divided(terms: Terms, costs: CostOptions) -> tuple[float, float]:
    """Seconds of one core that no other can share, and those that all share."""
    alone = seconds({name: amount for name, amount in terms.items() if name in _ONE_CORE}, costs)
    return alone, seconds(terms, costs) - alone


def _slowest(name: str, machines: int, bounds: dict[str, float], core_seconds: float) -> Stage:
    waits_for = max(bounds, key=lambda bound: bounds[bound])
    return Stage(name, machines, bounds[waits_for], waits_for, core_seconds)


# ---- shown ----


def describe_cluster(plan: ClusterPlan) -> Iterator[str]:
    """The plan in lines: machines, index, stages, search, price."""
    options = plan.options
    texts = f"{plan.texts:,} texts of {options.costs.characters:.0f} characters"
    yield f"{texts}, {plan.dim} dimensions, recall@10 {plan.recall}"
    yield f"workers: {options.workers.count} × {_machine(options.workers)}; engine {options.engine}"
    yield f"builder: {_machine(options.builder)}"
    if plan.chosen is None:
        needed = format_bytes(plan.needed)
        yield f"nothing that reaches the recall fits: give the builder {needed} of memory, or ask for a lower recall"
        return
    yield (
        f"index: {plan.chosen.factory}, {format_bytes(plan.chosen.index_bytes)}; builder's memory "
        f"{format_bytes(plan.needed)}, disk {format_bytes(plan.disk_bytes)}; network {format_bytes(plan.network_bytes)}"
    )
    for stage in plan.stages:
        yield (
            f"{stage.name:13}{format_seconds(stage.seconds):>14}, machines {stage.machines}"
            f", waits for {stage.waits_for}; {format_seconds(stage.core_seconds)} of one core"
        )
    yield f"{'all':13}{format_seconds(plan.build_seconds):>14}"
    yield (
        f"search: {plan.visited:,.0f} of {plan.lists:,} lists a query, {plan.queries_per_second:,.0f} queries/s; "
        f"{options.queries:,} queries in {format_seconds(plan.search_seconds)}"
    )
    yield "price: " + ", ".join(f"{name} {value:,.2f}" for name, value in plan.costs.items())


def _machine(machine: MachineOptions) -> str:
    name = f"{machine.machine}: " if machine.machine else ""
    encoded = f", {machine.texts:,.0f} texts/s" if machine.texts else ""
    memory, disk = format_bytes(machine.memory_bytes), format_bytes(machine.disk_bytes)
    return (
        f"{name}{machine.cores} cores × {machine.efficiency:g} × {machine.speed:g}, {memory}, network "
        f"{machine.network:g} Gbit/s, disk {disk}/s, {machine.price:g} an hour{encoded}"
    )
