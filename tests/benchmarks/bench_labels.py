"""Accuracy against the number of teacher labels, for each label selector, on TREC, SST-2 and CR, paired with random.

    python tests/benchmarks/bench_labels.py --data FOLDER --out runs/labels [--seeds 5] [--tasks trec,sst2,cr]

FOLDER holds a folder per task and corpora/questions.parquet and corpora/reviews.parquet, whose texts (20,000 drawn at
random) the teacher, a MiniLM fine-tuned on the whole task, could label. The student has 100 labelled texts of its own
and starts from MiniLM, or with --layers 0,5 from two layers of the teacher. Every recipe is trained after 250, 500,
1,000, 2,000 and 4,000 labels, so one run is a whole curve; `all` is trained on every text. Writes compare.json and
report.html for each task, curves.json and a plot of each split for all; a stopped benchmark continues with the same
command.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from augkd.evaluation.report.labels import label_points
from augkd.evaluation.report.report import write_report
from augkd.evaluation.results import Split
from augkd.models.libraries import quiet_libraries
from augkd.recipe import load_recipe
from augkd.recipe.options import family
from augkd.runs.comparison import compare_recipes

CORPORA = {"trec": "questions", "sst2": "reviews", "cr": "reviews"}
SPLITS: tuple[Split, ...] = ("validation", "test")
SIZES = (250, 500, 1000, 2000, 4000)
CONTROL, ALL = "random", "all"


def main() -> None:
    """Runs every selector on every task, and prints how many labels each needs for random's last score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--tasks", default=",".join(CORPORA))
    parser.add_argument("--selectors", default=",".join(family("label selector")))
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)))
    parser.add_argument("--labelled", type=int, default=100)
    parser.add_argument("--pool", type=int, default=20_000, help="texts of the corpus")
    parser.add_argument("--all", action="store_true", help="also train on every text of the pool, labelled")
    parser.add_argument("--layers", help="the student's layers of the teacher, in place of MiniLM itself")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    given = parser.parse_args()
    quiet_libraries()
    curves: dict[str, dict[str, Any]] = {split: {} for split in SPLITS}
    for task in given.tasks.split(","):
        sizes = [int(size) for size in given.sizes.split(",")]
        recipes = {name: recipe(given, task, name, sizes) for name in given.selectors.split(",")}
        if given.all:
            recipes[ALL] = recipe(given, task, CONTROL, [given.pool], near=1.0)
        summary = compare_recipes(recipes, given.seeds, given.out / task, baseline=CONTROL, jobs=given.jobs)
        write_report(given.out / task)
        for split in SPLITS:
            curves[split][task] = {
                name: [label_points(run, split) for run in runs] for name, runs in summary["runs"].items()
            }
        print(f"{task}: {given.out / task / 'report.html'}", flush=True)
    (given.out / "curves.json").write_text(json.dumps(curves, indent=2) + "\n")
    for split in SPLITS:
        draw(curves[split], split, given.out / f"{split}.svg")
        print("\n".join([f"\n{split}", *lines(curves[split])]))


def recipe(given: argparse.Namespace, task: str, selector: str, sizes: Sequence[int], near: float = 0.9) -> Any:
    """The shipped recipe on this task and corpus, with this selector and these rounds."""
    corpus = given.data / "corpora" / f"{CORPORA[task]}.parquet"  # in random order: its head is a random sample
    index = {"corpus": {"dataset": str(corpus), "text": "text", "limit": given.pool}}
    budget = {"texts": sizes[-1], "rounds": list(sizes), "by": selector, "of": "index", "near": near, "score": True}
    student = f"{{layers: [{given.layers}]}}" if given.layers else "{model: sentence-transformers/all-MiniLM-L6-v2}"
    sets = [
        f"task={{dataset: {given.data / task}}}",
        f"student={student}",
        f"data.labelled={given.labelled}",
        f"data.neighbours={json.dumps({'index': index})}",
        f"data.label_budget={json.dumps(budget)}",
        "training.learning_rate=1e-4",
    ]
    return load_recipe("label-budget", [*sets, *given.set])


