"""A teacher on a cluster labels each text once, with the logits that it computes here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.tiny import LABELS, sentences

from augkd.data.target import Target
from augkd.distill.teacher import outputs as module
from augkd.distill.teacher.outputs import CachedTeacher
from augkd.distill.teacher.ray import TeacherFiles, predict_on
from augkd.models.classifier import Pair, load_backbone, load_classifier
from augkd.models.cluster import Cluster

pytestmark = pytest.mark.xdist_group("ray")

TEXTS: list[Pair] = [(text, None) for text, _ in sentences()] * 2


def test_each_distinct_text_is_labelled_once_with_the_logits_computed_here(
    ray_address: str, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PART", 16)
    load_backbone(str(tiny_bert), LABELS, 32, seed=0).save(tmp_path / "teacher")
    files = TeacherFiles(tmp_path / "teacher", Target(LABELS), 32, None, "float32")
    model = load_classifier(str(files.folder), LABELS, 32, precision="float32")
    here = CachedTeacher(lambda: model, 3, tmp_path / "here", "w", 32)
    expected = here.logits(TEXTS)
    steps: list[tuple[int, int | None]] = []
    with Cluster.connect(ray_address, workers=2, in_place=False) as cluster:
        sent: list[Pair] = []

        def predict(parts: list[list[Pair]]) -> object:
            sent.extend(text for part in parts for text in part)
            return predict_on(cluster, files, parts)

        there = CachedTeacher(lambda: pytest.fail("no model is loaded here"), 3, tmp_path / "there", "w", 32, predict)
        np.testing.assert_array_equal(there.logits(TEXTS, lambda *step: steps.append(step)), expected)
        assert sorted(sent) == sorted(set(TEXTS))
        assert there.rows == here.rows == len(TEXTS) // 2
        there.logits(TEXTS[:20])
        assert there.rows == here.rows, "what is stored is not labelled again"
    few = CachedTeacher(lambda: model, 3, tmp_path / "few", "w", 32, lambda _: pytest.fail("too few to send"), 2)
    assert few.logits(TEXTS[:16]).shape == (16, 3)
    assert steps[-1] == (len(TEXTS) // 2, len(TEXTS) // 2)
    assert len(steps) == 6
    names = [sorted(path.name for path in store.parent.rglob("part-*")) for store in (here._folder, there._folder)]
    assert names[0] == names[1] == [f"part-{number:05d}.safetensors" for number in range(6)]
