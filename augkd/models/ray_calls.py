"""Ray itself: imported when a cluster is asked for and never before, quiet, without usage reports, interruptible."""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from augkd.errors import ClusterError

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_worker_niceness": "0",  # of a cluster that is started here; Ray's own, 15, starves beside other processes
}


def import_ray() -> Any:
    """The module `ray`; raises ClusterError when it is not installed."""
    if importlib.util.find_spec("ray") is None:
        raise ClusterError("--engine ray needs ray; pip install 'augkd[ray]'")
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ray

    logging.getLogger("ray").setLevel(logging.ERROR)  # after the import, which sets another
    return ray


@contextmanager
def interruptible() -> Iterator[None]:
    """Around a short call of Ray's: Ctrl-C during it takes effect at its end.

    Ray's compiled code loses the exception that a signal handler raises (2.60: SystemError after the whole timeout).
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught: list[Any] = []
    before = signal.signal(signal.SIGINT, lambda *event: caught.append(event))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if caught and callable(before):
        before(*caught[0])
