"""Forward passes without padding: between embeddings and head, the tokens of a group are one long row.

Padding is half as much again as the tokens of a training step (a text and its neighbours, 13.5 tokens on average), and
every layer but attention works on each token alone. So a hook before the first layer packs the tokens, a hook after the
last pads them again, and attention, which is the smaller part, pads within. Embeddings, head and whoever watches the
model see padded states as ever.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

ATTENTION = "augkd"  # the attention that knows what to do with a packing in place of a mask
_KINDS = ("bert", "camembert", "distilbert", "electra", "roberta", "xlm-roberta")  # layers of tokens and attention
_MULTIPLE = 64  # of the packed tokens: few different shapes, for each of which oneDNN generates code
_WORTH = 0.9  # share of the padded tokens above which packing gains nothing


class Packing:
    """Where the tokens of n texts padded to length t are in one row of m tokens, the last of which may be fillers.

    In the layers it takes the place of the attention mask.
    """

    def __init__(self, mask: Tensor):
        """`mask` (n, 1, 1 or t, t) is what the model made for attention: True where a token is seen."""
        self.mask = mask
        seen = mask[:, 0, 0]
        self.shape = seen.shape
        self.places = seen.flatten().nonzero().flatten()  # (tokens,) in the padded texts
        self.length = -(-len(self.places) // _MULTIPLE) * _MULTIPLE
        self.source = (seen.flatten().cumsum(0) - 1).clamp_min_(0)  # (n · t,) in the packed row; of padding: any

    @property
    def is_worth_it(self) -> bool:
        """Whether it leaves enough out to pay for the packing."""
        return self.length < _WORTH * self.shape.numel()

    def pack(self, padded: Tensor) -> Tensor:  # (n, t, d) → (1, m, d)
        """The tokens alone."""
        packed: Tensor = _Pack.apply(padded.reshape(-1, padded.shape[2]), self)  # type: ignore[no-untyped-call]
        return packed[None]

    def pad(self, packed: Tensor) -> Tensor:  # (1, m, d) → (n, t, d)
        """The texts padded again, with any token's values where there is none."""
        padded: Tensor = _Pad.apply(packed[0], self)  # type: ignore[no-untyped-call]
        return padded.view(*self.shape, -1)

    def gathered(self, padded: Tensor) -> Tensor:  # (n · t, d) → (m, d)
        """The tokens of padded texts, then fillers of 0."""
        packed = padded.new_zeros(self.length, padded.shape[1])
        torch.index_select(padded, 0, self.places, out=packed[: len(self.places)])
        return packed


class _Pack(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, padded: Tensor, packing: Packing) -> Tensor:
        ctx.packing = packing
        return packing.gathered(padded)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        places = ctx.packing.places
        padded = gradients[0].new_zeros(ctx.packing.shape.numel(), gradients[0].shape[1])
        return padded.index_copy_(0, places, gradients[0][: len(places)]), None


class _Pad(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, packed: Tensor, packing: Packing) -> Tensor:
        ctx.packing = packing
        return packed.index_select(0, packing.source)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.packing.gathered(gradients[0]), None


@contextmanager
def packed(model: Any) -> Iterator[None]:
    """While open, forward passes of `model` on a CPU leave padding out of its layers, where that pays.

    Models whose layers are not known to treat tokens alone are not changed.
    """
    encoder = _encoder(model)
    if encoder is None:
        yield
        return
    current: list[Packing] = []

    def pack(_: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        current.clear()
        mask = kwargs["attention_mask"]
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool or not (packing := Packing(mask)).is_worth_it:
            return args, kwargs
        current.append(packing)
        states = args[0] if args else kwargs.pop("hidden_states")
        return (packing.pack(states), *args[1:]), kwargs | {"attention_mask": packing}

    def pad(_: nn.Module, __: Any, outputs: Any) -> None:
        if current:
            outputs.last_hidden_state = current[0].pad(outputs.last_hidden_state)

    def pad_layers(_: nn.Module, __: Any, outputs: Any) -> None:
        if current and outputs.hidden_states is not None:  # the last one is the encoder's, padded already
            *inner, last = outputs.hidden_states
            outputs.hidden_states = (*map(current[0].pad, inner), last)

    hooks = [
        encoder.register_forward_pre_hook(pack, with_kwargs=True),
        encoder.register_forward_hook(pad),
        model.base_model.register_forward_hook(pad_layers),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _encoder(model: Any) -> nn.Module | None:
    """The module that runs the layers, where they pack: known layers, whose attention is augkd's, on a CPU."""
    config = model.config
    if config.model_type not in _KINDS or config._attn_implementation != ATTENTION or model.device.type != "cpu":
        return None
    encoder: nn.Module = model.base_model.transformer if config.model_type == "distilbert" else model.base_model.encoder
    return encoder
