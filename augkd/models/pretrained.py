"""The one place that calls `from_pretrained`: weights from safetensors alone, and never the code of a folder.

Without `use_safetensors` a folder that lacks the file falls back to a pickled one, and a pickle is code. Without
`trust_remote_code` the library asks on a terminal, and a `y` runs whatever the folder holds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from augkd.errors import ModelError, first_line
from augkd.models.machine import keep_freed_memory

_SAFE = {"trust_remote_code": False, "local_files_only": True}


def load_pretrained(auto: Any, folder: Path, name: str, what: str, **settings: Any) -> Any:
    """`auto.from_pretrained(folder)`; `auto` is one of the AutoModel classes of `transformers`.

    Raises ModelError, which calls the model `name`, when it cannot be loaded as `what`.
    """
    keep_freed_memory()
    try:
        return auto.from_pretrained(folder, use_safetensors=True, **_SAFE, **settings)
    except Exception as exc:  # a damaged folder fails in any of several libraries, each with its own exceptions
        raise ModelError(f"model '{name}' cannot be loaded as {what}: {first_line(exc)[:160]}") from exc


def load_tokenizer(folder: Path, name: str) -> Any:
    """The tokenizer in `folder`; raises ModelError, which calls its model `name`, when it cannot be loaded."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, **_SAFE)
    except Exception as exc:  # `tokenizers` raises Exception itself
        raise ModelError(
            f"the tokenizer of model '{name}' cannot be loaded from {folder}: {first_line(exc)[:160]}; save it again"
        ) from exc


def load_config(folder: Path, name: str) -> Any:
    """The configuration in `folder`; raises ModelError, which calls its model `name`, when it cannot be loaded."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, **_SAFE)
    except Exception as exc:
        raise ModelError(
            f"the configuration of model '{name}' cannot be loaded from {folder}: {first_line(exc)[:160]}; "
            "save it again"
        ) from exc
