"""The costs behind `augkd index plan --cluster`: measured here stage by stage, fitted, and checked at other sizes.

A corpus is shuffled once, so that every size has the same mix of texts. Each stage of a build with a static encoder
runs through augkd's own functions on one thread and is timed in processor time, which other work on the machine does
not change. Constants are fitted to the sizes of `--fit`; those of `--check` are predicted. Beyond 16,384 lists a build
finds lists through a graph, which no size that runs here needs: it is timed by itself, with as many of the corpus's
vectors for centroids as 5·10⁹ texts take. What is measured goes to `--measured`, and is not measured again. Run:

    OMP_NUM_THREADS=1 python tests/benchmarks/bench_cluster_plan.py FOLDER --measured costs.json
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.optimize import nnls

from augkd.data.corpus import CorpusCounts, CorpusSource, stream_corpus
from augkd.data.raw_texts import raw_texts
from augkd.recipe.cluster import CostOptions
from augkd.retrieval.dense.choice import create
from augkd.retrieval.dense.cluster_plan import workload
from augkd.retrieval.dense.held_out import RECALL_AT, find_true_neighbours
from augkd.retrieval.dense.size import GRAPH_ABOVE, INVERTED, auto_lists
from augkd.retrieval.dense.tuning import SearchParameters, set_parameters, tune
from augkd.retrieval.dense.vectors import _centroid_graph, _fill, _sample, _train, write_vectors
from augkd.retrieval.dense.work import HELD_OUT, NEIGHBOURS, STAGES, Terms, Workload, search_terms, seconds, stage_terms
from augkd.retrieval.encoders.distillation import distill
from augkd.retrieval.encoders.sentence import SentenceEncoder
from augkd.retrieval.encoders.static import StaticEncoder
from augkd.retrieval.engines.shards import _copy
from augkd.retrieval.spool import CHUNK, encode_parts, open_spool
from augkd.workspace.checksums import checksum
from augkd.workspace.files import read_json, write_json

CODE = INVERTED[1]  # what `auto` builds for static vectors
QUERIES = 2000
GRAPHS = (16_384, 32_768, 65_536, 131_072, 262_144)  # the last is what 5·10⁹ texts take
GRAPHS_FITTED = (16_384, 65_536, 262_144)
FIT, CHECK = (50_000, 200_000), (100_000, 300_000, 700_000)
Measured = dict[str, dict[str, float]]  # size → stage → processor seconds, and facts


def main() -> None:
    """Measures what is missing, fits, and prints the constants and the errors."""
    arguments = _arguments()
    measured: Measured = read_json(arguments.measured) if arguments.measured.exists() else {}
    fit, check = ([int(float(size)) for size in sizes.split(",")] for sizes in (arguments.fit, arguments.check))
    missing = [size for size in (*fit, *check) if str(size) not in measured]
    if missing or "graph" not in measured:
        _measure(arguments, missing, measured)
    costs = fitted(measured, fit, arguments.dim)
    print(json.dumps(costs.model_dump(), indent=2))
    print(f"{'texts':>10} {'stage':10} {'measured':>10} {'predicted':>10} {'error':>8}")
    for size in (*fit, *check):
        for name, (found, predicted) in compared(measured[str(size)], costs, arguments.dim).items():
            error = f"{100 * (predicted / found - 1):+.1f}%" + (" (fitted)" if size in fit else "")
            print(f"{size:>10,} {name:10} {found:>10.3f} {predicted:>10.3f} {error:>8}")
    for lists in GRAPHS:
        found, predicted = measured["graph"][str(lists)], walk_seconds(costs, arguments.dim, lists)
        print(f"graph of {lists:,} lists: {1e6 * found:.1f} µs a vector, predicted {1e6 * predicted:.1f}")


def walk_seconds(costs: CostOptions, dim: int, lists: int) -> float:
    """What a plan says of finding one vector's list through a graph of so many."""
    return float(costs.graph * dim * (lists / GRAPH_ABOVE) ** costs.graph_growth)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--measured", type=Path, required=True)
    parser.add_argument("--fit", default=",".join(map(str, FIT)))
    parser.add_argument("--check", default=",".join(map(str, CHECK)))
    parser.add_argument("--dim", type=int, default=256)
    return parser.parse_args()


