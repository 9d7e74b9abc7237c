"""A training step against its matrix products alone, and against the step without what makes it lean.

Processor time of whole steps (batch, forward, loss, backward, clipping, AdamW) of two MiniLM layers in the precision of
the machine, for KD on 32 texts, and with four candidates each; `plain` uses SDPA, PyTorch's dropout, all word vectors
and groups of any shape, as augkd did up to 429a0fc. The ways take turns. The roofline is every product of forward and
backward on tensors of the same sizes, without anything in between. In the last case lengths differ, as those of real
texts do (a gamma distribution around 13), so that few groups have the same shape.

    OMP_NUM_THREADS=1 python tests/benchmarks/bench_step.py [--steps 12] [--rounds 3]
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from augkd.data.transfer_set import in_memory
from augkd.distill.arguments import DistillationArguments
from augkd.distill.dataset import DistillationDataset
from augkd.distill.stages import lean
from augkd.distill.trainer import DistillationTrainer
from augkd.models import tokens as tokens_module
from augkd.models.classifier import Classifier, load_backbone
from augkd.models.devices import token_budget_of, uses_bf16
from augkd.models.layers import from_layers

LABELS = tuple("abcdef")
CASES = ((0, 12), (4, 12), (4, 28), (4, 60), (4, 0))  # candidates of each original, tokens of each text; 0: it varies
MEAN = 13  # tokens of texts that vary
BATCH = 32


def main() -> None:
    """Prints a line for each case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    teacher = load_backbone("sentence-transformers/all-MiniLM-L6-v2", LABELS, 128, seed=0)
    print(
        f"{'rows':>5}{'tokens':>7}{'plain ms':>10}{'lean ms':>9}{'products ms':>13}{'plain/lean':>12}{'/products':>11}"
    )
    for candidates, tokens in CASES:
        rows = list(texts(teacher, candidates, tokens, BATCH * options.steps))
        times: dict[str, list[float]] = {"plain": [], "lean": [], "products": []}
        for _ in range(options.rounds):
            for way in ("plain", "lean"):
                times[way] += steps(from_layers(teacher, [0, 5]), rows, way)
            times["products"].append(products(BATCH * (1 + candidates) * (tokens or MEAN), layers=2))
        plain, slim, alone = (1000 * statistics.median(times[name]) for name in ("plain", "lean", "products"))
        ratios = f"{plain / slim:>12.2f}{slim / alone:>11.2f}"
        print(
            f"{BATCH * (1 + candidates):>5}{tokens or f'~{MEAN}':>7}{plain:>10.1f}{slim:>9.1f}{alone:>13.1f}{ratios}",
            flush=True,
        )


def texts(teacher: Classifier, candidates: int, tokens: int, count: int) -> Iterator[dict[str, Any]]:
    """Rows of a transfer set whose texts have exactly so many tokens, out of 8,000 words."""
    words = [word for word in sorted(teacher.tokenizer.get_vocab()) if word.isalpha() and len(word) > 2][:8000]
    draw, logits = random.Random(0), np.random.default_rng(0).standard_normal((count, 1 + candidates, 6)).tolist()

    def text() -> str:
        length = tokens or min(60, round(draw.gammavariate(4, (MEAN - 3) / 4)) + 3)
        return " ".join(draw.choice(words) for _ in range(length - 2))

    for row in range(count):
        original = {"id": str(row), "text": text(), "text_pair": None, "label": LABELS[row % 6]}
        found = [
            {
                "id": f"{row}-{k}",
                "text": text(),
                "text_pair": None,
                "source": "index",
                "score": 0.5,
                "teacher_logits": known,
            }
            for k, known in enumerate(logits[row][1:])
        ]
        yield {**original, "teacher_logits": logits[row][0], "candidates": found}


def steps(student: Classifier, rows: list[dict[str, Any]], way: str) -> list[float]:
    """Processor seconds of each step but the first three."""
    student.model.requires_grad_(True).train()
    data = DistillationDataset(student, in_memory(rows, LABELS))
    if way == "plain":
        student.model.set_attn_implementation("sdpa")
    saved: AbstractContextManager[None] = lean(student, data, None) if way == "lean" else any_shape()
    clock: list[float] = []
    with tempfile.TemporaryDirectory() as folder, saved:
        arguments = DistillationArguments(
            output_dir=folder,
            num_train_epochs=1,
            per_device_train_batch_size=BATCH,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            losses={"kd": {"weight": 0.5, "temperature": 2.0}, "ce": {"weight": 0.5}},
            token_budget=1024 if way == "plain" else None,
        )
        DistillationTrainer(
            student, arguments, data, progress=lambda done, total: clock.append(time.process_time())
        ).train()
    return [end - start for start, end in pairwise(clock[3:])]


@contextmanager
def any_shape() -> Iterator[None]:
    """While open, groups are padded to their longest row and have any number of rows."""
    before = tokens_module._WIDTHS, tokens_module._ROWS
    tokens_module._WIDTHS = tokens_module._ROWS = 1
    try:
        yield
    finally:
        tokens_module._WIDTHS, tokens_module._ROWS = before


def products(tokens: int, layers: int, width: int = 384, inner: int = 1536) -> float:
    """Processor seconds of the products of one step: each weight forward, its gradient, and its input's gradient."""
    kind = torch.bfloat16 if uses_bf16("auto", torch.device("cpu")) else torch.float32
    rows = token_budget_of(torch.device("cpu"))
    sizes = [(width, width)] * 4 + [(width, inner), (inner, width)]
    given = [torch.randn(n_in, n_out).to(kind) for n_in, n_out in sizes]
    groups = [min(rows, tokens - start) for start in range(0, tokens, rows)]

    def step() -> None:
        for count in groups:
            for weight, (x, gradient) in zip(given, inputs[count], strict=True):
                for _ in range(layers):
                    _ = x @ weight, gradient @ weight.t(), x.t() @ gradient

    inputs: dict[int, list[tuple[Tensor, Tensor]]] = {
        count: [(torch.randn(count, a).to(kind), torch.randn(count, b).to(kind)) for a, b in sizes] for count in groups
    }
    step()
    started = time.process_time()
    for _ in range(3):
        step()
    return (time.process_time() - started) / 3


if __name__ == "__main__":
    main()
