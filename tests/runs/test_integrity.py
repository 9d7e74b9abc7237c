"""A flipped bit or a cut anywhere in any file of any artefact is refused with the file's name, and found by verify.

In the normal suite at least 200 random positions; with AUGKD_TORTURE=long, from `make torture`, at least 2,000.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from augkd.data.target import Target
from augkd.data.transfer_set import TransferSet
from augkd.distill.objective.layer_states import Needs
from augkd.distill.teacher.layer_store import LayerStore
from augkd.distill.teacher.outputs import CachedTeacher
from augkd.errors import AugkdError
from augkd.evaluation.report.data import read_run
from augkd.models.classifier import load_classifier
from augkd.models.locate import locate
from augkd.recipe import IndexRecipe, load_recipe
from augkd.retrieval.build import build_index, build_shard, merge_shards
from augkd.retrieval.open import open_index
from augkd.runs.run import Run
from augkd.ship.export import export_student
from augkd.ship.export_record import read_record
from augkd.ship.push import plan_upload
from augkd.workspace.checkpoints import last_checkpoint, mark_whole
from augkd.workspace.manifests import write_manifest
from augkd.workspace.verify import verify

pytestmark = pytest.mark.slow

LONG = os.environ.get("AUGKD_TORTURE") == "long"
EACH = 170 if LONG else 18  # positions per kind of artefact
# cards and reports are the user's; locks and stamps hold nothing
NOT_COMPARED = {"README.md", "report.html", ".lock", ".verified.json"}


@dataclass
class Artefact:
    """One artefact on disk and a command that reads all of it."""

    folder: Path
    read: Callable[[Path], object]

    def files(self) -> list[Path]:
        found = sorted(path for path in self.folder.rglob("*") if path.is_file() and path.name not in NOT_COMPARED)
        return [path for path in found if path.stat().st_size]


@pytest.fixture(scope="module")
def artefacts(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artefact]:
    folder = tmp_path_factory.mktemp("artefacts")
    task, corpus = folder / "task", folder / "corpus.txt"
    task.mkdir()
    words = ("cat", "dog", "goat", "bread", "soup", "rice", "saw", "drill", "axe")
    rows = [f"a {word} is here {number},{place // 3}" for number in range(20) for place, word in enumerate(words)]
    for split, part in (("train", rows[:90]), ("validation", rows[90:117]), ("test", rows[117:144])):
        (task / f"{split}.csv").write_text("text,label\n" + "\n".join(part) + "\n")
    corpus.write_text("".join(f"there was a {word} and {number}\n" for number in range(30) for word in words))
    index = {"corpus": {"dataset": str(corpus)}, "encoder": {"model": str(tiny_bert), "max_length": 32}}
    recipe = folder / "recipe.yaml"
    recipe.write_text(
        f"task: {{dataset: {task}}}\nteacher: {{model: {tiny_bert}, epochs: 1}}\nstudent: {{layers: [0, 2]}}\n"
        f"data:\n  neighbours: {{index: {folder / 'dense'}, k: 3}}\n"
        "training: {kd: {weight: 0.5}, ce: {weight: 0.5}, epochs: 1, max_length: 32}\n"
    )
    built = {
        "dense": index | {"faiss": {"factory": "IVF4,SQ8"}},
        "static": index | {"encoder": {"kind": "static", "model": str(tiny_bert), "dim": 8}},
        "lexical": index | {"encoder": {"kind": "lexical"}},
    }
    for name, table in built.items():
        build_index(IndexRecipe.model_validate(table), folder / name)
    for number in (1, 2):
        build_shard(IndexRecipe.model_validate(built["dense"]), folder / f"shard-{number}", (number, 2))
    run = folder / "run"
    Run(load_recipe(str(recipe), []), run, name="tiny").results()
    export_student(run, folder / "shipped", int8=True)
    shutil.copytree(tiny_bert, folder / "generator")
    write_manifest(folder / "generator", "generator", {"masked_lm": "x"})
    checkpoint = folder / "checkpoints" / "checkpoint-4"
    shutil.copytree(run / "student", checkpoint, ignore=shutil.ignore_patterns("onnx", "manifest.json"))
    mark_whole(checkpoint, {"rows": {}})

    texts = [(row.split(",")[0], None) for row in rows]
    classifier = load_classifier(str(run / "teacher"), Target(("0", "1", "2")), 32)

    def logits(place: Path) -> object:
        return CachedTeacher(lambda: classifier, 3, place, "w", 32).logits(texts)

    def layers(place: Path) -> object:
        return LayerStore(lambda: classifier, Needs((0, 2), "cls", False, ()), 32, place, "w", 32).positions(texts)

    def searched(place: Path) -> object:
        return open_index(place).search(["a cat"], 3)

    def merged(place: Path) -> object:
        shutil.rmtree(folder / "merged", ignore_errors=True)
        return merge_shards([folder / "shard-1", place], folder / "merged")

    def exported(place: Path) -> object:
        (place / "README.md").write_text("a card")  # needed to push it
        return read_record(place, run / "student"), locate(str(place)), plan_upload(place)

    logits(folder / "logits")
    layers(folder / "layers")
    readers: dict[str, tuple[Path, Callable[[Path], object]]] = {
        "dense index": (folder / "dense", searched),
        "static index": (folder / "static", searched),
        "lexical index": (folder / "lexical", searched),
        "shard": (folder / "shard-2", merged),
        "transfer set": (run / "transfer_set", TransferSet.open),
        "logits": (folder / "logits", logits),
        "layers": (folder / "layers", layers),
        "teacher": (run / "teacher", lambda place: locate(str(place))),
        "student": (run / "student", lambda place: (read_run(run), locate(str(place)), plan_upload(run))),
        "generator": (folder / "generator", lambda place: locate(str(place))),
        "onnx": (folder / "shipped", exported),
        "checkpoint": (folder / "checkpoints", last_checkpoint),
        "run": (run, lambda place: (Run(load_recipe(str(recipe), []), place, name="tiny").results(), read_run(place))),
    }
    return {name: Artefact(*pair) for name, pair in readers.items()}


def damaged(whole: bytes, rng: random.Random) -> bytes:
    """The content with one bit flipped or, one time in four, cut off somewhere."""
    place = rng.randrange(len(whole))
    if rng.random() < 0.25:
        return whole[:place]
    return whole[:place] + bytes([whole[place] ^ 1 << rng.randrange(8)]) + whole[place + 1 :]


KINDS = (
    *(
        "dense index",
        "static index",
        "lexical index",
        "shard",
        "transfer set",
        "logits",
        "layers",
        "teacher",
        "student",
    ),
    *("generator", "onnx", "checkpoint", "run"),
)


@pytest.mark.parametrize("kind", KINDS)
def test_damage_anywhere_is_refused_by_name_and_found_by_verify(artefacts: dict[str, Artefact], kind: str) -> None:
    artefact, rng = artefacts[kind], random.Random(kind)
    artefact.read(artefact.folder)  # the twin: undamaged it is read
    assert verify(artefact.folder).damaged == ()
    files = [path for path in artefact.files() if kind != "run" or path.parent == artefact.folder]
    count = EACH if kind != "run" else EACH // 6  # results.json and manifest.json; each reading opens all stages
    for number in range(count):
        path = files[number % len(files)]
        whole = path.read_bytes()
        path.write_bytes(damaged(whole, rng))
        try:
            with pytest.raises(AugkdError) as caught:
                artefact.read(artefact.folder)
            assert path.name in str(caught.value), f"{path}: {caught.value}"
            assert "\n" not in str(caught.value)
            assert any(path.name in line for line in verify(artefact.folder).damaged), path
        finally:
            path.write_bytes(whole)
    artefact.read(artefact.folder)


def test_the_positions_are_as_many_as_promised() -> None:
    assert EACH * (len(KINDS) - 1) + EACH // 6 >= (2000 if LONG else 200)
