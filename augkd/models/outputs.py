"""What a classifier's outputs mean, as its configuration says it: the one place that writes it.

Whatever reads a saved folder (`pipeline`, an inference server, augkd itself) decides by the configuration whether
outputs become a softmax, sigmoids or a plain number, and what they are called. A configuration that came with the
weights describes the task they were trained for before, so it is overwritten with what was trained here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from augkd.data.target import Target

_FUNCTIONS = {"identity": "none"}  # transformers' name for an activation, where it differs from Target's


def head_settings(target: Target) -> dict[str, Any]:
    """The settings of a configuration that are about its outputs, in the order of the target's labels."""
    names = dict(enumerate(target.labels)) or {0: "LABEL_0"}
    return {
        "num_labels": target.outputs,
        "id2label": names,
        "label2id": {label: place for place, label in names.items()},
        "problem_type": target.problem_type,
    }


def record_thresholds(config: Any, target: Target) -> None:
    """Writes the thresholds of a target with several labels into a configuration, in place; no other has any."""
    if target.thresholds:
        config.thresholds = dict(zip(target.labels, target.thresholds, strict=True))


def describe_outputs(
    config: Any,
    target: Target,
    order: Sequence[int] | None = None,  # order[i] is the output for label i; None: output i is
) -> None:
    """Writes what the outputs mean into a configuration, in place."""
    order = range(target.outputs) if order is None else order
    names = target.labels or ("LABEL_0",)
    config.id2label = dict(sorted(zip(order, names, strict=True)))
    config.label2id = {label: place for place, label in config.id2label.items()}
    config.problem_type = target.problem_type
    config.function_to_apply = _FUNCTIONS.get(target.activation, target.activation)
