"""Reading a pair with a model that reads one text: both texts through the same encoder, then set side by side.

Distilled-BiLSTM (Tang et al. 2019) compares two vectors as [u, v, |u − v|, u ⊙ v]; the static student does the same, as
a mean over both texts could not tell them apart. A tokenizer without token types (RoBERTa's) still ends the first text
with a separator, which is where the second one is taken to begin.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def texts_of(
    input_ids: Tensor | None,  # (n, length)
    attention_mask: Tensor,  # (n, length)
    token_type_ids: Tensor | None,  # (n, length)
    separator: int | None,
) -> list[Tensor]:
    """Two boolean masks (n, length): the tokens of the first and of the second text; a single text has no second.

    Token types decide where they are given, else the first separator, which belongs to the first text. Raises
    ValueError with neither.
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


def side_by_side(
    texts: Sequence[Tensor],  # one or two of (n, width); an empty text is a row of zeros
) -> Tensor:  # (n, width) or (n, 4 · width)
    """A single text's vector as it is; of two, [u, v, |u − v|, u ⊙ v]."""
    if len(texts) == 1:
        return texts[0]
    first, second = texts
    return torch.cat([first, second, (first - second).abs(), first * second], dim=-1)
