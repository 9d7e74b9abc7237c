"""Fixtures that several test files share: a tiny task and corpus on disk, a tiny random BERT, a recipe over them."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.storage import cache as cache
from support.storage import s3 as s3
from support.tiny import save_tiny_bert, sentences

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models: threads cost more than they gain


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random 3-layer BERT of width 32 without a head, with the bundled tokenizer."""
    return save_tiny_bert(tmp_path_factory.mktemp("tiny-bert"))


@pytest.fixture(scope="session")
def plain_bert(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny BERT without dropout, whose masks differ between devices, processes and orders of work."""
    folder = tmp_path_factory.mktemp("plain") / "bert"
    shutil.copytree(tiny_bert, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def task_folder(tmp_path: Path) -> Path:
    """A task of three classes: 90 train, 18 validation, 18 test rows in CSV."""
    folder = tmp_path / "task"
    folder.mkdir()
    for split, rows in (("train", sentences(0)), ("validation", sentences(10)[:18]), ("test", sentences(20)[:18])):
        with (folder / f"{split}.csv").open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["text", "label"])
            writer.writerows(rows)
    return folder


@pytest.fixture
def corpus_file(tmp_path: Path) -> Path:
    """200 unlabelled lines, the last of which is the first text of the test split in capitals."""
    lines = [f"{text} and {number}" for number in range(3) for text, _ in sentences(40 + number)][:199]
    path = tmp_path / "corpus.txt"
    path.write_text("\n".join([*lines, sentences(20)[0][0].upper()]) + "\n")
    return path


@pytest.fixture
def recipe_file(tmp_path: Path, task_folder: Path, corpus_file: Path, tiny_bert: Path) -> Path:
    """A minimax recipe for the tiny task that trains in seconds."""
    path = tmp_path / "recipe.yaml"
    path.write_text(
        f"""\
task: {{dataset: {task_folder}}}
teacher: {{model: {tiny_bert}, epochs: 2, learning_rate: 1.0e-3}}
student: {{layers: [0, 2]}}
data:
  neighbours:
    index:
      corpus: {{dataset: {corpus_file}}}
      encoder: {{max_length: 32}}
    k: 4
  select: {{minimax: {{keep: 2}}}}
training: {{kd: {{weight: 0.5, temperature: 2.0}}, ce: {{weight: 0.5}}, epochs: 3, max_length: 32}}
"""
    )
    return path


@pytest.fixture(scope="session")
def ray_address(ray_cluster: Any) -> str:
    """The address of the Ray cluster of the tests."""
    return str(ray_cluster.address)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[Any]:
    """A Ray cluster of two nodes with two CPUs each; tests that use it are of the xdist group `ray`: there is one."""
    from support.ray_cluster import two_nodes

    with two_nodes() as cluster:
        yield cluster
