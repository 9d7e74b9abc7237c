"""The command `augkd index plan`: what an index takes before it is built, here or on a cluster."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from augkd.cli.terminal import AsJson, finite, show
from augkd.errors import RecipeError, short_repr

if TYPE_CHECKING:
    from augkd.recipe.cluster import ClusterOptions
    from augkd.retrieval.memory import Overhead


def plan(
    vectors: Annotated[float, typer.Option("--vectors", callback=finite(1, 1e15), help="Number of texts, like 5e9.")],
    dim: Annotated[int, typer.Option("--dim", min=1, max=16384, help="Dimensions of a vector (default: 384).")] = 384,
    memory: Annotated[
        str | None, typer.Option("--memory", help="Memory budget of the process, like 256GiB (default: none).")
    ] = None,
    kind: Annotated[
        str, typer.Option("--kind", help="What encodes the texts: sentence or static (default: sentence).")
    ] = "sentence",
    recall: Annotated[
        float, typer.Option("--recall", callback=finite(0.01, 1), help="Recall@10 to reach (default: 0.95).")
    ] = 0.95,
    cluster: Annotated[
        str | None,
        typer.Option("--cluster", metavar="YAML", help="A file or a table: machines that encode, and one that builds."),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="With --cluster: change one of its keys (repeatable)."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Estimate size and time of an index before it is built, from speeds measured here in a few seconds.

    With --cluster: from costs that are keys of its own, for many machines, with the price. Examples:

    augkd index plan --vectors 5e9 --dim 384 --memory 256GiB  ·
    augkd index plan --vectors 1e9 --dim 256 --kind static --cluster '{workers: c7a.16xlarge, builder: r7i.48xlarge}'
    """
    from augkd.recipe import EncoderOptions, dump
    from augkd.recipe.cluster import load_cluster
    from augkd.recipe.units import parse_bytes
    from augkd.retrieval.dense.size import describe, plan_index
    from augkd.retrieval.dense.speed import measure_constants
    from augkd.retrieval.memory import overhead_of

    memory_budget = None if memory is None else parse_bytes(memory, "--memory")
    if kind not in ("sentence", "static"):
        raise RecipeError(f"--kind is {short_repr(kind)}; give sentence or static")
    overhead = overhead_of({"encoder": dump(EncoderOptions.model_validate({"kind": kind}))})
    if cluster is not None:
        if memory is not None:
            raise RecipeError("--memory is builder.memory of --cluster; give it there")
        _plan_cluster(int(vectors), dim, recall, kind, load_cluster(cluster, set_ or []), overhead, as_json)
        return
    if set_:
        raise RecipeError("--set changes a key of --cluster; give --cluster, or leave it out")
    estimate = plan_index(int(vectors), dim, memory_budget, recall, measure_constants(dim), overhead)
    show(asdict(estimate), as_json, list(describe(estimate)))


def _plan_cluster(
    vectors: int,
    dim: int,
    recall: float,
    kind: str,
    cluster: ClusterOptions,
    overhead: Overhead,
    as_json: bool,
) -> None:
    from augkd.recipe import dump
    from augkd.retrieval.dense.cluster_plan import describe_cluster, plan_cluster

    sentences = kind == "sentence"
    plan = plan_cluster(vectors, dim, cluster, recall=recall, sentences=sentences, overhead=overhead)
    show(asdict(plan) | {"options": dump(cluster)}, as_json, list(describe_cluster(plan)))
