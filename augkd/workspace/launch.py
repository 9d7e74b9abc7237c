"""Which process of a launch this is: torchrun and `accelerate launch` start several that train one student together.

The first of them writes; the others read what it has finished. What trains without the others (a teacher, say) runs
`alone`: the libraries that look for a launch then find none.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from augkd.errors import WorkspaceError

_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")  # set by torchrun and `accelerate launch`


@dataclass(frozen=True)
class Launch:
    """This process's place among those that were launched together."""

    index: int = 0  # from 0
    count: int = 1

    @property
    def writes(self) -> bool:
        """Whether this process is the one that writes."""
        return self.index == 0


def launch() -> Launch:
    """This process's place, read from the environment; a process that was started directly is the only one."""
    index, count = os.environ.get("RANK", ""), os.environ.get("WORLD_SIZE", "")
    return Launch(int(index), int(count)) if index.isdigit() and count.isdigit() else Launch()


def nothing_finished(kind: str, folder: Path) -> WorkspaceError:
    """The error of a process that does not write, where it finds no `kind` that the first one has finished."""
    here = launch()
    return WorkspaceError(
        f"process {here.index} of {here.count} finds no finished {kind} in {folder}; give all processes the same "
        "recipe, and an --out that all machines share"
    )


@contextmanager
def alone() -> Iterator[None]:
    """While open, this process seems to be the only one of its launch."""
    hidden = {name: os.environ.pop(name) for name in _VARIABLES if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)
