"""An ensemble predicts the average of its members."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from support.tiny import LABELS

from augkd.distill.ensemble import Ensemble
from augkd.models.classifier import load_backbone


def test_an_ensemble_predicts_the_mean_of_its_members_probabilities(tiny_bert: Path) -> None:
    members = [load_backbone(str(tiny_bert), LABELS, 32, seed=seed, precision="float32") for seed in (0, 1)]
    texts = [("a cat", None), ("the saw is here", None)]
    outputs = np.stack([member.predict(texts).numpy().astype(np.float64) for member in members])
    powers = np.exp(outputs)
    expected = (powers / powers.sum(axis=-1, keepdims=True)).mean(axis=0)
    np.testing.assert_allclose(Ensemble(members).predict(texts).exp().numpy(), expected, rtol=1e-5)

    numbers = [load_backbone(str(tiny_bert), (), 32, seed=seed, precision="float32") for seed in (0, 1)]
    mean = np.mean([member.predict(texts).numpy() for member in numbers], axis=0)
    np.testing.assert_allclose(Ensemble(numbers).predict(texts).numpy(), mean, rtol=1e-5)
