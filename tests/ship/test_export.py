"""Exported students against PyTorch."""

from __future__ import annotations

import importlib.util
import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from support.manifests import complete_manifest
from support.tiny import LABELS, sentences
from transformers import DistilBertConfig, DistilBertForSequenceClassification

from augkd.data.task import load_task, texts_of
from augkd.errors import AugkdError, ModelError, WorkspaceError
from augkd.models.classifier import Classifier, load_backbone, load_classifier
from augkd.models.onnx_graph import session
from augkd.models.student_kinds import build_student
from augkd.recipe import Recipe, dump
from augkd.ship import export as exporting
from augkd.ship.export import Export, export_student
from augkd.ship.export_record import read_record
from augkd.ship.onnx_classifier import OnnxClassifier

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

PAIRS = [(text, None) for text, _ in sentences()]


def make_student(kind: str, tiny_bert: Path) -> Classifier:
    source = load_backbone(str(tiny_bert), LABELS, 32, 0, "float32")
    if kind == "bert":
        return source
    if kind == "distilbert":
        torch.manual_seed(0)
        config = DistilBertConfig(dim=32, n_layers=1, n_heads=2, hidden_dim=64, num_labels=3)
        return Classifier(DistilBertForSequenceClassification(config), source.tokenizer, LABELS, 32)
    options = {"bilstm": {"width": 16, "hidden": 8, "dense": 8}, "static": {"width": 16}}[kind]
    return build_student(kind, options, source, 0)


