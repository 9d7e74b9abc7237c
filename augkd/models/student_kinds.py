"""Students that are no layers of the teacher: a BiLSTM, a static one, a smaller transformer of the teacher's kind.

All read the teacher's tokens, so that the teacher's word vectors, cut to size by PCA, can be what they start from.
Importing this module also registers the two kinds of ours with `transformers`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from augkd.errors import ModelError, did_you_mean, shown
from augkd.models.classifier import Classifier, _head
from augkd.models.locate import locate
from augkd.models.small_students import registered  # noqa: F401  the kinds of ours
from augkd.models.small_students.bilstm import BiLSTMConfig, BiLSTMForSequenceClassification
from augkd.models.small_students.static import StaticConfig, StaticForSequenceClassification

# What the settings of a smaller transformer are called: first BERT's names, then those of DistilBERT, GPT-2 and T5.
_NAMES = {
    "layers": ("num_hidden_layers", "n_layers", "n_layer", "num_layers"),
    "width": ("hidden_size", "dim", "n_embd", "d_model"),
    "heads": ("num_attention_heads", "n_heads", "n_head", "num_heads"),
    "intermediate": ("intermediate_size", "hidden_dim", "n_inner", "d_ff"),
}
# Settings that follow from the above, or that list one value a layer: left to the configuration's own defaults.
_DERIVED = ("head_dim", "num_key_value_heads", "layer_types", "pooler_hidden_size", "num_hidden_groups")


def build_student(
    kind: str, options: Mapping[str, Any], source: Classifier, seed: int, pairs: bool = False
) -> Classifier:
    """A student of a `kind` in STUDENTS, drawn from `seed`, with the tokens, labels and limits of `source`.

    `pairs` says that the task's examples have two texts, which a BiLSTM or static student then reads apart. Raises
    ModelError for an unknown kind or option, a size that does not fit, vectors wider than the source's.
    """
    if kind not in STUDENTS:
        raise ModelError(f"there is no student '{kind}'{did_you_mean(kind, STUDENTS)}")
    known = inspect.signature(STUDENTS[kind]).parameters.values()
    names = [parameter.name for parameter in known if parameter.kind is parameter.KEYWORD_ONLY]
    for name, value in options.items():
        if name not in names:
            raise ModelError(f"student.{kind} has no option '{name}'{did_you_mean(name, names)}")
        _check(f"student.{kind}.{name}", name, value)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = STUDENTS[kind](source, pairs, **options)
    device = next(source.model.parameters()).device
    return Classifier(model.to(device), source.tokenizer, source.labels, source.max_length, precision=source.precision)


def from_scratch(
    name: str, labels: tuple[str, ...], max_length: int, seed: int, precision: str = "auto", **sizes: int
) -> Classifier:
    """A smaller transformer as the model folder `name` describes one, with its tokenizer and random weights.

    `sizes` are those of `scratch`. Raises ModelError for sizes that do not fit together.
    """
    folder = locate(name)
    config, tokenizer = AutoConfig.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = smaller(config, labels, **sizes)
    longest = min(max_length, int(tokenizer.model_max_length), getattr(config, "max_position_embeddings", max_length))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Classifier(model.to(device), tokenizer, labels, longest, precision=precision)


def bilstm(
    source: Classifier,
    pairs: bool,
    *,
    width: int = 128,
    hidden: int = 256,
    layers: int = 1,
    dense: int = 200,
    dropout: float = 0.3,
    pretrained: bool = True,
) -> Any:
    """A bidirectional LSTM over the teacher's tokens (Tang et al. 2019)."""
    config = BiLSTMConfig(
        width=width, hidden=hidden, layers=layers, dense=dense, dropout=dropout, **_reading(source, pairs)
    )
    return _started(BiLSTMForSequenceClassification(config), source, width, pretrained)


def static(
    source: Classifier,
    pairs: bool,
    *,
    width: int = 256,
    dropout: float = 0.1,
    weighted: bool = True,
    pretrained: bool = True,
) -> Any:
    """The weighted mean of token vectors and one linear layer."""
    config = StaticConfig(width=width, dropout=dropout, weighted=weighted, **_reading(source, pairs))
    return _started(StaticForSequenceClassification(config), source, width, pretrained)


def scratch(
    source: Classifier, pairs: bool, *, layers: int = 2, width: int = 128, heads: int = 2, intermediate: int = 512
) -> Any:
    """A smaller model of the teacher's architecture, with random weights; it reads pairs as the teacher does."""
    return smaller(source.model.config, source.labels, layers, width, heads, intermediate)


