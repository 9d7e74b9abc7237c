"""A student's step of MATE-KD at batch 32, against the published step made anew; seconds and peak memory side by side.

    python tests/benchmarks/bench_mate.py [--task FOLDER] [--steps 8]

The published step (Rashid et al. 2021, their code): every text padded to 128 tokens, the generator in the graph, Gumbel
noise and the mixing of embeddings over the whole vocabulary at every position, a teacher whose activations are kept,
and the teacher asked again about the clean texts. Both take the same models, texts and optimiser. Each way runs in a
process of its own, so that its peak memory is its own; what the models take is subtracted.
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
    """Runs both ways, interleaved over rounds, and prints their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", default="augkd:docstrings")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--way", choices=("augkd", "published"))
    given = parser.parse_args()
    if given.way:
        print(json.dumps(measured(given.way, given.task, given.steps)))
        return
    found: dict[str, list[dict[str, float]]] = {"augkd": [], "published": []}
    for _ in range(given.rounds):
        for way, seen in found.items():
            told = [sys.executable, __file__, "--way", way, "--task", given.task, "--steps", str(given.steps)]
            seen.append(json.loads(subprocess.run(told, check=True, capture_output=True, text=True).stdout))
    figures = {way: {key: min(one[key] for one in seen) for key in seen[0]} for way, seen in found.items()}
    for way, one in figures.items():
        print(f"{way:10} {one['seconds']:.3f} s a step, {one['bytes'] / 1e6:.0f} MB above the models")
    ours, theirs = figures["augkd"], figures["published"]
    print(
        f"ratio      {theirs['seconds'] / ours['seconds']:.1f} in time, {theirs['bytes'] / ours['bytes']:.1f} in memory"
    )


def measured(way: str, task: str, steps: int) -> dict[str, float]:
    """Median seconds of a step after the first, and bytes above the loaded models."""
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
    for parameter in student.model.parameters():  # the optimiser's moments are there before the first step
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
            clean = teacher.predict([(text, None) for text in texts])  # augkd's comes with the transfer set
        started = time.perf_counter()
        step(texts, labels, clean, teacher, student, lm, number)
        torch.nn.utils.clip_grad_norm_(student.model.parameters(), 5.0)
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - started)
    return {"seconds": statistics.median(seconds[1:]), "bytes": peak() - before}


def augkd_step(texts: Any, labels: Any, clean: Any, teacher: Any, student: Any, lm: Any, number: int) -> None:
    """Draw and teacher without autograd, at the texts' own lengths; one backward pass of the student."""
    import torch

    from augkd.candidates.generator.generator import Generator
    from augkd.distill.adversary.ascent import Adversary, Ascent
    from augkd.distill.objective.losses import ce, kd
    from augkd.models.seeds import rng_of
    from augkd.models.tokens import Tokens
    from augkd.selection.pool import Batch, Pool

    tokens = student.tokens([(text, None) for text in texts])
    none = torch.zeros(0, dtype=torch.long)
    empty = Pool(Tokens.of([]), none, torch.zeros(0), torch.zeros(0, clean.shape[1]), none)
    batch = Batch(tokens, labels, clean, empty, torch.arange(len(texts)))
    pool = Adversary(Generator(lm, RATE), teacher, Ascent()).pool(batch, rng_of(number))
    student.model.train()
    logits = student.logits(tokens.join(pool.tokens), "training")
    told = torch.cat([clean, pool.teacher])
    hard = torch.cat([labels, torch.full((len(pool),), -100)])
    rows = kd(logits, told, hard, 0.0, temperature=1.0) + ce(logits, told, hard, 0.0)
    (rows.sum() / (3 * len(texts))).backward()


def published_step(texts: Any, labels: Any, clean: Any, teacher: Any, student: Any, lm: Any, number: int) -> None:
    """As their code has it; `clean` is not used, the teacher is asked again."""
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
    with torch.autocast("cpu", torch.bfloat16):  # as augkd's where the CPU has it: the models are not what is compared
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
    adversarial, told = run(student.model, True), run(teacher.model, True)
    seen, clean_told = run(student.model, False), run(teacher.model, False)

    def divergence(ours: Any, theirs: Any) -> Any:
        return -(theirs.softmax(-1) * ours.log_softmax(-1)).sum(-1).mean()

    loss = functional.cross_entropy(seen, labels) + divergence(adversarial, told) + divergence(seen, clean_told)
    (loss / 3).backward()
    for model in (teacher.model, lm.model):
        model.zero_grad()


def peak() -> float:
    """Largest resident size so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    main()
