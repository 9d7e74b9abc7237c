"""A run whose teacher is an LLM behind an API: the same student as from its probabilities, and a bill paid once."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.chat_server import Fault, Say, chat_server
from support.command_line import Augkd
from support.tiny import LABELS

from augkd.data.transfer_set import TransferSet
from augkd.recipe import load_recipe
from augkd.runs.run import Run
from augkd.runs.stages.left_out import FILE

pytest.importorskip("openai")

KEY = "sk-Very-Secret-Value-1234567890"


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)


@pytest.fixture
def augkd(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Augkd:
    return Augkd(monkeypatch, capsys)


class ServedClassifier:
    """The probabilities of a fine-tuned classifier, as an LLM behind an API would give them: by option letter."""

    def __init__(self, probabilities: dict[str, np.ndarray]):
        self.probabilities = probabilities
        self.odd: dict[str, Say | Fault] = {}  # text → what is answered instead

    def __call__(self, request: dict[str, Any], number: int) -> Say | Fault:
        prompt = request["messages"][0]["content"]
        text = prompt.split("Text: ")[1].split("\n")[0]
        if text in self.odd:
            return self.odd[text]
        offered = {line[3:]: line[0] for line in prompt.splitlines() if line[1:3] == ") "}
        first = {
            offered[label]: math.log(p) for label, p in zip(LABELS, self.probabilities[text].tolist(), strict=True)
        }
        return Say(max(first, key=first.__getitem__), first)


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """A folder with a task and a corpus, and the probabilities of a fine-tuned teacher for every text of a run."""
    from support.tiny import sentences

    folder = tmp_path_factory.mktemp("llm")
    for split, rows in (("train", sentences(0)), ("validation", sentences(10)[:18]), ("test", sentences(20)[:18])):
        lines = [json.dumps({"text": text, "label": label}) for text, label in rows]
        (folder / "task").mkdir(exist_ok=True)
        (folder / "task" / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "corpus.txt").write_text("\n".join(f"{text} and 7" for text, _ in sentences(40)) + "\n")
    (folder / "model.yaml").write_text(recipe(f"{{model: {tiny_bert}, epochs: 3, learning_rate: 1.0e-3}}", tiny_bert))
    run = Run(load_recipe(str(folder / "model.yaml")), folder / "model")
    transfer = run.transfer_set()
    candidates = transfer.candidates()
    texts = [*transfer.column("text"), *candidates.text]
    logits = np.concatenate([transfer.teacher(), candidates.teacher]).astype(np.float64)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return folder, dict(zip(texts, powers / powers.sum(axis=1, keepdims=True), strict=True))


def recipe(teacher: str, student: Path, more: str = "") -> str:
    return f"""\