Builder = Callable[..., Any]
STUDENTS: dict[str, Builder] = {"bilstm": bilstm, "static": static, "scratch": scratch}


def smaller(
    config: Any,
    labels: Sequence[str],
    layers: int = 2,
    width: int = 128,
    heads: int = 2,
    intermediate: int = 512,
) -> Any:
    """A model of `config`'s kind with these sizes and random weights; raises ModelError when they do not fit."""
    if width % heads:
        raise ModelError(f"student.scratch: width {width} is not a multiple of its {heads} heads")
    sizes = {"layers": layers, "width": width, "heads": heads, "intermediate": intermediate}
    given = {name: value for name, value in config.to_dict().items() if name not in _DERIVED}
    for key, value in sizes.items():
        name = next((name for name in _NAMES[key] if name in given), None)
        if name is None:
            raise ModelError(
                f"student.scratch: {config.model_type} has no setting for {key}; give student.model instead"
            )
        given[name] = value
    per_layer = [name for name, value in given.items() if isinstance(value, list) and len(value) == _depth(config)]
    for name in {"num_labels", "id2label", "label2id", "problem_type", *per_layer}:
        given.pop(name, None)
    try:
        made = type(config)(**given, **_head(labels))
        return AutoModelForSequenceClassification.from_config(made, dtype=torch.float32)
    except (ValueError, RuntimeError, TypeError, AssertionError, KeyError) as exc:
        reason = str(exc).strip().split("\n")[0][:160]
        raise ModelError(f"student.scratch: no {config.model_type} of these sizes: {reason}") from exc


@torch.no_grad()
def embeddings_from(model: Any, width: int) -> Tensor:  # (vocabulary, width) float32
    """The model's word vectors, on the CPU; where `width` is smaller, their `width` leading principal components.

    Each component points where its largest entry is positive, so that machines agree. Raises ModelError where the
    model's vectors are narrower than `width`.
    """
    vectors: Tensor = model.get_input_embeddings().weight.detach().float().cpu()
    if width > vectors.shape[1]:
        raise ModelError(
            f"student width {width} is more than the teacher's vectors have ({vectors.shape[1]}); "
            "make it smaller, or say pretrained: false"
        )
    if width == vectors.shape[1]:
        return vectors.clone()
    centred = vectors.double() - vectors.double().mean(dim=0)
    axes: Tensor = torch.linalg.eigh(centred.T @ centred)[1].flip(1)[:, :width]  # eigenvalues ascend
    largest = axes.gather(0, axes.abs().argmax(dim=0, keepdim=True))
    projected: Tensor = centred @ (axes * largest.sign())
    return projected.float()


def _started(model: Any, source: Classifier, width: int, pretrained: bool) -> Any:
    """The model, its token vectors those of the source where `pretrained`, scaled to a mean square of 1."""
    if pretrained:
        vectors = embeddings_from(source.model, width)
        with torch.no_grad():
            model.embedding.weight[:, :width] = vectors / vectors.square().mean().sqrt()
    return model


def _reading(source: Classifier, pairs: bool) -> dict[str, Any]:
    """The part of a configuration that says how tokens are read, and what the outputs are called."""
    tokenizer = source.tokenizer
    types = tokenizer("a", "b", return_token_type_ids=True)["token_type_ids"]
    marked = 1 in types
    if pairs and not marked and tokenizer.sep_token_id is None:
        raise ModelError("this tokenizer marks no second text and has no separator; give a student that reads pairs")
    return {
        "vocab_size": source.model.get_input_embeddings().num_embeddings,
        "pairs": pairs,
        "type_vocab_size": 2 if pairs and marked else 1,
        "separator": tokenizer.sep_token_id if pairs else None,
        "pad_token_id": source.pad_id,
        **_head(source.labels),
    }


def _check(what: str, name: str, value: Any) -> None:
    if name in ("pretrained", "weighted"):
        if not isinstance(value, bool):
            raise ModelError(f"{what} is {shown(value)}; give true or false")
    elif isinstance(value, bool) or not isinstance(value, int | float):
        raise ModelError(f"{what} is {shown(value)}; give a number")
    elif name == "dropout":
        if not 0 <= value < 1:
            raise ModelError(f"{what} is {value}; give a number from 0 to below 1")
    elif value < 1 or value != int(value):
        raise ModelError(f"{what} is {value}; give a whole number from 1")


def _depth(config: Any) -> int:
    return int(getattr(config, "num_hidden_layers", 0))
