"""Memory and time of a build: peak memory beside the index's own size, and the exponent of time over four sizes.

Each size is built in a process of its own, from vectors generated on the fly (20,000 points, repeated with noise), so
that its peak resident memory is the build's alone; what Python had taken before is reported separately. Run:
    python tests/benchmarks/bench_build.py --largest 5000000 --dim 384
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import faiss
import numpy as np

from augkd.data.corpus import CorpusSource
from augkd.retrieval.dense.size import EXACT, plan_index
from augkd.retrieval.engines.local import build_dense

GIB = 2**30


class NoisyRepetition:
    """Row i: one of 20,000 points of 48 latent dimensions, with noise of its own."""

    name, fingerprint = "noisy", "noisy"

    def __init__(self, dim: int) -> None:
        rng = np.random.default_rng(0)
        self.dim = dim
        self._points = rng.standard_normal((20_000, 48), dtype=np.float32) @ rng.standard_normal(
            (48, dim), dtype=np.float32
        )

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        rows = np.array([int(text) for text in texts])
        rng = np.random.default_rng(int(rows[0]))
        vectors = self._points[rows % len(self._points)] / 7
        vectors += 0.5 * rng.standard_normal(vectors.shape, dtype=np.float32)
        faiss.normalize_L2(vectors)
        return vectors


def resident() -> int:
    """Anonymous bytes now: without the pages of mapped files, which the kernel may drop at any time."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("RssAnon")))


def build(count: int, dim: int, factory: str, channel: object) -> None:
    """Runs one build and sends its figures through `channel`."""
    with tempfile.TemporaryDirectory() as temporary:
        corpus = Path(temporary) / "numbers.txt"
        with corpus.open("w") as stream:
            stream.writelines(f"{row}\n" for row in range(count))
        encoder = NoisyRepetition(dim)
        before, peak, done = resident(), 0, threading.Event()

        def watch() -> None:
            nonlocal peak
            while not done.wait(0.02):
                peak = max(peak, resident())

        watcher = threading.Thread(target=watch)
        watcher.start()
        started, used = time.perf_counter(), time.process_time()
        index = build_dense(Path(temporary) / "index", CorpusSource(str(corpus)), encoder, factory=factory)
        seconds, cpu = time.perf_counter() - started, time.process_time() - used
        done.set()
        watcher.join()
        size = (Path(temporary) / "index" / index.manifest.vectors).stat().st_size
        max_rss = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        figures = {"count": count, "seconds": seconds, "cpu": cpu, "size": size, "before": before, "peak": peak}
        channel.send(json.dumps(figures | {"maxrss": max_rss, "factory": index.manifest.factory}))  # type: ignore[attr-defined]


def main() -> None:
    """Prints one line per size, then the fitted exponents."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--largest", type=int, default=400_000, help="the other three sizes are 1/2, 1/4, 1/8 of it")
    parser.add_argument("--dim", type=int, default=64)
    options = parser.parse_args()
    rows = []
    for count in (options.largest // 8, options.largest // 4, options.largest // 2, options.largest):
        factory = next(o.factory for o in plan_index(count, options.dim).options if o.factory != EXACT.name)
        receiver, sender = multiprocessing.Pipe()
        process = multiprocessing.get_context("spawn").Process(target=build, args=(count, options.dim, factory, sender))
        process.start()
        sender.close()
        row = json.loads(receiver.recv())
        process.join()
        rows.append(row)
        extra = (row["peak"] - row["before"] - row["size"]) / GIB
        print(
            f"{row['count']} vectors, {row['factory']}: {row['seconds']:.1f} s ({row['cpu']:.1f} s of CPU), "
            f"index {row['size'] / GIB:.3f} GiB, peak {row['peak'] / GIB:.3f} GiB, before {row['before'] / GIB:.3f}, "
            f"peak beyond index and start {extra:+.3f} GiB, whole process {row['maxrss'] / GIB:.3f} GiB",
            flush=True,
        )
    counts = np.log([row["count"] for row in rows])
    for clock in ("seconds", "cpu"):
        print(f"exponent of {clock}: {np.polyfit(counts, np.log([row[clock] for row in rows]), 1)[0]:.2f}")


if __name__ == "__main__":
    main()
