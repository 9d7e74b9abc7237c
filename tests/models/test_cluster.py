"""Workers of a Ray cluster do every task once, whatever is killed, and Ctrl-C ends them."""

from __future__ import annotations

import importlib.util
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from support.ray_cluster import STORE, make_deadly, make_failing, make_modules, make_square

from augkd.errors import ClusterError, DataError, RecipeError
from augkd.models.cluster import Cluster
from augkd.models.ray_calls import import_ray
from augkd.models.shipped_files import ship
from augkd.models.worker_pool import Worker, python_version
from augkd.workspace.manifests import versions

pytestmark = pytest.mark.xdist_group("ray")


@pytest.mark.parametrize("workers", [2, 4])
def test_every_task_is_done_once_although_a_worker_is_killed(ray_address: str, workers: int) -> None:
    with Cluster.connect(ray_address, workers=workers) as cluster:
        pool = cluster.pool(make_square, 0.02)
        seen, killed = [], 0
        for number, (square, process) in pool.map((number, number) for number in range(60)):
            seen.append((number, square))
            if len(seen) == 10:
                os.kill(process, signal.SIGKILL)
                killed = process
        assert sorted(seen) == [(number, number**2) for number in range(60)]
        assert pool.lost == 1
        again = {process for _, (_, process) in pool.map((number, number) for number in range(40))}
        assert again
        assert killed not in again


@pytest.mark.slow
def test_a_lost_machine_costs_only_what_its_workers_had(ray_cluster: Any) -> None:
    third = ray_cluster.add_node(num_cpus=2, object_store_memory=STORE)
    ray_cluster.wait_for_nodes()
    with Cluster.connect(ray_cluster.address, workers=6) as cluster:
        pool = cluster.pool(make_square, 0.1)
        seen: list[int] = []
        for number, _ in pool.map((number, number) for number in range(200)):
            seen.append(number)
            if len(pool.processes) == 6 and third is not None:
                ray_cluster.remove_node(third, allow_graceful=False)
                third = None
        assert third is None
        assert sorted(seen) == list(range(200))
        assert pool.lost == 2, "its two workers; there is no room for others, so four go on"


def test_results_come_in_order_where_that_is_asked_for(ray_address: str) -> None:
    with Cluster.connect(ray_address, workers=2) as cluster:
        results = cluster.pool(make_square).ordered(range(20))
        assert [square for square, _ in results] == [number**2 for number in range(20)]


def test_workers_that_were_started_ahead_are_those_that_work(ray_address: str) -> None:
    with Cluster.connect(ray_address, workers=2) as cluster:
        cluster.warm("wave")
        assert list(cluster.pool(make_modules).ordered(["wave"])) == [True]
        cluster.warm("wave")  # they are at work: nothing is started
        assert list(cluster.pool(make_modules).ordered(["wave", "sndhdr_not_there"])) == [True, False]
    with Cluster.connect(ray_address, workers=2) as cluster:  # the twin: a worker of its own did not import it
        assert list(cluster.pool(make_modules).ordered(["wave"])) == [False]


def test_no_more_tasks_are_taken_than_workers_can_hold(ray_address: str) -> None:
    taken: list[int] = []

    def tasks() -> object:
        for number in range(30):
            taken.append(number)
            yield number, number

    with Cluster.connect(ray_address, workers=2) as cluster:
        for done, _ in enumerate(cluster.pool(make_square).map(tasks())):
            assert len(taken) - done <= 2 * 2 + 2  # two at each of two workers, one ahead, one that was just done


def test_a_task_that_kills_its_worker_is_tried_again_but_not_for_ever(ray_address: str, tmp_path: Path) -> None:
    with Cluster.connect(ray_address, workers=2) as cluster:
        (tmp_path / "twice").mkdir()
        pool = cluster.pool(make_deadly, tmp_path / "twice", 2)
        assert list(pool.ordered(range(6))) == list(range(6))
        assert pool.lost == 2
        (tmp_path / "always").mkdir()
        with pytest.raises(ClusterError, match=r"3 workers were lost on the same work, .*the same command continues"):
            list(cluster.pool(make_deadly, tmp_path / "always", 99).ordered(range(6)))


