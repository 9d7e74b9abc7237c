"""What a Ray cluster costs on one machine: a build against one without Ray, a killed worker, a comparison.

Rounds are interleaved, since other processes may share the machine; medians are printed with all their times. Run:
    python tests/benchmarks/bench_ray.py build --corpus corpus.txt --texts 300000 --kind static --rounds 3
    python tests/benchmarks/bench_ray.py compare --rounds 2 --epochs 160
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from augkd.models.cluster import Cluster
from augkd.recipe import load_index_recipe, load_recipe
from augkd.retrieval.build import build_index
from augkd.runs.comparison import compare_recipes
from augkd.workspace.progress import Progress, silent

sys.path.insert(0, str(Path(__file__).parents[1]))
from support.tiny import save_tiny_bert, sentences


def measure(ways: Mapping[str, Callable[[Path], object]], rounds: int, base: str) -> None:
    """Runs all ways in turn, `rounds` times, each in an empty folder; prints medians in seconds and against `base`."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds):
        for name, way in ways.items():
            with tempfile.TemporaryDirectory() as folder:
                started = time.perf_counter()
                way(Path(folder))
                seconds[name].append(time.perf_counter() - started)
            print(f"round {turn + 1} {name}: {seconds[name][-1]:.1f} s, load {os.getloadavg()[0]:.1f}", flush=True)
    for name, times in seconds.items():
        ratios = [one / other for one, other in zip(times, seconds[base], strict=True)]
        shown = ", ".join(f"{one:.1f}" for one in times)
        print(f"{name}: median {statistics.median(times):.1f} s ({shown}), {statistics.median(ratios):.3f} x {base}")


def killing(cluster: Cluster, share: float, texts: int) -> Progress:
    """A progress that kills one worker when `share` of the texts are encoded."""
    left = [True]

    def watch(stage: str, done: int, total: int | None) -> None:
        if stage == "index" and done >= share * texts and left:
            left.clear()
            assert cluster._pool is not None
            os.kill(cluster._pool[1].processes[0], signal.SIGKILL)

    return watch


def build(corpus: Path, texts: int, kind: str, rounds: int, workers: int, encoder: Path | None) -> None:
    """Builds the same index with and without Ray; both have `workers` threads of computation."""
    changes = [f"corpus={corpus}", f"corpus.limit={texts}", f"encoder.kind={kind}"]
    recipe = load_index_recipe("questions", [*changes, *([f"encoder.workers={workers}"] if kind == "sentence" else [])])

    def on_ray(folder: Path, kill: bool = False) -> None:
        started = time.perf_counter()
        with Cluster.connect(workers=workers) as cluster:
            print(f"    connected after {time.perf_counter() - started:.1f} s")
            progress = killing(cluster, 0.5, texts) if kill else silent
            build_index(recipe, folder, progress, encoder, cluster)
            assert cluster._pool is not None
            print(f"    {cluster._pool[1].lost} workers lost")

    ways: dict[str, Callable[[Path], object]] = {
        "local": lambda folder: build_index(recipe, folder, silent, encoder),
        "ray": on_ray,
        "ray, a worker killed": lambda folder: on_ray(folder, kill=True),
    }
    measure(ways, rounds, "local")


def compare(rounds: int, workers: int, epochs: int) -> None:
    """Twelve small runs, as many at once: processes of this machine against workers of a cluster on it."""
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        teacher = save_tiny_bert(work / "teacher")
        (work / "task").mkdir()
        for split, start in (("train", 0), ("validation", 10), ("test", 20)):
            rows = "".join(f"{text},{label}\n" for text, label in sentences(start))
            (work / "task" / f"{split}.csv").write_text(f"text,label\n{rows}")
        recipe = work / "recipe.yaml"
        recipe.write_text(
            f"task: {{dataset: {work / 'task'}}}\nteacher: {{model: {teacher}, epochs: 1}}\n"
            f"student: {{layers: [0, 2]}}\ntraining: {{kd: {{}}, epochs: {epochs}, max_length: 32}}\n"
        )
        rates = ("1.0e-3", "5.0e-4", "2.0e-4")
        recipes = {rate: load_recipe(str(recipe), [f"training.learning_rate={rate}"]) for rate in rates}

        def on_ray(folder: Path) -> None:
            with Cluster.connect(workers=workers) as cluster:
                compare_recipes(recipes, 4, folder, silent, cluster=cluster)

        jobs = f"--jobs {workers}"
        ways = {jobs: lambda folder: compare_recipes(recipes, 4, folder, silent, jobs=workers), "ray": on_ray}
        measure(ways, rounds, jobs)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses the command line and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("build", "compare"))
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--texts", type=int, default=300_000)
    parser.add_argument("--kind", default="static")
    parser.add_argument("--encoder", type=Path, help="folder of a static encoder that is not fitted in each build")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=40, help="of each run of compare; 40 take 4 seconds")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args(arguments)
    if given.what == "compare":
        compare(given.rounds, given.workers, given.epochs)
    else:
        build(given.corpus, given.texts, given.kind, given.rounds, given.workers, given.encoder)


if __name__ == "__main__":
    main()
