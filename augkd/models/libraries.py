"""Keeps the libraries' own output off the terminal, which belongs to augkd's progress display.

Asking for quiet imports nothing: `transformers` takes seconds to import, and a run whose stages are finished needs none
of it. What loads a model with it calls `hide_loading_bars` first.
"""

from __future__ import annotations

import os
import sys

_quiet = False


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
