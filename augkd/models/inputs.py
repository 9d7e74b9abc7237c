"""What a model and its tokenizer must agree on: the padding token, the longest text, which inputs are given.

Where the files of the two contradict each other, or say nothing, the same text would score differently alone, in a
batch, and in `pipeline`. They are brought into agreement when a model is loaded, and the agreement is saved with it.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from augkd.errors import ModelError
from augkd.models.tokens import takes_token_types

_STAND_INS = ("eos_token", "bos_token", "sep_token", "cls_token", "unk_token", "mask_token")


def agree_on_padding(model: Any, tokenizer: Any, name: str) -> None:
    """Gives model and tokenizer the same padding token, in place.

    The model's wins: a decoder's head looks for the last token that is not padding, and RoBERTa counts positions from
    it. Where neither has one, a special token stands in that no text ends with. Raises ModelError where there is none.
    """
    config, size = model.config.get_text_config(), model.get_input_embeddings().weight.shape[0]
    own = config.pad_token_id if isinstance(config.pad_token_id, int) and 0 <= config.pad_token_id < size else None
    token = None if own is None else tokenizer.convert_ids_to_tokens(own)
    if token is None:
        given = tokenizer.pad_token_id is not None and tokenizer.pad_token_id < size
        token = tokenizer.pad_token if given else _stand_in(tokenizer, size, name)
    if tokenizer.pad_token != token:
        tokenizer.pad_token = token
    if config.pad_token_id != tokenizer.pad_token_id:
        config.pad_token_id = tokenizer.pad_token_id


def _stand_in(tokenizer: Any, size: int, name: str) -> str:
    """A special token that may pad: one with a vector, which is not the last token of a text."""
    last = tokenizer("a")["input_ids"][-1:]
    for kind in _STAND_INS:
        token = getattr(tokenizer, kind, None)
        place = None if token is None else tokenizer.convert_tokens_to_ids(token)
        if place is not None and place < size and place not in last:
            return str(token)
    raise ModelError(
        f"model '{name}' has no padding token and no special token that could stand in for it; set "
        "tokenizer.pad_token and save the tokenizer with save_pretrained"
    )


def longest_input(
    model: Any,
    tokenizer: Any,
    wanted: int,  # tokens
) -> int:
    """The tokens that texts are cut to: `wanted`, or fewer where the tokenizer or the model takes fewer."""
    limits = [wanted, int(tokenizer.model_max_length)]
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if positions is not None and positions > 0:  # -1 states that there is no limit
        limits.append(int(positions) - positions_before_the_first(model))
    return min(limits)


def positions_before_the_first(model: Any) -> int:
    """How many positions no token gets: RoBERTa's relatives count from the one after their padding token's."""
    tables = (module for name, module in model.named_modules() if name.endswith("position_embeddings"))
    starts = [table.padding_idx for table in tables if isinstance(table, nn.Embedding)]
    return max((start + 1 for start in starts if start is not None), default=0)


def describe_inputs(model: Any, tokenizer: Any, max_length: int) -> None:
    """Makes a tokenizer, in place, give what the model was trained with when nothing is asked of it: to be saved.

    That is at most `max_length` tokens with `truncation=True`, token types where the model reads them and none where it
    does not, and padding on the right, since some models count positions from the left whatever the padding.
    """
    names = [name for name in tokenizer.model_input_names if name != "token_type_ids"]
    if takes_token_types(model):
        names.insert(1, "token_type_ids")
    settings = {"model_input_names": names, "padding_side": "right", "model_max_length": max_length}
    for key, value in settings.items():
        setattr(tokenizer, key, value)
        tokenizer.init_kwargs[key] = value  # what save_pretrained writes
