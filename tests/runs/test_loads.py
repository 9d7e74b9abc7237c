"""A run opens each artefact once: models loaded and files hashed are counted, in a fresh run and a finished one."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForSequenceClassification

from augkd.models.classifier import Classifier
from augkd.models.tokens import Tokens
from augkd.recipe import load_recipe
from augkd.retrieval.encoders import sentence
from augkd.runs.run import Run
from augkd.workspace import fingerprints


class Counts:
    """How often each model was loaded, and each file hashed."""

    def __init__(self) -> None:
        self.classifiers: Counter[str] = Counter()
        self.encoders: Counter[str] = Counter()
        self.hashes: Counter[str] = Counter()


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counts]:
    seen = Counts()
    load_classifier, load_encoder, digest = (
        AutoModelForSequenceClassification.from_pretrained,
        sentence.load_model,
        hashlib.file_digest,
    )

    def counted_classifier(folder: Any, *args: Any, **options: Any) -> Any:
        seen.classifiers[Path(folder).name] += 1
        return load_classifier(folder, *args, **options)

    def counted_encoder(folder: Path, *args: Any, **options: Any) -> Any:
        seen.encoders[folder.name] += 1
        return load_encoder(folder, *args, **options)

    def counted_digest(stream: Any, *args: Any) -> Any:
        seen.hashes[str(stream.name)] += 1
        return digest(stream, *args)

    monkeypatch.setattr(AutoModelForSequenceClassification, "from_pretrained", counted_classifier)
    monkeypatch.setattr(sentence, "load_model", counted_encoder)
    monkeypatch.setattr(hashlib, "file_digest", counted_digest)
    forget_hashes()
    yield seen
    forget_hashes()


def forget_hashes() -> None:
    """As in a new process."""
    fingerprints._remembered.clear()


def test_a_fresh_run_loads_each_model_once_and_hashes_each_file_once(
    recipe_file: Path, tmp_path: Path, tiny_bert: Path, counts: Counts
) -> None:
    Run(load_recipe(str(recipe_file)), tmp_path / "run").results()
    assert counts.classifiers == {tiny_bert.name: 1, "teacher": 1}, "the backbone, then the fine-tuned teacher"
    assert sum(counts.encoders.values()) == 1
    assert counts.hashes, "something is hashed"
    assert {path: count for path, count in counts.hashes.items() if count > 1} == {}


def test_layers_generator_and_assistants_share_the_loaded_teacher(
    recipe_file: Path, tmp_path: Path, tiny_bert: Path, counts: Counts
) -> None:
    changes = ["structure={alp: {weight: 0.1}}", "assistants=[{layers: [0, 1, 2]}]", "training.epochs=1"]
    Run(load_recipe(str(recipe_file), changes), tmp_path / "run").results()
    assert counts.classifiers == {tiny_bert.name: 1, "teacher": 1, "student": 1}, "the assistant's student is a tutor"
    assert sum(counts.encoders.values()) == 1


def test_a_text_passes_the_teacher_once_for_its_label_and_its_layers(
    recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, rows = Classifier._forward, Counter[str]()

    def counted(classifier: Classifier, tokens: Tokens, purpose: str) -> Any:
        rows[purpose] += len(tokens)
        return forward(classifier, tokens, purpose)

    monkeypatch.setattr(Classifier, "_forward", counted)
    plain = Run(load_recipe(str(recipe_file)), tmp_path / "plain")
    plain.results()
    labelled = rows["teacher"]
    matched = Run(load_recipe(str(recipe_file), ["structure={alp: {}}"]), tmp_path / "matched")
    matched.results()
    transfer = matched.transfer_set()
    found = transfer.candidates()
    texts = {*zip(transfer.column("text"), transfer.column("text_pair"), strict=True)}
    texts |= {*zip(found.text, found.text_pair, strict=True)}
    assert rows["teacher layers"] == len(texts)
    assert rows["teacher"] == labelled + labelled - len(texts), "evaluation texts alone have no layers"
    data = [run.transfer_set().folder / "data" for run in (plain, matched)]
    assert data[0].is_dir()
    first, second = ([path.read_bytes() for path in sorted(folder.iterdir())] for folder in data)
    assert first == second


def test_a_run_that_is_done_loads_no_model_at_all(recipe_file: Path, tmp_path: Path, counts: Counts) -> None:
    first = Run(load_recipe(str(recipe_file)), tmp_path / "run").results()
    counts.classifiers.clear()
    counts.encoders.clear()
    again = Run(load_recipe(str(recipe_file)), tmp_path / "run").results()
    assert (counts.classifiers, counts.encoders) == ({}, {})
    assert again["student"] == first["student"]
    assert again["teacher"] == first["teacher"]


def test_another_loss_retrains_the_student_without_an_encoder(
    recipe_file: Path, tmp_path: Path, counts: Counts
) -> None:
    Run(load_recipe(str(recipe_file)), tmp_path / "run").results()
    counts.encoders.clear()
    counts.classifiers.clear()
    Run(load_recipe(str(recipe_file), ["training.learning_rate=0.001"]), tmp_path / "run").results()
    assert (counts.classifiers, counts.encoders) == ({"teacher": 1}, {}), "its layers make the student"


@pytest.mark.slow
def test_a_finished_run_never_imports_transformers(recipe_file: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from augkd.cli.app import main; sys.argv = ['augkd', *sys.argv[1:]]\n"
        "try:\n    main()\nexcept SystemExit as exc:\n    assert not exc.code\n"
        "sys.exit('transformers' in sys.modules)\n"
    )
    command = [sys.executable, "-c", code, "run", str(recipe_file), "--out", str(tmp_path / "run")]
    first, second = (subprocess.run(command, capture_output=True, text=True, check=False) for _ in range(2))
    assert first.returncode == 1, "training needs it"
    assert second.returncode == 0, second.stderr
