"""Attention of short texts on a CPU: two products around a softmax where gradients are needed, SDPA elsewhere.

PyTorch's fused attention for the CPU saves the memory of the attention weights, which short texts do not need, and pays
with a slow backward pass: of 1,024 tokens in bf16 it took 1.9 times as long as the products in texts of 12 tokens, 1.75
times at 28, 1.9 times at 64 and 1.6 times at 128 (one AVX-512 core; on another machine it took half of all time).
Without gradients it is as fast at 12 to 64 tokens and 1.2 to 2 times as fast at 128 to 512, so it stays in use there.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from augkd.models.dropout import dropout as drop

_NAME = "augkd"  # in the models' configurations while they are in memory; no saved folder has it
_VECTOR = 16  # softmax over fewer columns is not vectorised: of 12 it takes 9 times as long as of 16


def use_short_text_attention(model: Any) -> None:
    """Lets a model that uses SDPA choose in each pass; others (no SDPA, or a choice of the user's) are left alone."""
    if getattr(model.config, "_attn_implementation", None) != "sdpa" or not model._can_set_attn_implementation():
        return
    AttentionInterface.register(_NAME, attention)
    AttentionMaskInterface.register(_NAME, sdpa_mask)
    model.set_attn_implementation(_NAME)


def attention(
    module: nn.Module,
    query: Tensor,  # (n, heads, tokens, d)
    key: Tensor,  # (n, heads, tokens, d)
    value: Tensor,  # (n, heads, tokens, d)
    attention_mask: Tensor | None,  # (n or 1, 1, tokens, tokens): True or 0 where seen; None: all of them
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:  # (n, tokens, heads, d)
    """Softmax attention; no attention weights are returned, as with SDPA."""
    if not _suits(module, query, key, kwargs):
        return sdpa_attention_forward(  # type: ignore[no-any-return]
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    mixed = products(query * scale, key, value, attention_mask, dropout)
    return mixed.transpose(1, 2).contiguous(), None


def products(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
    """softmax(query·keyᵀ + mask)·value, with the softmax in float32 and dropout on its weights."""
    tokens = key.shape[2]
    if tokens < _VECTOR:
        unused = (0, 0, 0, _VECTOR - tokens)
        key, value = nn.functional.pad(key, unused), nn.functional.pad(value, unused)
        if mask is None:
            mask = torch.ones(1, 1, 1, tokens, dtype=torch.bool)
        hidden = False if mask.dtype == torch.bool else -torch.inf
        mask = nn.functional.pad(mask, unused[2:], value=hidden)
    scores = query @ key.transpose(2, 3)
    if mask is not None and mask.dtype == torch.bool:
        mask = torch.zeros(mask.shape, dtype=scores.dtype).masked_fill_(~mask, torch.finfo(scores.dtype).min)
    if mask is not None:
        scores = scores + mask
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(value.dtype)
    return drop(weights, dropout) @ value


def _suits(module: nn.Module, query: Tensor, key: Tensor, options: dict[str, Any]) -> bool:
    """Whether this is plain attention of every token to every token, with gradients, on a CPU."""
    plain = not any(option is not None and option is not False for option in _deciding(options))
    causal = options.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    same_heads = query.shape[1] == key.shape[1]
    return query.requires_grad and query.device.type == "cpu" and plain and not causal and same_heads


def _deciding(options: dict[str, Any]) -> list[Any]:
    """The options that change what attention computes."""
    return [options.get(name) for name in ("position_bias", "cache", "softcap", "sliding_window", "s_aux")]
