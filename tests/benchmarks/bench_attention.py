"""A student with augkd's attention and with SDPA as it is, by text length, in turn in one process.

OMP_NUM_THREADS=1 python tests/benchmarks/bench_attention.py

Of training: forward and backward; of scoring: forward without gradients.
"""

from __future__ import annotations

import statistics
import sys
import time

import torch

from augkd import load_backbone
from augkd.models.devices import uses_bf16
from augkd.models.layers import from_layers

LENGTHS = (8, 12, 20, 28, 44, 64, 128, 256, 512)
TOKENS = 1024  # per pass
ROUNDS = 9


def seconds(model: torch.nn.Module, inputs: dict[str, torch.Tensor], bf16: bool) -> float:
    """Of one pass, with its gradients in train mode."""
    started = time.process_time()
    with torch.set_grad_enabled(model.training), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        logits = model(**inputs).logits.float()
    if model.training:
        logits.square().mean().backward()
        model.zero_grad(set_to_none=True)
    return time.process_time() - started


def main() -> None:
    """Prints the processor time of a pass both ways."""
    teacher = load_backbone("sentence-transformers/all-MiniLM-L6-v2", ("a", "b"), 512, seed=0)
    student = from_layers(teacher, [0, 5]).model
    bf16 = uses_bf16("auto", torch.device("cpu"))
    own = student.config._attn_implementation
    sys.stdout.write(f"{'tokens':>8}{'rows':>6}{'':>10}{'sdpa ms':>10}{'augkd ms':>10}{'sdpa ÷ augkd':>14}\n")
    for length in LENGTHS:
        ids = torch.randint(1000, 20000, (TOKENS // length, length))
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        inputs["attention_mask"][0, length // 2 :] = 0
        for training in (True, False):
            times: dict[str, list[float]] = {"sdpa": [], own: []}
            for _ in range(ROUNDS):
                for name, measured in times.items():
                    student.set_attn_implementation(name)
                    measured.append(seconds(student.train(training), inputs, bf16))
            sdpa, augkd = (1000 * statistics.median(times[name][1:]) for name in ("sdpa", own))
            what = "training" if training else "scoring"
            sys.stdout.write(f"{length:>8}{len(ids):>6}{what:>10}{sdpa:>10.1f}{augkd:>10.1f}{sdpa / augkd:>14.2f}\n")


if __name__ == "__main__":
    main()
