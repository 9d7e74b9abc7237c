"""A teacher whose forward passes are shared out among the workers of a Ray cluster.

The store stays here, and with it the rule that each distinct text is forwarded once: what is missing is cut into the
parts that one machine would compute, each of which one worker gets whole, so its logits are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from augkd.data.target import Target
from augkd.models.cluster import Cluster
from augkd.models.shipped_files import ShippedFolder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from augkd.models.classifier import Pair


@dataclass(frozen=True)
class TeacherFiles:
    """A classifier on disk, and how it is loaded."""

    folder: Path
    target: Target
    max_length: int
    output_names: tuple[str, ...] | None  # None: the classifier knows them
    precision: str


def predict_on(
    cluster: Cluster, teacher: TeacherFiles, parts: Sequence[list[Pair]]
) -> Iterator[NDArray[np.float32]]:  # each (texts, outputs)
    """The logits of each part, in order."""
    shipped = cluster.ship_model(teacher.folder)
    yield from cluster.pool(make_predict, shipped, teacher, cluster.threads).ordered(parts)


def make_predict(
    folder: ShippedFolder, teacher: TeacherFiles, threads: int
) -> Callable[[list[Pair]], NDArray[np.float32]]:
    """On a worker: a function from texts to the teacher's logits."""
    import numpy as np
    import torch

    from augkd.models.classifier import load_classifier

    torch.set_num_threads(threads)
    names = teacher.output_names
    model = load_classifier(str(folder.open()), teacher.target, teacher.max_length, names, teacher.precision)

    def predict(texts: list[Pair]) -> NDArray[np.float32]:
        return np.asarray(model.predict(texts, "teacher").numpy(), dtype=np.float32)

    return predict
