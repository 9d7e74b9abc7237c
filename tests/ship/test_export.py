"""Exported students against PyTorch, their INT8 arithmetic against NumPy."""

from __future__ import annotations

import importlib.util
import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.tiny import LABELS, sentences
from transformers import DistilBertConfig, DistilBertForSequenceClassification

from augkd.data.task import load_task, texts_of
from augkd.errors import AugkdError, ModelError, WorkspaceError
from augkd.models.classifier import Classifier, load_backbone, load_classifier
from augkd.models.onnx_graph import session
from augkd.models.student_kinds import build_student
from augkd.ship import export as exporting
from augkd.ship.export import export, exported
from augkd.ship.onnx_classifier import OnnxClassifier
from augkd.ship.onnx_int8 import quantised, rounded
from augkd.ship.student_folder import find_student
from augkd.workspace.manifests import write_manifest

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

PAIRS = [(text, None) for text, _ in sentences()]


def student_of(kind: str, tiny_bert: Path) -> Classifier:
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
def shipped(request: Any, tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A student folder of each kind, exported in place, and what export said."""
    folder = tmp_path_factory.mktemp(request.param)
    made = student_of(request.param, tiny_bert)
    for parameter in made.model.parameters():  # random heads of 0.02 would make every logit nearly 0
        if parameter.dim() == 2 and parameter.shape[0] == len(LABELS):
            torch.nn.init.normal_(parameter, std=1.0, generator=torch.Generator().manual_seed(1))
    made.save(folder)
    return folder, export(folder)


def opened(folder: Path, file: str) -> tuple[Classifier, OnnxClassifier]:
    source = load_classifier(str(folder), LABELS, 32, LABELS, precision="float32")
    return source, OnnxClassifier(session((folder / file).read_bytes(), 1), source)


def test_onnx_gives_pytorchs_logits_for_any_number_and_length_of_texts(shipped: tuple[Path, Any]) -> None:
    pytorch, onnx = opened(shipped[0], "onnx/model.onnx")
    for texts in (PAIRS, PAIRS[:1], [("", None)], [(" ".join(["bread"] * 60), None), ("a", None)]):
        torch.testing.assert_close(onnx.predict(texts), pytorch.predict(texts), atol=2e-5, rtol=0)


def test_int8_is_near_and_not_the_same(shipped: tuple[Path, Any]) -> None:
    pytorch, int8 = opened(shipped[0], "onnx/model_quantized.onnx")
    expected = pytorch.predict(PAIRS)
    off = (int8.predict(PAIRS) - expected).abs()
    assert 1e-6 < float(off.max()) < 0.05 * float(expected.abs().max())


def test_export_json_says_what_the_files_are(shipped: tuple[Path, dict[str, Any]]) -> None:
    folder, facts = shipped
    written = json.loads((folder / "onnx/export.json").read_text())
    assert written == {name: value for name, value in facts.items() if name != "folder"}
    for name in ("onnx/model.onnx", "onnx/model_quantized.onnx"):
        content = (folder / name).read_bytes()
        assert written["files"][name] == {"bytes": len(content), "sha256": sha256(content).hexdigest()}
        assert str(Path(exporting.__file__).parent).encode() not in content  # no stack traces of the exporting machine
    assert written["checks"]["float32"]["logit_difference"]["max"] < 1e-4
    assert written["pytorch"]["of"] == "probes"  # a bare folder knows no task
    assert written["opset"] >= 18


def test_an_exported_students_weights_are_remembered(shipped: tuple[Path, Any]) -> None:
    folder, _ = shipped
    assert exported(folder, folder) is not None
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    try:
        with pytest.raises(ModelError, match=r"was exported from other weights .*; run augkd export again"):
            exported(folder, folder)
    finally:
        weights.write_bytes(whole)


# ---- INT8 by hand ----


def graph(nodes: list[Any], tensors: dict[str, Any], kind: int, shape: list[Any]) -> Any:
    from onnx import TensorProto, helper, numpy_helper

    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def ran(model: Any, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.asarray(session(model.SerializeToString(), 1).run(None, {"x": x})[0])


@pytest.mark.parametrize("gemm", [False, True])
def test_a_product_is_that_of_whole_numbers(gemm: bool) -> None:
    """Each token and each output column has its own step; a product is exact in those whole numbers."""
    from onnx import TensorProto, helper

    rng = np.random.default_rng(0)
    x, w, b = (rng.normal(size=size).astype(np.float32) for size in ((5, 8), (8, 4), (4,)))
    x[0] *= 1000  # an outlier, which must not coarsen the other rows
    x[1] = 0
    node = (
        helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1)
        if gemm
        else helper.make_node("MatMul", ["x", "w"], ["y"])
    )
    tensors = {"w": w.T.copy() if gemm else w, **({"b": b} if gemm else {})}
    found = ran(quantised(graph([node], tensors, TensorProto.FLOAT, ["n", 8])), x)

    step = np.maximum(np.abs(x).max(1, keepdims=True), 1e-30) / 127
    whole = np.floor(x / step + 0.5)
    columns = np.abs(w).max(0) / 64
    expected = (whole @ np.rint(w / columns)) * step * columns + (b if gemm else 0)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found[1:], (x @ w + (b if gemm else 0))[1:], atol=0.1)


def test_no_two_products_overflow_16_bits() -> None:
    """ONNX Runtime adds them in as many where the CPU has no VNNI; there a sum that does not fit is cut off."""
    from onnx import TensorProto, helper, numpy_helper

    weights = np.full((8, 4), 3.0, dtype=np.float32)
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    made = quantised(graph([node], {"w": weights}, TensorProto.FLOAT, ["n", 8]))
    whole = [numpy_helper.to_array(t) for t in made.graph.initializer if t.data_type == TensorProto.INT8]
    assert [int(np.abs(one).max()) for one in whole] == [64]
    assert 255 * 64 * 2 < 2**15
    x = np.full((1, 8), 5.0, dtype=np.float32)
    np.testing.assert_allclose(ran(made, x), x @ weights, rtol=1e-5)


def test_a_table_is_rounded_by_row() -> None:
    from onnx import TensorProto, helper

    table = np.random.default_rng(0).normal(size=(128, 64)).astype(np.float32)
    table[3] *= 1000
    table[4] = 0
    ids = np.array([[3, 4], [5, 127]])
    node = helper.make_node("Gather", ["t", "x"], ["y"], axis=0)
    made = quantised(graph([node], {"t": table}, TensorProto.INT64, ["n", "m"]))
    found = ran(made, ids)
    half_a_step = np.abs(table[ids]).max(-1, keepdims=True) / 254
    assert (np.abs(found - table[ids]) <= half_a_step * 1.0001).all()
    assert (found[0, 1] == 0).all()
    assert len(made.SerializeToString()) < table.nbytes / 3  # a quarter, the steps and a few names


def test_rounding_is_off_by_half_a_step_at_the_most_and_spans_127() -> None:
    whole, step = rounded(np.array([[1.0, -4.0, 2.01], [0.0, 0.0, 0.0]], dtype=np.float32), axis=1)
    assert whole.tolist() == [[32, -127, 64], [0, 0, 0]]
    np.testing.assert_allclose(step, [[4 / 127], [1.0]], rtol=1e-6)


def test_int8_logits_do_not_depend_on_the_batch(shipped: tuple[Path, Any]) -> None:
    if "bilstm" in shipped[0].name:
        pytest.skip("ONNX Runtime's INT8 LSTM rounds per batch")
    _, int8 = opened(shipped[0], "onnx/model_quantized.onnx")
    together = int8.predict(PAIRS)
    alone = torch.cat([int8.predict([pair]) for pair in PAIRS[:6]])
    torch.testing.assert_close(together[:6], alone, atol=1e-4, rtol=0)


# ---- a run ----


@pytest.fixture
def run_folder(tmp_path: Path, tiny_bert: Path, task_folder: Path) -> Path:
    """What a run leaves: a static student, made in a moment, and the manifests."""
    run = tmp_path / "run"
    student_of("static", tiny_bert).save(run / "student")
    recipe = {
        "task": {"dataset": str(task_folder)},
        "teacher": {"model": None},
        "training": {"max_length": 32},
        "data": {},
    }
    write_manifest(run / "student", "student", {"task": "t"}, recipe=recipe)
    write_manifest(run, "run", {}, recipe=recipe, seed=0)
    return run


def test_a_runs_student_is_checked_on_its_validation_texts(run_folder: Path, task_folder: Path) -> None:
    facts = export(run_folder, int8=False)
    task = load_task(dataset=str(task_folder))
    student = load_classifier(str(run_folder / "student"), task.labels, 32, precision="float32")
    right = [e.label for e in task.validation] == student.predict(texts_of(task.validation)).argmax(1).numpy()
    assert facts["pytorch"]["texts"] == 18
    assert facts["pytorch"]["score"] == facts["checks"]["float32"]["score"] == pytest.approx(right.mean())
    assert list(facts["files"]) == ["onnx/model.onnx"]
    assert not (run_folder / "student/onnx/model_quantized.onnx").exists()
    before = (run_folder / "student/onnx/model.onnx").read_bytes()
    export(run_folder, int8=False)
    assert (run_folder / "student/onnx/model.onnx").read_bytes() == before  # the same bytes


def test_a_trimmed_export_is_a_whole_folder_beside_the_student(run_folder: Path, tmp_path: Path) -> None:
    extra = tmp_path / "extra.txt"
    extra.write_text("an extraordinary kaleidoscope\n")
    facts = export(run_folder, trimmed=True, corpora=[extra])
    folder = run_folder / "student-trimmed"
    assert facts["folder"] == str(folder)
    assert facts["trimmed"]["texts"] == 90 + 18 + 18 + 1
    assert facts["trimmed"]["tokens"]["after"] < facts["trimmed"]["tokens"]["before"] == 30522
    assert facts["trimmed"]["bytes"]["after"] == (folder / "model.safetensors").stat().st_size
    assert {path.name for path in folder.iterdir()} >= {"config.json", "tokenizer.json", "onnx", "model.safetensors"}
    pytorch, onnx = opened(folder, "onnx/model.onnx")
    whole = load_classifier(str(run_folder / "student"), LABELS, 32, precision="float32")
    text = [("an extraordinary kaleidoscope", None)]
    assert torch.equal(pytorch.predict(text), whole.predict(text))
    torch.testing.assert_close(onnx.predict(text), whole.predict(text), atol=2e-5, rtol=0)
    export(run_folder, trimmed=True, int8=False)  # again, over its own


# ---- refusals ----


def refused(error: type[AugkdError], match: str, *args: Any, **options: Any) -> None:
    with pytest.raises(error, match=match) as caught:
        export(*args, **options)
    assert "\n" not in str(caught.value)


def test_a_graph_that_differs_from_pytorch_is_not_kept(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph_of = exporting.graph_of

    def wrong(classifier: Classifier) -> Any:
        head = classifier.model.classifier.bias.data
        head += 0.002
        made = graph_of(classifier)
        head -= 0.002
        return made

    monkeypatch.setattr(exporting, "graph_of", wrong)
    refused(ModelError, r"differs from PyTorch by 0\.002 in a logit .*; no ONNX was written", run_folder)
    assert not (run_folder / "student/onnx").exists()


def test_what_cannot_be_exported_is_said_in_one_line(
    run_folder: Path, tmp_path: Path, task_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused(ModelError, "holds no student; give a run's folder", tmp_path)
    refused(WorkspaceError, "holds files that augkd export did not write", run_folder, task_folder)
    student = run_folder / "student"
    refused(WorkspaceError, "is the student itself, which trimming would replace", run_folder, student, trimmed=True)
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        (bare / name).write_bytes((run_folder / "student" / name).read_bytes())
    refused(ModelError, "is of no known run, .* name them with --corpus", bare, trimmed=True)
    manifest = run_folder / "student/manifest.json"
    recipe = json.loads(manifest.read_text())["recipe"] | {"data": {"neighbours": {"index": str(tmp_path / "gone")}}}
    write_manifest(run_folder / "student", "student", {"task": "t"}, recipe=recipe)
    refused(ModelError, "index .*gone is gone; name its texts with --corpus, or leave it out: --no-index", run_folder,
            trimmed=True)  # fmt: skip
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "onnx" else find(name, *a))
    refused(ModelError, r"augkd export needs onnx; pip install 'augkd\[onnx\]'", run_folder)


def test_a_comparisons_teacher_is_found_by_what_it_was_made_from(tmp_path: Path, tiny_bert: Path) -> None:
    told = {"model": "somewhere", "epochs": 2.0}
    training = {"max_length": 32, "precision": "auto"}
    run = tmp_path / "runs" / "kd-s0"
    student_of("static", tiny_bert).save(run / "student")
    recipe = {"task": {}, "teacher": told, "training": training, "data": {}}
    write_manifest(run / "student", "student", {"task": "t"}, recipe=recipe)
    write_manifest(run, "run", {})
    for name, epochs in (("teacher-a", 1.0), ("teacher-b", 2.0)):
        made = {"task": "t", "teacher": {"model": None, "epochs": epochs}, **training}
        (tmp_path / "shared" / name).mkdir(parents=True)
        write_manifest(tmp_path / "shared" / name, "teacher", made)
    assert find_student(run).teacher() == tmp_path / "shared" / "teacher-b"
