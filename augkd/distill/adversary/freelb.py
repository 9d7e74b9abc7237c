"""FreeLB: training on adversarially perturbed word embeddings (Zhu et al., ICLR 2020).

A batch is forwarded and backpropagated `steps` times; between two passes each text's perturbation δ takes a step of
gradient ascent on the loss. The parameters get the mean gradient of all passes, which share one dropout mask. A hook
adds δ to the output of the word embedding, before positions and LayerNorm; there is one δ per row group of the pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from augkd.errors import ModelError
from augkd.models.seeds import RowRandom
from augkd.models.tokens import RowGroups, Tokens


def freelb(
    loss: Callable[[], Tensor],  # one forward pass over `tokens` in `groups`, in train mode, and its loss ()
    backward: Callable[[Tensor], Any],  # e.g. accelerator.backward
    model: nn.Module,
    tokens: Tokens,
    groups: RowGroups,  # of `tokens`
    owner: Tensor,  # (n,) the original that each row belongs to
    rng: RowRandom,  # of the originals
    *,
    steps: Annotated[int, ">= 1"] = 3,
    step_size: Annotated[float, "> 0"] = 0.1,
    magnitude: Annotated[float, ">= 0"] = 0.1,
    radius: Annotated[float, ">= 0"] = 0.0,
) -> Tensor:  # () mean loss of the passes, with the graph of the last one
    """The loss of `steps` passes, each under a more adverse perturbation; all but the last are backpropagated here.

    The caller backpropagates the result, as it would a plain loss: the parameters' gradients are then the mean over
    all passes. `magnitude` is the size of the first perturbation (0: none, the first pass is clean), `step_size` the
    length of an ascent step, `radius` the largest L2 norm of a text's perturbation (0: no bound). With `steps` 1 and
    `magnitude` 0 this is plain training. Raises ModelError for a model that does not embed its input exactly once per
    forward pass.
    """
    device = next(model.parameters()).device
    masks = [tokens.mask(rows).to(device) for rows in groups]
    noise = _noise(tokens, owner, _width(model), magnitude, rng)
    deltas = [bounded(_padded(noise, tokens, rows).to(device), radius).requires_grad_() for rows in groups]
    dropout = _dropout_state(device)
    total = torch.zeros((), device=device)
    for _ in range(steps - 1):
        with added_to_embeddings(model, deltas):
            value = loss() / steps
        backward(value)
        total += value.detach()
        deltas = [
            perturb(delta, _gradient(delta) * mask[..., None], step_size=step_size, radius=radius).requires_grad_()
            for delta, mask in zip(deltas, masks, strict=True)
        ]
        _restore(dropout, device)
    with added_to_embeddings(model, deltas):
        return total + loss() / steps


def perturb(
    delta: Tensor,  # (n, length, width), 0 where padded
    gradient: Tensor,  # (n, length, width) of the loss with respect to delta, 0 where padded
    *,
    step_size: float,
    radius: float = 0.0,
) -> Tensor:  # (n, length, width)
    """One ascent step of `step_size` along each text's own gradient, then back into the ball of `radius` (0: none)."""
    delta = delta.detach()
    # the direction alone counts, so dividing the loss by batch, steps or scale changes nothing; no gradient: no step
    direction = gradient / _norm(gradient).clamp_min(torch.finfo(gradient.dtype).tiny)
    return bounded(delta + step_size * direction, radius)


def bounded(delta: Tensor, radius: float) -> Tensor:
    """Each text's perturbation scaled down to an L2 norm of at most `radius` (0: unchanged)."""
    if radius == 0:
        return delta
    return delta * (radius / _norm(delta).clamp_min(torch.finfo(delta.dtype).tiny)).clamp_max(1)


@contextmanager
def added_to_embeddings(model: nn.Module, deltas: Sequence[Tensor]) -> Iterator[None]:
    """While open, the i-th forward pass of `model` has `deltas[i]` (rows, length, width) added to its word embeddings.

    Raises ModelError when the passes do not match `deltas` in number and shape.
    """
    waiting = list(reversed(deltas))

    def add(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        if not waiting or waiting[-1].shape != output.shape:
            raise _not_once(model)
        return output + waiting.pop().to(output.dtype)

    handle = _word_embedding(model).register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()
    if waiting:
        raise _not_once(model)


def _not_once(model: nn.Module) -> ModelError:
    return ModelError(
        f"freelb needs a model that embeds its input once per forward pass; {type(model).__name__} does not"
    )


def _word_embedding(model: Any) -> nn.Module:
    embedding = getattr(model, "module", model).get_input_embeddings()
    assert isinstance(embedding, nn.Module)
    return embedding


def _width(model: nn.Module) -> int:
    return int(next(_word_embedding(model).parameters()).shape[-1])


def _noise(tokens: Tokens, owner: Tensor, width: int, magnitude: float, rng: RowRandom) -> Tensor:  # (tokens, width)
    """U(-1, 1)·magnitude/√(length·width), drawn for each original, so that it depends on no grouping and no batch."""
    if magnitude == 0:
        return torch.zeros(len(tokens.ids), width)
    noise = rng.uniform(torch.repeat_interleave(owner, tokens.lengths), width) * 2 - 1
    lengths = torch.repeat_interleave(tokens.lengths, tokens.lengths)
    return noise * (magnitude / (lengths * width).sqrt())[:, None]


def _padded(values: Tensor, tokens: Tokens, rows: Tensor) -> Tensor:  # (rows, length, width)
    mask = tokens.mask(rows)
    positions = (tokens.offsets[rows][:, None] + torch.arange(mask.shape[1]))[mask]
    padded = torch.zeros(*mask.shape, values.shape[-1], device=values.device)
    padded[mask.to(values.device)] = values[positions.to(values.device)]
    return padded


def _norm(delta: Tensor) -> Tensor:  # (n, 1, …)
    norm: Tensor = torch.linalg.vector_norm(delta, dim=tuple(range(1, delta.ndim)), keepdim=True)
    return norm


def _gradient(delta: Tensor) -> Tensor:
    assert delta.grad is not None, "the loss does not depend on the perturbation: was it forwarded without gradients?"
    return delta.grad


def _dropout_state(device: torch.device) -> list[Tensor]:
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


def _restore(states: list[Tensor], device: torch.device) -> None:
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)
