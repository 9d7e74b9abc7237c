"""What a device does well: how many tokens a forward pass takes, and whether it multiplies bfloat16.

Every loop over rows asks here, so that two models that see the same rows group them alike.
"""

from __future__ import annotations

import torch

# Padded tokens a forward pass. On a CPU small groups of rows of like length beat one padded batch: a step of 160 TREC
# questions took 0.65 s at 1024, 0.66 s at 2048, 1.44 s at 8192 (one core, two layers). A GPU wants to be filled.
BUDGET = {"cpu": 1024, "cuda": 16384}


def budget_of(device: torch.device, given: int | None = None) -> int:
    """Padded tokens a forward pass: `given`, or what suits the device."""
    return given or BUDGET.get(device.type, BUDGET["cpu"])


def uses_bf16(precision: str, device: torch.device) -> bool:
    """`auto` means bf16 where the hardware multiplies it natively."""
    if precision != "auto":
        return precision == "bfloat16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # private in torch, hence guarded; without native support bfloat16 is emulated and several times slower
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return device.type == "cpu" and any(getattr(torch.cpu, check, bool)() for check in checks)
