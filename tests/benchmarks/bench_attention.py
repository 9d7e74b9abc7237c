"""Forward and backward of a student with eager attention and with SDPA, by text length, in turn in one process.

OMP_NUM_THREADS=1 python tests/benchmarks/bench_attention.py
"""

from __future__ import annotations

import statistics
import sys
import time

import torch

from augkd import load_backbone
from augkd.models.devices import uses_bf16
from augkd.models.layers import from_layers

ROWS = {12: 64, 28: 32, 64: 16, 128: 8, 256: 4, 512: 2}  # tokens → rows: about 1,024 tokens per pass
ROUNDS = 9


def seconds(model: torch.nn.Module, inputs: dict[str, torch.Tensor], bf16: bool) -> float:
    started = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        logits = model(**inputs).logits.float()
    logits.square().mean().backward()
    model.zero_grad(set_to_none=True)
    return time.perf_counter() - started


def main() -> None:
    teacher = load_backbone("sentence-transformers/all-MiniLM-L6-v2", ("a", "b"), 512, seed=0)
    student = from_layers(teacher, [0, 5]).model.train()
    bf16 = uses_bf16("auto", torch.device("cpu"))
    sys.stdout.write(f"{'tokens':>8}{'rows':>6}{'sdpa ms':>10}{'eager ms':>10}{'sdpa ÷ eager':>14}\n")
    for length, rows in ROWS.items():
        ids = torch.randint(1000, 20000, (rows, length))
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        times: dict[str, list[float]] = {"sdpa": [], "eager": []}
        for _ in range(ROUNDS):
            for name, measured in times.items():
                student.set_attn_implementation(name)
                measured.append(seconds(student, inputs, bf16))
        sdpa, eager = (1000 * statistics.median(times[name][1:]) for name in ("sdpa", "eager"))
        sys.stdout.write(f"{length:>8}{rows:>6}{sdpa:>10.1f}{eager:>10.1f}{sdpa / eager:>14.2f}\n")


if __name__ == "__main__":
    main()