task: {{dataset: task}}
teacher: {teacher}
student: {{model: {student}}}
data:
  neighbours: {{index: {{corpus: {{dataset: corpus.txt}}, encoder: {{max_length: 32}}}}, k: 2}}
{more}training: {{kd: {{weight: 1.0, temperature: 2.0}}, epochs: 2, max_length: 32, learning_rate: 1.0e-3}}
"""


def student_outputs(run: Path) -> np.ndarray:
    from safetensors.numpy import load_file

    return load_file(run / "student" / "predictions.safetensors")["test"]


@pytest.mark.slow
def test_a_classifier_served_as_an_llm_teaches_the_student_that_its_probabilities_teach(
    taught: tuple[Path, dict[str, np.ndarray]], tiny_bert: Path
) -> None:
    folder, probabilities = taught
    table = pa.table({"text": list(probabilities), "probabilities": [row.tolist() for row in probabilities.values()]})
    pq.write_table(table, folder / "numbers.parquet")
    numbers = f"{{logits: numbers.parquet, column: probabilities, labels: [{', '.join(LABELS)}]}}"
    (folder / "numbers.yaml").write_text(recipe(numbers, tiny_bert))
    Run(load_recipe(str(folder / "numbers.yaml")), folder / "by-numbers").results()
    with chat_server(ServedClassifier(probabilities)) as server:
        asked = f"{{endpoint: {{url: '{server.url}', permutations: 3}}, model: some-llm, calibrate: false}}"
        (folder / "llm.yaml").write_text(recipe(asked, tiny_bert))
        Run(load_recipe(str(folder / "llm.yaml")), folder / "by-llm").results()
        assert len(server.requests) == 3 * len(probabilities)
    by_numbers, by_llm = (TransferSet.open(folder / name / "transfer_set") for name in ("by-numbers", "by-llm"))
    assert by_llm.column("text") == by_numbers.column("text")
    assert np.abs(_softmax(by_llm.teacher()) - _softmax(by_numbers.teacher())).max() < 1e-5
    difference = np.abs(student_outputs(folder / "by-llm") - student_outputs(folder / "by-numbers")).max()
    seeds = []
    for seed in (1, 2):
        Run(load_recipe(str(folder / "numbers.yaml"), [f"seed={seed}"]), folder / f"seed-{seed}").results()
        seeds.append(np.abs(student_outputs(folder / f"seed-{seed}") - student_outputs(folder / "by-numbers")).max())
    assert difference < 0.05 * min(seeds), "rounding, and not what another seed does"


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def test_what_the_llm_does_not_answer_is_left_out_counted_and_listed_and_the_key_is_nowhere(
    taught: tuple[Path, dict[str, np.ndarray]], tiny_bert: Path, tmp_path: Path, augkd: Augkd
) -> None:
    folder, probabilities = taught
    texts = list(probabilities)
    served = ServedClassifier(probabilities)
    original, candidate = texts[0], texts[-1]
    served.odd = {original: Say("I'm sorry, I can't help with that."), candidate: Say("hmm")}
    with chat_server(served) as server:
        asked = f"{{endpoint: '{server.url}', model: some-llm}}"
        path = folder / "odd.yaml"
        path.write_text(recipe(asked, tiny_bert))
        checked = augkd("check", path)
        assert checked.code == 0
        assert f"some-llm at {server.url}" in checked.out
        assert "OPENAI_API_KEY is set" in checked.out
        assert server.requests == [], "check contacts nothing"
        out = tmp_path / "run"
        done = augkd("run", path, "--out", out)
        assert done.code == 0, done.err
        paid = len(server.requests)
        again = augkd("run", path, "--out", out)
        assert again.code == 0
        other = augkd("run", path, "--out", out, "--set", "seed=3", "--set", "training.epochs=1")
        assert other.code == 0
        assert len(server.requests) == paid, "another student costs nothing"
        assert paid == len(texts)
    transfer = TransferSet.open(out / "transfer_set")
    assert original not in transfer.column("text")
    assert transfer.column("label").count(None) == 2, "candidates of the original, which were paid for, stay"
    assert len(transfer) == 89 + 2
    assert candidate not in transfer.candidates().text
    listed = [json.loads(line) for line in (out / "transfer_set" / FILE).read_text().splitlines()]
    assert {(row["text"], row["reason"]) for row in listed} == {(original, "refused"), (candidate, "unparsable")}
    manifest = json.loads((out / "transfer_set" / "manifest.json").read_text())
    assert manifest["data"]["originals"] == 91
    assert manifest["data"]["left_out"] == 2
    (report,) = manifest["asked"]
    assert report["left_out"] == {"refused": 1, "unparsable": 1}
    assert report["calibration"]["texts"] == 89
    results = json.loads((out / "results.json").read_text())
    assert results["teacher"] == {"validation": None, "test": None, "parameters": None}
    assert "the language model `some-llm`" in (out / "student" / "README.md").read_text()
    written = [path for path in out.rglob("*") if path.is_file()]
    assert len(written) > 20
    for file in written:
        assert KEY.encode() not in file.read_bytes(), file
    assert KEY not in done.out + done.err + checked.out
    assert server.url not in (out / "student" / "README.md").read_text(), "a card does not tell where the server is"
