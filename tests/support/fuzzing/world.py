"""What the cases start from: one of every artefact, valid, made once, and copied before it is changed."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from support.seed_encoder import SeedEncoder, lines
from support.tiny import sentences

from augkd.recipe import load_recipe
from augkd.retrieval.dense.search import Index
from augkd.retrieval.engines.local import build_dense
from augkd.retrieval.engines.shards import encode_shard
from augkd.runs.run import Run
from augkd.workspace.checksums import entry_of, signed_text

_RECIPE = """\
task: {{dataset: {task}}}
teacher: {{model: {bert}, epochs: 1, learning_rate: 1.0e-3}}
student: {{layers: [0]}}
data:
  neighbours:
    index: {{corpus: {{dataset: {corpus}}}, encoder: {{kind: lexical}}}}
    k: 2
  select: {{minimax: {{keep: 1}}}}
training: {{kd: {{weight: 0.5, temperature: 2.0}}, ce: {{weight: 0.5}}, epochs: 1, max_length: 16}}
"""


@dataclass(frozen=True)
class World:
    """A folder with `task`, `corpus.txt`, `bert`, `recipe.yaml`, `run`, `dense` (an index), `shard-1` and `shard-2`."""

    folder: Path

    def __truediv__(self, name: str) -> Path:
        return self.folder / name

    def copy(self, name: str, place: Path) -> Path:
        """A fresh copy of an artefact."""
        shutil.rmtree(place, ignore_errors=True)
        return Path(shutil.copytree(self.folder / name, place))


def make_world(folder: Path, bert: Path) -> World:
    """Everything, in about ten seconds; `bert` is a tiny model."""
    world = World(folder)
    shutil.copytree(bert, folder / "bert")
    _write_task(folder / "task")
    (folder / "corpus.txt").write_text(
        "\n".join(f"{text} {n}" for n in range(3) for text, _ in sentences(40 + n)) + "\n"
    )
    recipe = _RECIPE.format(task=folder / "task", bert=folder / "bert", corpus=folder / "corpus.txt")
    (folder / "recipe.yaml").write_text(recipe)
    Run(load_recipe(str(folder / "recipe.yaml")), folder / "run", name="recipe").results()
    source = lines(folder, "lines.txt", range(120))
    build_dense(folder / "dense", source, SeedEncoder(), factory="IVF4,SQ8", chunk=50)
    assert len(Index.open(folder / "dense")) == 120
    for number in (1, 2):
        encode_shard(folder / f"shard-{number}", source, SeedEncoder(), (number, 2), factory="IVF4,SQ8", chunk=50)
    return world


def _write_task(folder: Path) -> None:
    folder.mkdir()
    for split, start in (("train", 0), ("validation", 10), ("test", 20)):
        rows = [{"text": text, "label": label} for text, label in sentences(start)[:24]]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "labels.json").write_text(json.dumps({"task": "animals", "type": "classification"}))


def tree_of(recipe: Path) -> Any:
    """A recipe as plain values."""
    return yaml.safe_load(recipe.read_text())


# ---- the changes of a stranger who signs what he changes ----


def sign(folder: Path, manifest: Any) -> None:
    """Writes a manifest with a valid checksum, if it still is a table."""
    path = folder / "manifest.json"
    try:
        path.write_text(signed_text(manifest))
    except (AttributeError, TypeError, ValueError, RecursionError, UnicodeEncodeError):
        path.write_text(json.dumps(manifest, default=str))


def sign_file(file: Path) -> None:
    """Makes every manifest above a file vouch for its bytes as they are now."""
    for folder in list(file.parents)[:4]:
        path = folder / "manifest.json"
        if not path.is_file():
            continue
        try:
            manifest = json.loads(path.read_text())
        except ValueError:
            return
        name = file.relative_to(folder).as_posix()
        if isinstance(manifest, dict) and isinstance(manifest.get("files"), dict) and name in manifest["files"]:
            manifest["files"][name] = entry_of(file)
            texts = manifest.get("texts")
            if isinstance(texts, dict) and file.name in texts:
                texts[file.name] = manifest["files"][name]["xxh3"]
            sign(folder, manifest)
        return
