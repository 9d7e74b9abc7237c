"""Teacher and student: how they are loaded, cut from one another, and run over rows of any length.

A `Classifier` is a model with its tokenizer and its label names; both players are one, each with a tokenizer of its
own. Labels are matched by name. The one truncation rule for both is `max_length` tokens, the longer text of a pair cut
first.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from augkd.errors import ModelError
from augkd.models.devices import budget_of, uses_bf16
from augkd.models.layer_map import layer_map
from augkd.models.locate import locate
from augkd.models.tokens import RowGroups, Tokens

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

    def tokens(self, texts: Sequence[Pair]) -> Tokens:
        """Tokenises single texts or pairs, truncated to `max_length`."""
        if not texts:
            return Tokens.of([])
        second = [pair for _, pair in texts] if texts[0][1] is not None else None
        encoded = self.tokenizer(
            [text for text, _ in texts],
            second,
            truncation="longest_first",
            max_length=self.max_length,
            return_token_type_ids=True,
            return_attention_mask=False,
        )
        return Tokens.of(encoded["input_ids"], encoded["token_type_ids"])

    def logits(
        self,
        tokens: Tokens,
        purpose: str,
        budget: int | None = None,
        mixed: bool = True,
        groups: RowGroups | None = None,  # those of `tokens`; by default made from `budget` and `mixed`
    ) -> Tensor:  # (n, outputs) float32
        """Logits of every row, in order; counted under `purpose`. Gradients flow where the caller allows them."""
        precision, rows = self.precision, self.rows
        return run(self.model, tokens, self.pad_id, precision, rows, purpose, self.order, budget, mixed, groups)

    @torch.no_grad()
    def predict(self, texts: Sequence[Pair], purpose: str = "evaluation") -> Tensor:  # (n, outputs) float32
        """Logits of texts, in eval mode; the mode before is restored. Which texts share a batch: `mixes`."""
        training = self.model.training
        self.model.eval()
        logits = self.logits(self.tokens(texts), purpose, mixed=self.mixes)
        self.model.train(training)
        return logits.cpu()

    @property
    def mixes(self) -> bool:
        """Whether texts of different lengths share a batch where what is said of them is kept.

        It must not depend on the texts asked with one. In bf16 padding makes it (an attention over 8 more places: 5e-4
        in a MiniLM's logits), but neither number nor order of rows do, so there rows of one length go together. In
        float32 padding is worth 5e-8, and a row alone as much: its sums depend on where weights lie in memory.
        """
        return not uses_bf16(self.precision, next(self.model.parameters()).device)

    @property
    def pad_id(self) -> int:
        """The padding token's id."""
        return int(self.tokenizer.pad_token_id or 0)

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    def save(self, folder: Path) -> None:
        """A `save_pretrained` folder: safetensors, configuration, tokenizer."""
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


def run(
    model: nn.Module,
    tokens: Tokens,
    pad_id: int,
    precision: str,
    counted: Counter[str],
    purpose: str,
    order: Sequence[int] | None = None,
    budget: int | None = None,
    mixed: bool = True,
    groups: RowGroups | None = None,
) -> Tensor:  # (n, outputs) float32
    """Forwards rows in batches of similar length (unless `mixed`: of one length), bf16 where the device has it, and
    puts them back in order. `groups`, where given, are those of `tokens`, shared with whoever watches the pass.
    """
    parameter = next(model.parameters())
    groups = groups or RowGroups.of(tokens, budget_of(parameter.device, budget), mixed)
    pieces = []
    for rows in groups:
        inputs = tokens.take(rows).padded(pad_id)
        if not takes_token_types(model):
            del inputs["token_type_ids"]
        inputs = {name: value.to(parameter.device) for name, value in inputs.items()}
        with torch.autocast(parameter.device.type, torch.bfloat16, enabled=uses_bf16(precision, parameter.device)):
            pieces.append(model(**inputs).logits.float())
        counted[purpose] += len(rows)
    if not pieces:
        return torch.empty(0, 0)
    logits = groups.restore(pieces)
    return logits if order is None else logits[:, list(order)]


def takes_token_types(model: Any) -> bool:
    """Whether the model has token types (BERT has, DistilBERT and RoBERTa have not or only one)."""
    config = getattr(getattr(model, "module", model), "config", None)
    return getattr(config, "type_vocab_size", 0) > 1


def load_backbone(
    name: str, labels: tuple[str, ...], max_length: int, seed: int, precision: str = "auto"
) -> Classifier:
    """A pre-trained model with a fresh head for `labels` (one output when there are none), drawn from `seed`."""
    folder = locate(name)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = _load(folder, name, **_head(labels), ignore_mismatched_sizes=True)
    return _classifier(model, folder, labels, max_length, precision=precision)


def load_classifier(
    name: str,
    labels: tuple[str, ...],
    max_length: int,
    given: Sequence[str] | None = None,
    precision: str = "auto",
) -> Classifier:
    """A fine-tuned checkpoint whose outputs are matched to the task's `labels` by name.

    `given` names the outputs of a checkpoint that only knows LABEL_0, LABEL_1, …. Raises ModelError when they differ.
    """
    folder = locate(name)
    model = _load(folder, name)
    order = match_labels(name, model.config.id2label, labels, given)
    return _classifier(model, folder, labels, max_length, order, precision)


def match_labels(
    name: str, id2label: dict[int, str], labels: Sequence[str], given: Sequence[str] | None = None
) -> tuple[int, ...] | None:
    """For each task label the model's output of that name; None for regression. Raises ModelError."""
    if not labels:
        if len(id2label) != 1:
            raise ModelError(f"model '{name}' has {len(id2label)} outputs; a regression task needs 1")
        return None
    names = list(given) if given is not None else [id2label[i] for i in range(len(id2label))]
    if len(names) != len(id2label) or len(names) != len(labels):
        raise ModelError(
            f"model '{name}' has {len(id2label)} outputs ({', '.join(names)}), the task {len(labels)} labels"
        )
    if given is None and all(label.startswith("LABEL_") for label in names) and set(names) != set(labels):
        example = ", ".join(labels)
        raise ModelError(
            f"model '{name}' names its outputs {names[0]}…; say what they mean, in its order: labels: [{example}]"
        )
    places = {label.casefold(): place for place, label in enumerate(names)}
    unknown = [label for label in labels if label.casefold() not in places]
    if unknown:
        raise ModelError(
            f"model '{name}' has no output '{unknown[0]}' (it has {', '.join(names)}); rename with labels: [...]"
        )
    return tuple(places[label.casefold()] for label in labels)


def from_layers(teacher: Classifier, layers: Sequence[int] | Mapping[Any, int]) -> Classifier:
    """A student of the teacher's width made of its `layers`, with its embeddings and its head.

    `layers` are 0-based places, or a rule and how many, like {"uniform": 3}; `layer_map` tells the rules. Raises
    ModelError when a layer does not exist.
    """
    total = len(layer_list(teacher.model))
    if isinstance(layers, Mapping):
        if len(layers) != 1:
            raise ModelError(
                f"student.layers is {dict(layers)}; give one rule, like {{uniform: 2}}, or a list of places"
            )
        ((rule, count),) = layers.items()
        layers = layer_map(rule, total, count)
    wrong = [layer for layer in layers if not 0 <= layer < total]
    if wrong or not layers:
        raise ModelError(f"student.layers {list(layers)}: the teacher has layers 0 to {total - 1}")
    model = copy.deepcopy(teacher.model)
    parent, attribute = _layers_of(model)
    kept = nn.ModuleList([getattr(parent, attribute)[layer] for layer in layers])
    setattr(parent, attribute, kept)
    model.config.num_hidden_layers = len(layers)
    if teacher.order is not None:
        _reorder_head(model, teacher.order)
    _name_labels(model, teacher.labels)
    return Classifier(model, teacher.tokenizer, teacher.labels, teacher.max_length, precision=teacher.precision)


def layer_list(model: nn.Module) -> nn.ModuleList:
    """The transformer layers of any encoder."""
    parent, attribute = _layers_of(model)
    layers = getattr(parent, attribute)
    assert isinstance(layers, nn.ModuleList)
    return layers


def _layers_of(model: Any) -> tuple[nn.Module, str]:
    count = model.config.num_hidden_layers
    for module in model.modules():
        for attribute, child in module.named_children():
            if isinstance(child, nn.ModuleList) and len(child) == count:
                return module, attribute
    raise ModelError(f"{type(model).__name__} has no list of {count} layers to choose from; give student.model instead")


def _reorder_head(model: nn.Module, order: Sequence[int]) -> None:
    heads = [
        module for module in model.modules() if isinstance(module, nn.Linear) and module.out_features == len(order)
    ]
    with torch.no_grad():
        heads[-1].weight.copy_(heads[-1].weight[list(order)].clone())
        heads[-1].bias.copy_(heads[-1].bias[list(order)].clone())


def _name_labels(model: Any, labels: Sequence[str]) -> None:
    if labels:
        model.config.id2label = dict(enumerate(labels))
        model.config.label2id = {label: place for place, label in enumerate(labels)}


def _head(labels: Sequence[str]) -> dict[str, Any]:
    if not labels:
        return {"num_labels": 1, "problem_type": "regression"}
    names: Iterable[tuple[int, str]] = enumerate(labels)
    id2label = dict(names)
    return {
        "num_labels": len(labels),
        "id2label": id2label,
        "label2id": {label: place for place, label in id2label.items()},
        "problem_type": "single_label_classification",
    }


def _load(folder: Path, name: str, **head: Any) -> Any:
    from augkd.models.small_students import registered  # noqa: F401  (so that a saved BiLSTM or static student loads)

    try:
        return AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32, **head)
    except (OSError, ValueError, RuntimeError) as exc:
        reason = str(exc).strip().split("\n")[0][:160]
        raise ModelError(f"model '{name}' cannot be loaded as a sequence classifier: {reason}") from exc


def _classifier(
    model: Any,
    folder: Path,
    labels: tuple[str, ...],
    max_length: int,
    order: tuple[int, ...] | None = None,
    precision: str = "auto",
) -> Classifier:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    longest = min(int(tokenizer.model_max_length), getattr(model.config, "max_position_embeddings", max_length))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Classifier(model.to(device), tokenizer, labels, min(max_length, longest), order, precision)