def test_a_users_mistake_comes_back_as_it_is_and_a_bug_with_its_traceback(ray_address: str) -> None:
    with Cluster.connect(ray_address, workers=1) as cluster:
        with pytest.raises(DataError, match=r"^row 0 is wrong; correct it$"):
            list(cluster.pool(make_failing, "data").ordered(range(3)))
        with pytest.raises(RuntimeError, match=r"(?s)a worker failed.*in fail.*ValueError: a bug"):
            list(cluster.pool(make_failing, "bug").ordered(range(3)))


class Stopped(BaseException):
    """What the handler of Ctrl-C raises."""


def test_ctrl_c_ends_the_wait_for_workers(ray_address: str) -> None:
    def stop(*_: object) -> None:
        raise Stopped

    before = signal.signal(signal.SIGINT, stop)
    try:
        with Cluster.connect(ray_address, workers=1) as cluster:
            timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT))
            timer.start()
            started = time.monotonic()
            with pytest.raises(Stopped):
                list(cluster.pool(make_square, 60.0).ordered(range(3)))
            assert time.monotonic() - started < 20
            timer.join()
    finally:
        signal.signal(signal.SIGINT, before)


def make_reader(folder: object) -> object:
    return lambda name: (str(folder.open()), (folder.open() / name).read_bytes())


def test_files_are_read_in_place_or_fetched(ray_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("augkd.models.shipped_files._PIECE", 1000)
    content = os.urandom(2500)
    (tmp_path / "model" / "inner").mkdir(parents=True)
    (tmp_path / "model" / "inner" / "weights").write_bytes(content)
    (tmp_path / "model" / "empty").touch()
    for in_place in (True, False):
        with Cluster.connect(ray_address, workers=1, in_place=in_place) as cluster:
            shipped = cluster.ship(tmp_path / "model")
            ((where, read),) = cluster.pool(make_reader, shipped).ordered(["inner/weights"])
        assert read == content
        assert (where == str(tmp_path / "model")) == in_place


def test_a_folder_that_differs_is_not_read_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_text("as it was")
    shipped = ship(tmp_path, "node")
    assert shipped.open() == tmp_path
    (tmp_path / "a").write_text("as it is.")
    os.utime(tmp_path / "a", ns=(1, 1))
    monkeypatch.setattr("augkd.models.shipped_files.ShippedFolder._fetched", lambda self: Path("fetched"))
    assert shipped.open() == Path("fetched")


def test_other_versions_on_a_worker_are_named() -> None:
    expected = {**versions(), "python": python_version()}
    assert Worker().start(make_square, (), expected, 0) == os.getpid()
    with pytest.raises(ClusterError, match=r"has torch 2.*, this machine 1\.0; install the same versions"):
        Worker().start(make_square, (), expected | {"torch": "1.0"}, 0)


def test_without_ray_one_line_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ClusterError, match=r"^--engine ray needs ray; pip install 'augkd\[ray\]'$"), Cluster.connect():
        pass


def test_usage_reports_are_off_in_what_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED", raising=False)
    import_ray()
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


def test_no_cluster_and_no_room_are_one_line(ray_address: str) -> None:
    unreachable = r"Ray cannot be reached at 127\.0\.0\.1:1 .*ray start --head"
    with pytest.raises(ClusterError, match=unreachable), Cluster.connect("127.0.0.1:1"):
        pass
    full = r"no node .* 64 CPUs and 0 GPUs; the largest have 2 and 0"
    with pytest.raises(ClusterError, match=full), Cluster.connect(ray_address, cpus=64):
        pass
    with Cluster.connect(ray_address, cpus=0.5) as cluster:
        assert (cluster.workers, cluster.threads) == (8, 1)  # two nodes of two CPUs


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"address": "ray://host:10001"}, "is that of a Ray client"),
        ({"workers": 0}, "workers is 0"),
        ({"cpus": 1.5}, "CPUs per worker is 1.5"),
        ({"cpus": 0.0}, "CPUs per worker is 0.0"),
        ({"gpus": -1.0}, "GPUs per worker is -1.0"),
        ({"gpus": float("nan")}, "GPUs per worker is nan"),
    ],
)
def test_sizes_that_cannot_be_are_rejected_before_ray_starts(options: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message), Cluster.connect(**options):
        pass
