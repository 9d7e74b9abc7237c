"""How the libraries behave in a command: quiet, without telemetry, and with caches that end.

The terminal belongs to augkd's progress display. Asking for quiet imports nothing: `transformers` takes seconds to
import, and a run whose stages are finished needs none of it. What loads a model calls `hide_loading_bars` first.
"""

from __future__ import annotations

import os
import sys

_quiet = False

# Read by the libraries when they are first used. oneDNN and PyTorch's interface to it would each keep 1,024 kernels,
# one for each shape of a matrix, and texts of changing lengths fill them: a minimax run of MiniLM on 1,200 questions
# took 2.54 GB at its peak, with 256 kernels 1.82 GB, with 64 1.44 GB, for the same seconds of the CPU (within 4 %).
_ENVIRONMENT = {
    "TOKENIZERS_PARALLELISM": "true",
    "ORT_DISABLE_TELEMETRY": "1",
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128",
    "LRU_CACHE_CAPACITY": "128",
}


def set_environment() -> None:
    """Sets the variables that the libraries read in this process and its children; what the user has set stays."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def quiet_libraries() -> None:
    """Switches off the progress bars and load reports of `transformers` and `datasets` in this process."""
    global _quiet
    _quiet = True
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    if "transformers" in sys.modules:
        hide_loading_bars()
    if "datasets" in sys.modules:
        sys.modules["datasets"].disable_progress_bars()


def hide_loading_bars() -> None:
    """Switches off what `transformers` shows while it loads weights, where quiet was asked for."""
    if _quiet:
        import transformers

        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
