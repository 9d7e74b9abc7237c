"""Sentence-transformers models on disk: how one is loaded, and what its files say without loading it.

Opening an index compares fingerprints, and an encoder's fingerprint depends on how many tokens it cuts a text to. That
limit is read from the model's files here, by the rules of sentence-transformers, so that no weights need to be loaded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from augkd.errors import ModelError, RecipeError, did_you_mean, short_repr
from augkd.models.devices import uses_bf16
from augkd.workspace.files import read_json
from augkd.workspace.fingerprints import fingerprint

PRECISIONS = ("auto", "bfloat16", "float32", "int8")
_CONFIGS = ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")  # sentence_*_config.json
_ELSEWHERE = ("tokenizer_args", "processor_kwargs", "tokenizer_name_or_path", "config_args", "config_kwargs")
_NO_LIMIT = int(1e30)  # what transformers gives a tokenizer whose files state none


def load_model(folder: Path, name: str, device: str) -> Any:
    """The SentenceTransformer in `folder`, in evaluation mode; raises ModelError, which calls it `name`."""
    from sentence_transformers import SentenceTransformer  # several seconds to import

    try:
        loaded = SentenceTransformer(str(folder), device=device, local_files_only=True)
    except Exception as exc:  # a damaged folder fails in any of three libraries, each with its own exceptions
        reason = str(exc).strip().split("\n")[0][:160]
        raise ModelError(f"encoder '{name}' cannot be loaded from {folder}: {reason}; give another model") from exc
    return loaded.eval()


def device_for(precision: str) -> str:
    """The GPU where there is one; int8 runs on the CPU only."""
    return "cuda" if torch.cuda.is_available() and precision != "int8" else "cpu"


def resolve_precision(precision: str, device: str) -> str:
    """`precision`, with auto resolved to bfloat16 where `device` multiplies it natively, else float32."""
    if precision not in PRECISIONS:
        raise RecipeError(f"encoder precision is {short_repr(precision)}{did_you_mean(str(precision), PRECISIONS)}")
    if precision != "auto":
        return precision
    return "bfloat16" if uses_bf16(precision, torch.device(device)) else "float32"


def encoder_fingerprint(weights: str, max_length: int, precision: str) -> str:
    """What decides a sentence encoder's vectors: the model's fingerprint, its length limit, the resolved precision."""
    return fingerprint([weights, max_length, precision])


def stated_max_length(folder: Path) -> int | None:
    """The tokens a text is cut to by default, from the model's files; None where only loading the model tells.

    `max_seq_length` of the sentence-transformers configuration, else the smaller of the tokenizer's limit and the
    model's number of positions.
    """
    module, config = folder, {}
    if (folder / "modules.json").is_file():
        first = read_json(folder / "modules.json")[0]
        if not str(first["type"]).endswith(".Transformer"):
            return None
        module = folder / first["path"]
        config = _sentence_config(module)
    if config.keys() & {*_ELSEWHERE} or (module / "processor_config.json").is_file():
        return None
    if config.get("max_seq_length") is not None:
        return int(config["max_seq_length"]) or None

    if not (module / "tokenizer_config.json").is_file() or not (module / "config.json").is_file():
        return None
    limit = int(read_json(module / "tokenizer_config.json").get("model_max_length", _NO_LIMIT))
    positions = read_json(module / "config.json").get("max_position_embeddings")
    if positions is None:  # perhaps under another name
        return None
    return limit if positions == -1 else min(limit, int(positions))


def _sentence_config(module: Path) -> dict[str, Any]:
    paths = (module / f"sentence_{name}_config.json" for name in _CONFIGS)
    config: dict[str, Any] = next((read_json(path) for path in paths if path.is_file()), {})
    return config


def limit_length(model: Any, name: str, folder: Path, max_length: int | None) -> None:
    """Cuts texts to `max_length` tokens (None: the model's own limit); raises RecipeError if the model takes fewer."""
    positions = getattr(getattr(getattr(model[0], "auto_model", None), "config", None), "max_position_embeddings", None)
    if max_length is not None and (max_length < 3 or (positions and max_length > positions)):
        raise RecipeError(f"encoder max_length is {max_length}; '{name}' takes 3 to {positions or 'any'} tokens")
    model.max_seq_length = max_length or stated_max_length(folder) or model.max_seq_length or positions or 512
