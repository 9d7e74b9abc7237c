"""Texts with several labels each, in the style of GoEmotions: words decide the labels, and some texts have none."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

EMOTIONS = ("anger", "fear", "joy", "surprise")
_WORDS = {
    "anger": ("awful", "furious", "hate", "unfair"),
    "fear": ("afraid", "danger", "scared", "worried"),
    "joy": ("delighted", "happy", "love", "wonderful"),
    "surprise": ("astonished", "sudden", "unexpected", "wow"),
}
_OTHER = ("the", "bread", "train", "letter", "was", "on", "a", "table", "today", "we", "saw", "it")


def emotional(size: int, seed: int = 0) -> list[dict[str, Any]]:
    """Rows with a text and the list of its labels, from none to three; a quarter of them has none."""
    rng = random.Random(seed)
    rows = []
    for _ in range(size):
        chosen = [name for name in EMOTIONS if rng.random() < 0.3]
        words = [rng.choice(_OTHER) for _ in range(rng.randint(3, 7))]
        for name in chosen:
            words.insert(rng.randrange(len(words)), rng.choice(_WORDS[name]))
        rows.append({"text": " ".join(words), "label": chosen})
    return rows


def write_emotions(folder: Path, train: int = 80, evaluation: int = 40) -> Path:
    """A task folder of JSONL files with train, dev and test."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (split, size) in enumerate({"train": train, "dev": evaluation, "test": evaluation}.items()):
        lines = "".join(json.dumps(row) + "\n" for row in emotional(size, seed))
        (folder / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    return folder