# ---- measuring ----


def _measure(arguments: argparse.Namespace, sizes: Sequence[int], measured: Measured) -> None:
    faiss.omp_set_num_threads(1)
    texts = [str(row.value) for row in raw_texts(str(arguments.corpus), "text", "train", None)]
    random.Random(0).shuffle(texts)
    encoder = distill(dim=arguments.dim, texts=texts[:5000])
    if "graph" not in measured:
        measured["graph"] = _graph(encoder, texts)
    if "scan" not in measured:
        measured["scan"] = _scan(encoder, texts)
    if "sentences" not in measured:
        measured["sentences"] = _sentences(texts[:2000])
    write_json(arguments.measured, measured)
    for size in sizes:
        assert size <= len(texts), f"the corpus has {len(texts)} texts"
        with tempfile.TemporaryDirectory() as folder:
            measured[str(size)] = _build(Path(folder), texts[:size], encoder)
        write_json(arguments.measured, measured)
        print(size, {name: round(seconds, 3) for name, seconds in measured[str(size)].items()}, flush=True)


def _fastest(work: Callable[[], Any]) -> tuple[float, Any]:
    """Processor seconds of the fastest of three runs, for stages that take little; and the result of the last."""
    found = []
    for _ in range(3):
        started = time.process_time()
        result = work()
        found.append(time.process_time() - started)
    return min(found), result


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    started = time.process_time()
    yield
    seconds[stage] = seconds.get(stage, 0.0) + time.process_time() - started


class _Timed:
    """An encoder whose processor time is added up."""

    def __init__(self, encoder: StaticEncoder, seconds: dict[str, float]) -> None:
        self._encoder, self._seconds = encoder, seconds
        self.name, self.dim, self.fingerprint = encoder.name, encoder.dim, encoder.fingerprint

    def encode(self, texts: Sequence[str]) -> Any:
        with _timed(self._seconds, "encode"):
            return self._encoder.encode(texts)


