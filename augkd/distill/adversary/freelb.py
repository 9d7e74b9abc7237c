"""FreeLB: training under an adversary that moves the word embeddings (Zhu et al., ICLR 2020).

A batch is forwarded and backpropagated `steps` times; between two passes each text's perturbation δ climbs the loss.
The parameters get the mean gradient of all passes, which see the same dropout mask. A hook adds δ to what the word
embedding gives, before positions and LayerNorm; δ is held per group of rows as `distill.models.run` forwards them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from augkd.errors import ModelError
from augkd.models.devices import budget_of
from augkd.models.tokens import Tokens


def freelb(
    forward: Callable[[], Tensor],  # one pass of `run` over `tokens` in train mode, and its loss ()
    backward: Callable[[Tensor], Any],  # e.g. accelerator.backward
    model: nn.Module,
    tokens: Tokens,
    rng: torch.Generator,
    budget: int | None = None,  # padded tokens a group, as given to `run`
    *,
    steps: Annotated[int, ">= 1"] = 3,
    step_size: Annotated[float, "> 0"] = 0.1,
    magnitude: Annotated[float, ">= 0"] = 0.1,
    radius: Annotated[float, ">= 0"] = 0.0,
) -> Tensor:  # () mean loss of the passes, without a graph
    """Leaves in the parameters' gradients the mean over `steps` passes, each at a more adverse perturbation.

    `magnitude` is the size of the first perturbation (0: none, so that the first pass is the clean one), `radius` the
    largest L2 norm of a text's (0: no bound), `step_size` the length of a step uphill. With `steps` 1 and `magnitude` 0
    this is plain training. Raises ModelError for a model that does not embed its input exactly once a forward pass.
    """
    device = next(model.parameters()).device
    groups = list(tokens.batches(budget_of(device, budget)))
    embedding = _word_embedding(model)
    masks = [_mask(tokens.lengths[rows]).to(device) for rows in groups]
    noise = _noise(tokens, _width(embedding), magnitude, rng)
    deltas = [bounded(_padded(noise, tokens, rows).to(device), radius).requires_grad_() for rows in groups]
    dropout = _dropout_state(device)
    total = torch.zeros((), device=device)
    for number in range(steps):
        if number:
            _restore(dropout, device)
            deltas = [
                perturb(delta, _gradient(delta) * mask[..., None], step_size=step_size, radius=radius).requires_grad_()
                for delta, mask in zip(deltas, masks, strict=True)
            ]
        with added(model, deltas):
            loss = forward() / steps
        backward(loss)
        total += loss.detach()
    return total


def perturb(
    delta: Tensor,  # (n, length, width), 0 where padded
    gradient: Tensor,  # (n, length, width) of the loss by delta, 0 where padded
    *,
    step_size: float,
    radius: float = 0.0,
) -> Tensor:  # (n, length, width)
    """One step of `step_size` up each text's own gradient, then back into the ball of `radius` (0: no bound)."""
    delta = delta.detach()
    # only the direction counts, so a loss divided by batch, steps or scale climbs alike; no gradient: no step
    direction = gradient / _norm(gradient).clamp_min(torch.finfo(gradient.dtype).tiny)
    return bounded(delta + step_size * direction, radius)


def bounded(delta: Tensor, radius: float) -> Tensor:
    """Each text's perturbation scaled down to an L2 norm of at most `radius` (0: as it is)."""
    if radius == 0:
        return delta
    return delta * (radius / _norm(delta).clamp_min(torch.finfo(delta.dtype).tiny)).clamp_max(1)


@contextmanager
def added(model: nn.Module, deltas: Sequence[Tensor]) -> Iterator[None]:
    """Within it, the i-th forward pass of `model` has `deltas[i]` (rows, length, width) added to its word embeddings.

    Raises ModelError when the passes are not these, in number and in shape.
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
        f"freelb needs a model that embeds its input once a forward pass; {type(model).__name__} does not"
    )


def _word_embedding(model: Any) -> nn.Module:
    embedding = getattr(model, "module", model).get_input_embeddings()
    assert isinstance(embedding, nn.Module)
    return embedding


def _width(embedding: nn.Module) -> int:
    return int(next(embedding.parameters()).shape[-1])


def _noise(tokens: Tokens, width: int, magnitude: float, rng: torch.Generator) -> Tensor:  # (tokens, width)
    """U(-1, 1)·magnitude/√(length·width), row after row, so that it does not depend on the grouping."""
    if magnitude == 0:
        return torch.zeros(len(tokens.ids), width)
    noise = torch.rand(len(tokens.ids), width, generator=rng, device=rng.device) * 2 - 1
    lengths = torch.repeat_interleave(tokens.lengths, tokens.lengths).to(noise.device)
    return noise * (magnitude / (lengths * width).sqrt())[:, None]


def _padded(values: Tensor, tokens: Tokens, rows: Tensor) -> Tensor:  # (rows, length, width)
    mask = _mask(tokens.lengths[rows])
    places = (tokens.offsets[rows][:, None] + torch.arange(mask.shape[1]))[mask]
    padded = torch.zeros(*mask.shape, values.shape[-1], device=values.device)
    padded[mask.to(values.device)] = values[places.to(values.device)]
    return padded


def _mask(lengths: Tensor) -> Tensor:  # (rows, length)
    return torch.arange(int(lengths.max())) < lengths[:, None]


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
