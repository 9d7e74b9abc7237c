"""The cost of an intermediate-layer loss per step: KD with ALP over stored teacher layers and KD alone, side by side.

Both train the same two-layer student on the same batches in turn, A B A B, and the reading of the store is counted. A
third column has a live teacher in place of the store. Processor time, so that other load does not count. Run with
    OMP_NUM_THREADS=1 python tests/benchmarks/bench_layers.py [steps] [loss]
"""

from __future__ import annotations

import itertools
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

from augkd.data.docstrings import corpus_texts
from augkd.distill.objective.layer_objective import LayerObjective
from augkd.distill.objective.layer_states import Shape
from augkd.distill.objective.losses import kd
from augkd.distill.objective.matching import matching
from augkd.distill.teacher.layer_store import LayerStore
from augkd.models.classifier import Classifier, Pair, load_backbone
from augkd.models.devices import token_budget_of
from augkd.models.layers import from_layers
from augkd.models.locate import BUNDLED
from augkd.models.tokens import RowGroups, Tokens

BATCH = 48
LABELS = ("no", "yes")


def main() -> None:
    """Prints processor seconds a step of KD, with stored layers and with a live teacher, and the ratios."""
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 12
    name = sys.argv[2] if len(sys.argv) > 2 else "alp"
    texts: list[Pair] = [(text, None) for text in itertools.islice(corpus_texts(), BATCH * 4)]
    teacher = load_backbone(BUNDLED, LABELS, 32, seed=0)
    teacher.model.eval()
    student = from_layers(teacher, [0, 5])
    objective = LayerObjective({name: {}}, Shape.of(student.model), Shape.of(teacher.model))
    with tempfile.TemporaryDirectory() as folder:
        width = teacher.model.config.hidden_size
        store = LayerStore(lambda: teacher, objective.needs(), width, Path(folder), "bench", 32)
        positions = store.positions(texts, announce=lambda count, size: print(f"{count} texts: {size / 1e6:.1f} MB"))
        seconds: list[tuple[float, ...]] = []
        student.model.train()
        tokens = student.tokens(texts)
        optimiser = torch.optim.AdamW([*student.model.parameters(), *objective.parameters()], lr=1e-5)
        for number in range(steps):
            rows = torch.arange(BATCH) + BATCH * (number % 4)
            batch = tokens.take(rows)
            started = time.process_time()
            step(student, batch, optimiser)
            plain = time.process_time()
            step(student, batch, optimiser, objective, store.read(positions[rows]))
            stored = time.process_time()
            step(student, batch, optimiser, objective, teacher)
            live = time.process_time()
            seconds.append((plain - started, stored - plain, live - stored))
    columns = [statistics.median(column) for column in zip(*seconds[2:], strict=True)]
    print(f"KD {columns[0]:.3f} s a step, + {name} stored {columns[1]:.3f} s, + {name} live {columns[2]:.3f} s")
    ratios = [statistics.median(row[i] / row[0] for row in seconds[2:]) for i in (1, 2)]
    print(f"ratio to KD: stored {ratios[0]:.3f}, live {ratios[1]:.3f} (medians of {len(seconds) - 2} steps)")


def step(
    student: Classifier,
    tokens: Tokens,
    optimiser: torch.optim.Optimizer,
    objective: LayerObjective | None = None,
    teacher: torch.Tensor | Classifier | None = None,
) -> None:
    """One training step, with an intermediate-layer loss where there is an objective."""
    goal = torch.zeros(len(tokens), len(LABELS))
    groups = RowGroups.of(tokens, token_budget_of(student.device))
    if objective is None or teacher is None:
        loss = kd(student.logits(tokens, "bench", groups=groups), goal, goal, 0.0).mean()
    else:
        with matching(objective, student.model, tokens, groups, teacher, 0.0, 0) as matched:
            logits = student.logits(tokens, "bench", groups=groups)
        loss = kd(logits, goal, goal, 0.0).mean() + matched.losses.mean()
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()


if __name__ == "__main__":
    main()
