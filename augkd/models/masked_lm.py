"""A masked language model whose head computes the masked positions only.

The head costs as much as six MiniLM layers, so it reads the hidden states of the masked positions and no others: a
hook on the backbone passes on only those, whatever the model. Generator, MLM adaptation and substitution all use it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from augkd.errors import ModelError
from augkd.models.devices import token_budget_of, uses_bf16
from augkd.models.libraries import hide_loading_bars
from augkd.models.locate import locate
from augkd.models.packing import packed
from augkd.models.pretrained import load_pretrained, load_tokenizer
from augkd.models.tokens import RowGroups, Tokens, takes_token_types
from augkd.workspace.disk import writing


@dataclass
class MaskedLM:
    """A masked language model with its tokenizer; `rows` counts the rows of every forward pass by purpose."""

    model: Any
    tokenizer: Any
    precision: str = "auto"
    trained_head: bool = True  # False: the checkpoint had none, and this one is random
    rows: Counter[str] = field(default_factory=Counter)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        device: torch.device = next(self.model.parameters()).device
        return device

    def save(self, folder: Path) -> None:
        """A `save_pretrained` folder: safetensors, configuration, tokenizer."""
        with writing(folder):
            self.model.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)

    def special(self) -> Tensor:  # (vocabulary,) bool
        """Which token ids are never masked and never generated: special tokens, and outputs without a token."""
        special = torch.zeros(int(self.model.get_output_embeddings().weight.shape[0]), dtype=torch.bool)
        special[torch.tensor(self.tokenizer.all_special_ids)] = True
        special[len(self.tokenizer) :] = True
        return special

    def logits(
        self,
        tokens: Tokens,  # with the mask token at `places`
        places: Tensor,  # (p,) positions in tokens.ids, ascending
        purpose: str,
        token_budget: int | None = None,  # padded tokens per forward pass; None: what suits the device
    ) -> Tensor:  # (p, vocabulary) in the precision of the products
        """The model's logits at masked positions, in their order. Gradients flow where the caller allows them.

        A group of rows without any masked position is neither forwarded nor counted.
        """
        device = self.device
        masked = torch.zeros(len(tokens.ids), dtype=torch.bool)
        masked[places] = True
        pieces, order = [], []
        with packed(self.model):
            for rows in RowGroups.of(tokens, token_budget_of(device, token_budget)):
                positions = tokens.positions(rows)
                wanted = masked[positions]
                if not wanted.any():
                    continue
                pieces.append(self._forward(tokens.take(rows), wanted))
                order.append(positions[wanted])
                self.rows[purpose] += len(rows)
        if not pieces:
            return torch.empty(0, len(self.special()), device=device)
        logits = torch.cat(pieces) if len(pieces) > 1 else pieces[0]  # megabytes, worth not copying
        places = torch.cat(order)
        return logits if bool((places.diff() > 0).all()) else logits[places.argsort().to(device)]

    def _forward(self, rows: Tokens, wanted: Tensor) -> Tensor:  # wanted: (tokens,) bool → (wanted ones, vocabulary)
        device = self.device
        inputs = rows.padded(int(self.tokenizer.pad_token_id or 0))
        present = inputs["attention_mask"].bool()
        where = torch.zeros_like(present)
        where[present] = wanted
        if not takes_token_types(self.model):
            del inputs["token_type_ids"]
        with torch.autocast(device.type, torch.bfloat16, enabled=uses_bf16(self.precision, device)):
            return logits_at(self.model, {name: value.to(device) for name, value in inputs.items()}, where)


def load_masked_lm(name: str, precision: str = "auto") -> MaskedLM:
    """A masked language model from a folder or the Hub; a backbone without a head gets a random one, tied.

    Raises ModelError when the architecture has no masked-LM head, or the tokenizer no mask token.
    """
    from transformers import AutoModelForMaskedLM

    from augkd.models.attention import use_short_text_attention

    folder = locate(name)
    hide_loading_bars()
    settings = {"dtype": torch.float32, "output_loading_info": True}
    model, report = load_pretrained(AutoModelForMaskedLM, folder, name, "a masked language model", **settings)
    tokenizer = load_tokenizer(folder, name)
    check_masked_lm(model, tokenizer, name)
    use_short_text_attention(model)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    missing = [key for key in report["missing_keys"] if "position_ids" not in key]
    return MaskedLM(model.to(device).eval(), tokenizer, precision, trained_head=not missing)


def check_masked_lm(model: Any, tokenizer: Any, name: str = "") -> None:
    """Raises ModelError when model and tokenizer cannot fill masks together."""
    what = f"model '{name}'" if name else type(tokenizer).__name__
    if tokenizer.mask_token_id is None:
        raise ModelError(f"{what} has no mask token; give a masked language model, like BERT or RoBERTa")
    if not tokenizer.is_fast:
        raise ModelError(f"{what} has no offset mapping; load the tokenizer with use_fast=True")
    outputs, base = model.get_output_embeddings(), model.base_model
    if outputs is None or base is model:
        raise ModelError(f"{type(model).__name__} has no masked-LM head; load it with AutoModelForMaskedLM")
    if len(tokenizer) > outputs.weight.shape[0]:
        raise ModelError(
            f"the tokenizer of {what} has {len(tokenizer)} pieces, the model {outputs.weight.shape[0]}; "
            "give the model's own"
        )


def check_same_vocabulary(generator: Any, **others: Any) -> None:
    """Raises ModelError unless all tokenizers give every token the same id: token ids pass between the models."""
    vocabulary = generator.get_vocab()
    for role, tokenizer in others.items():
        other = tokenizer.get_vocab()
        if other == vocabulary:
            continue
        differing = min(
            (token for token in {*vocabulary, *other} if vocabulary.get(token) != other.get(token)), key=str
        )
        raise ModelError(
            f"the generator's vocabulary ({len(vocabulary)} tokens) is not the {role}'s ({len(other)}): "
            f"'{differing}' is {vocabulary.get(differing)} and {other.get(differing)}; give a generator with the "
            f"{role}'s tokenizer, e.g. data.generator.model: the {role}'s backbone with adapt"
        )


def logits_at(model: Any, inputs: dict[str, Tensor], where: Tensor) -> Tensor:  # where: (rows, length) bool
    """(positions, vocabulary) logits where `where` is true, row after row; the head sees no other position."""

    def pick(_module: Any, _arguments: Any, output: Any) -> Any:
        picked = output[0][where.to(output[0].device)][None]
        if isinstance(output, tuple):
            return (picked, *output[1:])
        output.last_hidden_state = picked
        return output

    handle = model.base_model.register_forward_hook(pick)
    try:
        logits: Tensor = model(**inputs).logits
    finally:
        handle.remove()
    if logits.shape[:2] != (1, int(where.sum())):
        raise ModelError(f"the head of {type(model).__name__} does not read the last hidden states; give another")
    return logits.squeeze(0)  # unlike logits[0], whose gradient would be copied
