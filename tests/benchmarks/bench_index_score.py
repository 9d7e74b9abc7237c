"""How well `augkd index score` predicts students: its ranking of indexes against students trained with each of them.

For every task, on the head of its training split: the score of every index, and students of plain KD and of vanilla
kNN with each index over seeds. Prints both, Spearman's correlation within each task, and the mean of these over all
tasks with its exact one-sided p (every permutation of the indexes within every task), for the command's ranking and for
each statistic alone; then how many pairs of indexes are in the right order.
An interrupted benchmark continues with the same command. Run:
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
# the sign of each statistic: 1 where more is expected to be better
STATISTICS = dict.fromkeys(("similarity", "agreement", "coverage", "distinct"), 1)
STATISTICS |= {"confidence": 1, "entropy": 1, "deviation": -1}  # shown by the command, not used in its ranking


def main() -> None:
    """Prints a table for each task, then the correlations."""
    parser = argparse.ArgumentParser()
    parser.add_argument("work", type=Path)
    parser.add_argument("--task", type=Path, nargs="+", required=True, help="classification tasks: folders of Parquet")
    parser.add_argument(
        "--index", type=Path, nargs="+", required=True, help="built dense indexes, ideally of the same size"
    )
    parser.add_argument("--examples", type=int, default=1000, help="of the training split to use (1000)")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--k", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()

    names = [path.name for path in options.index]
    predicted: dict[str, list[list[float]]] = {name: [] for name in ("rank", *STATISTICS)}  # per task, larger is better
    measured: list[list[float]] = []
    for task in options.task:
        scores, rows = scores_and_students(task, options)
        kd = statistics.mean(rows["kd"]["test"]["values"])
        print(f"\n{task.name}: teacher {rows['teacher']['test']:.4f}, kd {mean_and_sd(rows['kd'])}", end="; ")
        print(f"ranked {', '.join(scores['ranked'])}")
        for name in names:
            gain = statistics.mean(rows[name]["test"]["values"]) - kd
            values = "  ".join(f"{s} {scores['scores'][name][s]:.4g}" for s in STATISTICS)
            print(f"  {name:14} {mean_and_sd(rows[name])}  − kd {gain:+.4f}  {values}")
        measured.append([statistics.mean(rows[name]["test"]["values"]) for name in names])
        predicted["rank"].append([-float(scores["ranked"].index(name)) for name in names])
        for statistic, sign in STATISTICS.items():
            predicted[statistic].append([sign * float(scores["scores"][name][statistic]) for name in names])

    print(f"\n{'statistic':12}{'Spearman in each task':>{9 * len(measured) + 3}}{'mean':>9}{'p':>8}{'pairs right':>14}")
    for name, values in predicted.items():
        correlations = [spearman(*pair) for pair in zip(values, measured, strict=True)]
        right, pairs = concordant(values, measured)
        print(
            f"{name:12}   {''.join(f'{value:9.2f}' for value in correlations)}{np.mean(correlations):9.2f}"
            f"{p_value(values, measured):8.3f}"
            f"{f'{right} of {pairs}':>14}"
        )


def scores_and_students(task: Path, options: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """score.json, and the rows of compare.json by recipe, as the commands write them."""
    work = options.work / task.name
    head = work / f"head-{options.examples}" / task.name
    shutil.copytree(task, head, copy_function=shutil.copyfile, dirs_exist_ok=True)  # a copy may be incomplete
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


def mean_and_sd(row: dict[str, Any]) -> str:
    return f"{row['test']['mean']:.4f} ± {row['test']['sd'] or 0:.4f}"


def spearman(predicted: Sequence[float], measured: Sequence[float]) -> float:
    """Correlation of the ranks; 0 where either is constant."""
    ranks = np.stack([rankdata(predicted), rankdata(measured)])
    if (ranks.std(axis=1) == 0).any():
        return 0.0
    return float(np.corrcoef(ranks)[0, 1])


def p_value(predicted: Sequence[Sequence[float]], measured: Sequence[Sequence[float]]) -> float:
    """Share of all permutations within the tasks whose mean correlation is at least that of the actual order."""
    correlations = [
        [spearman(order, result) for order in itertools.permutations(values)]
        for values, result in zip(predicted, measured, strict=True)
    ]  # the actual order is each task's first
    sums = [sum(combination) for combination in itertools.product(*correlations)]
    return float(np.mean([total >= sums[0] - 1e-9 for total in sums]))


def concordant(predicted: Sequence[Sequence[float]], measured: Sequence[Sequence[float]]) -> tuple[int, int]:
    """Pairs of indexes in the right order, and pairs in all; pairs whose students tie do not count."""
    signs = [
        ((values[a] - values[b]) * (result[a] - result[b]), result[a] != result[b])
        for values, result in zip(predicted, measured, strict=True)
        for a, b in itertools.combinations(range(len(values)), 2)
    ]
    return sum(product > 0 for product, _ in signs), sum(differ for _, differ in signs)


if __name__ == "__main__":
    main()