# ---- what came out ----


def lines(curves: Mapping[str, Mapping[str, Sequence[Sequence[Sequence[float]]]]]) -> list[str]:
    """Mean scores by labels, the paired difference to random, and the labels that random's last score takes."""
    shown, needed = [], {}
    for task, by_selector in curves.items():
        control = np.array([[score for _, score in curve] for curve in by_selector[CONTROL]])
        labels = [size for size, _ in by_selector[CONTROL][0]]
        shown.append(f"\n{task:24}" + "".join(f"{size:>25}" for size in labels))
        for name, runs in chosen(by_selector).items():
            scores = np.array([[score for _, score in curve] for curve in runs])
            difference = scores - control
            error = difference.std(axis=0, ddof=1) / len(runs) ** 0.5 if len(runs) > 1 else np.zeros(len(labels))
            cells = zip(scores.mean(axis=0), difference.mean(axis=0), error, strict=True)
            shown.append(f"{name:24}" + "".join(f"{s:11.4f} {d:+.4f}±{e:.3f}" for s, d, e in cells))
            needed.setdefault(name, {})[task] = labels_for(labels, scores.mean(axis=0), control.mean(axis=0)[-1])
        if ALL in by_selector:
            count, score = ceiling(by_selector[ALL])
            shown.append(f"{ALL:24}{score:11.4f} with {count} labels")
    shown.append("\nlabels until random's last score (interpolated; – : not reached)")
    for name, by_task in needed.items():
        cells = "".join(f"{task} {'–' if n is None else round(n)}  " for task, n in by_task.items())
        mean = None if None in by_task.values() else np.mean([n for n in by_task.values() if n is not None])
        shown.append(f"{name:24}{cells} mean {'–' if mean is None else round(float(mean))}")
    return shown


def labels_for(labels: Sequence[float], scores: Sequence[float], target: float) -> float | None:
    """The smallest number of labels with this score, interpolated between two sizes; None where it is not reached."""
    for place, score in enumerate(scores):
        if score >= target:
            if place == 0:
                return labels[0]
            before = scores[place - 1]
            share = (target - before) / (score - before)
            return labels[place - 1] + share * (labels[place] - labels[place - 1])
    return None


def chosen(by_selector: Mapping[str, Any]) -> dict[str, Any]:
    """The curves of the selectors, without the point of all texts."""
    return {name: runs for name, runs in by_selector.items() if name != ALL}


def ceiling(runs: Sequence[Sequence[Sequence[float]]]) -> tuple[int, float]:
    """Labels and mean score where every text is labelled."""
    return int(runs[0][-1][0]), float(np.mean([curve[-1][1] for curve in runs]))


def draw(curves: Mapping[str, Any], split: Split, path: Path) -> None:
    """One plot per task: mean score against labels on a logarithmic axis, with the standard error over seeds."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5 * len(curves), 3.9), layout="constrained")
    names = list(dict.fromkeys(name for by_selector in curves.values() for name in chosen(by_selector)))
    shown: dict[str, Any] = {}  # what the legend has, by name
    for axes, (task, by_selector) in zip(np.atleast_1d(figure.subplots(1, len(curves))), curves.items(), strict=True):
        for name, runs in chosen(by_selector).items():
            sizes, scores = [size for size, _ in runs[0]], np.array([[score for _, score in curve] for curve in runs])
            error = scores.std(axis=0, ddof=1) / len(runs) ** 0.5 if len(runs) > 1 else None
            colour = f"C{names.index(name)}"
            shown[name] = axes.errorbar(sizes, scores.mean(axis=0), yerr=error, marker="o", color=colour)
        if ALL in by_selector:
            shown[ALL] = axes.axhline(ceiling(by_selector[ALL])[1], color="grey", linestyle="--")
        axes.set(title=task, xscale="log", xlabel="texts labelled by the teacher", ylabel=f"{split} accuracy")
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axes.minorticks_off()
    figure.legend(shown.values(), shown, loc="outside lower center", ncols=len(shown), fontsize="small")
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "augkd"}):  # small, and the same bytes again
        figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
