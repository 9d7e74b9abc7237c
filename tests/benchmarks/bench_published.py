"""Minimax-kNN as its published code runs it, against augkd's: processor time of an epoch, and accuracy.

    OMP_NUM_THREADS=1 python tests/benchmarks/bench_published.py RECIPE --out runs/published [--keep 4] [--seeds 3]

RECIPE has neighbours and a student of the teacher's layers, such as minimax-knn. The published way is re-created from
its description: an epoch has a step's item for each original and each of `keep` ranks; for every item of rank j all
candidates of its original are scored, in train mode, and the j-th most divergent one is trained on; every row is padded
to 256 tokens. Its time is measured on a few batches; its students (`--seeds`, 0 for none) are trained on rows padded to
the longest of a batch, which changes nothing but the time. Both ways train the same number of rows at the same weights.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import get_linear_schedule_with_warmup

from augkd.distill.arguments import arguments
from augkd.distill.dataset import DistillationDataset
from augkd.distill.stages import train_stages
from augkd.evaluation.judge import Judge
from augkd.models.classifier import Classifier
from augkd.models.devices import uses_bf16
from augkd.models.layers import from_layers
from augkd.models.libraries import quiet_libraries
from augkd.models.tokens import Tokens
from augkd.recipe import Recipe, load_recipe
from augkd.runs.run import Run
from augkd.selection.divergence import divergence

LENGTH, TEMPERATURE = 256, 2.0


class Published:
    """A student trained the published way."""

    def __init__(self, student: Classifier, data: DistillationDataset, recipe: Recipe, keep: int, seed: int):
        self.student, self.data, self.keep = student, data, keep
        self.training = recipe.training
        self.batches = -(-len(data) * (1 + keep) // self.training.batch_size)
        self.rng = np.random.default_rng(seed)
        torch.manual_seed(seed)
        student.model.set_attn_implementation("sdpa")
        self.optimiser = torch.optim.AdamW(
            student.model.parameters(), lr=self.training.learning_rate, weight_decay=self.training.weight_decay
        )
        steps = round(self.batches * self.training.epochs)
        self.schedule = get_linear_schedule_with_warmup(
            self.optimiser, round(steps * self.training.warmup_ratio), steps
        )

    def epoch(self) -> Iterator[list[tuple[int, int]]]:
        """Batches of (original, rank), in random order."""
        items = list(itertools.product(range(len(self.data)), range(1 + self.keep)))
        order = self.rng.permutation(len(items))
        for start in range(0, len(items), self.training.batch_size):
            yield [items[place] for place in order[start : start + self.training.batch_size]]

    def step(self, batch: list[tuple[int, int]], length: int | None) -> None:
        """One update. `length` is what rows are padded to; None: the longest of a pass."""
        self.student.model.train()
        total = torch.zeros(())
        for rank in range(1 + self.keep):
            rows = [row for row, own in batch if own == rank]
            if rows:
                total = total + (self.originals(rows, length) if rank == 0 else self.ranked(rows, rank, length))
        total.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.student.model.parameters(), self.training.max_grad_norm)
        self.optimiser.step()
        self.schedule.step()
        self.optimiser.zero_grad()

    def originals(self, rows: list[int], length: int | None) -> Tensor:
        """Half the KD loss and half the cross-entropy of originals, each their mean."""
        picked = torch.tensor(rows)
        logits = self.forward(self.data.tokens.take(picked), length)
        kd = divergence(logits, self.data.teacher[picked], TEMPERATURE, self.data.target.activation)
        return 0.5 * TEMPERATURE**2 * kd.mean() + 0.5 * nn.functional.cross_entropy(logits, self.data.labels[picked])

    def ranked(self, rows: list[int], rank: int, length: int | None) -> Tensor:
        """Half the KD loss of the candidates of this rank, their mean."""
        pool = self.data.collate(rows)["batch"].pool
        with torch.no_grad():
            scores = divergence(
                self.forward(pool.tokens, length), pool.teacher, TEMPERATURE, self.data.target.activation
            )
        chosen = []
        for owner in pool.owner.unique():
            places = (pool.owner == owner).nonzero().flatten()
            if len(places) >= rank:
                chosen.append(places[scores[places].argsort(descending=True)[rank - 1]])
        if not chosen:
            return torch.zeros(())
        picked = pool.take(torch.stack(chosen))
        logits = self.forward(picked.tokens, length)
        kd = divergence(logits, picked.teacher, TEMPERATURE, self.data.target.activation)
        return 0.5 * TEMPERATURE**2 * kd.mean()

    def forward(self, tokens: Tokens, length: int | None) -> Tensor:
        """Logits of rows padded to one length."""
        inputs = tokens.padded(self.student.pad_id)
        if length is not None:
            more = (0, length - inputs["input_ids"].shape[1])
            inputs = {
                name: nn.functional.pad(value, more, value=self.student.pad_id if name == "input_ids" else 0)
                for name, value in inputs.items()
            }
        with torch.autocast("cpu", torch.bfloat16, enabled=uses_bf16("auto", torch.device("cpu"))):
            return self.student.model(**inputs).logits.float()  # type: ignore[no-any-return]

    def seconds_of_an_epoch(self, batches: int) -> float:
        """Processor seconds, from the first batches of one."""
        chosen = list(itertools.islice(self.epoch(), batches + 1))
        self.step(chosen[0], LENGTH)
        started = time.process_time()
        for batch in chosen[1:]:
            self.step(batch, LENGTH)
        return (time.process_time() - started) / (len(chosen) - 1) * self.batches

    def train(self, judge: Judge) -> tuple[float, float]:
        """Trains for the recipe's epochs; the best validation score and its test score."""
        best, test = -1.0, 0.0
        for _ in range(round(self.training.epochs)):
            for batch in self.epoch():
                self.step(batch, None)
            score = judge.validation(self.student)
            if score > best:
                best, test = score, float(judge.test(self.student)["test"] or 0)
        return best, test


