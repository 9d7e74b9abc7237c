"""What `augkd index score` foretells: its ranking of indexes against students that were trained with each of them.

For every task, on the head of its training split: the score of every index, and students of plain KD and of vanilla
kNN with each index over seeds. Printed are both, Spearman's correlation within each task, and over all tasks the mean
of these with its exact one-sided p (every task's indexes reordered in every way), for the rank the command gives and
for each of its figures alone; then the same for the pairs of indexes, of which a ranking has some in the right order.
An interrupted run goes on with the same command. Run:
    python tests/benchmarks/bench_index_score.py WORK --task DIR … --index DIR … [--examples 1000] [--seeds 3]
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import yaml
from scipy.stats import rankdata

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
# which way each figure is said to point: 1, more is better
FIGURES = dict.fromkeys(("similarity", "agreement", "coverage", "distinct"), 1)
FIGURES |= {"confidence": 1, "entropy": 1, "deviation": -1}  # shown by the command, not ranked


def main() -> None:
    """Prints a table for each task, then the correlations."""
    parser = argparse.ArgumentParser()
    parser.add_argument("work", type=Path)
    parser.add_argument("--task", type=Path, nargs="+", required=True, help="of classification: folders of Parquet")
    parser.add_argument("--index", type=Path, nargs="+", required=True, help="built, not lexical, best of one size")
    parser.add_argument("--examples", type=int, default=1000, help="of the training split")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--k", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()

    names = [path.name for path in options.index]
    foretold: dict[str, list[list[float]]] = {name: [] for name in ("rank", *FIGURES)}  # per task, larger is better
    came: list[list[float]] = []
    for task in options.task:
        scores, rows = judged(task, options)
        kd = statistics.mean(rows["kd"]["test"]["values"])
        print(f"\n{task.name}: teacher {rows['teacher']['test']:.4f}, kd {said(rows['kd'])}", end="; ")
        print(f"ranked {', '.join(scores['ranked'])}")
        for name in names:
            gain = statistics.mean(rows[name]["test"]["values"]) - kd
            figures = "  ".join(f"{f} {scores['scores'][name][f]:.4g}" for f in FIGURES)
            print(f"  {name:14} {said(rows[name])}  − kd {gain:+.4f}  {figures}")
        came.append([statistics.mean(rows[name]["test"]["values"]) for name in names])
        foretold["rank"].append([-float(scores["ranked"].index(name)) for name in names])
        for figure, sign in FIGURES.items():
            foretold[figure].append([sign * float(scores["scores"][name][figure]) for name in names])

    print(f"\n{'figure':12}{'Spearman in each task':>{9 * len(came) + 3}}{'mean':>9}{'p':>8}{'pairs right':>14}")
    for name, values in foretold.items():
        each = [spearman(*both) for both in zip(values, came, strict=True)]
        right, of = concordant(values, came)
        print(
            f"{name:12}   {''.join(f'{value:9.2f}' for value in each)}{np.mean(each):9.2f}{chance(values, came):8.3f}"
            f"{f'{right} of {of}':>14}"
        )


def judged(task: Path, options: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """score.json, and the rows of compare.json by recipe; both made by the commands."""
    work = options.work / task.name
    head = work / f"head-{options.examples}" / task.name
    shutil.copytree(task, head, copy_function=shutil.copyfile, dirs_exist_ok=True)  # may have been cut off
    pq.write_table(pq.read_table(task / "train.parquet").slice(0, options.examples), head / "train.parquet")
    teacher = {"model": MINILM, "epochs": 4, "learning_rate": 1e-4}
    training = {"kd": {"weight": 0.5, "temperature": 2.0}, "ce": {"weight": 0.5}, "epochs": options.epochs}
    common = {"task": str(head), "teacher": teacher, "student": {"layers": [0, 5]}, "training": training}
    recipes = []
    for name, index in {"kd": None, **{path.name: path for path in options.index}}.items():
        data = {} if index is None else {"neighbours": {"index": str(index), "k": options.k}, "select": "everything"}
        recipes.append(work / f"{name}.yaml")
        recipes[-1].write_text(yaml.safe_dump(common | {"data": data}))
    out = work / "out"
    augkd("index", "score", recipes[-1], *options.index, "--out", out)
    extra = ["--controls", "none", "--seeds", options.seeds, "--jobs", options.jobs]
    augkd("compare", *recipes, *extra, "--out", out)
    compared = json.loads((out / "compare.json").read_text())
    rows = {row["recipe"]: row for row in compared["rows"]} | {"teacher": compared["teacher"]}
    return json.loads((out / "score.json").read_text()), rows


def augkd(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "augkd.cli.app", *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


def said(row: dict[str, Any]) -> str:
    return f"{row['test']['mean']:.4f} ± {row['test']['sd'] or 0:.4f}"


def spearman(foretold: Sequence[float], came: Sequence[float]) -> float:
    """Correlation of the ranks; 0 where either is the same for all."""
    ranks = np.stack([rankdata(foretold), rankdata(came)])
    if (ranks.std(axis=1) == 0).any():
        return 0.0
    return float(np.corrcoef(ranks)[0, 1])


def chance(foretold: Sequence[Sequence[float]], came: Sequence[Sequence[float]]) -> float:
    """Share of all reorderings within the tasks whose mean correlation is at least that of the order given."""
    each = [
        [spearman(order, result) for order in itertools.permutations(values)]
        for values, result in zip(foretold, came, strict=True)
    ]  # the order given is each task's first
    sums = [sum(some) for some in itertools.product(*each)]
    return float(np.mean([total >= sums[0] - 1e-9 for total in sums]))


def concordant(foretold: Sequence[Sequence[float]], came: Sequence[Sequence[float]]) -> tuple[int, int]:
    """Pairs of indexes that are in the right order, and pairs in all but ties of what came."""
    signs = [
        ((values[a] - values[b]) * (result[a] - result[b]), result[a] != result[b])
        for values, result in zip(foretold, came, strict=True)
        for a, b in itertools.combinations(range(len(values)), 2)
    ]
    return sum(product > 0 for product, _ in signs), sum(apart for _, apart in signs)


if __name__ == "__main__":
    main()
