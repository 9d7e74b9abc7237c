"""What a model computes inside: pooled layer vectors, token states and attention scores, read during its forward pass.

`watched` listens to forward passes that the caller runs, so the loop over row groups stays the one of
`Classifier.logits` and gradients flow. Attention scores before the softmax are q·k/√d of the query and key
projections, because fused attention does not expose them.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from augkd.errors import ModelError
from augkd.models.classifier import Classifier
from augkd.models.devices import token_budget_of
from augkd.models.layers import layer_list
from augkd.models.tokens import RowGroups, Tokens

Pooling = Literal["cls", "mean"]

_PROJECTIONS = (("attention.self.query", "attention.self.key"), ("attention.q_lin", "attention.k_lin"))


@dataclass(frozen=True)
class Shape:
    """What intermediate-layer losses need to know of a model."""

    layers: int
    width: int
    heads: int

    @classmethod
    def of(cls, model: Any) -> Shape:
        """Read from a transformers model's configuration; raises ModelError for one without layers to match."""
        config = model.config
        if not all(hasattr(config, name) for name in ("num_hidden_layers", "hidden_size", "num_attention_heads")):
            raise ModelError(f"{type(model).__name__} has no transformer layers to match; leave out structure")
        if getattr(config, "is_encoder_decoder", False):
            raise ModelError(
                f"{type(model).__name__} has an encoder and a decoder, whose layers cannot be matched; "
                "leave out structure"
            )
        return cls(config.num_hidden_layers, config.hidden_size, config.num_attention_heads)


def check_pooling(model: Any, pooling: Pooling) -> None:
    """Raises ModelError for the first token's vector of a decoder: it has seen no other token."""
    kind = model.config.model_type
    if pooling == "cls" and kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and kind not in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        raise ModelError(
            f"the first token of a decoder like {type(model).__name__} sees no other token; set structure.pooling: mean"
        )


@dataclass(frozen=True)
class Needs:
    """The states that the losses use of one model: the smallest set of them."""

    layers: tuple[int, ...]  # pooled vectors of these layers (0-based, ascending); () for none
    pooling: Pooling
    tokens: bool  # the states of every token
    attention: tuple[int, ...]  # attention scores of these layers; () for none

    @property
    def live(self) -> bool:
        """Whether a store of vectors is not enough: token states and scores are too large to keep."""
        return self.tokens or bool(self.attention)


@dataclass(frozen=True)
class States:
    """The states of n rows in one forward pass, float32 or as computed."""

    vectors: Tensor | None = None  # (n, needed layers, d)
    tokens: tuple[Tensor, ...] = ()  # embeddings, then each layer: (n, t, d)
    scores: tuple[Tensor, ...] = ()  # each layer (n, heads, t, t), empty for a layer that is not needed
    mask: Tensor | None = None  # (n, t), 1 for real tokens


def pooled_layers(
    hidden_states: Sequence[Tensor],  # embeddings, then each layer: (n, t, d)
    attention_mask: Tensor,  # (n, t)
    layers: Sequence[int],
    pooling: Pooling,
) -> Tensor:  # (n, len(layers), d) float32
    """One vector per row for each of `layers` (0-based): the first token's, or the mean over real tokens."""
    states = [hidden_states[layer + 1] for layer in layers]
    if pooling == "cls":
        return torch.stack([state[:, 0].float() for state in states], dim=1)
    share = (attention_mask / attention_mask.sum(dim=1, keepdim=True)).float()
    return torch.stack([torch.einsum("nt,ntd->nd", share, state.float()) for state in states], dim=1)


@contextlib.contextmanager
def watched(model: Any, needs: Needs, receive: Callable[[States], None]) -> Iterator[None]:
    """While open, every forward pass of `model` passes the states that `needs` names to `receive`, with gradients.

    Raises ModelError when attention scores are needed of a model whose query and key projections are not known.
    """
    projected: dict[tuple[int, str], Tensor] = {}
    heads = model.config.num_attention_heads if needs.attention else 0

    def request_states(_: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return args, kwargs | {"output_hidden_states": bool(needs.layers or needs.tokens)}

    def read_states(_: nn.Module, args: Any, kwargs: dict[str, Any], outputs: Any) -> None:
        mask, states = kwargs["attention_mask"], outputs.hidden_states
        with torch.autocast(mask.device.type, enabled=False):  # means and products of bf16 outputs, in float32
            vectors = pooled_layers(states, mask, needs.layers, needs.pooling) if needs.layers else None
            scores = tuple(
                attention_scores(projected[layer, "query"], projected[layer, "key"], heads)
                if layer in needs.attention
                else torch.empty(0)
                for layer in range(model.config.num_hidden_layers if needs.attention else 0)
            )
        projected.clear()
        receive(States(vectors, tuple(states) if needs.tokens else (), scores, mask))

    def keep(layer: int, kind: str) -> Callable[[nn.Module, Any, Tensor], None]:
        return lambda _, __, output: projected.__setitem__((layer, kind), output)

    hooks = [
        projection.register_forward_hook(keep(layer, kind))
        for layer in needs.attention
        for kind, projection in zip(("query", "key"), query_and_key(model, layer), strict=True)
    ]
    hooks += [
        model.register_forward_pre_hook(request_states, with_kwargs=True),
        model.register_forward_hook(read_states, with_kwargs=True),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def attention_scores(query: Tensor, key: Tensor, heads: int) -> Tensor:  # (n, t, d), (n, t, d) → (n, heads, t, t)
    """q·k/√(d/heads): the input of attention's softmax, padding included."""
    query, key = (states.float().reshape(*states.shape[:2], heads, -1).transpose(1, 2) for states in (query, key))
    products = query @ key.transpose(-1, -2)
    return products / math.sqrt(query.shape[-1])


def query_and_key(model: nn.Module, layer: int) -> tuple[nn.Module, nn.Module]:
    """The query and key projections of one layer of BERT, RoBERTa, ELECTRA, MiniLM (a BERT) or DistilBERT.

    Raises ModelError for others: their scores have more terms than q·k, or the two are one matrix.
    """
    block = layer_list(model)[layer]
    names = {name for name, _ in block.named_modules()}
    absolute = getattr(model.config, "position_embedding_type", None) in (None, "absolute")
    for query, key in _PROJECTIONS:
        if {query, key} <= names and absolute:
            return block.get_submodule(query), block.get_submodule(key)
    raise ModelError(
        f"attention scores of {type(model).__name__} are not supported (of BERT, RoBERTa, ELECTRA, MiniLM and "
        "DistilBERT they are); leave out structure.attention"
    )


def token_layer_vectors(classifier: Classifier, tokens: Tokens, needs: Needs) -> Tensor:  # (n, layers, d) float32
    """The pooled vectors of tokenised rows, in eval mode; the previous mode is restored."""
    return logits_and_vectors(classifier, tokens, needs)[1]


@torch.no_grad()
def logits_and_vectors(
    classifier: Classifier, tokens: Tokens, needs: Needs
) -> tuple[Tensor, Tensor]:  # (n, outputs), (n, layers, d) float32
    """The logits that `Classifier.predict` gives, and the pooled vectors, in one pass over tokenised rows."""
    groups = RowGroups.of(tokens, token_budget_of(classifier.device), classifier.mixes)
    pieces: list[States] = []
    training = classifier.model.training
    classifier.model.eval()
    with watched(classifier.model, needs, pieces.append):
        logits = classifier.logits(tokens, "teacher layers", groups=groups)
    classifier.model.train(training)
    vectors = groups.restore([states.vectors for states in pieces if states.vectors is not None])
    return logits.cpu(), vectors.cpu()
