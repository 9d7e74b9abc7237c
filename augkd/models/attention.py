"""Attention of short texts on a CPU: two products around a softmax where gradients are needed, padded SDPA elsewhere.

PyTorch's fused attention for the CPU saves the memory of the attention weights, which short texts do not need, and pays
with a slow backward pass: of 1,024 tokens in bf16 it took 1.9 times as long as the products in texts of 12 tokens, 1.75
times at 28, 1.9 times at 64 and 1.6 times at 128 (one AVX-512 core; on another machine it took half of all time).
Without gradients it stays in use, over a multiple of 16 keys: 12 tokens took 2.2 times as long as 12 and 4 hidden ones,
28 1.8 times, 44 1.7 times, 20 as long (bf16, AMX; from 32 tokens on the products are slower). In float32, where 12
tokens gain and 20 lose, it is plain SDPA to the bit.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from augkd.models.dropout import dropout as drop
from augkd.models.packing import ATTENTION, Packing

_VECTOR = 16  # softmax over fewer columns is not vectorised, nor are SDPA's last columns beyond a multiple of this


def use_short_text_attention(model: Any) -> None:
    """Lets a model that uses SDPA choose in each pass; others (no SDPA, or a choice of the user's) are left alone."""
    if getattr(model.config, "_attn_implementation", None) != "sdpa" or not model._can_set_attn_implementation():
        return
    AttentionInterface.register(ATTENTION, attention)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)
    model.set_attn_implementation(ATTENTION)


def attention(
    module: nn.Module,
    query: Tensor,  # (n, heads, tokens, d)
    key: Tensor,  # (n, heads, tokens, d)
    value: Tensor,  # (n, heads, tokens, d)
    attention_mask: Tensor | Packing | None,  # (n or 1, 1, tokens, tokens): True or 0 where seen; None: all of them
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:  # (n, tokens, heads, d)
    """Softmax attention; no attention weights are returned, as with SDPA. Packed texts are padded within."""
    if isinstance(attention_mask, Packing):
        query, key, value = (_padded_heads(states, attention_mask) for states in (query, key, value))
        mixed, _ = attention(module, query, key, value, attention_mask.mask, dropout, scaling, **kwargs)
        return attention_mask.pack(mixed.flatten(2)).view(1, -1, *mixed.shape[2:]), None
    suits = _suits(module, query, key, kwargs)
    if not suits or not query.requires_grad:
        if suits and key.dtype.itemsize < 4:
            key, value, attention_mask = _with_hidden_keys(key, value, attention_mask, -key.shape[2] % _VECTOR)
        return sdpa_attention_forward(  # type: ignore[no-any-return]
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    mixed = products(query * scale, key, value, attention_mask, dropout)
    return mixed.transpose(1, 2).contiguous(), None


def products(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
    """softmax(query·keyᵀ + mask)·value, with the softmax in float32 and dropout on its weights."""
    key, value, mask = _with_hidden_keys(key, value, mask, max(0, _VECTOR - key.shape[2]))
    scores = query @ key.transpose(2, 3)
    if mask is not None and mask.dtype == torch.bool:
        mask = torch.zeros(mask.shape, dtype=scores.dtype).masked_fill_(~mask, torch.finfo(scores.dtype).min)
    if mask is not None:
        scores = scores + mask
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(value.dtype)
    return drop(weights, dropout) @ value


def _padded_heads(states: Tensor, packing: Packing) -> Tensor:  # (1, heads, m, d) → (n, heads, tokens, d)
    padded = packing.pad(states.transpose(1, 2).flatten(2))
    return padded.view(*packing.shape, states.shape[1], -1).transpose(1, 2)


def _with_hidden_keys(
    key: Tensor, value: Tensor, mask: Tensor | None, count: int
) -> tuple[Tensor, Tensor, Tensor | None]:
    """`count` more keys and values, of zeros, which the mask hides."""
    if count == 0:
        return key, value, mask
    if mask is None:
        mask = torch.ones(1, 1, 1, key.shape[2], dtype=torch.bool)
    hidden = False if mask.dtype == torch.bool else -torch.inf
    more = (0, 0, 0, count)
    return nn.functional.pad(key, more), nn.functional.pad(value, more), nn.functional.pad(mask, more[2:], value=hidden)


def _suits(module: nn.Module, query: Tensor, key: Tensor, options: dict[str, Any]) -> bool:
    """Whether this is plain attention of every token to every token, on a CPU."""
    plain = not any(option is not None and option is not False for option in _deciding(options))
    causal = options.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    same_heads = query.shape[1] == key.shape[1]
    return query.device.type == "cpu" and plain and not causal and same_heads


def _deciding(options: dict[str, Any]) -> list[Any]:
    """The options that change what attention computes."""
    return [options.get(name) for name in ("position_bias", "cache", "softcap", "sliding_window", "s_aux")]
