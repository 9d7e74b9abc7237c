"""Which recipe closes the teacher gap: four tasks, each with 1,000 labelled texts and with all (docs/science.md).

`--tasks cola,mrpc,stsb,domain --labelled 1000` are tasks by which none was chosen; `source_task.py` makes the last.

    python tests/benchmarks/bench_recipes.py --data FOLDER --out runs/science --arms kd,quick,best [--seeds 5]

FOLDER holds a folder per task and corpora/{questions,reviews,general}.parquet. Recipes are chosen on validation, the
default; `--split test` is for the last comparison. An arm is a line of ARMS, or written out:
`--arm 'long: "data.select={random: {keep: 8}}" training.epochs=12'`, overrides of `kd`. Writes compare.md for each
setting (task and number of labelled texts) and prints the average; a stopped benchmark continues with the same command.
"""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from augkd.evaluation.compare.average import average
from augkd.evaluation.compare.schema import ComparisonSummary
from augkd.evaluation.compare.table import average_table
from augkd.models.libraries import quiet_libraries
from augkd.recipe import Recipe, load_recipe
from augkd.runs.comparison import compare_recipes

CORPORA = {"trec": "questions", "sst2": "reviews", "sst5": "reviews", "cr": "reviews"}
OTHER = {"cola": "general", "mrpc": "general", "stsb": "general", "domain": "reviews"}  # no recipe was chosen by these
CONTROL = "kd"
_FAST = "training.learning_rate=6e-4"
_WIDE = ("data.neighbours.k=64", _FAST)
_TWO = (*_WIDE, "data.weight=2")
_EIGHT = ("data.neighbours.sample=8", "data.select={random: {keep: 2}}")
_IN_TURN = ("data.neighbours.sample=32", "data.select={minimax: {keep: 2, of: 8}}")
_ALP = "structure={pooling: mean, alp: {weight: 30.0}}"
_SHORT = ("training.learning_rate=9e-4", "training.dropout=0.0", "training.epochs=3", "training.max_steps=375")
_QUICK = (*_TWO, "data.neighbours.sample=used", _ALP, *_SHORT)
ARMS: dict[str, Sequence[str]] = {
    CONTROL: (),
    "quick": (*_QUICK, "data.select={minimax: {keep: 2, of: 8}}"),
    "quick-random": (*_QUICK, "data.select={random: {keep: 2}}"),
    "best": (
        "data.neighbours.k=256",
        "data.neighbours.sample=used",
        "data.select={minimax: {keep: 4, of: 16}}",
        "data.weight=4",
        _ALP,
        _FAST,
        "training.epochs=24",
        "training.max_steps=750",
    ),
    # at equal rows: 2 candidates of each text in each epoch
    "random": (*_TWO, *_EIGHT),
    "random-alp": (*_TWO, *_EIGHT, _ALP),
    "minimax": (*_TWO, "data.neighbours.sample=8", "data.select={minimax: {keep: 2}}"),
    "minimax-in-turn": (*_TWO, *_IN_TURN),
    "minimax-in-turn-alp": (*_TWO, *_IN_TURN, _ALP),
    # in about the time of quick
    "minimax-one": (*_WIDE, "data.neighbours.sample=16", "data.select={minimax: {keep: 1, of: 4}}"),
    # all candidates, and kd for as long as quick
    "all-8": ("data.neighbours.k=8", _FAST, "data.weight=8"),
    "kd-long": ("training.epochs=12",),
}


def main() -> None:
    """Runs the arms on every setting and prints their average."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--arms", default=CONTROL, help="names in ARMS; kd is always among them")
    parser.add_argument("--arm", action="append", default=[], metavar="NAME: KEY=VALUE …", help="one more")
    parser.add_argument("--tasks", default=",".join(CORPORA))
    parser.add_argument("--labelled", default="1000,all")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--baseline", default=CONTROL, help="what differences are to")
    parser.add_argument("--split", choices=["validation", "test"], default="validation")
    parser.add_argument("--jobs", type=int, default=1)
    given = parser.parse_args()
    quiet_libraries()
    arms = {CONTROL: ARMS[CONTROL]} | {name: ARMS[name] for name in given.arms.split(",")}
    arms |= dict(written(arm) for arm in given.arm)
    summaries, folders = [], []
    for task in given.tasks.split(","):
        for labelled in given.labelled.split(","):
            folder = given.out / f"{task}-{labelled}"
            share_stages(folder, given.out / "shared")
            recipes = {name: recipe(given.data, task, labelled, changes) for name, changes in arms.items()}
            summary = compare_recipes(
                recipes, given.seeds, folder, jobs=given.jobs, baseline=given.baseline, split=given.split
            )
            summaries.append(summary)
            folders.append(folder)
            print("\n".join(lines(folder.name, summary)), flush=True)
    if len(summaries) > 1:
        print(average_table(average(summaries, folders)))


def written(arm: str) -> tuple[str, Sequence[str]]:
    """An arm of the command line."""
    name, _, changes = arm.partition(":")
    return name.strip(), shlex.split(changes)


def share_stages(folder: Path, shared: Path) -> None:
    """Index and teacher do not depend on how many labelled texts the student sees, nor the index on the task."""
    shared.mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "shared").exists():
        (folder / "shared").symlink_to(shared.resolve(), target_is_directory=True)


def recipe(data: Path, task: str, labelled: str, changes: Sequence[str]) -> Recipe:
    """`kd` on a setting, with the changes of an arm."""
    corpus = {"dataset": str((data / "corpora" / f"{(CORPORA | OTHER)[task]}.parquet").resolve()), "text": "text"}
    index = {"corpus": corpus, "encoder": {"kind": "static"}}
    sets = [f"task={{dataset: {(data / task).resolve()}}}"]
    if labelled != "all":
        sets.append(f"data.labelled={labelled}")
    if any(change.startswith("data.neighbours") for change in changes):
        sets.append(f"data.neighbours={json.dumps({'index': index})}")
    return load_recipe(CONTROL, [*sets, *changes])


def lines(setting: str, summary: ComparisonSummary) -> list[str]:
    """Score, difference to kd, gap closed and cost of each arm."""
    split = summary["split"]
    shown = [f"\n{setting} ({split}, teacher {summary['teacher'][split]:.4f})"]
    for row in summary["rows"]:
        scores, gap, cost = row[split], row["gap_closed"], row["cost"]
        closed = "" if gap is None else f"{gap['share']:5.0%} [{gap['interval'][0]:.0%}, {gap['interval'][1]:.0%}]"
        spread = "" if scores["sd"] is None else f" ± {scores['sd']:.4f}"
        shown.append(
            f"  {row['recipe']:16}{scores['mean']:.4f}{spread}  {closed:20}{cost['training_rows']:9,.0f} rows "
            f"{cost['scoring_rows']:9,.0f} scored {cost['seconds']['student']:6.0f} s"
        )
    return shown


if __name__ == "__main__":
    main()