@pytest.fixture(scope="module", params=["bert", "distilbert", "bilstm", "static"])
def shipped(request: Any, tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Export:
    """A student of each kind, exported into its own folder."""
    folder = tmp_path_factory.mktemp(request.param)
    student = make_student(request.param, tiny_bert)
    for parameter in student.model.parameters():  # random heads of 0.02 would make every logit nearly 0
        if parameter.dim() == 2 and parameter.shape[0] == len(LABELS):
            torch.nn.init.normal_(parameter, std=1.0, generator=torch.Generator().manual_seed(1))
    student.save(folder)
    return export_student(folder)


def opened(folder: Path, file: str) -> tuple[Classifier, OnnxClassifier]:
    source = load_classifier(str(folder), LABELS, 32, LABELS, precision="float32")
    return source, OnnxClassifier(session((folder / file).read_bytes(), 1), source)


def test_onnx_gives_pytorchs_logits_for_any_number_and_length_of_texts(shipped: Export) -> None:
    pytorch, onnx = opened(shipped.folder, "onnx/model.onnx")
    for texts in (PAIRS, PAIRS[:1], [("", None)], [(" ".join(["bread"] * 60), None), ("a", None)]):
        torch.testing.assert_close(onnx.predict(texts), pytorch.predict(texts), atol=2e-5, rtol=0)


def test_int8_is_near_and_not_the_same(shipped: Export) -> None:
    pytorch, int8 = opened(shipped.folder, "onnx/model_quantized.onnx")
    expected = pytorch.predict(PAIRS)
    difference = (int8.predict(PAIRS) - expected).abs()
    assert 1e-6 < float(difference.max()) < 0.05 * float(expected.abs().max())


def test_export_json_describes_the_files(shipped: Export) -> None:
    folder = shipped.folder
    written = json.loads((folder / "onnx/export.json").read_text())
    assert written == shipped.record
    for name in ("onnx/model.onnx", "onnx/model_quantized.onnx"):
        content = (folder / name).read_bytes()
        assert written["files"][name] == {"bytes": len(content), "sha256": sha256(content).hexdigest()}
        assert str(Path(exporting.__file__).parent).encode() not in content  # no stack traces of the exporting machine
    assert written["checks"]["float32"]["logit_difference"]["max"] < 1e-4
    assert written["pytorch"]["source"] == "random tokens"  # the task of a bare folder is unknown
    assert written["pytorch"]["score"] is None
    assert written["opset"] >= 18


def test_a_record_belongs_to_the_weights_that_were_exported(shipped: Export) -> None:
    folder = shipped.folder
    assert read_record(folder, folder) == shipped.record
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    try:
        with pytest.raises(ModelError, match=r"was exported from other weights .*; run augkd export again"):
            read_record(folder, folder)
    finally:
        weights.write_bytes(whole)


def test_int8_logits_do_not_depend_on_the_batch(shipped: Export) -> None:
    if "bilstm" in shipped.folder.name:
        pytest.skip("ONNX Runtime's INT8 LSTM rounds per batch")
    _, int8 = opened(shipped.folder, "onnx/model_quantized.onnx")
    together = int8.predict(PAIRS)
    alone = torch.cat([int8.predict([pair]) for pair in PAIRS[:6]])
    torch.testing.assert_close(together[:6], alone, atol=1e-4, rtol=0)


# ---- a run ----


@pytest.fixture
def run_folder(tmp_path: Path, tiny_bert: Path, task_folder: Path) -> Path:
    """A finished run: a static student, built in a moment, and the manifests."""
    run = tmp_path / "run"
    make_student("static", tiny_bert).save(run / "student")
    tree = {"task": str(task_folder), "teacher": {"model": "x"}, "student": {"static": {}}}
    recipe = dump(Recipe.model_validate({**tree, "training": {"kd": {}, "max_length": 32}}))
    complete_manifest(run / "student", "student", {"task": "t"}, recipe=recipe)
    complete_manifest(run, "run", {}, recipe=recipe, seed=0, stages={"student": "student"})
    return run


def test_a_runs_student_is_checked_on_its_validation_texts(run_folder: Path, task_folder: Path) -> None:
    record = export_student(run_folder, int8=False).record
    task = load_task(dataset=str(task_folder))
    student = load_classifier(str(run_folder / "student"), task.labels, 32, precision="float32")
    right = [e.label for e in task.validation] == student.predict(texts_of(task.validation)).argmax(1).numpy()
    assert (record["pytorch"]["texts"], record["pytorch"]["source"]) == (18, "validation")
    assert record["pytorch"]["score"] == record["checks"]["float32"]["score"] == pytest.approx(right.mean())
    assert list(record["files"]) == ["onnx/model.onnx"]
    assert not (run_folder / "student/onnx/model_quantized.onnx").exists()
    before = (run_folder / "student/onnx/model.onnx").read_bytes()
    export_student(run_folder, int8=False)
    assert (run_folder / "student/onnx/model.onnx").read_bytes() == before  # the same bytes


def test_a_trimmed_export_is_a_whole_folder_beside_the_student(run_folder: Path, tmp_path: Path) -> None:
    extra = tmp_path / "extra.txt"
    extra.write_text("an extraordinary kaleidoscope\n")
    exported = export_student(run_folder, trimmed=True, corpora=[extra])
    folder, sizes = exported.folder, exported.record["trimmed"]
    assert folder == run_folder / "student-trimmed"
    assert sizes is not None
    assert sizes["texts"] == 90 + 18 + 18 + 1
    assert sizes["tokens"]["after"] < sizes["tokens"]["before"] == 30522
    assert sizes["bytes"]["after"] == (folder / "model.safetensors").stat().st_size
    assert {path.name for path in folder.iterdir()} >= {"config.json", "tokenizer.json", "onnx", "model.safetensors"}
    pytorch, onnx = opened(folder, "onnx/model.onnx")
    whole = load_classifier(str(run_folder / "student"), LABELS, 32, precision="float32")
    text = [("an extraordinary kaleidoscope", None)]
    assert torch.equal(pytorch.predict(text), whole.predict(text))
    torch.testing.assert_close(onnx.predict(text), whole.predict(text), atol=2e-5, rtol=0)
    export_student(run_folder, trimmed=True, int8=False)  # again, over its own


# ---- errors ----


def assert_error(error: type[AugkdError], match: str, *args: Any, **options: Any) -> None:
    with pytest.raises(error, match=match) as caught:
        export_student(*args, **options)
    assert "\n" not in str(caught.value)


def test_a_graph_that_differs_from_pytorch_is_not_kept(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export_graph = exporting.export_graph

    def wrong(classifier: Classifier) -> Any:
        head = classifier.model.classifier.bias.data
        head += 0.002
        graph = export_graph(classifier)
        head -= 0.002
        return graph

    monkeypatch.setattr(exporting, "export_graph", wrong)
    assert_error(ModelError, r"differs from PyTorch by 0\.002 in a logit .*; no ONNX was written", run_folder)
    assert not (run_folder / "student/onnx").exists()


def test_what_cannot_be_exported_is_a_one_line_error(
    run_folder: Path, tmp_path: Path, task_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_error(ModelError, "holds no student; give a run's folder", tmp_path)
    assert_error(WorkspaceError, "holds files that augkd export did not write", run_folder, task_folder)
    student = run_folder / "student"
    assert_error(
        WorkspaceError, "is the student itself, which trimming would replace", run_folder, student, trimmed=True
    )
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        (bare / name).write_bytes((run_folder / "student" / name).read_bytes())
    assert_error(ModelError, "belongs to no known run, .* name texts to cover with --corpus", bare, trimmed=True)
    complete_manifest(run_folder, "run", {}, stages={"student": "student", "index": str(tmp_path / "gone")})
    gone = "index .*gone does not exist any more; name its texts with --corpus, or add --no-index"
    assert_error(ModelError, gone, run_folder, trimmed=True)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "onnx" else find(name, *a))
    assert_error(ModelError, r"augkd export needs onnx; pip install 'augkd\[onnx\]'", run_folder)
