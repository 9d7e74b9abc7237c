"""Keeps the libraries' own output off the terminal, which belongs to augkd's progress display."""

from __future__ import annotations


def quiet_libraries() -> None:
    """Switches off the progress bars and load reports of `transformers` and `datasets`."""
    import datasets
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
