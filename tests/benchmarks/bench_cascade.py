"""How much of the traffic a student may answer for its teacher, beside frozen embeddings with logistic regression.

The second is what PyPI's bounded-distill describes: a sentence model that is not trained, a logistic regression on the
teacher's labels of the same training texts, and a threshold with the same promise. It gets the better of five strengths
of regularisation (cross-validated) and the threshold of `augkd.evaluation.risk_control`, so that only the students
differ. The test texts of each run are divided in two at random, 200 times: one half calibrates, the other is answered.
`held` is how often the observed agreement on the other half is at least what was promised; without answers it holds.
Run, with finished runs whose test splits are large (a few thousand texts; at least 300):
    python tests/benchmarks/bench_cascade.py RUN… [--agreement 0.97] [--confidence 0.95] [--resplits 200]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegressionCV

from augkd.data.target import Target
from augkd.data.task import texts_of
from augkd.data.transfer_set import TransferSet
from augkd.evaluation.predictions import read_predictions
from augkd.evaluation.risk_control import choose_threshold
from augkd.retrieval.encoders.sentence import SentenceEncoder
from augkd.ship.student_folder import find_student


def main() -> None:
    """Prints two lines per run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--agreement", type=float, default=0.97)
    parser.add_argument("--confidence", type=float, default=0.95)
    parser.add_argument("--resplits", type=int, default=200)
    options = parser.parse_args()
    for run in options.runs:
        student, frozen, reference = outputs(run)
        print(f"{run.name}: {len(reference)} test texts, {options.resplits} resplits", flush=True)
        for name, logits in (("augkd's student", student), ("frozen + regression", frozen)):
            print(f"  {name:20} {figures(logits, reference, options)}", flush=True)


def outputs(run: Path) -> tuple[Any, Any, Any]:
    """Logits of the student and of the regression on the test texts, and the classes that the teacher predicts."""
    predictions = read_predictions(run / "student", "test")
    assert predictions is not None
    assert predictions.teacher is not None
    task, transfer = find_student(run).task(), TransferSet.open(run / "transfer_set")
    assert task is not None
    started, encoder = time.perf_counter(), SentenceEncoder.load()
    features = encoder.encode(transfer.column("text"))
    strengths = {"Cs": [0.1, 1, 10, 100, 1000], "l1_ratios": (0,), "use_legacy_attributes": False}
    model = LogisticRegressionCV(**strengths, max_iter=2000, scoring="neg_log_loss")
    model.fit(features, transfer.teacher().argmax(axis=1))
    test = encoder.encode([text for text, _ in texts_of(task.test)])
    logits = np.full((len(test), predictions.student.shape[1]), -50.0)
    logits[:, model.classes_] = model.predict_log_proba(test)
    print(f"{run.name}: embeddings and regression took {time.perf_counter() - started:.0f} s", flush=True)
    return predictions.student, logits, predictions.teacher.argmax(axis=1)


def figures(logits: Any, reference: Any, options: argparse.Namespace) -> str:
    """Agreement without a threshold; with it the share answered, the agreement there, and how often it held."""
    target = Target(tuple(map(str, range(logits.shape[1]))))
    answered, agreed, held = [], [], []
    for resplit in range(options.resplits):
        order = np.random.default_rng(resplit).permutation(len(logits))
        own, other = np.split(order, [len(order) // 2])
        found = choose_threshold(
            target,
            logits[own],
            reference[own],
            agreement=options.agreement,
            confidence=options.confidence,
            seed=resplit,
        )
        if found.value is None:
            answered.append(0.0)
            held.append(True)
            continue
        above = target.confidence(logits[other], found.temperature) >= found.value
        right = (logits[other].argmax(axis=1) == reference[other])[above]
        answered.append(float(above.mean()))
        agreed.append(float(right.mean()))
        held.append(agreed[-1] >= options.agreement)
    return (
        f"agreement {(logits.argmax(axis=1) == reference).mean():.3f}; answered {np.mean(answered):.3f} "
        f"(sd {np.std(answered):.3f}), of those agreed {np.mean(agreed or [np.nan]):.4f}, held {np.mean(held):.3f}, "
        f"answered nothing {sum(share == 0 for share in answered)} times"
    )


if __name__ == "__main__":
    main()
