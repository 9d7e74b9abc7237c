"""What cannot be trained is refused by `check`, and by a run before it trains, in one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.architectures import write_model

from augkd.errors import AugkdError, ModelError
from augkd.models.layer_check import check_layers
from augkd.recipe import Recipe, load_recipe
from augkd.runs.plan import plan
from augkd.runs.run import Run


def recipe_of(file: Path, teacher: Path, *changes: str) -> Recipe:
    return load_recipe(str(file), [f"teacher.model={teacher}", *changes])


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("bert", ["student.layers=[0, 12]"], r"student.layers is \[0, 12\]; the teacher has layers 0 to 2"),
        ("distilbert", ["student.layers={uniform: 4}"], "'uniform' needs 1 to 3 student layers"),
        ("bert", ["teacher.layers=[0, 7]"], r"teacher.layers is \[0, 7\]; the backbone has layers 0 to 2"),
        ("bert", ["teacher.layers=[0, 2]"], r"student.layers is \[0, 2\]; the teacher has layers 0 to 1"),
        ("bert", ["assistants=[{layers: [5]}]"], r"assistants\[0\].layers is \[5\]; the teacher has layers 0 to 2"),
        ("albert", [], "all layers of AlbertForSequenceClassification share their weights, so none"),
        ("t5", [], "T5ForSequenceClassification has an encoder and a decoder, so none of its layers can be taken"),
        ("modernbert", ["student.layers=[1, 2]"], "the layers are not all alike"),
        ("qwen2", ["student.layers=[0, 3]"], r"student.layers is \[0, 3\]; the teacher has layers 0 to 2"),
        (
            "bert",
            ["student={scratch: {layers: 4, width: 16}}", "structure={rail: {}}"],
            "rail draws 4 teacher layers, but there are 3",
        ),
        ("bert", ["student={bilstm: {width: 8}}", "structure={pkd: {}}"], "a bilstm student has no transformer layers"),
        ("t5", ["student={scratch: {width: 16}}", "structure={pkd: {}}"], "whose layers cannot be matched; leave out"),
        ("gpt2", ["structure={pkd: {}}"], "the first token of a decoder like GPT2.* set structure.pooling: mean"),
        ("bert", ["student={bilstm: {width: 99}}"], r"student width 99 is more than the teacher's vectors have \(16\)"),
        ("bert", ["student={scratch: {width: 33, heads: 2}}"], "width 33 is not a multiple of its 2 heads"),
        (
            "bert",
            ["student={scratch: {width: 16, heads: 4}}", "structure={attention: {}}"],
            "the student has 4 heads and the teacher 2",
        ),
    ],
)
def test_a_student_that_cannot_be_made_is_refused_before_anything_is_trained(
    recipe_file: Path, tmp_path: Path, name: str, changes: list[str], message: str
) -> None:
    if any(change.startswith("student={") for change in changes):
        recipe_file.write_text(recipe_file.read_text().replace("student: {layers: [0, 2]}\n", ""))
    recipe = recipe_of(recipe_file, write_model(name, tmp_path / name), *changes)
    for refused in (lambda: list(plan(recipe)), lambda: Run(recipe, tmp_path / "out").results()):
        with pytest.raises(AugkdError, match=message) as caught:
            refused()
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "out" / "teacher").exists()
    assert not (tmp_path / "out" / "index").exists()


@pytest.mark.parametrize(
    ("name", "layers"),
    [("bert", [0, 2]), ("roberta", [1]), ("modernbert", [0, 2]), ("qwen2", [2]), ("deberta-v2", [1, 2]), ("gpt2", [0])],
)
def test_layers_that_can_be_taken_are_planned(recipe_file: Path, tmp_path: Path, name: str, layers: list[int]) -> None:
    recipe = recipe_of(recipe_file, write_model(name, tmp_path / name), f"student.layers={layers}")
    assert any(f"layers {layers} of the teacher" in line for line in plan(recipe))


def test_layers_of_a_decoder_are_compared_by_their_means(recipe_file: Path, tmp_path: Path) -> None:
    model = write_model("gpt2", tmp_path / "gpt2")
    assert list(plan(recipe_of(recipe_file, model, "structure={pooling: mean, pkd: {}}")))


def test_a_model_that_is_not_on_this_machine_is_checked_when_it_is_there() -> None:
    for name in ("nobody/has-this-model", "no name of a model!", "./nowhere", "~nobody/model"):
        check_layers(name, [("student.layers", [0, 99])])
    with pytest.raises(ModelError, match="the teacher has layers 0 to 5"):  # the twin: this one is installed
        check_layers("sentence-transformers/all-MiniLM-L6-v2", [("student.layers", [0, 99])])


def test_the_number_of_layers_of_an_encoder_is_checked_without_torch(tmp_path: Path) -> None:
    folder = write_model("bert", tmp_path / "bert")
    code = (
        "import sys\nfrom augkd.models.layer_check import check_layers\n"
        f"check_layers({str(folder)!r}, [('student.layers', [0, 2])])\nprint('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