def ours(
    student: Classifier, data: DistillationDataset, recipe: Recipe, judge: Judge, keep: int, seed: int, folder: Path
) -> tuple[float, float, float]:
    """Validation and test score, and processor seconds of an epoch, its evaluation included."""
    settings = arguments(
        folder,
        recipe.training,
        seed,
        judge.metric,
        selector={"minimax": {"keep": keep}},
        selection_temperature=TEMPERATURE,
        candidate_weight=float(keep),
    )
    started = time.process_time()
    train_stages(student, [settings], data, lambda classifier: {judge.metric: judge.validation(classifier)})
    seconds = (time.process_time() - started) / recipe.training.epochs
    return judge.validation(student), float(judge.test(student)["test"] or 0), seconds


def main() -> None:
    """Prints the processor seconds of an epoch both ways, and the scores of each seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--keep", type=int, default=4)
    parser.add_argument("--batches", type=int, default=4, help="timed batches of the published way")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    given = parser.parse_args()
    quiet_libraries()
    recipe = load_recipe(given.recipe, given.set)
    layers = recipe.student.layers
    assert isinstance(layers, list), "the student needs layers of the teacher, by number"
    run = Run(recipe, given.out)
    run.prepare()
    teacher, transfer = run.teacher.model, run.transfer_set()
    judge = Judge(run.task, run.context.metric, run.context.target, run.teacher.outputs.logits)

    def fresh() -> Classifier:
        student = from_layers(teacher, layers)
        student.model.requires_grad_(True)
        return student

    data = DistillationDataset(fresh(), transfer)
    published = Published(fresh(), data, recipe, given.keep, 0).seconds_of_an_epoch(given.batches)
    print(f"published: {published:.1f} processor seconds an epoch of {len(data):,} originals", flush=True)
    for seed in range(given.seeds):
        folder = given.out / f"checkpoints-{time.time_ns()}"
        validation, test, seconds = ours(fresh(), data, recipe, judge, given.keep, seed, folder)
        print(f"seed {seed}: augkd {validation:.4f} validation, {test:.4f} test, {seconds:.1f} s an epoch", end="; ")
        print(f"{published / seconds:.1f} times less time", end="; ", flush=True)
        best, its_test = Published(fresh(), data, recipe, given.keep, seed).train(judge)
        print(f"published {best:.4f} validation, {its_test:.4f} test", flush=True)


if __name__ == "__main__":
    main()
