"""Teacher and student: a model with its tokenizer and its label names, loaded and run over rows of any length.

Both players are a `Classifier`, each with its own tokenizer. Labels are matched by name. One truncation rule holds for
both: `max_length` tokens, cutting the longer text of a pair first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from augkd.data.label_names import find_name
from augkd.data.target import Target
from augkd.errors import ModelError
from augkd.models import small_students
from augkd.models.attention import use_short_text_attention
from augkd.models.devices import token_budget_of, uses_bf16
from augkd.models.inputs import agree_on_padding, describe_inputs, longest_input
from augkd.models.libraries import hide_loading_bars
from augkd.models.locate import locate
from augkd.models.outputs import describe_outputs, head_settings
from augkd.models.packing import packed
from augkd.models.pretrained import load_pretrained, load_tokenizer
from augkd.models.tokens import RowGroups, Tokens, takes_token_types
from augkd.workspace.disk import writing

Pair = tuple[str, str | None]


@dataclass
class Classifier:
    """A sequence classifier (or regressor: no labels) with its tokenizer.

    `order[i]` is the model's output for label i of the task. `rows` counts the rows of every forward pass by purpose.
    """

    model: Any
    tokenizer: Any
    labels: tuple[str, ...]
    max_length: int
    order: tuple[int, ...] | None = None
    precision: str = "auto"
    rows: Counter[str] = field(default_factory=Counter)
    multi_label: bool = False  # whether a text has any number of the labels

    @property
    def target(self) -> Target:
        """What it predicts."""
        return Target(self.labels, self.multi_label)

    def tokens(self, texts: Sequence[Pair]) -> Tokens:
        """Tokenises single texts or pairs, truncated to `max_length`."""
        if not texts:
            return Tokens.of([], limit=self.max_length)
        second = [pair for _, pair in texts] if texts[0][1] is not None else None
        encoded = self.tokenizer(
            [text for text, _ in texts],
            second,
            truncation="longest_first",
            max_length=self.max_length,
            return_token_type_ids=True,
            return_attention_mask=False,
        )
        ids = [row or [self.pad_id] for row in encoded["input_ids"]]  # an empty text without special tokens
        return Tokens.of(ids, [row or [0] for row in encoded["token_type_ids"]], self.max_length)

    def logits(
        self,
        tokens: Tokens,
        purpose: str,
        token_budget: int | None = None,  # padded tokens per group; None: what suits the device
        groups: RowGroups | None = None,  # of `tokens`, shared with whatever watches the pass; None: made here
        without_padding: bool = False,  # inside the layers, where the model's layers are known (`packing`)
    ) -> Tensor:  # (n, outputs) float32
        """Logits of every row, in order, forwarded group by group; its rows are counted under `purpose`.

        Computed in bf16 where `precision` says so. Gradients flow where the caller allows them.
        """
        groups = groups or RowGroups.of(tokens, token_budget_of(self.device, token_budget))
        packing = packed(self.model) if without_padding else nullcontext()
        with packing, self._bf16(at_all=not torch.is_grad_enabled()):  # then weights are rounded once for all groups
            pieces = [self._forward(tokens.take(rows), purpose) for rows in groups]
        if not pieces:
            return torch.empty(0, 0)
        logits = groups.restore(pieces)
        return logits if self.order is None else logits[:, list(self.order)]

    def _forward(self, rows: Tokens, purpose: str) -> Tensor:  # (rows, outputs) in the model's order
        device = self.device
        inputs = rows.padded(self.pad_id)
        if not takes_token_types(self.model):
            del inputs["token_type_ids"]
        inputs = {name: value.to(device) for name, value in inputs.items()}
        with self._bf16():
            logits: Tensor = self.model(**inputs).logits.float()
        self.rows[purpose] += len(rows)
        return logits

    def _bf16(self, at_all: bool = True) -> torch.autocast:
        """While open, matrix products are in bf16 if `precision` says so."""
        enabled = at_all and uses_bf16(self.precision, self.device)
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)

    @torch.no_grad()
    def predict(self, texts: Sequence[Pair], purpose: str = "evaluation") -> Tensor:  # (n, outputs) float32
        """Logits of texts, in eval mode; the previous mode is restored. `mixes` says which texts share a batch."""
        training = self.model.training
        self.model.eval()
        tokens = self.tokens(texts)
        groups = RowGroups.of(tokens, token_budget_of(self.device), self.mixes)
        logits = self.logits(tokens, purpose, groups=groups)
        self.model.train(training)
        return logits.cpu()

    @property
    def mixes(self) -> bool:
        """Whether texts of different widths share a batch where predictions are stored.

        A stored prediction must not depend on the texts that were predicted with it. In bf16 padding changes logits
        (attention over 8 more positions: 5e-4 in a MiniLM's), the number and order of rows do not, so only rows that
        are padded to one length even alone share a batch. With AMX there is an exception: products of fewer than about
        500 tokens are added up in another order, by which 34 of 8,192 questions differed in the last bit. In float32
        padding changes logits by 5e-8, no more than a row on its own, whose sums depend on where the weights lie.
        """
        return not uses_bf16(self.precision, self.device)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        device: torch.device = next(self.model.parameters()).device
        return device

    @property
    def pad_id(self) -> int:
        """The padding token's id, which model and tokenizer agree on (`inputs.agree_on_padding`)."""
        return int(self.tokenizer.pad_token_id)

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    def save(self, folder: Path) -> None:
        """A `save_pretrained` folder: safetensors, configuration, tokenizer, which say what was trained."""
        describe_outputs(self.model.config, self.target, self.order)
        describe_inputs(self.model, self.tokenizer, self.max_length)
        with writing(folder):
            self.model.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)


