"""Plans for a cluster against the arithmetic written out by hand, and against recorded measurements."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import pytest
from support.command_line import Augkd

from augkd.errors import RecipeError
from augkd.recipe import EncoderOptions, dump
from augkd.recipe.cluster import MACHINES, ClusterOptions, CostOptions, load_cluster
from augkd.retrieval.dense.cluster_plan import ClusterPlan, describe_cluster, plan_cluster, workload
from augkd.retrieval.dense.size import INVERTED, plan_index
from augkd.retrieval.dense.work import search_terms, seconds, stage_terms
from augkd.retrieval.memory import NO_OVERHEAD, overhead_of

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
N, DIM, LISTS = 10**8, 256, 32768  # 4·√n, rounded to a power of two
FINE = INVERTED[1]
MACHINE = {"cores": 10, "memory": "1TiB", "network": 8, "disk": 10**15, "price": 2.0, "efficiency": 0.5}
FREE = dict.fromkeys(CostOptions.model_fields, 1e-300)
COSTS = {
    **{"characters": 100.0, "visited": 1.0, "visited_growth": 0.0, "refined": 16.0, "refined_growth": 0.0},
    **{"graph_growth": 0.0, "link_growth": 0.0},
}


def cluster(**changes: Any) -> ClusterOptions:
    """Ten cores everywhere, of which half are lost, and costs of which all but those given are nothing."""
    costs = {**FREE, **COSTS, **changes.pop("costs", {})}
    workers = MACHINE | changes.pop("workers", {})
    return ClusterOptions.model_validate({"workers": workers, "builder": MACHINE, "costs": costs, **changes})


def planned(options: ClusterOptions, texts: int = N, **changes: Any) -> ClusterPlan:
    return plan_cluster(texts, DIM, options, **{"overhead": NO_OVERHEAD, "sentences": False, **changes})


def stage(plan: ClusterPlan, name: str) -> Any:
    (found,) = [stage for stage in plan.stages if stage.name == name]
    return found


@pytest.mark.parametrize(
    ("name", "cost", "expected"),
    [
        ("read", "read", N * 100),
        ("encode", "encode", N * 100),
        ("spool", "spool", N * (2 * DIM + 100 + 4)),
        ("copy", "copied", N * (2 * DIM + 100 + 4)),
        ("train", "product", 11 * 64 * LISTS * LISTS * 2 * DIM),  # 64 points a list
        ("train", "load", N * DIM),
        ("graph", "link", LISTS * DIM * 2**0.25),  # twice 16,384 lists
        ("add", "graph", N * DIM * 2**0.5),
        ("add", "code", N * DIM),
        ("truth", "compare", 1000 * N * 2 * DIM),
        ("truth", "load", 2 * N * DIM),
    ],
)
def test_the_work_of_a_stage_is_the_arithmetic_of_the_code(name: str, cost: str, expected: float) -> None:
    work = workload(N, DIM, FINE, CostOptions(characters=100.0, graph_growth=0.5, link_growth=0.25))
    assert work.lists == LISTS
    assert stage_terms(name, work)[cost] == pytest.approx(expected)
    assert seconds({cost: expected}, CostOptions.model_validate({cost: 1e-9})) == pytest.approx(expected * 1e-9)


def test_below_the_graph_a_vector_is_compared_with_every_list() -> None:
    work = workload(10**6, DIM, FINE, CostOptions())
    assert stage_terms("graph", work) == {}
    assert stage_terms("add", work)["product"] == pytest.approx(10**6 * 4096 * 2 * DIM)


def test_a_query_pays_for_centroids_codes_and_candidates() -> None:
    terms = search_terms(workload(N, DIM, FINE, CostOptions()), queries=3, visited=20, refined=16)
    assert terms["coarse"] == 3 * LISTS * 2 * DIM
    assert terms["visit"] == 3 * 20 * DIM
    assert terms["scan"] == pytest.approx(3 * 20 * N / LISTS * 64)  # 128 codes of 4 bits
    assert terms["refine"] == 3 * 10 * 16 * DIM


def test_no_more_candidates_are_reranked_than_there_are_in_the_lists() -> None:
    few = workload(10**6, DIM, FINE, CostOptions())  # 244 texts a list
    assert search_terms(few, queries=1, visited=1, refined=64)["refine"] == pytest.approx(10**6 / 4096 * DIM)


def test_the_lists_that_a_query_visits_grow_as_measured_and_are_never_more_than_there_are() -> None:
    costs = CostOptions(visited=2.0, visited_growth=0.5)
    assert workload(N, DIM, FINE, costs).visited == pytest.approx(2 * math.sqrt(LISTS))
    assert workload(N, DIM, FINE, CostOptions(visited=1e6, visited_growth=0.5)).visited == LISTS


def test_workers_share_the_encoding_until_one_core_that_reads_is_the_slowest() -> None:
    costs = {"encode": 1e-6, "read": 1e-8}
    one, four, many = (planned(cluster(costs=costs, workers={"count": count})) for count in (1, 4, 1000))
    assert stage(one, "read, encode").seconds == pytest.approx(N * 100 * 1e-6 / (10 * 0.5))
    assert stage(four, "read, encode").seconds == pytest.approx(stage(one, "read, encode").seconds / 4)
    assert stage(four, "read, encode").waits_for == "the workers' cores"
    assert stage(many, "read, encode").seconds == pytest.approx(N * 100 * 1e-8)
    assert stage(many, "read, encode").waits_for == "one core of the builder, which reads"


def test_workers_with_a_rate_of_their_own_do_not_use_their_cores() -> None:
    plan = planned(cluster(workers={"count": 5, "texts": 2000.0}))
    assert stage(plan, "read, encode").seconds == pytest.approx(N / 2000 / 5)


def test_the_network_and_the_disk_bound_a_stage() -> None:
    plan = planned(cluster(workers={"count": 4}))
    assert stage(plan, "read, encode").waits_for == "network"
    assert stage(plan, "read, encode").seconds == pytest.approx(N * 2 * DIM / 1e9)  # 8 Gbit/s; vectors as float16
    slow = planned(ClusterOptions.model_validate({**_tree(cluster()), "builder": MACHINE | {"disk": "1MB"}}))
    assert stage(slow, "truth").seconds == pytest.approx(2 * N * 2 * DIM / 1e6)
    assert stage(slow, "truth").waits_for == "disk"


def test_shards_are_read_by_every_worker_and_copied_by_one_core() -> None:
    plan = planned(cluster(engine="shards", costs={"read": 1e-8, "copied": 1e-9}, workers={"count": 4}))
    assert [stage.name for stage in plan.stages][:2] == ["read, encode", "copy"]
    assert plan.stages[0].seconds == pytest.approx(N * 100 * 1e-8)
    assert plan.stages[0].core_seconds == pytest.approx(4 * N * 100 * 1e-8)
    assert stage(plan, "copy").seconds == pytest.approx(N * (2 * DIM + 104) * 1e-9)


def test_what_one_core_does_alone_is_not_divided_among_the_others() -> None:
    plan = planned(cluster(costs={"load": 1e-9, "code": 1e-9}))
    assert stage(plan, "add").seconds == pytest.approx(N * DIM * 1e-9 * (1 + 1 / (10 * 0.5)))


def test_the_price_is_that_of_the_hours_of_each_machine() -> None:
    plan = planned(cluster(costs={"encode": 1e-6, "compare": 1e-12, "scan": 1e-9}, workers={"count": 3, "price": 5.0}))
    encoding = stage(plan, "read, encode").seconds
    assert plan.costs["workers"] == pytest.approx(3 * 5 * encoding / 3600)
    assert plan.costs["builder"] == pytest.approx(2 * plan.build_seconds / 3600)
    assert plan.search_seconds == pytest.approx(10**6 / plan.queries_per_second)
    assert plan.queries_per_second == pytest.approx(10 * 0.5 / (1e-9 * N / LISTS * 64))
    assert plan.costs["all"] == pytest.approx(sum(plan.costs[name] for name in ("workers", "builder", "search")))


def test_an_index_that_does_not_fit_says_how_much_memory_it_needs() -> None:
    options = ClusterOptions.model_validate({**_tree(cluster()), "builder": MACHINE | {"memory": "1GiB"}})
    plan = planned(options)
    assert (plan.chosen, plan.stages) == (None, ())
    enough = [option.process_bytes for option in plan_index(N, DIM).options if option.ceiling >= 0.95]
    assert plan.needed == min(enough)
    assert "give the builder 21.7 GiB of memory" in "\n".join(describe_cluster(plan))


def test_exact_search_is_not_planned_for_a_cluster() -> None:
    with pytest.raises(RecipeError, match="200,000 vectors are searched exactly by one machine"):
        planned(cluster(), texts=200_000)
    with pytest.raises(RecipeError, match=r"recall 1\.0 takes exact search; ask for 0\.99 or less"):
        planned(cluster(), recall=1.0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("{workers: c7a.16xlarg, builder: r7i.48xlarge}", "'c7a.16xlarg' is not known; did you mean 'c7a.16xlarge'?"),
        ("{workers: c7a.16xlarge}", "'builder' is missing"),
        ("{workers: c7a.16xlarge, builder: {machine: r7i.48xlarge, count: 2}}", "one machine builds the index"),
        ("{workers: c7a.16xlarge, builder: {machine: r7i.48xlarge, memory: many}}", "write it like 2GiB"),
        ("{workers: c7a.16xlarge, builder: r7i.48xlarge, costs: {reed: 1.0e-7}}", "did you mean 'read'?"),
        ("c7a.16xlarge", "neither a file nor a table"),
    ],
)
def test_a_cluster_that_is_none_is_one_line(given: str, message: str) -> None:
    with pytest.raises(RecipeError) as refused:
        load_cluster(given)
    assert message in str(refused.value)


def test_a_file_an_inline_table_and_overrides_give_the_same_cluster(tmp_path: Path) -> None:
    inline = load_cluster("{workers: {machine: p3.2xlarge, count: 8}, builder: {machine: r7i.48xlarge, price: 7.0}}")
    (tmp_path / "cluster.yaml").write_text("workers: p3.2xlarge\nbuilder: r7i.48xlarge\n")
    read = load_cluster(str(tmp_path / "cluster.yaml"), ["builder.price=7.0"])
    assert read.builder == inline.builder
    assert (inline.builder.cores, inline.builder.price) == (MACHINES["r7i.48xlarge"]["cores"], 7.0)
    assert (inline.workers.count, read.workers.count) == (8, 1)


def test_the_command_prints_the_plan_and_gives_it_as_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    augkd = Augkd(monkeypatch, capsys)
    command = ("index", "plan", "--vectors", "1e9", "--dim", "256", "--kind", "static", "--cluster")
    spec = "{workers: c7a.16xlarge, builder: r7i.48xlarge}"
    shown, value = augkd(*command, spec), augkd(*command, spec, "--json").json
    assert shown.out.startswith("1,000,000,000 texts of")
    assert f"price: workers {value['costs']['workers']:,.2f}" in shown.out
    assert value["options"]["builder"]["machine"] == "r7i.48xlarge"
    dearer = augkd(*command, spec, "--set", "builder.price=100", "--json").json
    assert dearer["costs"]["builder"] == pytest.approx(value["costs"]["builder"] * 100 / 12.701)
    assert augkd(*command, spec, "--memory", "2GiB").err.startswith("error: --memory is builder.memory of --cluster")
    assert augkd("index", "plan", "--vectors", "1e9", "--set", "a=1").err.startswith("error: --set changes a key of")


def _tree(options: ClusterOptions) -> dict[str, Any]:
    return options.model_dump(mode="json")


# ---- the page ----

PAGE = Path(__file__).parents[3] / "docs" / "scale.md"
ROWS = [  # texts, kind, dimensions, workers, builder
    (10**8, "static", 256, "{machine: c7a.16xlarge, count: 1}", "r7i.12xlarge"),
    (10**9, "static", 256, "{machine: c7a.16xlarge, count: 1}", "r7i.12xlarge"),
    (5 * 10**9, "static", 256, "{machine: c7a.16xlarge, count: 1}", "x2idn.32xlarge"),
    (10**8, "sentence", 384, "{machine: p3.2xlarge, count: 4}", "r7i.12xlarge"),
    (10**9, "sentence", 384, "{machine: p3.2xlarge, count: 8}", "r7i.48xlarge"),
    (5 * 10**9, "sentence", 384, "{machine: p3.2xlarge, count: 8}", "x2idn.32xlarge"),
]


def row(texts: int, kind: str, dim: int, workers: str, builder: str) -> str:
    """A row of the page's table, as the plan gives it."""
    options = load_cluster(f"{{workers: {workers}, builder: {builder}}}")
    overhead = overhead_of({"encoder": dump(EncoderOptions.model_validate({"kind": kind}))})
    plan = plan_cluster(texts, dim, options, sentences=kind == "sentence", overhead=overhead)
    assert plan.chosen is not None
    times = {stage.name: stage.seconds / 3600 for stage in plan.stages}
    rest = sum(times.values()) - times["read, encode"] - times["train"] - times["add"]
    hours = " | ".join(f"{value:.1f}" for value in (times["read, encode"], times["train"], times["add"], rest))
    machines = f"{options.workers.count} × {options.workers.machine}, {builder}"
    index = f"{plan.chosen.index_bytes / 1e9:,.0f} | {plan.network_bytes / 1e12:.2f}"
    search = f"{plan.queries_per_second:,.0f}"
    exponent = int(math.log10(texts))
    size = f"{texts // 10**exponent}·10^{exponent}" if texts // 10**exponent > 1 else f"10^{exponent}"
    return f"| {size} | {kind} {dim} | {machines} | {hours} | {index} | {search} | {plan.costs['all']:,.0f} |"


