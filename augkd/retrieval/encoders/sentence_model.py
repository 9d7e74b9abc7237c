"""Sentence-transformers models on disk: how one is loaded, and what its files say without loading it.

Opening an index compares fingerprints, and an encoder's fingerprint depends on how many tokens it cuts a text to. That
limit is read from the model's files here, by the rules of sentence-transformers, so that no weights need to be loaded.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from augkd.errors import ModelError, RecipeError, did_you_mean, short_repr
from augkd.models.devices import uses_bf16
from augkd.models.inputs import positions_before_the_first
from augkd.retrieval.encoders.conventions import Conventions
from augkd.workspace.files import read_json
from augkd.workspace.fingerprints import fingerprint
from augkd.workspace.names import path_name

PRECISIONS = ("auto", "bfloat16", "float32", "int8")
_CONFIGS = ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")  # sentence_*_config.json
_ELSEWHERE = ("tokenizer_args", "processor_kwargs", "tokenizer_name_or_path", "config_args", "config_kwargs")
_OFFSET = ("roberta", "xlm-roberta", "camembert", "mpnet", "xlm-roberta-xl", "data2vec-text", "longformer")
_NO_LIMIT = int(1e30)  # what transformers gives a tokenizer whose files state none


def load_model(folder: Path, name: str, device: str) -> Any:
    """The SentenceTransformer in `folder`, in evaluation mode; raises ModelError, which calls it `name`."""
    from sentence_transformers import SentenceTransformer  # several seconds to import

    _check_modules(folder, name)
    safe = {"trust_remote_code": False, "local_files_only": True, "model_kwargs": {"use_safetensors": True}}
    try:
        loaded = SentenceTransformer(str(folder), device=device, **safe)
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


def encoder_fingerprint(weights: str, max_length: int, precision: str, conventions: Conventions) -> str:
    """What decides a sentence encoder's vectors: the model's fingerprint, its length limit, the resolved precision,
    and prompts and dimensions where there are any.
    """
    return fingerprint([weights, max_length, precision, *conventions.identity])


def stated_max_length(folder: Path) -> int | None:
    """The tokens a text is cut to by default, from the model's files; None where only loading the model tells.

    `max_seq_length` of the sentence-transformers configuration, else the smaller of the tokenizer's limit and the
    model's number of positions.
    """
    module, config = folder, {}
    if modules := _modules(folder):
        kind, module = modules[0]
        if not kind.endswith(".Transformer"):
            return None
        config = _sentence_config(module)
    if config.keys() & {*_ELSEWHERE} or (module / "processor_config.json").is_file():
        return None
    positions = _positions(module)
    if (stated := _limit(module, config, "max_seq_length")) is not None:
        return min(stated, positions or stated) or None

    if not (module / "tokenizer_config.json").is_file() or positions is None:  # perhaps under another name
        return None
    limit = _limit(module, _table(module / "tokenizer_config.json"), "model_max_length")
    return min(_NO_LIMIT if limit is None else limit, positions)


def _positions(module: Path) -> int | None:
    """The positions that tokens can have, from a model's configuration; None where it states none."""
    if not (module / "config.json").is_file():
        return None
    config = _table(module / "config.json")
    positions = _limit(module, config, "max_position_embeddings")
    if positions is None:
        return None
    if positions == -1:
        return _NO_LIMIT
    # RoBERTa's relatives count from the position after their padding token's
    unused = 0 if config.get("model_type") not in _OFFSET else int(config.get("pad_token_id") or 1) + 1
    return positions - unused


def _modules(folder: Path) -> list[tuple[str, Path]]:
    """Type and folder of each module that modules.json lists; none without one. Raises ModelError for a damaged one."""
    path = folder / "modules.json"
    if not path.is_file():
        return []
    modules = read_json(path)
    if not isinstance(modules, list) or not modules or not all(isinstance(module, dict) for module in modules):
        raise ModelError(f"{path} is no list of modules; give a folder that sentence-transformers wrote")
    places = [(str(module.get("type")), str(module.get("path", ""))) for module in modules]
    for _, place in places:
        for part in place.split("/") if place else ():
            path_name(part, f"the path of a module in {path}")
    return [(kind, folder / place) for kind, place in places]


def _check_modules(folder: Path, name: str) -> None:
    """Raises ModelError where a module has only pickled weights: a pickle is code."""
    for _, module in _modules(folder):
        if any(module.glob("*.bin")) and not any(module.glob("*.safetensors")):
            raise ModelError(f"encoder '{name}' has only pickled weights in {module}; save it with safetensors")


def _limit(module: Path, config: dict[str, Any], key: str) -> int | None:
    """A number of tokens in a configuration; None where it is not stated."""
    value = config.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1 <= value < math.inf:
        raise ModelError(f"{key} in {module} is {short_repr(value)}; it must be a number of tokens")
    return int(value)


def _table(path: Path) -> dict[str, Any]:
    table = read_json(path)
    if not isinstance(table, dict):
        raise ModelError(f"{path} is no table of settings; give a folder that save_pretrained wrote")
    return table


def _sentence_config(module: Path) -> dict[str, Any]:
    paths = (module / f"sentence_{name}_config.json" for name in _CONFIGS)
    return next((_table(path) for path in paths if path.is_file()), {})


def limit_length(model: Any, name: str, folder: Path, max_length: int | None) -> None:
    """Cuts texts to `max_length` tokens (None: the model's own limit); raises RecipeError if the model takes fewer.

    A model whose first module is no transformer has no limit, and none can be given.
    """
    if not hasattr(model[0], "auto_model"):
        if max_length is not None:
            raise RecipeError(f"encoder max_length is {max_length}; '{name}' reads texts whole, drop it")
        return
    positions = getattr(model[0].auto_model.config, "max_position_embeddings", None)
    if positions is not None and positions > 0:
        positions -= positions_before_the_first(model[0].auto_model)
    if max_length is not None and (max_length < 3 or (positions and max_length > positions)):
        raise RecipeError(f"encoder max_length is {max_length}; '{name}' takes 3 to {positions or 'any'} tokens")
    own = min(model.max_seq_length or _NO_LIMIT, positions if positions and positions > 0 else _NO_LIMIT)
    model.max_seq_length = max_length or stated_max_length(folder) or (512 if own == _NO_LIMIT else own)


def length_limit(model: Any) -> int:
    """The tokens that a loaded model cuts texts to; 0 where it reads them whole."""
    return int(model.max_seq_length) if hasattr(model[0], "auto_model") else 0


def full_width(model: Any) -> int:
    """The length of a model's vectors, before any are cut."""
    with model.truncate_embeddings(None):
        return int(model.get_embedding_dimension())


def check_dim(model: Any, name: str, dim: int | None) -> None:
    """Raises RecipeError for more dimensions than a model's vectors have."""
    if dim is not None and not 1 <= dim <= full_width(model):
        raise RecipeError(f"encoder dim is {dim}; '{name}' takes 1 to {full_width(model)}")
