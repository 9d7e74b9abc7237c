"""How often the students of bench_recipes disagree with their teacher, on thousands of texts that none was trained on.

    python tests/benchmarks/bench_agreement.py --data FOLDER --out runs/science --setting trec-1000

A few hundred validation texts tell students apart by whole percents of accuracy at best. Their neighbours in the
corpus need no labels to show how far a student is from its teacher, and 8,000 of them have a standard error of a
quarter of a percent. Texts that are candidates of any student of the setting are left out. No test text is looked at.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from bench_recipes import recipe

from augkd.models.classifier import load_classifier
from augkd.models.libraries import quiet_libraries
from augkd.runs.run import Run

WIDEST = "data.neighbours.k=256"  # contains the candidates of every smaller pool


def main() -> None:
    """Prints each student's disagreement with the teacher and its mean KL divergence from it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="of bench_recipes")
    parser.add_argument("--setting", required=True, help="like trec-1000")
    parser.add_argument("--texts", type=int, default=8000)
    given = parser.parse_args()
    quiet_libraries()
    folder = given.out / given.setting
    task, _, labelled = given.setting.partition("-")
    run = Run(recipe(given.data, task, labelled, [WIDEST]), folder / "agreement", folder / "shared")
    texts = held_out(run, given.texts)
    logits = run.teacher.model.predict([(text, None) for text in texts])
    teacher = logits.softmax(-1)
    print(f"{given.setting}: {len(texts):,} texts")
    for results in sorted(folder.glob("runs/*/results.json")):
        name, student = json.loads(results.read_text())["recipe"], results.parent / "student"
        classifier = load_classifier(str(student), run.context.target, run.recipe.training.max_length, None, "auto")
        found = classifier.predict([(text, None) for text in texts])
        differs = (found.argmax(-1) != logits.argmax(-1)).float()
        divergence = (teacher * (logits.log_softmax(-1) - found.log_softmax(-1))).sum(-1)
        error = float(differs.std()) / len(texts) ** 0.5
        seed = results.parent.name.rpartition("-")[2]
        print(f"  {name:20}{seed:>4}  {differs.mean():7.2%} ± {error:.2%}  KL {divergence.mean():.4f}")


def held_out(run: Run, count: int) -> list[str]:
    """Texts of the corpus near validation texts, and none of them a neighbour of a training text."""
    texts = [example.text for example in run.task.validation]
    options = run.recipe.data.neighbours
    assert options is not None
    own = run.index.search([example.text for example in run.context.student_task.train], options.k).ids
    found = np.setdiff1d(run.index.search(texts, 64).ids, own)
    drawn = np.random.default_rng(0).permutation(found[found >= 0])[:count]
    return run.index.texts(np.sort(drawn))


if __name__ == "__main__":
    main()