@pytest.mark.parametrize("of", ROWS)
def test_the_table_of_the_page_is_what_the_plan_says(of: tuple[int, str, int, str, str]) -> None:
    assert row(*of) in PAGE.read_text().splitlines()


# ---- recorded measurements ----


@pytest.fixture(scope="module")
def benchmark() -> Any:
    spec = importlib.util.spec_from_file_location("bench_cluster_plan", BENCHMARKS / "bench_cluster_plan.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MEASURED = json.loads((BENCHMARKS / "cluster_plan.json").read_text())


def test_the_default_costs_are_those_fitted_to_the_recorded_measurements(benchmark: Any) -> None:
    fitted = benchmark.fitted(MEASURED, benchmark.FIT, DIM).model_dump()
    assert CostOptions().model_dump() == pytest.approx(fitted, rel=0.01)


@pytest.mark.parametrize("size", [100_000, 300_000, 700_000])
def test_builds_and_searches_of_sizes_that_were_not_fitted_are_predicted_within_a_fifth(
    benchmark: Any, size: int
) -> None:
    assert size not in benchmark.FIT
    compared = benchmark.compared(MEASURED[str(size)], CostOptions(), DIM)
    for name in ("build", "merge", "encode", "train", "add", "search", "spool MB", "index MB"):
        measured, predicted = compared[name]
        assert predicted == pytest.approx(measured, rel=0.2), name


@pytest.mark.parametrize("lists", [32_768, 131_072])
def test_a_walk_through_a_graph_that_was_not_fitted_is_predicted_within_a_fifth(benchmark: Any, lists: int) -> None:
    assert lists not in benchmark.GRAPHS_FITTED
    measured = MEASURED["graph"][str(lists)]
    assert benchmark.walk_seconds(CostOptions(), DIM, lists) == pytest.approx(measured, rel=0.2)
