"""The transformer layers of a classifier: where they are in any architecture, and a student made of some of them.

Such a student keeps the embeddings and the head of the fine-tuned teacher, with its outputs in the order of the task's
labels.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from augkd.errors import ModelError
from augkd.models.classifier import Classifier
from augkd.models.layer_map import layer_map


def from_layers(teacher: Classifier, layers: Sequence[int] | Mapping[Any, int]) -> Classifier:
    """A student of the teacher's width made of its `layers`, with its embeddings and its head.

    `layers` are 0-based positions, or a rule and a number of layers, like {"uniform": 3} (the rules: `layer_map`).
    Raises ModelError when a layer does not exist.
    """
    total = len(layer_list(teacher.model))
    if isinstance(layers, Mapping):
        if len(layers) != 1:
            raise ModelError(
                f"student.layers is {dict(layers)}; give one rule, like {{uniform: 2}}, or a list of positions"
            )
        ((rule, count),) = layers.items()
        layers = layer_map(rule, total, count)
    unknown = [layer for layer in layers if not 0 <= layer < total]
    if unknown or not layers:
        raise ModelError(f"student.layers is {list(layers)}; the teacher has layers 0 to {total - 1}")
    model = copy.deepcopy(teacher.model)
    parent, attribute = _layers_of(model)
    kept = nn.ModuleList([getattr(parent, attribute)[layer] for layer in layers])
    setattr(parent, attribute, kept)
    model.config.num_hidden_layers = len(layers)
    if teacher.order is not None:
        _reorder_head(model, teacher.order)
    _name_labels(model, teacher.labels)
    return Classifier(model, teacher.tokenizer, teacher.labels, teacher.max_length, precision=teacher.precision)


def layer_list(model: nn.Module) -> nn.ModuleList:
    """The transformer layers of any encoder. Raises ModelError where there is no such list."""
    parent, attribute = _layers_of(model)
    layers = getattr(parent, attribute)
    assert isinstance(layers, nn.ModuleList)
    return layers


def _layers_of(model: Any) -> tuple[nn.Module, str]:
    """The module that holds the layers, and the name of the attribute."""
    count = model.config.num_hidden_layers
    for module in model.modules():
        for attribute, child in module.named_children():
            if isinstance(child, nn.ModuleList) and len(child) == count:
                return module, attribute
    raise ModelError(f"{type(model).__name__} has no list of {count} layers to choose from; give student.model instead")


def _reorder_head(model: nn.Module, order: Sequence[int]) -> None:
    heads = [
        module for module in model.modules() if isinstance(module, nn.Linear) and module.out_features == len(order)
    ]
    with torch.no_grad():
        heads[-1].weight.copy_(heads[-1].weight[list(order)].clone())
        heads[-1].bias.copy_(heads[-1].bias[list(order)].clone())


def _name_labels(model: Any, labels: Sequence[str]) -> None:
    if labels:
        model.config.id2label = dict(enumerate(labels))
        model.config.label2id = {label: place for place, label in enumerate(labels)}
