"""A masked language model that is asked about masked places only.

The head costs as much as six MiniLM layers, so it reads the hidden states of the masked places and no others: a hook
on the trunk hands it only those, whatever the model. Generator, warm-up and substitution all ask here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from augkd.errors import ModelError
from augkd.models.devices import budget_of, uses_bf16
from augkd.models.locate import locate
from augkd.models.tokens import Tokens


@dataclass
class MaskedLM:
    """A masked language model with its tokenizer; `rows` counts what went through it."""

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
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def special(self) -> Tensor:  # (vocabulary,) bool
        """Which token ids are never masked and never generated: special ones, and outputs that are no token."""
        special = torch.zeros(int(self.model.get_output_embeddings().weight.shape[0]), dtype=torch.bool)
        special[torch.tensor(self.tokenizer.all_special_ids)] = True
        special[len(self.tokenizer) :] = True
        return special

    def logits(
        self,
        tokens: Tokens,  # with the mask token at `places`
        places: Tensor,  # (p,) positions in tokens.ids, ascending
        purpose: str,
        budget: int | None = None,
    ) -> Tensor:  # (p, vocabulary) float32
        """What the model puts at masked places. Gradients flow where the caller allows them."""
        asked = torch.zeros(len(tokens.ids), dtype=torch.bool)
        asked[places] = True
        pieces, order = [], []
        for rows in tokens.batches(budget_of(self.device, budget)):
            group = tokens.take(rows)
            positions = _positions(tokens, rows)
            inside = asked[positions]
            if not inside.any():
                continue
            inputs = group.padded(int(self.tokenizer.pad_token_id or 0))
            mask = inputs["attention_mask"].bool()
            where = torch.zeros_like(mask)
            where[mask] = inside
            if getattr(self.model.config, "type_vocab_size", 0) < 2:
                del inputs["token_type_ids"]
            with torch.autocast(self.device.type, torch.bfloat16, enabled=uses_bf16(self.precision, self.device)):
                pieces.append(logits_at(self.model, {k: v.to(self.device) for k, v in inputs.items()}, where))
            order.append(positions[inside])
            self.rows[purpose] += len(rows)
        if not pieces:
            return torch.empty(0, len(self.special()), device=self.device)
        back = torch.cat(order).argsort()
        return torch.cat(pieces)[back.to(self.device)]


def load_masked_lm(name: str, precision: str = "auto") -> MaskedLM:
    """A masked language model from a folder or the Hub; a trunk without its head gets a random one, tied.

    Raises ModelError when it cannot be one, or has no mask token.
    """
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    folder = locate(name)
    try:
        model, told = AutoModelForMaskedLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    except (OSError, ValueError, RuntimeError) as exc:
        reason = str(exc).strip().split("\n")[0][:160]
        raise ModelError(f"model '{name}' cannot be loaded as a masked language model: {reason}") from exc
    tokenizer = AutoTokenizer.from_pretrained(folder)
    check(model, tokenizer, name)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    missing = [key for key in told["missing_keys"] if "position_ids" not in key]
    return MaskedLM(model.to(device).eval(), tokenizer, precision, trained_head=not missing)


def check(model: Any, tokenizer: Any, name: str = "") -> None:
    """Raises ModelError when the two cannot fill masks together."""
    what = f"model '{name}'" if name else type(tokenizer).__name__
    if tokenizer.mask_token_id is None:
        raise ModelError(f"{what} has no mask token; give a masked language model, like BERT or RoBERTa")
    if not tokenizer.is_fast:
        raise ModelError(f"{what} tells no offsets; load the tokenizer with use_fast=True")
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
        theirs = tokenizer.get_vocab()
        if theirs == vocabulary:
            continue
        differing = min(
            (token for token in {*vocabulary, *theirs} if vocabulary.get(token) != theirs.get(token)), key=str
        )
        raise ModelError(
            f"the generator's vocabulary ({len(vocabulary)} tokens) is not the {role}'s ({len(theirs)}): "
            f"'{differing}' is {vocabulary.get(differing)} and {theirs.get(differing)}; give a generator with the "
            f"{role}'s tokenizer, e.g. data.generator.model: the {role}'s trunk with adapt"
        )


def logits_at(model: Any, inputs: dict[str, Tensor], where: Tensor) -> Tensor:  # where: (rows, length) bool
    """(places, vocabulary) float32 logits at the places `where` is true, row after row; the head sees no other."""

    def pick(_module: Any, _arguments: Any, output: Any) -> Any:
        picked = output[0][where.to(output[0].device)][None]
        if isinstance(output, tuple):
            return (picked, *output[1:])
        output.last_hidden_state = picked
        return output

    with _hooked(model.base_model, pick):
        logits: Tensor = model(**inputs).logits
    if logits.shape[:2] != (1, int(where.sum())):
        raise ModelError(f"the head of {type(model).__name__} does not read the last hidden states; give another model")
    return logits[0].float()


@contextmanager
def _hooked(module: Any, hook: Any) -> Iterator[None]:
    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def _positions(tokens: Tokens, rows: Tensor) -> Tensor:
    """Positions in `tokens.ids` of every token of `rows`, row after row."""
    lengths = tokens.lengths[rows]
    first = torch.repeat_interleave(tokens.offsets[:-1][rows], lengths)
    start = torch.repeat_interleave(lengths.cumsum(0) - lengths, lengths)
    return first + torch.arange(int(lengths.sum())) - start
