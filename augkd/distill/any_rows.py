"""Rows of anything that is tensors, and a model's outputs for them, so that `any_module` need not know the data.

A model's inputs are one tensor, several, or named ones; its outputs are logits or an object that has `.logits`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, default_collate

from augkd.data.target import NO_CLASS
from augkd.errors import DataError

Inputs = Tensor | tuple[Tensor, ...] | Mapping[str, Tensor]  # each (n, …): one, several, or named arguments


@dataclass(frozen=True)
class Rows:
    """Rows to train on: what the models see, the teacher's logits (nan without a teacher) and the labels."""

    inputs: Inputs
    targets: Tensor  # (n, outputs)
    labels: Tensor  # (n,)

    def __len__(self) -> int:
        return len(self.targets)

    def check(self) -> None:
        """Raises DataError when the parts differ in number or a label is no class."""
        counts = {"inputs": count(self.inputs), "teacher logits": len(self.targets), "labels": len(self.labels)}
        if len(set(counts.values())) > 1:
            parts = ", ".join(f"{number} {name}" for name, number in counts.items())
            raise DataError(f"inputs, teacher logits and labels differ in number: {parts}")
        if self.labels.is_floating_point():
            return
        outputs = self.targets.shape[1]
        unknown = self.labels[(self.labels != NO_CLASS) & ((self.labels < 0) | (self.labels >= outputs))]
        if len(unknown):
            raise DataError(f"label {int(unknown[0])} is no class of a model with {outputs} outputs")


@torch.no_grad()
def logits_of(
    model: nn.Module, inputs: Inputs, batch_size: int = 256, device: torch.device | str | None = None
) -> Tensor:  # (n, outputs) float32
    """The model's outputs in eval mode, on the CPU; the previous mode of each submodule is restored."""
    device = torch.device(device) if device is not None else device_of(model)
    modes = [(module, module.training) for module in model.modules()]
    model.to(device).eval()
    pieces = [
        forward(model, take(inputs, rows, device)).float().cpu()
        for rows in torch.split(torch.arange(count(inputs)), batch_size)
    ]
    for module, training in modes:
        module.training = training
    return torch.cat(pieces)


def stacked(dataset: Dataset[tuple[Any, Any]]) -> tuple[Inputs, Tensor]:
    """The inputs and labels of a dataset of (input, label), in memory."""
    rows = [dataset[position] for position in range(len(dataset))]  # type: ignore[arg-type]
    inputs, labels = default_collate(rows)
    return tuple(inputs) if isinstance(inputs, list) else inputs, labels


def forward(model: nn.Module, inputs: Inputs) -> Tensor:  # (n, outputs)
    """The logits of `inputs`, passed as one argument, as several, or by name."""
    if isinstance(inputs, Tensor):
        output = model(inputs)
    elif isinstance(inputs, tuple):
        output = model(*inputs)
    else:
        output = model(**inputs)
    logits = output if isinstance(output, Tensor) else output.logits
    return logits[:, None] if logits.dim() == 1 else logits


def take(inputs: Inputs, rows: Tensor, device: torch.device) -> Inputs:
    """The given rows, on `device`."""
    if isinstance(inputs, Tensor):
        return inputs[rows.to(inputs.device)].to(device)
    if isinstance(inputs, tuple):
        return tuple(value[rows.to(value.device)].to(device) for value in inputs)
    return {name: value[rows.to(value.device)].to(device) for name, value in inputs.items()}


def count(inputs: Inputs) -> int:
    """The number of rows."""
    if isinstance(inputs, Tensor):
        return len(inputs)
    return len(next(iter(inputs.values() if isinstance(inputs, Mapping) else inputs)))


def device_of(model: nn.Module) -> torch.device:
    """The device of the model's parameters."""
    return next(model.parameters()).device
