"""Options of the commands that can use a Ray cluster, and the connection that they stand for."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
from typing import TYPE_CHECKING, Annotated, Any

import typer

from augkd.errors import RecipeError, did_you_mean, short_repr

if TYPE_CHECKING:
    from augkd.models.cluster import Cluster

ENGINES = ("local", "ray")

Engine = Annotated[
    str,
    typer.Option("--engine", metavar="ENGINE", help="local: this machine; ray: a Ray cluster (default: local)."),
]
Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="HOST:PORT",
        help="With --engine ray: the cluster, or auto: the one on this machine (default: RAY_ADDRESS, else one started "
        "here for this command).",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers", min=1, max=100_000, help="With --engine ray: workers (default: as many as there is room for)."
    ),
]
Cpus = Annotated[
    float | None,
    typer.Option(
        "--cpus-per-worker", metavar="CPUS", help="With --engine ray: cores of each, like 4 or 0.5 (default: 1)."
    ),
]
Gpus = Annotated[
    float | None,
    typer.Option(
        "--gpus-per-worker",
        metavar="GPUS",
        help="With --engine ray: GPUs of each, like 1 or 0.25 (default: 1 where the cluster has some, else 0).",
    ),
]


def connected(
    engine: str,
    address: str | None,
    workers: int | None,
    cpus: float | None,
    gpus: float | None,
) -> AbstractContextManager[Cluster | None]:
    """The cluster of these options, connected within the context; None for the local engine."""
    if engine not in ENGINES:
        raise RecipeError(f"--engine is {short_repr(engine)}{did_you_mean(engine, ENGINES)}")
    if engine == "local":
        given: dict[str, Any] = {"--address": address, "--workers": workers}
        given |= {"--cpus-per-worker": cpus, "--gpus-per-worker": gpus}
        for option, value in given.items():
            if value is not None:
                raise RecipeError(f"{option} {value} is for --engine ray; add that, or leave it out")
        return nullcontext()
    return _on_ray(address, workers, 1.0 if cpus is None else cpus, gpus)


@contextmanager
def _on_ray(address: str | None, workers: int | None, cpus: float, gpus: float | None) -> Iterator[Cluster]:
    from augkd.models.cluster import Cluster

    # Ray prints what it has to say of lost workers, and stdout is for the result
    with redirect_stdout(sys.stderr), Cluster.connect(address, workers=workers, cpus=cpus, gpus=gpus) as cluster:
        yield cluster
