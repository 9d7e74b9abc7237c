"""A Ray cluster: machines that encode, label or train for one command, which alone reads and writes what they share.

Ray starts the workers, moves data between machines and notices when one is lost. Who may connect to a cluster may run
any code on it: Ray's own token keeps strangers out.
"""

from __future__ import annotations

import importlib
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from augkd.errors import ClusterError, RecipeError, first_line
from augkd.models.locate import model_files
from augkd.models.machine import usable_cores
from augkd.models.ray_calls import import_ray, interruptible
from augkd.models.shipped_files import ShippedFolder, ship
from augkd.models.worker_pool import WorkerPool

_STORE = 2**30  # bytes for what is on its way, of a cluster that is started here; Ray's own share is 30 % of the memory
_CONNECT = 10.0  # seconds until an address counts as wrong


class Cluster:
    """An open connection to Ray, and what each worker gets of it; make one with `Cluster.connect`."""

    def __init__(self, node: str, workers: int, cpus: float, gpus: float, *, in_place: bool = True) -> None:
        self.node = node  # the id of the node that this process is connected through
        self.workers = workers
        self.cpus = cpus  # of each worker
        self.gpus = gpus
        self._in_place = in_place
        self._pool: tuple[object, WorkerPool] | None = None

    @classmethod
    @contextmanager
    def connect(
        cls,
        address: str | None = None,
        *,
        workers: int | None = None,
        cpus: float = 1.0,
        gpus: float | None = None,
        in_place: bool = True,
    ) -> Iterator[Cluster]:
        """A connection to the Ray cluster at `address`, closed at the end.

        `address` is host:port, or auto: the cluster that runs on this machine. None: that of RAY_ADDRESS, else Ray is
        started on this machine for the time of the connection. `workers` is the number of workers (None: as many as the
        cluster has room for), `cpus` how many cores each gets, `gpus` how many GPUs (None: 1 where the cluster has
        some, else 0); shares like 0.5 are possible. With `in_place` a worker that finds the same files under the same
        path reads them there; else they are always sent. A connection that is open already is used, and stays open.

        Raises ClusterError when Ray is not installed, cannot be reached, or has no room for a single worker, and
        RecipeError for a number out of range.
        """
        _check(address, workers, cpus, gpus)
        ray = import_ray()
        opened = not ray.is_initialized()
        if opened:
            with interruptible():
                _open(ray, address)
        try:
            cluster = cls(ray.get_runtime_context().get_node_id(), *_sizes(ray, workers, cpus, gpus), in_place=in_place)
            try:
                yield cluster
            finally:
                cluster.close()
        finally:
            if opened:
                with interruptible():
                    ray.shutdown()

    @property
    def threads(self) -> int:
        """Threads that a worker computes with."""
        return max(1, int(self.cpus))

    def ship(self, folder: Path, files: Iterable[Path] | None = None) -> ShippedFolder:
        """`folder` as workers can have it, wherever they run, with those `files` that they need (None: all)."""
        return ship(folder, self.node, files, in_place=self._in_place)

    def ship_model(self, folder: Path) -> ShippedFolder:
        """The weights, configuration and tokenizer in the folder of a model."""
        return self.ship(folder.resolve(), model_files(folder.resolve()))

    def pool(self, make: Callable[..., Callable[[Any], Any]], *args: Any, concurrent: int = 2) -> WorkerPool:
        """The workers that do what `make(*args)` returns, `concurrent` tasks waiting at each.

        Those of the last call; if it was another one, they are made ready for this.
        """
        wanted = (make, args, concurrent)
        if self._pool is None or self._pool[0] != wanted:
            spare = [] if self._pool is None else self._pool[1].retire()
            size = {"workers": self.workers, "concurrent": concurrent}
            self._pool = wanted, WorkerPool(make, args, cpus=self.cpus, gpus=self.gpus, spare=spare, **size)
        return self._pool[1]

    def warm(self, *modules: str) -> None:
        """Starts the workers, which import `modules` while this process gets ready to send them tasks."""
        if self._pool is None:
            self.pool(make_warm, modules).begin()

    def rest(self) -> None:
        """Has the workers give back the memory of what they did last."""
        if self._pool is not None:
            self._pool[1].rest()

    def close(self) -> None:
        """Stops the workers; the next pool starts others."""
        if self._pool is not None:
            self._pool[1].stop()
            self._pool = None


def make_warm(modules: Sequence[str]) -> Callable[[Any], Any]:
    """On a worker: what it will need is imported; there are no tasks for it yet."""
    for name in modules:
        importlib.import_module(name)
    return lambda task: task


def _check(address: str | None, workers: int | None, cpus: float, gpus: float | None) -> None:
    if address is not None and address.startswith("ray://"):
        raise RecipeError(
            f"Ray address {address} is that of a Ray client; run the command on a node of the cluster and give "
            "host:port, or auto"
        )
    if workers is not None and workers < 1:
        raise RecipeError(f"workers is {workers}; give at least 1, or leave it out for as many as there is room for")
    if not _is_share(cpus) or cpus == 0:
        raise RecipeError(f"CPUs per worker is {cpus}; give a share of a core like 0.5, or a whole number from 1")
    if gpus is not None and not _is_share(gpus):
        raise RecipeError(f"GPUs per worker is {gpus}; give 0, a share of a GPU like 0.5, or a whole number")


def _is_share(number: float) -> bool:
    return 0 <= number <= 1 or (1 < number < float("inf") and number == int(number))


def _open(ray: Any, address: str | None) -> None:
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    options: dict[str, Any] = {}
    if address == "local":
        options = {"num_cpus": usable_cores(), "object_store_memory": _STORE, "include_dashboard": False}
    try:
        _check_listens(address)
        ray.init(address, namespace="augkd", configure_logging=False, log_to_driver=False, **options)
    except Exception as exc:  # grpc's, the operating system's and Ray's own: all mean that there is no connection
        ray.shutdown()
        raise ClusterError(
            f"Ray cannot be reached at {address} ({first_line(exc)}); start it with `ray start --head`, or leave out "
            "--address to use this machine alone"
        ) from exc


def _check_listens(address: str) -> None:
    """Raises OSError where nothing listens at host:port: Ray would try for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT).close()


def _sizes(ray: Any, workers: int | None, cpus: float, gpus: float | None) -> tuple[int, float, float]:
    """Number of workers, CPUs and GPUs of each."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if gpus is None:
        gpus = 1.0 if any(node.get("GPU", 0) for node in nodes) else 0.0
    room = sum(_room(node, cpus, gpus) for node in nodes)
    if workers is None and room == 0:
        most = max((node.get("CPU", 0) for node in nodes), default=0), max((n.get("GPU", 0) for n in nodes), default=0)
        raise ClusterError(
            f"no node of the Ray cluster has room for a worker with {cpus:g} CPUs and {gpus:g} GPUs; the largest have "
            f"{most[0]:g} and {most[1]:g}: give fewer per worker, or the number of workers if more nodes will come"
        )
    return workers or room, cpus, gpus


def _room(node: dict[str, float], cpus: float, gpus: float) -> int:
    by_cpu = int(node.get("CPU", 0) / cpus)
    return min(by_cpu, int(node.get("GPU", 0) / gpus)) if gpus else by_cpu
