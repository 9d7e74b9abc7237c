"""A model folder may come from a stranger: neither a pickle nor a module of it is run, and damage is one line."""

from __future__ import annotations

import json
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.numpy import save_file

import augkd
from augkd.errors import ModelError
from augkd.models.classifier import load_backbone, load_classifier
from augkd.models.masked_lm import load_masked_lm
from augkd.models.pretrained import load_config, load_tokenizer
from augkd.retrieval.encoders.sentence_model import load_model, stated_max_length

Load = Callable[[Path], Any]
LABELS = ("no", "yes")
LOADS: dict[str, Load] = {
    "backbone": lambda folder: load_backbone(str(folder), LABELS, 16, 0, "float32"),
    "classifier": lambda folder: load_classifier(str(folder), LABELS, 16, precision="float32"),
    "masked_lm": lambda folder: load_masked_lm(str(folder), "float32"),
    "encoder": lambda folder: load_model(folder, "mine", "cpu"),
}


class Code:
    """A pickle of this writes a file when it is loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return (Path.touch, (self.marker,))


@pytest.fixture
def folder(tiny_bert: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bert, tmp_path / "model"))


@pytest.mark.parametrize("kind", LOADS)
@pytest.mark.parametrize("pickled", ["code", "weights", "empty"])
def test_a_pickle_beside_another_safetensors_file_is_never_read(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, pickled: str
) -> None:
    (folder / "model.safetensors").rename(folder / "adapter.safetensors")
    target = folder / "pytorch_model.bin"
    if pickled == "code":
        target.write_bytes(pickle.dumps(Code(tmp_path / "ran")))
    elif pickled == "weights":
        torch.save({"bert.pooler.dense.bias": torch.zeros(32)}, target)
    else:
        target.write_bytes(b"")
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: pytest.fail("torch.load was called"))
    with pytest.raises(ModelError, match="cannot be loaded"):
        LOADS[kind](folder)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("kind", LOADS)
def test_the_code_of_a_folder_is_not_run_even_if_someone_would_answer_yes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    (folder / "modelling.py").write_text(f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n")
    config = json.loads((folder / "config.json").read_text()) | {"model_type": "stranger"}
    names = ("AutoConfig", "AutoModel", "AutoModelForMaskedLM", "AutoModelForSequenceClassification")
    config["auto_map"] = dict.fromkeys(names, "modelling.Stranger")
    (folder / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr("builtins.input", lambda *args: "y")
    with pytest.raises(ModelError, match="cannot be loaded"):
        LOADS[kind](folder)
    assert not (tmp_path / "ran").exists()


def test_the_tokenizer_code_of_a_folder_is_not_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "tokens.py").write_text(f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config |= {"tokenizer_class": "Stranger", "auto_map": {"AutoTokenizer": ["tokens.Stranger", "tokens.Stranger"]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    monkeypatch.setattr("builtins.input", lambda *args: "y")
    assert load_tokenizer(folder, "mine").is_fast  # the library's own class for this kind of model
    assert not (tmp_path / "ran").exists()


def test_a_module_class_of_a_folder_is_not_imported(folder: Path, tmp_path: Path) -> None:
    (folder / "modelling.py").write_text(f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n")
    (folder / "modules.json").write_text(json.dumps([{"idx": 0, "name": "0", "path": "", "type": "modelling.Mine"}]))
    with pytest.raises(ModelError, match="encoder 'mine' cannot be loaded"):
        load_model(folder, "mine", "cpu")
    assert not (tmp_path / "ran").exists()


def test_a_module_with_only_a_pickle_is_refused_before_it_is_read(folder: Path) -> None:
    (folder / "2_Dense").mkdir()
    (folder / "2_Dense" / "pytorch_model.bin").write_bytes(pickle.dumps({}))
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "2_Dense", "type": "sentence_transformers.models.Dense"},
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ModelError, match=r"encoder 'mine' has only pickled weights in .*2_Dense"):
        load_model(folder, "mine", "cpu")
    save_file({}, folder / "2_Dense" / "model.safetensors")
    with pytest.raises(ModelError, match="cannot be loaded"):  # past that check: this Dense has no configuration
        load_model(folder, "mine", "cpu")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("modules.json", "[]", "is no list of modules"),
        ("modules.json", '{"a": 1}', "is no list of modules"),
        ("modules.json", '["a"]', "is no list of modules"),
        ("modules.json", '[{"path": "../../elsewhere", "type": "x.Transformer"}]', "the path of a module"),
        ("modules.json", '[{"path": "/etc", "type": "x.Transformer"}]', "the path of a module"),
        ("modules.json", "[", "cannot be read"),
        ("config.json", "[]", "is no table of settings"),
        ("config.json", '{"max_position_embeddings": "many"}', "must be a number of tokens"),
        ("config.json", '{"max_position_embeddings": [1]}', "must be a number of tokens"),
        ("tokenizer_config.json", '{"model_max_length": null}', None),
        ("tokenizer_config.json", '{"model_max_length": "x"}', "must be a number of tokens"),
        ("tokenizer_config.json", '{"model_max_length": NaN}', "must be a number of tokens"),
        ("sentence_bert_config.json", "5", "is no table of settings"),
        ("sentence_bert_config.json", '{"max_seq_length": {}}', "must be a number of tokens"),
    ],
)
def test_a_damaged_configuration_of_an_encoder_is_one_line(
    folder: Path, name: str, content: str, reason: str | None
) -> None:
    if name.startswith("sentence"):
        modules = [{"path": "", "type": "sentence_transformers.models.Transformer"}]
        (folder / "modules.json").write_text(json.dumps(modules))
    (folder / name).write_text(content)
    if reason is None:
        assert stated_max_length(folder) == 64  # the positions of the model
        return
    with pytest.raises(augkd.errors.AugkdError, match=reason):
        stated_max_length(folder)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", '{"model": 5}', '{"version": "1.0", "model": {"type": "x"}}']
)
@pytest.mark.parametrize("kind", ["backbone", "masked_lm"])
def test_a_damaged_tokenizer_is_one_line(folder: Path, kind: str, content: str) -> None:
    (folder / "tokenizer.json").write_text(content)
    with pytest.raises(ModelError, match="tokenizer") as raised:
        LOADS[kind](folder)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"model_type": 5}', '{"model_type": "bert", "hidden_size": "x"}'])
def test_a_damaged_configuration_is_one_line(folder: Path, content: str) -> None:
    (folder / "config.json").write_text(content)
    with pytest.raises(ModelError, match="the configuration of model 'mine' cannot be loaded") as raised:
        load_config(folder, "mine")
    assert "\n" not in str(raised.value)


def test_nothing_else_loads_from_a_folder() -> None:
    package = Path(augkd.__file__).parent
    calls = re.compile(r"\.from_pretrained\(|torch\.load\(|pickle\.load|trust_remote_code=True")
    found = [path.name for path in package.rglob("*.py") if calls.search(path.read_text(encoding="utf-8"))]
    assert found == ["pretrained.py"]
