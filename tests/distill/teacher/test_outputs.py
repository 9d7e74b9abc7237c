"""The teacher is run once for each text, and no logits are taken for another text's (ALGORITHMS §25, cache oracle)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.tiny import LABELS, sentences

from augkd.distill.teacher import outputs as module
from augkd.distill.teacher.given import GivenTeacher
from augkd.distill.teacher.outputs import AveragedTeacher, CachedTeacher, key_of, text_key
from augkd.errors import DataError, WorkspaceError
from augkd.models.classifier import Classifier, Pair, load_backbone
from augkd.models.locate import model_fingerprint
from augkd.workspace.checksums import STAMP

TEXTS: list[Pair] = [(text, None) for text, _ in sentences()[:10]]


@pytest.fixture(scope="module")
def classifier(tiny_bert: Path) -> Classifier:
    """The tiny BERT with matrices ten times as large, so that texts differ by more than rounding."""
    loaded = load_backbone(str(tiny_bert), LABELS, 32, seed=0, precision="float32")
    with torch.no_grad():
        for parameter in loaded.model.parameters():
            parameter.mul_(10 if parameter.dim() == 2 else 1)
    return loaded


@pytest.fixture
def cached(classifier: Classifier, tmp_path: Path) -> Callable[..., CachedTeacher]:
    def make(weights: str = "w", max_length: int = 32) -> CachedTeacher:
        return CachedTeacher(lambda: classifier, 3, tmp_path / "store", weights, max_length)

    return make


# ---- keys ----


def edited_weights(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["embeddings.LayerNorm.bias"][0] += 1e-3
    save_file(tensors, folder / "model.safetensors")


def edited_tokenizer(folder: Path) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["cat"], vocabulary["dog"] = vocabulary["dog"], vocabulary["cat"]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


def edited_config(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"hidden_act": "relu"}))


@pytest.mark.parametrize("edit", [edited_weights, edited_tokenizer, edited_config])
def test_the_fingerprint_changes_with_weights_tokenizer_and_configuration(
    tmp_path: Path, tiny_bert: Path, edit: Callable[[Path], None]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_bert, copy)
    before = model_fingerprint(tiny_bert)
    (copy / "README.md").write_text("a card does not change the logits")
    (copy / STAMP).write_text('{"seen": "when the files were last compared with their checksums"}')
    assert model_fingerprint(copy) == before
    edit(copy)
    assert model_fingerprint(copy) != before


def test_the_store_s_key_changes_with_weights_and_with_length() -> None:
    assert key_of("a", 32) == key_of("a", 32)
    assert len({key_of("a", 32), key_of("b", 32), key_of("a", 64)}) == 3


def test_the_text_s_key_changes_with_teacher_text_and_pair() -> None:
    keys = [text_key("a", ("x", None)), text_key("b", ("x", None)), text_key("a", ("y", None))]
    keys += [text_key("a", ("x", "")), text_key("a", ("x", "y")), text_key("a", ("xy", "")), text_key("a", ("", "xy"))]
    assert len(set(keys)) == len(keys)
    assert text_key("a", ("x", "y")) == text_key("a", ("x", "y"))


@pytest.mark.parametrize("change", [{"weights": "other"}, {"max_length": 16}])
def test_another_teacher_or_length_computes_its_own_logits(
    cached: Callable[..., CachedTeacher], change: dict[str, Any]
) -> None:
    cached().logits(TEXTS)
    same, other = cached(), cached(**change)
    same.logits(TEXTS)
    other.logits(TEXTS)
    assert (same.rows, other.rows) == (0, 10)


# ---- the store ----


def test_logits_equal_a_plain_forward_pass_of_each_text(
    cached: Callable[..., CachedTeacher], classifier: Classifier
) -> None:
    classifier.model.eval()
    wanted = []
    for text, _ in TEXTS:
        inputs = classifier.tokenizer(text, return_tensors="pt", truncation=True, max_length=32)
        with torch.no_grad():
            wanted.append(classifier.model(**inputs.to(classifier.model.device)).logits[0].cpu().numpy())
    logits = cached().logits(TEXTS)
    assert logits.dtype == np.float32
    assert np.abs(logits - np.array(wanted)).max() < 1e-5
    assert np.abs(np.diff(logits, axis=0)).max() > 1e-3  # and the rows are not all alike


def test_each_distinct_text_is_forwarded_once_ever(cached: Callable[..., CachedTeacher]) -> None:
    teacher = cached()
    first = teacher.logits([*TEXTS, *TEXTS[::-1], TEXTS[0]])
    assert teacher.rows == 10
    assert np.array_equal(first[:10], first[10:20][::-1])
    assert np.array_equal(teacher.logits(TEXTS[::-1]), first[:10][::-1])
    assert teacher.rows == 10
    another = cached()
    assert np.array_equal(another.logits([*TEXTS, ("something new", None)])[:10], first[:10])
    assert another.rows == 1


def test_a_teacher_whose_logits_are_all_stored_is_not_even_loaded(
    cached: Callable[..., CachedTeacher], tmp_path: Path
) -> None:
    first = cached().logits(TEXTS)

    def load() -> Classifier:
        raise AssertionError("loaded")

    unloaded = CachedTeacher(load, 3, tmp_path / "store", "w", 32)
    assert np.array_equal(unloaded.logits(TEXTS), first)
    with pytest.raises(AssertionError, match="loaded"):
        unloaded.logits([("something new", None)])


def test_no_texts_give_no_rows(cached: Callable[..., CachedTeacher]) -> None:
    assert cached().logits([]).shape == (0, 3)


@pytest.mark.parametrize("where", ["while forwarding", "while writing"])
def test_a_writer_killed_in_its_second_part_loses_that_part_alone(
    cached: Callable[..., CachedTeacher], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    wanted = cached("unbroken").logits(TEXTS)
    monkeypatch.setattr(module, "_PART", 4)
    calls = []
    name, real = ("text_key", module.text_key) if where == "while forwarding" else ("save_file", module.save_file)

    def killed(*args: Any) -> Any:
        calls.append(args)
        # text_key: 10 for the lookup, 4 for the first part; the second part is not on disk at the 15th
        if len(calls) == (15 if name == "text_key" else 2):
            if name == "save_file":
                Path(args[1]).write_bytes(b"half")
            raise KeyboardInterrupt
        return real(*args)

    broken = cached()
    with monkeypatch.context() as patch:
        patch.setattr(module, name, killed)
        with pytest.raises(KeyboardInterrupt):
            broken.logits(TEXTS)
    store = tmp_path / "store" / key_of("w", 32)
    assert sorted(path.name for path in store.iterdir()) == ["manifest.json", "part-00000.safetensors"]
    (store / "part-00001.safetensors").write_bytes(b"not listed: killed before the manifest was written")
    again = cached()
    assert np.abs(again.logits(TEXTS) - wanted).max() < 1e-5
    assert again.rows == 6
    assert len(list(store.glob("part-*"))) == 3


def test_a_flipped_bit_in_a_part_is_refused_and_without_the_part_its_texts_are_forwarded_again(
    cached: Callable[..., CachedTeacher], tmp_path: Path
) -> None:
    wanted = cached().logits(TEXTS)
    part = tmp_path / "store" / key_of("w", 32) / "part-00000.safetensors"
    whole = bytearray(part.read_bytes())
    whole[-3] ^= 4
    part.write_bytes(whole)
    with pytest.raises(WorkspaceError, match=rf"{part} is damaged: .*; remove {part} and run the same command"):
        cached().logits(TEXTS)
    part.unlink()
    again = cached()
    assert np.abs(again.logits(TEXTS) - wanted).max() < 1e-5
    assert again.rows == 10


# ---- numbers in place of a model ----


def given(folder: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), folder / "teacher.parquet")
    return folder / "teacher.parquet"


def test_given_logits_come_back_in_the_task_s_label_order(tmp_path: Path) -> None:
    path = given(tmp_path, text=["a", "b"], logits=[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    reordered = GivenTeacher(path, "logits", LABELS, ["tool", "animal", "food"], drop=False)
    assert reordered.logits([("b", None), ("a", None), ("b", None)]).tolist() == [[5, 6, 4], [2, 3, 1], [5, 6, 4]]
    in_order = GivenTeacher(path, "logits", LABELS, LABELS, drop=False)
    assert in_order.logits([("a", None)]).tolist() == [[1, 2, 3]]
    assert reordered.rows == 0


def test_softmax_gives_back_the_given_probabilities_even_where_one_is_zero(tmp_path: Path) -> None:
    shares = [[0.7, 0.2, 0.1], [1.0, 0.0, 0.0]]
    path = given(tmp_path, text=["a", "b"], probabilities=shares)
    logits = GivenTeacher(path, "probabilities", LABELS, LABELS, drop=False).logits([("a", None), ("b", None)])
    assert np.isfinite(logits).all()
    assert torch.from_numpy(logits).softmax(-1).numpy() == pytest.approx(np.array(shares), abs=1e-6)


@pytest.mark.parametrize(
    ("row", "shown"),
    [
        ([0.7, 0.4, -0.1], "0.7, 0.4, -0.1"),
        ([1.5, -0.25, -0.25], "1.5, -0.25, -0.25"),
        ([0.5, 0.2, 0.2], "0.5, 0.2, 0.2"),
        ([2.0, -1.0, 0.5], "2, -1, 0.5"),
    ],
    ids=["negative", "above one", "a sum of 0.9", "logits"],
)
def test_probabilities_that_are_none_are_refused_with_their_row(tmp_path: Path, row: list[float], shown: str) -> None:
    path = given(tmp_path, text=["a", "b", "c"], probabilities=[[0.7, 0.2, 0.1], row, row])
    with pytest.raises(DataError, match=rf"2 of 3 rows .* first row 1, 'b': {shown}; set teacher.column: logits"):
        GivenTeacher(path, "probabilities", LABELS, LABELS, drop=False)


def test_probabilities_rounded_to_two_decimals_pass(tmp_path: Path) -> None:
    path = given(tmp_path, text=["a"], probabilities=[[0.33, 0.33, 0.33]])
    logits = GivenTeacher(path, "probabilities", LABELS, LABELS, drop=False).logits([("a", None)])
    assert logits[0] == pytest.approx(np.log([0.33] * 3), abs=1e-6)


def test_a_regression_has_no_probabilities(tmp_path: Path) -> None:
    path = given(tmp_path, text=["a"], probabilities=[[0.5]])
    with pytest.raises(DataError, match=r"a regression task has no probabilities; set teacher.column: logits"):
        GivenTeacher(path, "probabilities", (), None, drop=False)


def test_a_pair_is_another_text_than_its_first_half(tmp_path: Path) -> None:
    path = given(tmp_path, text=["a", "a"], text_pair=["x", "y"], logits=[[1.0], [2.0]])
    teacher = GivenTeacher(path, "logits", (), None, drop=True)
    assert teacher.logits([("a", "y"), ("a", "x")]).tolist() == [[2], [1]]
    assert np.isnan(teacher.logits([("a", None)])).all()


def test_a_text_without_numbers_is_an_error_or_nan_when_it_may_be_dropped(tmp_path: Path) -> None:
    path = given(tmp_path, text=["a"], logits=[[1.0, 2.0, 3.0]])
    asked: list[Pair] = [("a", None), ("b", None)]
    with pytest.raises(DataError, match=r"no teacher output for 1 of 2 texts, e\.g\. 'b'"):
        GivenTeacher(path, "logits", LABELS, LABELS, drop=False).logits(asked)
    dropped = GivenTeacher(path, "logits", LABELS, LABELS, drop=True).logits(asked)
    assert dropped[0].tolist() == [1, 2, 3]
    assert np.isnan(dropped[1]).all()


@pytest.mark.parametrize(
    ("columns", "names", "message"),
    [
        ({"text": ["a"], "logits": [[1.0, 2.0]]}, LABELS, "has 2 values per row, the task needs 3"),
        ({"text": ["a"], "logits": [[1.0, 2.0, 3.0]]}, None, "name the label of each value"),
        ({"text": ["a"], "logits": [[1.0, 2.0, 3.0]]}, ("a", "b", "c"), "the task's labels are"),
        ({"text": ["a"], "scores": [[1.0, 2.0, 3.0]]}, LABELS, "have no column 'logits'; they have text, scores"),
        ({"text": ["a", "b"], "logits": [[1.0], [1.0, 2.0]]}, LABELS, "row 1 has 2 values, not 1"),
        ({"text": ["a"], "logits": [[1.0, float("nan"), 3.0]]}, LABELS, "not finite"),
    ],
)
def test_numbers_that_do_not_fit_the_task_are_rejected(
    tmp_path: Path, columns: dict[str, Any], names: tuple[str, ...] | None, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        GivenTeacher(given(tmp_path, **columns), "logits", LABELS, names, drop=False)


def test_a_file_that_is_missing_or_not_parquet_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="do not exist"):
        GivenTeacher(tmp_path / "x.parquet", "logits", LABELS, LABELS, drop=False)
    (tmp_path / "x.parquet").write_text("text,logits")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        GivenTeacher(tmp_path / "x.parquet", "logits", LABELS, LABELS, drop=False)


def test_a_text_with_a_nul_is_not_taken_for_a_pair() -> None:
    assert text_key("seed", ("x\0y", None)) != text_key("seed", ("x", "y"))


class _Fixed:
    """A teacher that gives every text the same logits."""

    def __init__(self, *logits: float) -> None:
        self.rows = 1
        self._logits = np.array(logits, dtype=np.float32)

    def has(self, texts: Any) -> bool:
        return True

    def logits(self, texts: Any, progress: Any = None) -> Any:
        return np.tile(self._logits, (len(texts), 1))


def test_several_teachers_are_averaged_as_logits_or_as_probabilities() -> None:
    members = [_Fixed(2.0, 0.0), _Fixed(0.0, 0.0)]
    texts = [("a", None), ("b", None)]
    np.testing.assert_allclose(AveragedTeacher(members, "logits").logits(texts), [[1.0, 0.0]] * 2)
    first = np.exp(2) / (np.exp(2) + 1)
    mean = (first + 0.5) / 2
    probabilities = np.exp(AveragedTeacher(members, "probabilities").logits(texts))
    np.testing.assert_allclose(probabilities, [[mean, 1 - mean]] * 2, rtol=1e-6)
    assert AveragedTeacher(members, "logits").rows == 2


def test_a_text_that_one_of_several_teachers_lacks_is_nan() -> None:
    members = [_Fixed(1.0, 0.0), _Fixed(float("nan"), float("nan"))]
    assert np.isnan(AveragedTeacher(members, "probabilities").logits([("a", None)])).all()


def test_an_average_has_the_texts_that_all_its_members_have(tmp_path: Path) -> None:
    path = given(tmp_path, text=["a"], logits=[[1.0, 2.0]])
    numbers = GivenTeacher(path, "logits", ("no", "yes"), ("no", "yes"), drop=True)
    average = AveragedTeacher([_Fixed(1.0, 0.0), numbers], "logits")
    assert average.has([("a", None)])
    assert not average.has([("a", None), ("b", None)])
