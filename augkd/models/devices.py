"""What suits a device: how many tokens a forward pass takes, and whether it multiplies bfloat16 natively.

Every loop over rows uses these functions, so that two models that see the same rows group them alike.
"""

from __future__ import annotations

import torch

# Padded tokens per forward pass. On a CPU small groups of rows of similar length beat one padded batch, unless they are
# so small that two cores wait for each other: a step of 160 texts of 12 tokens took 159 ms at 1024, 152 at 2048 and 146
# at 4096 on one core, 223, 188 and 184 on two (processor time, two layers). A GPU needs to be filled.
TOKEN_BUDGETS = {"cpu": 2048, "cuda": 16384}


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