# ---- loading ----


def load_backbone(
    name: str, labels: Target | tuple[str, ...], max_length: int, seed: int, precision: str = "auto"
) -> Classifier:
    """A pre-trained model with a fresh head for a target (names alone: one class per text), drawn from `seed`."""
    folder, target = locate(name), Target.of(labels)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model, absent = _load(folder, name, **head_settings(target), ignore_mismatched_sizes=True)
    inside = [key for key in absent if key.startswith(f"{model.base_model_prefix}.") and "pooler" not in key]
    if inside:
        raise ModelError(
            f"model '{name}' has no weights of this shape for {inside[0]} ({len(inside)} such in all), which "
            f"{type(model).__name__} needs; give a checkpoint of the whole model"
        )
    return _classifier(model, folder, target, max_length, precision=precision)


def load_classifier(
    name: str,
    labels: Target | tuple[str, ...],
    max_length: int,
    output_names: Sequence[str] | None = None,
    precision: str = "auto",
) -> Classifier:
    """A fine-tuned checkpoint whose outputs are matched to the task's `labels` by name.

    `output_names` names the outputs of a checkpoint that only knows LABEL_0, LABEL_1, …. Raises ModelError when outputs
    and labels differ.
    """
    folder = locate(name)
    model, absent = _load(folder, name)
    if absent:
        raise ModelError(
            f"model '{name}' is no trained classifier: it has no weights for {absent[0]}; fine-tune it on the task "
            "with teacher.epochs, or give a trained one"
        )
    order = match_labels(name, model.config.id2label, Target.of(labels), output_names)
    return _classifier(model, folder, Target.of(labels), max_length, order, precision)


def match_labels(
    name: str, id2label: dict[int, str], target: Target, output_names: Sequence[str] | None = None
) -> tuple[int, ...] | None:
    """For each label of the target the model's output of that name; None for regression. Raises ModelError."""
    labels = target.labels
    if target.regression:
        if len(id2label) != target.outputs:
            raise ModelError(f"model '{name}' has {len(id2label)} outputs; a regression task needs {target.outputs}")
        return None
    names = list(output_names) if output_names is not None else [id2label[i] for i in range(len(id2label))]
    if len(names) != len(id2label) or len(names) != target.outputs:
        raise ModelError(
            f"model '{name}' has {len(id2label)} outputs ({', '.join(names)}), the task {target.outputs} labels"
        )
    unnamed = output_names is None and all(label.startswith("LABEL_") for label in names)
    if unnamed and set(names) != set(labels):
        raise ModelError(
            f"model '{name}' names its outputs {names[0]}…; name them in the model's order: "
            f"labels: [{', '.join(labels)}]"
        )
    places = [find_name(label, names, labels) for label in labels]
    unclear = [label for label, place in zip(labels, places, strict=True) if place is None or places.count(place) > 1]
    if unclear:
        raise ModelError(
            f"model '{name}' has no output '{unclear[0]}' of its own (it has {', '.join(map(repr, names))}); "
            "name them in the model's order: labels: [...]"
        )
    return tuple(place for place in places if place is not None)


def _load(folder: Path, name: str, **settings: Any) -> tuple[Any, list[str]]:
    """The model, and the names of the weights that its files lack and that were drawn at random."""
    small_students.register_models()
    hide_loading_bars()
    auto, what = AutoModelForSequenceClassification, "a sequence classifier"
    model, info = load_pretrained(auto, folder, name, what, dtype=torch.float32, output_loading_info=True, **settings)
    return model, sorted({*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])})


def _classifier(
    model: Any,
    folder: Path,
    target: Target,
    max_length: int,
    order: tuple[int, ...] | None = None,
    precision: str = "auto",
) -> Classifier:
    tokenizer = load_tokenizer(folder, folder.name)
    agree_on_padding(model, tokenizer, folder.name)
    longest = longest_input(model, tokenizer, max_length)
    use_short_text_attention(model)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Classifier(
        model.to(device), tokenizer, target.labels, longest, order, precision, multi_label=target.multi_label
    )
