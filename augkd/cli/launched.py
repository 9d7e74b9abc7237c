"""What the command line does differently in several processes that torchrun or `accelerate launch` started together.

Of a mistake that all of them make, one prints the line. The launcher ends the others as soon as one has ended, so those
that have nothing new to say wait for that.
"""

from __future__ import annotations

import time

from augkd.errors import ProcessLostError, RecipeError
from augkd.workspace.launch import launch

_PARALLEL = ("run", "distill")  # the commands that several processes share
_SECONDS = 9.0  # torchrun looks at its processes ten times a second


def check_command(command: str | None) -> None:
    """Raises RecipeError for a command that is for one process, where several were launched."""
    processes = launch().count
    if processes > 1 and command not in _PARALLEL:
        raise RecipeError(
            f"augkd {command} runs in one process, and {processes} were launched; start it without torchrun or "
            f"`accelerate launch`, which are for augkd {' and augkd '.join(_PARALLEL)}"
        )


def wait_to_be_ended(exc: Exception) -> None:
    """Gives the launcher time to end this process, where another one has printed the reason or is about to."""
    if isinstance(exc, ProcessLostError):
        time.sleep(_SECONDS)
    elif not launch().writes:
        time.sleep(_SECONDS / 3)  # the first process most likely has the same error


def process_name() -> str:
    """What a message of this process begins with: nothing, if it is the first or the only one."""
    here = launch()
    return "" if here.writes else f"process {here.index} of {here.count}: "
