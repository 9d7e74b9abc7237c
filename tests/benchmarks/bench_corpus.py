"""Corpus cleaning: texts per second by rule, and SeenKeys against a Python set: keys per second and bytes per key.

Rates are per second of CPU time, in rounds (A B A B), so that changes in the machine's speed affect all; SeenKeys must
return what the set returns. Run: python tests/benchmarks/bench_corpus.py [a .txt or .parquet file] [million keys]
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from augkd.data.corpus import CorpusCounts, CorpusSource, stream_corpus
from augkd.data.docstrings import corpus_texts
from augkd.data.seen import MEMORY, SeenKeys

ROUNDS = 3
BATCH = 4096
RULES = ("keep", "exact", "near")


def corpus(file: str, limit: int = 100_000) -> None:
    """Prints texts per CPU second for each value of `duplicates`, and how many were dropped."""
    best = dict.fromkeys(RULES, 0.0)
    dropped = {}
    for _, rule in itertools.product(range(ROUNDS), RULES):
        counts = CorpusCounts()
        started = time.process_time()
        for _ in stream_corpus(CorpusSource(file, duplicates=rule, limit=limit), counts):
            pass
        best[rule] = max(best[rule], counts.read / (time.process_time() - started))
        dropped[rule] = (counts.duplicates, counts.near_duplicates, counts.read)
    for rule, rate in best.items():
        copies, near, read = dropped[rule]
        print(f"duplicates: {rule:5} {rate:9.0f} texts/s ({copies} copies, {near} near-copies in {read})")


def keys(kind: str, count: int) -> None:
    """Prints keys per CPU second and resident bytes per key of one structure, in a process of its own."""
    rng = np.random.default_rng(0)
    batch = rng.integers(1, 2**63, BATCH, dtype=np.uint64)
    new = 0
    seen = SeenKeys(memory=int(kind) if kind != "set" else MEMORY)
    plain: set[int] = set()
    before = resident()
    started = time.process_time()
    for _ in range(count // BATCH):
        batch = rng.integers(1, 2**63, BATCH, dtype=np.uint64)
        if kind != "set":
            new += int(seen.add(batch).sum())
        else:
            for key in batch.tolist():
                if key not in plain:
                    plain.add(key)
                    new += 1
    seconds = time.process_time() - started
    name = "set" if kind == "set" else f"SeenKeys of {int(kind) >> 20} MiB, {seen.runs} runs"
    size = (resident() - before) / count
    print(f"{name:32} {count / seconds:9.0f} keys/s, {size:5.1f} B of memory per key, {new} new", flush=True)
    seen.close()


def resident() -> int:
    """Bytes of anonymous memory, without mapped files, which the system may drop."""
    fields = Path("/proc/self/status").read_text().split("RssAnon:")[1].split()
    return int(fields[0]) * 1024


def main() -> None:
    """Runs both parts; without a file, on the docstrings of the installed packages."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["--keys"]:
        keys(arguments[1], int(arguments[2]))
        return
    with tempfile.TemporaryDirectory() as folder:
        file = arguments[0] if arguments else f"{folder}/docstrings.txt"
        if not arguments:
            Path(file).write_text("\n".join(itertools.islice(corpus_texts(), 100_000)))
        corpus(file)
    count = int(float(arguments[1]) * 1e6) if len(arguments) > 1 else 5_000_000
    for kind in ("set", str(MEMORY), str(MEMORY >> 3), str(MEMORY >> 5)):
        subprocess.run([sys.executable, __file__, "--keys", kind, str(count)], check=True)


if __name__ == "__main__":
    main()
