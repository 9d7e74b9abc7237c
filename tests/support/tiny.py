"""A tiny task: sentences of three classes that a random 3-layer BERT learns in seconds."""

from __future__ import annotations

LABELS = ("animal", "food", "tool")
WORDS = {
    "animal": ("cat", "dog", "horse", "bird", "fish", "goat"),
    "food": ("bread", "soup", "apple", "cheese", "rice", "cake"),
    "tool": ("hammer", "saw", "drill", "spade", "axe", "knife"),
}
FRAMES = ("the {} is here", "where is my {} ?", "she bought a {}", "two of them saw a {}", "a {} was in the house")


def sentences(start: int = 0) -> list[tuple[str, str]]:
    """(text, label) of every word in every frame, numbered from `start` so that calls do not repeat each other."""
    rows = []
    for number, frame in enumerate(FRAMES):
        for label, words in WORDS.items():
            rows += [(f"{frame.format(word)} {start + number}", label) for word in words]
    return rows
