"""An augmented sample is a text, or an object with a text and perhaps a second one; anything else is one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from augkd.data.augmented_samples import read_augmented_samples
from augkd.errors import DataError


def written(tmp_path: Path, samples: Any) -> Path:
    path = tmp_path / "samples.jsonl"
    path.write_text(json.dumps({"guid": "1", "augmented_samples": samples}) + "\n")
    return path


def test_texts_and_pairs_are_read(tmp_path: Path) -> None:
    samples = ["a", {"text": "b"}, {"text_a": "c", "text_b": "d"}, {"text": "e", "text_pair": ""}]
    expected = {"1": [("a", None), ("b", None), ("c", "d"), ("e", None)]}
    assert read_augmented_samples(written(tmp_path, samples)) == expected


@pytest.mark.parametrize(
    "sample",
    [5, None, [], {}, {"text": 5}, {"text": None}, {"text": "a", "text_pair": 5}, {"text_a": "a", "text_b": []}],
)
def test_what_is_no_text_is_refused_with_its_row(tmp_path: Path, sample: Any) -> None:
    with pytest.raises(DataError, match=r"samples.jsonl row 1: augmented sample .* is not a text"):
        read_augmented_samples(written(tmp_path, [sample]))


@pytest.mark.parametrize("samples", [5, "a", {"text": "a"}, True])
def test_what_is_no_list_is_refused(tmp_path: Path, samples: Any) -> None:
    with pytest.raises(DataError, match=r"row 1: augmented_samples is .*; give a list"):
        read_augmented_samples(written(tmp_path, samples))