def _build(folder: Path, texts: list[str], encoder: StaticEncoder) -> dict[str, float]:
    """Processor seconds of each stage of a build, and what they depend on."""
    seconds: dict[str, float] = {}
    pq.write_table(pa.table({"text": texts}), folder / "corpus.parquet")
    source = CorpusSource(dataset=str(folder / "corpus.parquet"))
    seconds["read"], kept = _fastest(lambda: list(stream_corpus(source, CorpusCounts())))
    count, dim = len(kept), encoder.dim
    with _timed(seconds, "spool"):
        encode_parts(folder, kept, _Timed(encoder, seconds))
    seconds["spool"] -= seconds["encode"]
    spool = open_spool(folder, count, dim, CHUNK)
    files = [*folder.glob("texts/*"), *spool.paths]
    bytes_ = sum(path.stat().st_size for path in files)
    sums = {path: checksum(path) for path in files}
    seconds["copy"], _ = _fastest(lambda: [_copy(path, folder / "copy" / path.name, sums[path]) for path in files])
    shutil.rmtree(folder / "copy")

    rng, factory = np.random.default_rng(0), CODE.factory(count, dim)
    index = create(dim, factory)
    held_out = _sample(rng, np.arange(count), HELD_OUT)
    with _timed(seconds, "train"):
        _train(index, spool, rng, 0, held_out)
    with _timed(seconds, "add"):
        _fill(index, spool)
    with _timed(seconds, "truth"):
        queries = find_true_neighbours(spool, held_out)
    with _timed(seconds, "tune"):
        parameters, recall = tune(index, queries, 0.95, RECALL_AT)
    seconds["write"], facts = _fastest(lambda: write_vectors(folder, index, "", parameters, recall, queries))
    seconds["load"], _ = _fastest(lambda: [len(part) for part in spool.parts()])
    vectors = spool.take(_sample(rng, np.arange(count), QUERIES))
    tuned = (parameters.nprobe, parameters.k_factor)
    narrow, wide = (max(1, parameters.nprobe // 4), 1.0), (min(4 * parameters.nprobe, auto_lists(count)), 64.0)
    for name, (nprobe, k_factor) in {"tuned": tuned, "narrow": narrow, "wide": wide}.items():
        set_parameters(index, SearchParameters(nprobe, 0, k_factor))
        seconds[f"search {name}"], _ = _fastest(lambda: index.search(vectors, NEIGHBOURS))
        seconds |= {f"visited {name}": nprobe, f"refined {name}": k_factor}
    return seconds | {
        **{"texts": count, "bytes": bytes_, "characters": sum(map(len, kept)) / count, "recall": recall},
        **{"nprobe": parameters.nprobe, "k_factor": parameters.k_factor, "lists": auto_lists(count)},
        "index_bytes": count * facts["bytes_per_vector"],
    }


def _sentences(texts: list[str]) -> dict[str, float]:
    """Seconds to encode texts with the sentence model, after a first batch."""
    encoder, seconds = SentenceEncoder.load(), {}
    encoder.encode(texts[:64])
    with _timed(seconds, "encode"):
        encoder.encode(texts)
    return seconds | {"characters": sum(map(len, texts))}


def _scan(encoder: StaticEncoder, texts: list[str]) -> dict[str, float]:
    """Seconds to search few and long lists, as a large index has, and how many codes that goes through."""
    vectors = encoder.encode(texts[: 100_000 + QUERIES])
    queries, stored = vectors[-QUERIES:], vectors[:-QUERIES]
    base = CODE.factory(len(stored), encoder.dim).split(",")[1]
    index = faiss.index_factory(encoder.dim, f"IVF64,{base}", faiss.METRIC_INNER_PRODUCT)
    index.train(stored[:16_384])
    index.add(stored)
    sizes = np.array([index.invlists.list_size(number) for number in range(64)])
    found: dict[str, float] = {}
    for name, nprobe in (("narrow", 2), ("wide", 32)):
        index.nprobe = nprobe
        found[name], _ = _fastest(lambda: index.search(queries, NEIGHBOURS))
        found[f"codes {name}"] = float(sizes[index.quantizer.search(queries, nprobe)[1]].sum())
    return found


def _graph(encoder: StaticEncoder, texts: list[str]) -> dict[str, float]:
    """Seconds to find a vector's list through a graph over so many centroids, and to link a centroid."""
    vectors = encoder.encode(texts[: max(GRAPHS) + 2048])
    queries, seconds = vectors[-2048:], {}
    for lists in GRAPHS:
        flat = faiss.IndexFlatIP(encoder.dim)
        flat.add(vectors[:lists])
        with _timed(seconds, f"link {lists}"):
            graph = _centroid_graph(flat)
        took, _ = _fastest(partial(graph.search, queries, 1))
        seconds[str(lists)] = took / len(queries)
        seconds[f"link {lists}"] /= lists
    return seconds


# ---- fitting ----


def fitted(measured: Measured, sizes: Sequence[int], dim: int) -> CostOptions:
    """The constants that fit the measurements of `sizes` best, relative to each."""
    rows = [measured[str(size)] for size in sizes]
    graph, lists = measured["graph"], [row["lists"] for row in rows]
    visited_growth, visited = np.polyfit(np.log(lists), np.log([row["nprobe"] for row in rows]), 1)
    refined_growth, refined = np.polyfit(np.log(lists), np.log([row["k_factor"] for row in rows]), 1)
    known = {
        "characters": float(np.mean([row["characters"] for row in rows])),
        "encode_sentences": measured["sentences"]["encode"] / measured["sentences"]["characters"],
        **{"visited": float(np.exp(visited)), "visited_growth": float(visited_growth)},
        **{"refined": float(np.exp(refined)), "refined_growth": float(refined_growth)},
    }
    for name, prefix in (("graph", ""), ("link", "link ")):
        took = [graph[f"{prefix}{lists}"] / dim for lists in GRAPHS_FITTED]
        exponent, constant = np.polyfit(np.log(np.array(GRAPHS_FITTED) / GRAPH_ABOVE), np.log(took), 1)
        known |= {name: float(np.exp(constant)), f"{name}_growth": float(exponent)}
    long = measured["scan"]  # lists that are long enough for the codes to be all that counts
    known["scan"] = (long["wide"] - long["narrow"]) / ((long["codes wide"] - long["codes narrow"]) * CODE.bytes(dim)[0])
    works = [_work(row, dim) for row in rows]
    known |= _solved([({"load": work.texts * dim}, row["load"]) for work, row in zip(works, rows, strict=True)], known)
    for stage in ("read", "encode", "spool", "copy", "train", "add", "truth", "write"):
        equations = [(stage_terms(stage, work), row[stage]) for work, row in zip(works, rows, strict=True)]
        known |= _solved(equations, known)
    searches = [
        (search_terms(work, QUERIES, row[f"visited {name}"], row[f"refined {name}"]), row[f"search {name}"])
        for work, row in zip(works, rows, strict=True)
        for name in ("tuned", "wide", "narrow")
    ]
    return CostOptions.model_validate(known | _solved(searches, known))


def _work(row: dict[str, float], dim: int) -> Workload:
    """The workload of a measured size, with the facts of the index that was built."""
    facts = (row["characters"], row["nprobe"], row["k_factor"], int(row["index_bytes"]))
    return Workload(int(row["texts"]), dim, CODE, *facts)


def _solved(equations: Sequence[tuple[Terms, float]], known: dict[str, float]) -> dict[str, float]:
    """The costs that are not known yet, none negative, from terms and the seconds that they add up to."""
    names = sorted({name for terms, _ in equations for name in terms if name not in known})
    rows, rest = [], []
    for terms, took in equations:
        left = took - sum(known[name] * amount for name, amount in terms.items() if name in known)
        rows.append([terms.get(name, 0.0) / took for name in names])
        rest.append(left / took)
    scale = np.abs(np.array(rows)).max(axis=0)
    solution, _ = nnls(np.array(rows) / scale, np.array(rest))
    return {name: float(max(value / size, 1e-15)) for name, value, size in zip(names, solution, scale, strict=True)}


def compared(row: dict[str, float], costs: CostOptions, dim: int) -> dict[str, tuple[float, float]]:
    """What was measured of one size, and what a plan says of it."""
    work = workload(int(row["texts"]), dim, CODE, costs)
    pairs = {stage: (row[stage], seconds(stage_terms(stage, work), costs)) for stage in STAGES if stage in row}
    build = [pair for stage, pair in pairs.items() if stage != "copy"]  # a build on one machine copies nothing
    merge = [pair for stage, pair in pairs.items() if stage not in ("read", "encode", "spool")]
    tuned = search_terms(work, QUERIES, work.visited, work.refined)
    return pairs | {
        "build": (sum(pair[0] for pair in build), sum(pair[1] for pair in build)),
        "merge": (sum(pair[0] for pair in merge), sum(pair[1] for pair in merge)),
        "search": (row["search tuned"], seconds(tuned, costs)),
        "nprobe": (row["nprobe"], work.visited),
        "index MB": (row["index_bytes"] / 1e6, work.index_bytes / 1e6),
        "spool MB": (row["bytes"] / 1e6, work.spool_bytes / 1e6),
    }


if __name__ == "__main__":
    main()
