"""A transfer set in memory, with random teacher logits."""

from __future__ import annotations

from typing import Any

import torch
from support.tiny import LABELS, sentences

from augkd.data.transfer_set import TransferSet, in_memory

K = 4


def transfer(originals: int, labels: tuple[str, ...] = LABELS, copies: bool = False, k: int = K) -> TransferSet:
    """Originals with `k` candidates each; with `copies` an original's candidates are all the same."""
    texts = sentences()
    draw = torch.Generator().manual_seed(0)

    def logits() -> list[float]:
        return torch.randn(len(labels) or 1, generator=draw).tolist()

    def candidate(number: int, position: int, teacher_logits: list[float]) -> dict[str, Any]:
        text = f"{sentences(50)[number * k + (0 if copies else position)][0]}{' really' * (0 if copies else position)}"
        return {
            "id": f"{number}-{position}",
            "text": text,
            "text_pair": None,
            "source": "corpus",
            "score": 0.5,
            "teacher_logits": teacher_logits,
        }

    rows = []
    for number in range(originals):
        text, label = texts[number * 5]
        same = logits() if labels else [number / 4]
        rows.append(
            {
                "id": str(number),
                "text": f"{text}{' and so on' * (number % 3)}",
                "text_pair": None,
                "label": label if labels else number / 4,
                "teacher_logits": logits() if labels else same,
                "candidates": [
                    candidate(number, position, same if copies or not labels else logits()) for position in range(k)
                ],
            }
        )
    return in_memory(rows, labels)
