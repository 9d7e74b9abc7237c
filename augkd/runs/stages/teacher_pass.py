"""How a tutor labels texts: its logits, and in the same pass the layer vectors that a student will be compared with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from augkd.distill.teacher.outputs import CachedTeacher
from augkd.recipe.units import format_bytes
from augkd.runs.context import RunContext
from augkd.runs.layer_needs import stored_needs
from augkd.runs.stages.teacher import Tutor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from augkd.models.classifier import Pair

    Label = Callable[..., NDArray[np.float32]]  # (texts, progress) → (n, outputs)


def labelling(context: RunContext, tutor: Tutor) -> Label:
    """`tutor.outputs.logits`; where layers are matched and a model here labels, it also stores their vectors.

    A text that was labelled before, or on a cluster, gets its vectors when the student is trained.
    """
    outputs, needed = tutor.outputs, stored_needs(context.recipe)
    if needed is None or context.cluster is not None or not isinstance(outputs, CachedTeacher):
        return outputs.logits
    needs, shape = needed

    def announce(texts: int, size: int) -> None:
        context.progress(layers_title(size), 0, texts)

    def predict(parts: Sequence[list[Pair]]) -> Iterator[NDArray[np.float32]]:
        from augkd.distill.teacher.layer_store import LayerStore  # torch takes seconds to import

        store, length = context.folders.of("teacher_layers", "all"), context.recipe.training.max_length
        layers = LayerStore(lambda: tutor.model, needs, shape.width, store, tutor.fingerprint, length)
        return layers.logits(parts, announce)

    return partial(outputs.logits, predict=predict)


def layers_title(size: int) -> str:
    """What the writing of layer vectors is called where progress is shown."""
    return f"teacher layers ({format_bytes(size)})"
