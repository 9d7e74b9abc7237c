"""What suits a device: how many tokens a forward pass takes, and whether it multiplies bfloat16 natively.

Every loop over rows uses these functions, so that two models that see the same rows group them alike.
"""

from __future__ import annotations

import torch

# Padded tokens per forward pass. On a CPU small groups of rows of similar length beat one padded batch: a step of 160
# TREC questions took 0.65 s at 1024, 0.66 s at 2048, 1.44 s at 8192 (one core, two layers). A GPU needs to be filled.
TOKEN_BUDGETS = {"cpu": 1024, "cuda": 16384}


def token_budget_of(device: torch.device, given: int | None = None) -> int:
    """Padded tokens per forward pass: `given`, or what suits the device."""
    return given or TOKEN_BUDGETS.get(device.type, TOKEN_BUDGETS["cpu"])


def uses_bf16(precision: str, device: torch.device) -> bool:
    """Whether to compute in bf16; `auto` means where the hardware multiplies it natively."""
    if precision != "auto":
        return precision == "bfloat16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # private in torch, hence guarded; without native support bfloat16 is emulated and several times slower
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return device.type == "cpu" and any(getattr(torch.cpu, check, bool)() for check in checks)
