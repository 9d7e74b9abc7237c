"""What a checkpoint holds besides the files of `transformers`: the state of each stateful part, and the rows counted.

A part (the selection, the projections, the generator) is one file. The marker is written last, so a checkpoint that was
cut off by a kill has none and is not resumed from.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from safetensors.torch import load_file, save_file
from torch import Tensor

from augkd.workspace.checkpoints import check_checkpoint, mark_whole


class Stateful(Protocol):
    """A part of a training that learns or remembers something besides the student; in several processes, in each."""

    def state(self) -> Mapping[str, Tensor]:
        """Its tensors by name, of all processes together; none when there is nothing to keep."""

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continues from `state`."""


def add_state(checkpoint: Path, states: Mapping[str, Mapping[str, Tensor]], rows: Mapping[str, int]) -> None:
    """Adds the state of each part to a checkpoint, then the marker with the rows forwarded so far, by purpose."""
    for name, state in states.items():
        if state:
            save_file(dict(state), checkpoint / f"{name}.safetensors")
    mark_whole(checkpoint, {"rows": dict(rows)})


def load_state(checkpoint: Path, parts: Mapping[str, Stateful]) -> dict[str, int]:
    """Restores each part from a checkpoint; returns the rows forwarded before it, by purpose.

    Raises WorkspaceError, which names the file, when one of the checkpoint's files is damaged.
    """
    facts = check_checkpoint(checkpoint)
    for name, part in parts.items():
        if part.state():
            part.load_state(read_state(checkpoint, name))
    return dict(facts["rows"])


def read_state(checkpoint: Path, name: str) -> dict[str, Tensor]:
    """The tensors of one part."""
    return dict(load_file(checkpoint / f"{name}.safetensors"))
