"""Uploads a student, a transfer set or an index to the Hugging Face Hub, without anything private.

Each kind has a list of files that are uploaded; everything else a folder may hold (logs, checkpoints, dropped corpus
texts, withheld evaluation texts) stays here. Local paths are removed from manifests and configurations. If another
text file contains a local path or a Hub token, nothing is uploaded.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from augkd.data.markdown import front_matter, markdown_text
from augkd.data.transfer_card import licence_line
from augkd.data.transfer_set import TransferSet
from augkd.errors import RecipeError, WorkspaceError, did_you_mean
from augkd.recipe.units import format_bytes
from augkd.retrieval.manifest import encoder_options, read_index_manifest
from augkd.runs.cards import portable, student_card
from augkd.workspace.checksums import signed_text
from augkd.workspace.files import read_json
from augkd.workspace.manifest_kinds import IndexManifest
from augkd.workspace.manifests import MANIFEST, check_if_ours, describe_kind, kind_of
from augkd.workspace.run_folder import RunFolder

# The files to upload, by kind.
_FILES = {
    "student": (
        *("README.md", "LICENSE", "config.json", "model*.safetensors", "model.safetensors.index.json"),
        *("tokenizer*.json", "special_tokens_map.json", "vocab.txt", "vocab.json", "merges.txt", "*.model"),
        *("onnx/*.onnx", "onnx/export.json"),
    ),
    "transfer-set": ("README.md", "LICENSE", "data/*.parquet"),
    "index": (
        *("README.md", "LICENSE", MANIFEST, "vectors*.faiss", "held_out_queries*.safetensors"),
        *("texts/part-*.arrow", "postings/*.npy", "postings/words.txt"),
    ),
}
KINDS = tuple(_FILES)
_REQUIRED = {"student": "config.json", "transfer-set": "data/*.parquet", "index": MANIFEST}
# The stage of a run that makes each kind; also the kind that its manifest records.
_STAGES = {"student": "student", "transfer-set": "transfer_set", "index": "index"}
_PATH_KEYS = ("_name_or_path", "name_or_path")  # where transformers records what a model was loaded from
_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{20,}")


@dataclass(frozen=True)
class UploadFile:
    """One file of an upload: a file on disk, or the bytes to upload in its place."""

    name: str  # in the repository
    source: Path | bytes

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.source) if isinstance(self.source, bytes) else self.source.stat().st_size


@dataclass(frozen=True)
class Upload:
    """What would be uploaded."""

    kind: str  # one of KINDS
    files: tuple[UploadFile, ...]  # sorted by name


def plan_upload(folder: Path, what: str | None = None) -> Upload:
    """The files that `push` would upload; sends nothing. Of a run's folder that is `what`, by default its student.

    Raises WorkspaceError for a folder that holds none of the kinds, and when a text file contains a local path or a
    token; RecipeError for an unknown `what`.
    """
    if what is not None and what not in _FILES:
        raise RecipeError(f"--what has no '{what}'{did_you_mean(what, KINDS)}")
    kind, place = _locate(folder, what)
    if not any(place.glob(_REQUIRED[kind])):
        raise WorkspaceError(f"{place} has no {_REQUIRED[kind]}; give the folder of a finished {kind}")
    if kind == "index" and encoder_options(read_index_manifest(place))["kind"] == "static":
        raise WorkspaceError(
            f"{place} was built with a static encoder, which is not part of the folder; share the recipe instead"
        )
    for written in (place, place / "onnx"):  # what is damaged or half written stays here
        check_if_ours(written)
    if (place / "onnx" / "export.json").exists() and not (place / "onnx" / MANIFEST).exists():
        raise WorkspaceError(f"the export in {place / 'onnx'} is unfinished; run augkd export again")
    paths = {path for pattern in _FILES[kind] for path in place.glob(pattern) if path.is_file()}
    names = {path.relative_to(place).as_posix() for path in paths}
    files = [_without_paths(path, place, names) for path in sorted(paths)]
    if not any(file.name == "README.md" for file in files):
        files.append(UploadFile("README.md", _card(kind, place).encode()))
    for file in files:
        _check_private(file, place)
    return Upload(kind, tuple(sorted(files, key=lambda file: file.name)))


def push(folder: Path, repo: str, what: str | None = None, private: bool = False) -> str:
    """Uploads to `repo` (owner/name) in one commit, creating it if needed; returns its address.

    Raises WorkspaceError without a token or a network, and with the Hub's reason when it rejects the upload.
    """
    upload = plan_upload(folder, what)
    from huggingface_hub import CommitOperationAdd, HfApi, constants, get_token

    if constants.is_offline_mode():
        raise WorkspaceError("the Hub cannot be reached: HF_HUB_OFFLINE is set; unset it to push")
    if get_token() is None:
        raise WorkspaceError("pushing needs a Hub token and there is none; run `hf auth login`, or set HF_TOKEN")
    api, repo_type = HfApi(), "model" if upload.kind == "student" else "dataset"
    additions = [CommitOperationAdd(file.name, _content(file)) for file in upload.files]
    try:
        api.create_repo(repo, repo_type=repo_type, private=private or None, exist_ok=True)
        commit = api.create_commit(repo, additions, commit_message=f"Upload augkd {upload.kind}", repo_type=repo_type)
    except Exception as exc:  # the Hub client raises its own, httpx's and OSError; all mean that nothing was uploaded
        reason = " ".join(str(exc).split()) or type(exc).__name__
        raise WorkspaceError(f"the Hub rejected the {upload.kind} in {folder} for {repo}: {reason[:300]}") from exc
    return str(commit.repo_url)


def _content(file: UploadFile) -> str | bytes:
    return file.source if isinstance(file.source, bytes) else str(file.source)


def _locate(folder: Path, what: str | None) -> tuple[str, Path]:
    """The kind to upload, and the folder with its files."""
    if not folder.is_dir():
        raise WorkspaceError(f"{folder} is not a folder; give a run's, a student's, a transfer set's or an index's")
    recorded = kind_of(folder)
    if recorded == "run":
        kind = what or "student"
        place = RunFolder.open(folder).stage(_STAGES[kind])
        if place is None:
            raise WorkspaceError(f"the run {folder} has no {kind}, or it was removed; give another --what")
        return kind, place
    kinds = {name: kind for kind, name in _STAGES.items()} | {"export": "student"}
    if (folder / MANIFEST).exists() and recorded not in kinds:
        known = ", ".join(KINDS)
        raise WorkspaceError(f"{folder} holds {describe_kind(recorded)}, which cannot be pushed; give one of: {known}")
    kind = what or kinds.get(str(recorded), "student")  # a student saved by augkd's trainer alone has no manifest
    if recorded is not None and kinds[recorded] != kind:
        raise WorkspaceError(
            f"{folder} holds {describe_kind(recorded)}, not a {kind}; omit --what or give another folder"
        )
    return kind, folder


# ---- nothing private ----


def _without_paths(path: Path, folder: Path, uploaded: Collection[str]) -> UploadFile:
    """The file; manifests and configurations without the paths of this machine, nor files that are not uploaded."""
    name = path.relative_to(folder).as_posix()
    if name == MANIFEST:
        manifest = portable(read_json(path))
        listed = {name: entry for name, entry in manifest.get("files", {}).items() if name in uploaded}
        return UploadFile(name, signed_text(manifest | {"files": listed}).encode())
    if name in ("config.json", "tokenizer_config.json"):
        values = read_json(path)
        changed = {key: portable(value) if key in _PATH_KEYS else value for key, value in values.items()}
        if changed != values:
            return UploadFile(name, _json(changed))
    return UploadFile(name, path)


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def _check_private(file: UploadFile, folder: Path) -> None:
    if not file.name.endswith((".md", ".json")):
        return
    text = file.source.decode() if isinstance(file.source, bytes) else file.source.read_text(encoding="utf-8")
    for number, line in enumerate(text.splitlines(), 1):
        where = f"{folder / file.name} line {number}"
        if _TOKEN.search(line):
            raise WorkspaceError(f"{where} contains what looks like a Hub token; remove it before you push")
        if local := next((path for path in _local_folders() if path in line), None):
            raise WorkspaceError(f"{where} names a folder of this machine, {local}; remove it before you push")


def _local_folders() -> Iterator[str]:
    """Folders that a published text must not name: home, working and temporary folder, unless it is `/`."""
    for path in (Path.home(), Path.cwd(), Path(os.environ.get("TMPDIR", "/tmp"))):
        if len(path.parts) > 1:
            yield f"{path}/"


# ---- cards ----


def _card(kind: str, place: Path) -> str:
    if kind == "student" and (place.parent / MANIFEST).exists():
        transfer = RunFolder.open(place.parent).stage("transfer_set")
        if transfer is not None:
            return student_card(place.parent, TransferSet.open(transfer))
    if kind == "index":
        return _index_card(read_index_manifest(place))
    raise WorkspaceError(f"{place} has no README.md; write one, or give the folder of the whole run")


def _index_card(manifest: IndexManifest) -> str:
    written = manifest.on_disk()
    names = ("count", "dim", "factory", "recall@10", "bytes_per_vector")
    facts = [f"- {name}: {markdown_text(written[name])}" for name in names if written.get(name) is not None]
    encoder = written["encoder"].get("model") or written["encoder"].get("kind", "")
    return "\n".join(
        [
            front_matter({"tags": ["augkd", "faiss"]}),
            "# Index of unlabelled text",
            "",
            "Texts, their vectors and a FAISS index over the vectors. To search it: `augkd index search FOLDER TEXT`.",
            "",
            f"- encoder: {markdown_text(portable(encoder))}",
            *facts,
            "",
            licence_line(None, "the corpus"),
            "",
        ]
    )


def upload_lines(upload: Upload) -> list[str]:
    """An upload to read: the size and name of each file, and the total."""
    sizes = [(file.size, file.name) for file in upload.files]
    total = sum(size for size, _ in sizes)
    sizes.append((total, f"{upload.kind}, {len(upload.files)} files"))
    return [f"{format_bytes(size):>12}  {name}" for size, name in sizes]
