"""The transformer layers of a classifier: where they are in any architecture, and a student made of some of them.

Such a student keeps the embeddings and the head of the fine-tuned teacher, with its outputs in the order of the task's
labels.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from augkd.errors import ModelError, first_line
from augkd.models.classifier import Classifier
from augkd.models.layer_map import layer_positions
from augkd.models.outputs import describe_outputs

_PER_LAYER = ("attention_window",)
_INSTEAD = "give student.model or student.scratch instead"


def from_layers(
    teacher: Classifier, layers: Sequence[int] | Mapping[Any, int], key: str = "student.layers"
) -> Classifier:
    """A student of the teacher's width made of its `layers`, with its embeddings and its head.

    `layers` are 0-based positions, or a rule and a number of layers, like {"uniform": 3} (the rules: `layer_map`).
    `key` is what messages call them. Raises ModelError when a layer does not exist, or cannot be taken alone.
    """
    model = model_of_layers(teacher.model, layers, key)
    state = _kept_weights(teacher.model, layer_positions(layers, len(layer_list(teacher.model)), key))
    model.load_state_dict(state)
    if teacher.order is not None:
        _reorder_head(model, teacher.order)
    describe_outputs(model.config, teacher.target)
    return replace(teacher, model=model.to(teacher.device), order=None, rows=Counter())


def model_of_layers(model: Any, layers: Sequence[int] | Mapping[Any, int], key: str = "student.layers") -> Any:
    """A new model of the architecture that has these layers of `model`, on its kind of device, before any weights.

    What is trained is thus exactly what the saved configuration builds again: settings that list one value per layer
    lose those of the layers left out. Raises ModelError where the weights of the layers do not fit the new model.
    """
    name = type(model).__name__
    positions = layer_positions(layers, len(layer_list(model)), key)
    config = copy.deepcopy(model.config)
    for key, values in model.config.to_dict().items():
        if _lists_layers(key, values, model.config.num_hidden_layers):
            setattr(config, key, [values[layer] for layer in positions])
    config.num_hidden_layers = len(positions)
    try:
        with torch.random.fork_rng(), torch.device(next(model.parameters()).device.type):
            student = type(model)(config)
    except Exception as exc:  # each configuration checks itself with exceptions of its own
        raise ModelError(f"{name} cannot be made of layers {positions}: {first_line(exc)}; {_INSTEAD}") from exc
    wanted = {key: value.shape for key, value in student.state_dict().items()}
    kept = {key: value.shape for key, value in _kept_weights(model, positions).items()}
    if different := sorted(key for key in {*wanted, *kept} if wanted.get(key) != kept.get(key)):
        raise ModelError(
            f"{name} cannot be made of layers {positions}, since the layers are not all alike ({different[0]}); "
            f"choose others, or {_INSTEAD}"
        )
    return student


def _lists_layers(key: str, values: Any, total: int) -> bool:
    """Whether a setting has one value per layer: `layer_types` of ModernBERT, `attention_window` of Longformer."""
    return isinstance(values, list) and len(values) == total and ("layer" in key or key in _PER_LAYER)


def _kept_weights(model: Any, positions: Sequence[int]) -> dict[str, torch.Tensor]:
    """The weights of a model without those of other layers, whose names have the new positions."""
    prefix = _layers_of(model)[2] + "."
    state = model.state_dict()
    kept = {key: value for key, value in state.items() if not key.startswith(prefix)}
    for place, layer in enumerate(positions):
        own = f"{prefix}{layer}."
        kept |= {f"{prefix}{place}.{key.removeprefix(own)}": state[key] for key in state if key.startswith(own)}
    return kept


def layer_list(model: nn.Module) -> nn.ModuleList:
    """The transformer layers of any encoder. Raises ModelError where there is no such list."""
    parent, attribute, _ = _layers_of(model)
    layers = getattr(parent, attribute)
    assert isinstance(layers, nn.ModuleList)
    return layers


def _layers_of(model: Any) -> tuple[nn.Module, str, str]:
    """The module that holds the layers, the name of the attribute, and its whole name in the model."""
    count, kind = model.config.num_hidden_layers, type(model).__name__
    if getattr(model.config, "is_encoder_decoder", False):
        raise ModelError(f"{kind} has an encoder and a decoder, so none of its layers can be taken; {_INSTEAD}")
    if hasattr(model.config, "num_hidden_groups"):
        raise ModelError(f"all layers of {kind} share their weights, so none of them can be taken; {_INSTEAD}")
    for name, module in model.named_modules():
        for attribute, child in module.named_children():
            if isinstance(child, nn.ModuleList) and len(child) == count:
                return module, attribute, f"{name}.{attribute}".lstrip(".")
    raise ModelError(f"{kind} has no list of {count} layers to choose from; {_INSTEAD}")


def _reorder_head(model: nn.Module, order: Sequence[int]) -> None:
    heads = [
        module for module in model.modules() if isinstance(module, nn.Linear) and module.out_features == len(order)
    ]
    with torch.no_grad():
        for table in (heads[-1].weight, heads[-1].bias):
            if table is not None:  # a decoder's head has no bias
                table.copy_(table[list(order)].clone())
