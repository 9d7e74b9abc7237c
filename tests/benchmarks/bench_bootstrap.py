"""Speed of bootstrap_scores, all students and resamples at once, against a loop over scikit-learn and SciPy.

    python tests/benchmarks/bench_bootstrap.py [examples] [models]

Prints, for each metric, the CPU seconds of both for 2,000 resamples (the loop's extrapolated from 20) and their ratio.
"""

from __future__ import annotations

import sys
import time

import numpy as np

from augkd.data.target import REGRESSION_METRICS
from augkd.evaluation.compare.bootstrap import RESAMPLES, bootstrap_scores, resample_counts
from augkd.evaluation.metrics import METRICS

FEW = 20  # resamples of the slow loop


def main(examples: int = 500, models: int = 12) -> None:
    rng = np.random.default_rng(0)
    print(f"{examples} examples, {models} students, {RESAMPLES} resamples")
    for metric in METRICS:
        numbers = metric in REGRESSION_METRICS
        true = rng.normal(size=examples) if numbers else rng.integers(0, 6, examples)
        noise = rng.normal(size=(models, examples))
        predicted = true + noise if numbers else np.where(noise > 1, (true + 1) % 6, true)
        started = time.process_time()
        bootstrap_scores(metric, predicted, true)
        fast = time.process_time() - started
        (counts,) = resample_counts(examples, FEW, rng)
        started = time.process_time()
        for count in counts:
            rows = np.repeat(np.arange(examples), count.astype(int))
            for model in predicted:
                METRICS[metric](model[rows], true[rows])
        slow = (time.process_time() - started) * RESAMPLES / FEW
        print(f"{metric:10}{fast:8.2f} s{slow:9.1f} s   {slow / fast:6.0f} ×")


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
