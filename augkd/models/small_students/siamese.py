"""Reading a pair with a model of single texts: both texts go through the same encoder, then are compared.

Distilled-BiLSTM (Tang et al. 2019) compares two vectors as [u, v, |u − v|, u ⊙ v]; so does the static student, because
a mean over both texts could not tell them apart. A tokenizer without token types (RoBERTa's) still ends the first text
with a separator; the second text is taken to begin after it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def text_masks(
    input_ids: Tensor | None,  # (n, length)
    attention_mask: Tensor,  # (n, length)
    token_type_ids: Tensor | None,  # (n, length)
    separator: int | None,
) -> list[Tensor]:
    """Two boolean masks (n, length): the tokens of the first and of the second text (none for a single text).

    Token types decide where they are given, otherwise the first separator, which belongs to the first text. Raises
    ValueError without either.
    """
    if token_type_ids is not None:
        second = token_type_ids == 1
    elif input_ids is not None and separator is not None:
        ends = (input_ids == separator).long()
        second = ends.cumsum(1) > ends
    else:
        raise ValueError("a pair needs token_type_ids, or input_ids with a separator, to tell its texts apart")
    present = attention_mask.bool()
    return [present & ~second, present & second]


def compare_texts(
    texts: Sequence[Tensor],  # one or two of (n, width); an empty text is a row of zeros
) -> Tensor:  # (n, width) or (n, 4 · width)
    """The vector of a single text unchanged; of two texts [u, v, |u − v|, u ⊙ v]."""
    if len(texts) == 1:
        return texts[0]
    first, second = texts
    return torch.cat([first, second, (first - second).abs(), first * second], dim=-1)
