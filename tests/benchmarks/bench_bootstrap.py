"""Resampled metrics, all students and resamples at once, beside a loop over scikit-learn and SciPy.

    python tests/benchmarks/bench_bootstrap.py [examples] [models]

Prints CPU seconds for 2,000 resamples (the loop's from 20 of them) and their ratio, for each metric.
"""

from __future__ import annotations

import sys
import time

import numpy as np

from augkd.evaluation.compare.bootstrap import METRICS, replicates, resamples
from augkd.evaluation.metrics import CLASSIFICATION, REGRESSION

SLOW = {**CLASSIFICATION, **REGRESSION}
DRAWS, FEW = 2000, 20


def main(examples: int = 500, models: int = 12) -> None:
    rng = np.random.default_rng(0)
    print(f"{examples} examples, {models} students, {DRAWS} resamples")
    for metric in METRICS:
        numbers = metric in REGRESSION
        true = rng.normal(size=examples) if numbers else rng.integers(0, 6, examples)
        noise = rng.normal(size=(models, examples))
        predicted = true + noise if numbers else np.where(noise > 1, (true + 1) % 6, true)
        started = time.process_time()
        replicates(metric, predicted, true, draws=DRAWS)
        quick = time.process_time() - started
        (counts,) = resamples(examples, FEW, rng)
        started = time.process_time()
        for count in counts:
            rows = np.repeat(np.arange(examples), count.astype(int))
            for one in predicted:
                SLOW[metric](one[rows], true[rows])
        slow = (time.process_time() - started) * DRAWS / FEW
        print(f"{metric:10}{quick:8.2f} s{slow:9.1f} s   {slow / quick:6.0f} ×")


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
