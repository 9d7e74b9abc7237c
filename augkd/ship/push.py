"""A student, a transfer set or an index onto the Hugging Face Hub: which files go, made fit for others, and the upload.

Files go by a list of what belongs to each kind, never by leaving some out: logs, checkpoints, corpus texts that were
dropped and evaluation texts that were withheld stay here whatever a folder holds. Local paths are cut out of
manifests; where one, or a token, stands in another text, nothing is sent.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from augkd.data.transfer_card import front_matter
from augkd.data.transfer_set import TransferSet
from augkd.errors import RecipeError, WorkspaceError, did_you_mean
from augkd.runs.cards import portable, student_card
from augkd.workspace.files import read_json
from augkd.workspace.manifests import MANIFEST, shown_kind

# What goes, by kind; the files that are checked or rewritten below are all among these.
_FILES = {
    "student": (
        *("README.md", "LICENSE", "config.json", "model*.safetensors", "model.safetensors.index.json"),
        *("tokenizer*.json", "special_tokens_map.json", "vocab.txt", "vocab.json", "merges.txt", "*.model"),
        *("onnx/*.onnx", "onnx/*.json"),
    ),
    "transfer-set": ("README.md", "LICENSE", "data/*.parquet"),
    "index": (
        *("README.md", "LICENSE", MANIFEST, "vectors*.faiss", "probes*.safetensors"),
        *("texts/part-*.arrow", "postings/*.npy", "postings/words.txt"),
    ),
}
KINDS = tuple(_FILES)
_NEEDED = {"student": "config.json", "transfer-set": "data/*.parquet", "index": MANIFEST}
_FOLDERS = {"student": "student", "transfer-set": "transfer_set", "index": "index"}  # in a run, and as manifests say
_NAMES = ("_name_or_path", "name_or_path")  # keys in which transformers keeps where a model was loaded from
_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{20,}")


@dataclass(frozen=True)
class Outgoing:
    """One file of an upload: its bytes where they differ from the file's, else the file."""

    name: str  # in the repository
    source: Path | bytes

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.source) if isinstance(self.source, bytes) else self.source.stat().st_size


def outgoing(folder: Path, what: str | None = None) -> tuple[str, list[Outgoing]]:
    """The kind of `folder` and the files that would go, by name; a run's folder stands for its student.

    Raises WorkspaceError for a folder that holds none of augkd's kinds, and when a text to be sent names a folder of
    this machine or holds a token; RecipeError for an unknown `what`.
    """
    if what is not None and what not in _FILES:
        raise RecipeError(f"--what has no '{what}'{did_you_mean(what, KINDS)}")
    kind, place = _place(folder, what)
    if not any(place.glob(_NEEDED[kind])):
        raise WorkspaceError(f"{place} has no {_NEEDED[kind]}; give the folder of a finished {kind}")
    if kind == "index" and _encoder_kind(read_json(place / MANIFEST)) == "static":
        raise WorkspaceError(
            f"{place} keeps its static encoder in .cache, which the Hub does not take; share the recipe"
        )
    found = {file for pattern in _FILES[kind] for file in place.glob(pattern) if file.is_file()}
    files = [_fit(file, place) for file in sorted(found)]
    if not any(file.name == "README.md" for file in files):
        files.append(Outgoing("README.md", _card(kind, place).encode()))
    for file in files:
        _check(file, place)
    return kind, sorted(files, key=lambda file: file.name)


def push(folder: Path, repo: str, what: str | None = None, private: bool = False) -> str:
    """Uploads to `repo` (owner/name) in one commit, making it where there is none; the address.

    Raises WorkspaceError without a token or a network, and with the Hub's own reason where it refuses.
    """
    kind, files = outgoing(folder, what)
    from huggingface_hub import CommitOperationAdd, HfApi, constants, get_token

    if constants.is_offline_mode():
        raise WorkspaceError("the Hub cannot be reached: HF_HUB_OFFLINE is set; unset it to push")
    if get_token() is None:
        raise WorkspaceError("the Hub wants a token and there is none; run `hf auth login`, or set HF_TOKEN")
    api, repo_type = HfApi(), "model" if kind == "student" else "dataset"
    additions = [CommitOperationAdd(file.name, _uploadable(file)) for file in files]
    try:
        api.create_repo(repo, repo_type=repo_type, private=private or None, exist_ok=True)
        done = api.create_commit(repo, additions, commit_message=f"Upload augkd {kind}", repo_type=repo_type)
    except Exception as exc:  # the Hub client raises its own, httpx's and OSError; all mean "it was not taken"
        reason = " ".join(str(exc).split()) or type(exc).__name__
        raise WorkspaceError(f"the Hub did not take {kind} {folder} as {repo}: {reason[:300]}") from exc
    return str(done.repo_url)


