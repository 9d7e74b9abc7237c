"""What a checkpoint holds besides transformers' own: scores, trace, projections, generator, rows counted so far.

The mark is written last, so a checkpoint that a kill cut off has none and is not gone on from.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from augkd.workspace.files import write_json

_COMPLETE = "augkd.json"
State = Mapping[str, Mapping[str, Tensor]]  # of each part, its tensors


def write_state(checkpoint: Path, state: State, rows: Mapping[str, int]) -> None:
    """Adds `state`, a file a part, and the mark with `rows`."""
    for part, tensors in state.items():
        save_file(dict(tensors), checkpoint / f"{part}.safetensors")
    write_json(checkpoint / _COMPLETE, {"rows": dict(rows)})


def read_state(checkpoint: Path, part: str) -> dict[str, Tensor]:
    """The tensors of one part."""
    return dict(load_file(checkpoint / f"{part}.safetensors"))


def read_rows(checkpoint: Path) -> dict[str, int]:
    """The rows counted so far."""
    return dict(json.loads((checkpoint / _COMPLETE).read_text())["rows"])


def last_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint; newer ones that a kill cut off are removed."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]), reverse=True)
    for path in found:
        if (path / _COMPLETE).exists():
            return path
        shutil.rmtree(path)
    return None
