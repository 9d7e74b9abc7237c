"""Stored layer vectors are those of their own teacher, and are read a batch at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.tiny import LABELS, sentences

from augkd.distill.objective.layer_states import Needs, token_layer_vectors
from augkd.distill.teacher import layer_store as module
from augkd.distill.teacher.layer_store import LayerStore
from augkd.errors import ModelError, WorkspaceError
from augkd.models.classifier import Classifier, Pair, load_backbone
from augkd.workspace.manifest_kinds import TeacherLayersManifest
from augkd.workspace.manifests import MANIFEST, read_manifest

TEXTS: list[Pair] = [(text + " and more" * (number % 5), None) for number, (text, _) in enumerate(sentences()[:10])]
NEEDS = Needs((0, 2), "cls", False, ())


@pytest.fixture(scope="module")
def classifier(tiny_bert: Path) -> Classifier:
    loaded = load_backbone(str(tiny_bert), LABELS, 32, seed=0, precision="float32")
    with torch.no_grad():
        for parameter in loaded.model.parameters():
            parameter.mul_(5 if parameter.dim() == 2 else 1)
    return loaded


@pytest.fixture
def make_store(classifier: Classifier, tmp_path: Path) -> Callable[..., LayerStore]:
    def make(weights: str = "w", max_length: int = 32, needs: Needs = NEEDS) -> LayerStore:
        return LayerStore(lambda: classifier, needs, 32, tmp_path / "store", weights, max_length)

    return make


def unloaded(folder: Path) -> LayerStore:
    """A store over the same folder that cannot ask its teacher."""

    def load() -> Classifier:
        raise AssertionError("the teacher was loaded")

    return LayerStore(load, NEEDS, 32, folder / "store", "w", 32)


def test_vectors_come_back_in_fp16_in_the_order_asked_for(
    make_store: Callable[..., LayerStore], classifier: Classifier
) -> None:
    store = make_store()
    positions = store.positions([*TEXTS, TEXTS[3]])
    assert store.rows == 10  # the doubled text once
    assert positions[10] == positions[3]
    expected = token_layer_vectors(classifier, classifier.tokens(TEXTS), NEEDS)
    read = store.read(positions)
    assert read.dtype == torch.float16
    assert (read[:10].float() - expected).abs().max() < 2e-3  # half an ulp of fp16 at 2 to 4, and of batching
    wanted = torch.tensor([7, 0, 7])
    assert torch.equal(store.read(positions[wanted]), read[wanted])
    assert (read[7] - read[0]).abs().max() > 0.1  # rows differ by more than the tolerance


def test_a_second_run_reads_the_same_without_a_teacher(make_store: Callable[..., LayerStore], tmp_path: Path) -> None:
    first = make_store()
    read = first.read(first.positions(TEXTS))
    again = unloaded(tmp_path)
    assert torch.equal(again.read(again.positions(TEXTS)), read)
    with pytest.raises(AssertionError, match="was loaded"):
        again.positions([("something new", None)])


def test_vectors_are_stored_while_the_teacher_labels(
    make_store: Callable[..., LayerStore], classifier: Classifier, tmp_path: Path
) -> None:
    store, parts = make_store(), [TEXTS[:6], TEXTS[4:]]
    announced: list[int] = []
    labelled = list(store.logits(parts, announce=lambda texts, _: announced.append(texts)))
    for part, logits in zip(parts, labelled, strict=True):
        assert logits.tobytes() == classifier.predict(part).numpy().tobytes()
    assert announced == [10], "two texts are in both parts"

    later = unloaded(tmp_path)
    read = later.read(later.positions(TEXTS))
    expected = token_layer_vectors(classifier, classifier.tokens(TEXTS), NEEDS)
    assert (read.float() - expected).abs().max() < 2e-3
    assert sum(len(module._keys(part)) for part in store.folder.glob("part-*")) == 10, "none is stored twice"


@pytest.mark.parametrize(
    "other",
    [
        {"weights": "v"},
        {"max_length": 16},
        {"needs": replace(NEEDS, layers=(0, 1))},
        {"needs": replace(NEEDS, pooling="mean")},
    ],
    ids=["weights", "length", "layers", "pooling"],
)
def test_another_teacher_length_layer_or_pooling_has_another_store(
    make_store: Callable[..., LayerStore], other: dict[str, Any]
) -> None:
    make_store().positions(TEXTS)
    same, changed = make_store(), make_store(**other)
    assert same.folder == make_store().folder
    assert changed.folder != same.folder
    same.positions(TEXTS)
    changed.positions(TEXTS)
    assert (same.rows, changed.rows) == (0, 10)


def test_a_text_and_a_pair_with_an_empty_second_text_are_two_texts(make_store: Callable[..., LayerStore]) -> None:
    store = make_store()
    assert store.positions([("a cat", None)]).tolist() == [0]
    assert store.positions([("a cat", "")]).tolist() == [1]


def test_the_size_is_announced_before_anything_is_written(make_store: Callable[..., LayerStore]) -> None:
    announced: list[tuple[int, int, list[Path]]] = []
    store = make_store()
    store.positions(TEXTS, announce=lambda texts, size: announced.append((texts, size, list(store.folder.glob("*")))))
    assert announced == [(10, 10 * (2 * 32 * 2 + 16), [])]
    written = sum(path.stat().st_size for path in store.folder.glob("part-*"))
    assert store.bytes_needed(10) <= written < store.bytes_needed(10) + 300  # a safetensors header
    store.positions(TEXTS, announce=lambda *given: announced.append((*given, [])))
    assert len(announced) == 1  # nothing new to announce
    wide = LayerStore(store._load, replace(NEEDS, layers=tuple(range(12))), 768, store.folder, "w", 128)
    assert wide.bytes_needed(1) == 12 * 768 * 2 + 16


def test_too_little_disk_space_is_an_error_before_anything_is_written(
    make_store: Callable[..., LayerStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store()
    monkeypatch.setattr(module, "free_bytes", lambda _: 100)
    for store_them in (store.positions, lambda texts: list(store.logits([texts]))):
        with pytest.raises(WorkspaceError, match=r"of 10 texts take 0\.0 GB, .* free; match fewer layers"):
            store_them(TEXTS)
    assert store.rows == 0
    assert list(store.folder.glob("*")) == []


def test_a_writer_killed_in_its_second_part_loses_that_part_alone(
    make_store: Callable[..., LayerStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make_store("unbroken")
    wanted = whole.read(whole.positions(TEXTS)).float()
    monkeypatch.setattr(module, "_PART", 4)
    calls = []

    def killed(tensors: Any, path: Path) -> None:
        calls.append(path)
        if len(calls) == 2:
            path.write_bytes(b"half")
            raise KeyboardInterrupt
        save(tensors, path)

    save = module.save_file
    broken = make_store()
    with monkeypatch.context() as patch:
        patch.setattr(module, "save_file", killed)
        with pytest.raises(KeyboardInterrupt):
            broken.positions(TEXTS)
    assert sorted(path.name for path in broken.folder.iterdir()) == [MANIFEST, "part-00000.safetensors"]
    (broken.folder / "part-00001.safetensors").write_bytes(b"not listed: killed before the manifest was written")
    (broken.folder / ".part-00001.safetensors.1.tmp").write_bytes(b"half")  # what a kill -9 leaves
    again = make_store()
    read = again.read(again.positions(TEXTS)).float()
    assert again.rows == 6
    assert (read - wanted).abs().max() < 2e-3
    assert sorted(path.name for path in again.folder.iterdir()) == [
        MANIFEST,
        *(f"part-{number:05d}.safetensors" for number in range(3)),
    ]
    manifest = read_manifest(again.folder, TeacherLayersManifest)
    assert manifest.on_disk()["made_from"] == {"weights": "w", "max_length": 32, "layers": [0, 2], "pooling": "cls"}
    assert (manifest.texts, manifest.width) == (10, 32)


def test_new_texts_are_added_and_old_rows_keep_their_numbers(make_store: Callable[..., LayerStore]) -> None:
    store = make_store()
    old = store.positions(TEXTS[:6])
    before = store.read(old)
    new = store.positions(TEXTS)
    assert store.rows == 10
    assert torch.equal(new[:6], old)
    assert torch.equal(store.read(new[:6]), before)
    assert read_manifest(store.folder, TeacherLayersManifest).texts == 10


def test_reading_maps_the_file_and_copies_only_the_rows_asked_for(make_store: Callable[..., LayerStore]) -> None:
    store = make_store()
    positions = store.positions(TEXTS)
    assert all(isinstance(part, np.memmap) for part in store._maps)
    batch = store.read(positions[:2])
    assert batch.untyped_storage().nbytes() == 2 * 2 * 32 * 2
    batch.zero_()  # a copy: the store stays as it is
    assert store.read(positions[:2]).abs().sum() > 0


def test_vectors_that_fp16_cannot_hold_are_rejected(classifier: Classifier, tmp_path: Path) -> None:
    for factor, message in ((1e6, "above fp16's 65504"), (float("nan"), "not finite")):
        folder = tmp_path / str(factor)
        store = LayerStore(lambda: classifier, NEEDS, 32, folder, "w", 32)
        scale = classifier.model.bert.encoder.layer[2].output.LayerNorm.weight
        before = scale.detach().clone()
        with torch.no_grad():
            scale.mul_(factor)
        with pytest.raises(ModelError, match=message):
            store.positions(TEXTS)
        with torch.no_grad():
            scale.copy_(before)
        assert list(store.folder.glob("*")) == []
        store.positions(TEXTS)


def test_a_damaged_part_is_named(make_store: Callable[..., LayerStore]) -> None:
    store = make_store()
    store.positions(TEXTS)
    part = store.folder / "part-00000.safetensors"
    whole = bytearray(part.read_bytes())
    whole[-1] ^= 1
    part.write_bytes(whole)
    with pytest.raises(
        WorkspaceError, match=rf"{part} is damaged: .*; remove {part} and run the same command"
    ) as caught:
        make_store().positions(TEXTS)
    assert "\n" not in str(caught.value)
    part.unlink()
    again = make_store()
    assert len(again.positions(TEXTS)) == again.rows == 10


def test_tokens_and_attention_are_not_stored(classifier: Classifier, tmp_path: Path) -> None:
    for needs in (replace(NEEDS, tokens=True), replace(NEEDS, attention=(1,)), replace(NEEDS, layers=())):
        with pytest.raises(ModelError, match="need a live teacher"):
            LayerStore(lambda: classifier, needs, 32, tmp_path, "w", 32)


def test_no_texts_have_no_positions(make_store: Callable[..., LayerStore]) -> None:
    store = make_store()
    assert store.read(store.positions([])).shape == (0, 2, 32)