def _uploadable(file: Outgoing) -> str | bytes:
    return file.source if isinstance(file.source, bytes) else str(file.source)


def _place(folder: Path, what: str | None) -> tuple[str, Path]:
    """The kind that is meant and the folder where its files lie."""
    if not folder.is_dir():
        raise WorkspaceError(f"{folder} is no folder; give that of a run, a student, a transfer set or an index")
    manifest = folder / MANIFEST
    held = read_json(manifest).get("kind") if manifest.exists() else None
    if held == "run":
        kind = what or "student"
        return kind, folder / _FOLDERS[kind]
    kinds = {kind_held: kind for kind, kind_held in _FOLDERS.items()}
    if held is not None and held not in kinds:
        raise WorkspaceError(f"{folder} holds {shown_kind(held)}, which does not go to the Hub; give one of {KINDS}")
    kind = what or kinds.get(str(held), "student")  # a save_pretrained folder of augkd's own trainer has no manifest
    if held is not None and kinds[held] != kind:
        raise WorkspaceError(f"{folder} holds {shown_kind(held)}, not a {kind}; drop --what or give another folder")
    return kind, folder


# ---- fit to be read by others ----


def _fit(file: Path, place: Path) -> Outgoing:
    """The file as it is, or its text without this machine's folders."""
    name = file.relative_to(place).as_posix()
    if name == MANIFEST:
        return Outgoing(name, _json(portable(read_json(file))))
    if name in ("config.json", "tokenizer_config.json"):
        values = read_json(file)
        changed = {key: portable(value) if key in _NAMES else value for key, value in values.items()}
        if changed != values:
            return Outgoing(name, _json(changed))
    return Outgoing(name, file)


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def _check(file: Outgoing, place: Path) -> None:
    if not file.name.endswith((".md", ".json")):
        return
    text = file.source.decode() if isinstance(file.source, bytes) else file.source.read_text(encoding="utf-8")
    for number, line in enumerate(text.splitlines(), 1):
        where = f"{place / file.name} line {number}"
        if _TOKEN.search(line):
            raise WorkspaceError(f"{where} holds what looks like a Hub token; take it out before you push")
        if local := next((path for path in _local_paths() if path in line), None):
            raise WorkspaceError(f"{where} names a folder of this machine, {local}; take it out before you push")


def _local_paths() -> Iterator[str]:
    """Folders that a published text must not name: the home and the working folder, unless it is the root of all."""
    for path in (Path.home(), Path.cwd(), Path(os.environ.get("TMPDIR", "/tmp"))):
        if len(path.parts) > 1:
            yield f"{path}/"


def _encoder_kind(manifest: dict[str, Any]) -> str:
    recipe = manifest.get("recipe") or {}
    return str(recipe.get("encoder", manifest["encoder"]).get("kind", "sentence"))


def _card(kind: str, place: Path) -> str:
    if kind == "student" and (place.parent / MANIFEST).exists():
        return student_card(place.parent, TransferSet.open(place.parent / "transfer_set"))
    if kind == "index":
        return _index_card(read_json(place / MANIFEST))
    raise WorkspaceError(f"{place} has no README.md; write one, or give the folder of the whole run")


def _index_card(manifest: dict[str, Any]) -> str:
    facts = ("count", "dim", "factory", "recall@10", "bytes_per_vector")
    lines = [f"- {name}: {manifest[name]}" for name in facts if manifest.get(name) is not None]
    encoder = manifest["encoder"].get("model") or manifest["encoder"].get("kind", "")
    return "\n".join(
        [
            front_matter({"tags": ["augkd", "faiss"]}),
            "# Index of unlabelled text",
            "",
            "Texts, their vectors and a FAISS index over them; `augkd index search FOLDER TEXT` finds the nearest.",
            "",
            f"- encoder: {portable(encoder)}",
            *lines,
            "",
            "Licence: unknown. It follows from the terms of the corpus; settle them before you share this.",
            "",
        ]
    )


def told(kind: str, files: Sequence[Outgoing]) -> list[str]:
    """An upload as lines to read: each file with its size, and the sum."""
    from augkd.recipe.units import show_bytes

    lines = [f"{show_bytes(file.size):>12}  {file.name}" for file in files]
    return [*lines, f"{show_bytes(sum(file.size for file in files)):>12}  {kind}, {len(files)} files"]
