"""A student's step of MATE-KD at batch 32 against the published step, reimplemented: seconds and peak memory.

    python tests/benchmarks/bench_mate.py [--task FOLDER] [--steps 8]

The published step (Rashid et al. 2021, their code): every text padded to 128 tokens, the generator in the graph, Gumbel
noise and the mixing of embeddings over the whole vocabulary at every position, a teacher whose activations are kept,
and the teacher run again on the clean texts. Both use the same models, texts and optimiser. Each runs in a process of
its own, so that its peak memory is its own; the memory of the models is subtracted.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

BATCH, LENGTH, RATE = 32, 128, 0.3


def main() -> None:
    """Runs both in alternation, several rounds, and prints their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", default="augkd:docstrings")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--way", choices=("augkd", "published"))
    options = parser.parse_args()
    if options.way:
        print(json.dumps(measure(options.way, options.task, options.steps)))
        return
    rounds: dict[str, list[dict[str, float]]] = {"augkd": [], "published": []}
    for _ in range(options.rounds):
        for way, results in rounds.items():
            command = [sys.executable, __file__, "--way", way, "--task", options.task, "--steps", str(options.steps)]
            results.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    figures = {way: {key: min(row[key] for row in results) for key in results[0]} for way, results in rounds.items()}
    for way, figure in figures.items():
        print(f"{way:10} {figure['seconds']:.3f} s per step, {figure['bytes'] / 1e6:.0f} MB above the models")
    ours, theirs = figures["augkd"], figures["published"]
    print(
        f"ratio      {theirs['seconds'] / ours['seconds']:.1f} in time, {theirs['bytes'] / ours['bytes']:.1f} in memory"
    )


def measure(way: str, task: str, steps: int) -> dict[str, float]:
    """Median seconds per step after the first, and bytes above the loaded models."""
    import torch

    from augkd.data.task import load_task
    from augkd.models.classifier import load_backbone
    from augkd.models.layers import from_layers
    from augkd.models.masked_lm import load_masked_lm
    from augkd.recipe import MINILM

    torch.manual_seed(0)
    loaded = load_task(dataset=task)
    teacher = load_backbone(MINILM, loaded.labels, LENGTH, 0)
    student = from_layers(teacher, [0, 5])
    lm = load_masked_lm(MINILM)
    optimizer = torch.optim.Adam(student.model.parameters(), lr=2e-5)
    for parameter in student.model.parameters():  # the optimiser's moments are allocated before the first step
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    before = peak()
    step = augkd_step if way == "augkd" else published_step
    seconds = []
    for number in range(steps):
        examples = loaded.train[number * BATCH : (number + 1) * BATCH]
        texts = [example.text for example in examples]
        labels = torch.tensor([int(example.label or 0) for example in examples])
        with torch.no_grad():
            clean = teacher.predict([(text, None) for text in texts])  # augkd has them in the transfer set
        started = time.perf_counter()
        step(texts, labels, clean, teacher, student, lm, number)
        torch.nn.utils.clip_grad_norm_(student.model.parameters(), 5.0)
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - started)
    return {"seconds": statistics.median(seconds[1:]), "bytes": peak() - before}


def augkd_step(texts: Any, labels: Any, clean: Any, teacher: Any, student: Any, lm: Any, number: int) -> None:
    """Generator and teacher without autograd, on texts at their own lengths; one backward pass of the student."""
    import torch

    from augkd.candidates.generator.generator import Generator
    from augkd.data.target import NO_CLASS
    from augkd.distill.adversary.ascent import Adversary, Ascent
    from augkd.distill.objective.losses import ce, kd
    from augkd.models.seeds import RowRandom
    from augkd.models.tokens import Tokens
    from augkd.selection.pool import Batch, Pool

    tokens = student.tokens([(text, None) for text in texts])
    none = torch.zeros(0, dtype=torch.long)
    empty = Pool(Tokens.of([]), none, torch.zeros(0), torch.zeros(0, clean.shape[1]), none)
    batch = Batch(tokens, labels, clean, empty, torch.arange(len(texts)))
    pool = Adversary(Generator(lm, RATE), teacher, Ascent()).pool(batch, RowRandom((number,), batch.rows.tolist()))
    student.model.train()
    logits = student.logits(tokens.join(pool.tokens), "training")
    soft = torch.cat([clean, pool.teacher])
    hard = torch.cat([labels, torch.full((len(pool),), NO_CLASS)])
    losses = kd(logits, soft, hard, 0.0, temperature=1.0) + ce(logits, soft, hard, 0.0)
    (losses.sum() / (3 * len(texts))).backward()


def published_step(texts: Any, labels: Any, clean: Any, teacher: Any, student: Any, lm: Any, number: int) -> None:
    """As in their code; `clean` is not used, the teacher is run again."""
    import torch
    from torch.nn import functional

    encoded = student.tokenizer(
        texts,
        padding="max_length",
        truncation=True,
        max_length=LENGTH,
        return_tensors="pt",
        return_token_type_ids=False,
    )
    ids, mask = encoded["input_ids"], encoded["attention_mask"]
    special = torch.isin(ids, torch.tensor(student.tokenizer.all_special_ids))
    masked = (torch.rand(ids.shape) < RATE) & ~special
    with torch.autocast(
        "cpu", torch.bfloat16
    ):  # as augkd's where the CPU supports it: the models are not what is compared
        logits = lm.model(
            input_ids=ids.masked_fill(masked, student.tokenizer.mask_token_id), attention_mask=mask
        ).logits
    noise = -torch.log(-torch.log(torch.rand_like(logits.float()).clamp_min(1e-20)).clamp_min(1e-20))
    soft = functional.softmax(functional.log_softmax(logits.float(), dim=-1) + noise, dim=-1)
    hard = torch.zeros_like(soft).scatter_(-1, soft.argmax(dim=-1, keepdim=True), 1.0)
    one_hot = hard - soft.detach() + soft

    def run(model: Any, perturbed: bool) -> Any:
        table = model.get_input_embeddings().weight
        embedded = functional.embedding(ids, table)
        if perturbed:
            embedded = torch.where(masked[..., None], one_hot @ table, embedded)
        with torch.autocast("cpu", torch.bfloat16):
            return model(inputs_embeds=embedded, attention_mask=mask).logits.float()

    student.model.train()
    teacher.model.eval()
    perturbed, perturbed_teacher = run(student.model, True), run(teacher.model, True)
    plain, plain_teacher = run(student.model, False), run(teacher.model, False)

    def divergence(logits: Any, targets: Any) -> Any:
        return -(targets.softmax(-1) * logits.log_softmax(-1)).sum(-1).mean()

    loss = functional.cross_entropy(plain, labels)
    loss = loss + divergence(perturbed, perturbed_teacher) + divergence(plain, plain_teacher)
    (loss / 3).backward()
    for model in (teacher.model, lm.model):
        model.zero_grad()


def peak() -> float:
    """Largest resident size so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    main()
