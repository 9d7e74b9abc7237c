"""One owner of the terminal: the bars and load reports of the libraries are switched off."""

from __future__ import annotations


def quiet_libraries() -> None:
    """One owner of the terminal: the libraries' own bars and load reports are switched off."""
    import datasets
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
