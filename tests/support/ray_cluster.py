"""A Ray cluster of several nodes on this machine, and work for its workers that needs no model."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from augkd.errors import DataError

TESTS = Path(__file__).parents[1]
STORE = 100 * 2**20  # bytes of a node's object store; less than Docker's 64 MiB of shared memory goes to a file


@contextlib.contextmanager
def two_nodes() -> Iterator[Any]:
    """A cluster of two nodes with two CPUs each, whose workers find the modules of the tests."""
    from augkd.models.ray_calls import import_ray

    import_ray()
    from ray.cluster_utils import Cluster

    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(TESTS), str(TESTS.parent), *([before] if before else [])])
    size = {"num_cpus": 2, "object_store_memory": STORE}
    cluster = Cluster(initialize_head=True, head_node_args={**size, "include_dashboard": False})
    try:
        cluster.add_node(**size)
        cluster.wait_for_nodes()
        yield cluster
    finally:
        cluster.shutdown()
        os.environ.pop("PYTHONPATH") if before is None else os.environ.update(PYTHONPATH=before)


def make_square(delay: float = 0.0) -> Callable[[int], tuple[int, int]]:
    """On a worker: the square of a number, and the process that computed it."""

    def square(number: int) -> tuple[int, int]:
        time.sleep(delay)
        return number * number, os.getpid()

    return square


def make_modules() -> Callable[[str], bool]:
    """On a worker: whether a module was imported."""
    return lambda name: name in sys.modules


def make_deadly(folder: Path, deaths: int) -> Callable[[int], int]:
    """On a worker: gives a number back, but dies of number 3 the first `deaths` times."""

    def give(number: int) -> int:
        if number == 3 and len(list(folder.iterdir())) < deaths:
            (folder / str(os.getpid())).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    return give


def make_failing(kind: str) -> Callable[[int], int]:
    """On a worker: raises a user's mistake, or another error."""

    def fail(number: int) -> int:
        if kind == "data":
            raise DataError(f"row {number} is wrong; correct it")
        raise ValueError("a bug")

    return fail
