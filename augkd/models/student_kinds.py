"""Students that are not layers of the teacher: a BiLSTM, a static one, a smaller transformer of the teacher's kind.

All read the teacher's tokens, so they can start from the teacher's word vectors, reduced to their width by PCA.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from augkd.data.target import Target
from augkd.errors import ModelError, did_you_mean, short_repr
from augkd.models.classifier import Classifier
from augkd.models.outputs import head_settings
from augkd.models.small_students.bilstm import BiLSTMConfig, BiLSTMForSequenceClassification
from augkd.models.small_students.static import StaticConfig, StaticForSequenceClassification

# What a configuration calls the sizes of a transformer: first BERT's names, then those of DistilBERT, GPT-2 and T5.
_SIZE_NAMES = {
    "layers": ("num_hidden_layers", "n_layers", "n_layer", "num_layers"),
    "width": ("hidden_size", "dim", "n_embd", "d_model"),
    "heads": ("num_attention_heads", "n_heads", "n_head", "num_heads"),
    "intermediate": ("intermediate_size", "hidden_dim", "n_inner", "d_ff"),
}
# Settings that follow from the above, or that list one value per layer: left to the configuration's own defaults.
_DERIVED = ("layer_types", "pooler_hidden_size", "num_hidden_groups")


def build_student(
    kind: str, options: Mapping[str, Any], source: Classifier, seed: int, pairs: bool = False
) -> Classifier:
    """A student of a `kind` in STUDENTS, drawn from `seed`, with the tokenizer, labels and length limit of `source`.

    `pairs` says that the task's examples have two texts, which a BiLSTM or static student then reads separately. Raises
    ModelError for an unknown kind or option, a size that does not fit, or vectors wider than the source's.
    """
    if kind not in STUDENTS:
        raise ModelError(f"there is no student '{kind}'{did_you_mean(kind, STUDENTS)}")
    parameters = inspect.signature(STUDENTS[kind]).parameters.values()
    names = [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
    for name, value in options.items():
        if name not in names:
            raise ModelError(f"student.{kind} has no option '{name}'{did_you_mean(name, names)}")
        _check_option(f"student.{kind}.{name}", name, value)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = STUDENTS[kind](source, pairs, **options)
    return Classifier(
        model.to(source.device),
        source.tokenizer,
        source.labels,
        source.max_length,
        precision=source.precision,
        multi_label=source.multi_label,
    )


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
        width=width, hidden=hidden, layers=layers, dense=dense, dropout=dropout, **_input_settings(source, pairs)
    )
    return _initialised(BiLSTMForSequenceClassification(config), source, width, pretrained)


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
    config = StaticConfig(width=width, dropout=dropout, weighted=weighted, **_input_settings(source, pairs))
    return _initialised(StaticForSequenceClassification(config), source, width, pretrained)


def scratch(
    source: Classifier, pairs: bool, *, layers: int = 2, width: int = 128, heads: int = 2, intermediate: int = 512
) -> Any:
    """A smaller model of the teacher's architecture, with random weights; it reads pairs as the teacher does."""
    return smaller(source.model.config, source.target, layers, width, heads, intermediate)


Builder = Callable[..., Any]
STUDENTS: dict[str, Builder] = {"bilstm": bilstm, "static": static, "scratch": scratch}


def smaller(
    config: Any,
    target: Target,
    layers: int = 2,
    width: int = 128,
    heads: int = 2,
    intermediate: int = 512,
    device: str = "cpu",  # meta: no weights, to see whether the sizes fit
) -> Any:
    """A model of `config`'s architecture with these sizes and random weights; ModelError when they do not fit."""
    if width % heads:
        raise ModelError(f"student.scratch: width {width} is not a multiple of its {heads} heads")
    sizes = {"layers": layers, "width": width, "heads": heads, "intermediate": intermediate}
    settings = {name: value for name, value in config.to_dict().items() if name not in _DERIVED}
    for key, value in sizes.items():
        name = next((name for name in _SIZE_NAMES[key] if name in settings), None)
        if name is None:
            raise ModelError(
                f"student.scratch: {config.model_type} has no setting for {key}; give student.model instead"
            )
        settings[name] = value
    settings |= {name: value for name, value in _following(sizes).items() if name in settings}
    depth = int(getattr(config, "num_hidden_layers", 0))
    per_layer = [name for name, value in settings.items() if isinstance(value, list) and len(value) == depth]
    for name in {"num_labels", "id2label", "label2id", "problem_type", *per_layer}:
        settings.pop(name, None)
    try:
        small = type(config)(**settings, **head_settings(target))
        with torch.device(device):
            return AutoModelForSequenceClassification.from_config(small, dtype=torch.float32)
    except (ValueError, RuntimeError, TypeError, AssertionError, KeyError) as exc:
        reason = str(exc).strip().split("\n")[0][:160]
        raise ModelError(f"student.scratch: no {config.model_type} of these sizes: {reason}") from exc


def _following(sizes: Mapping[str, int]) -> dict[str, int]:
    """Settings that some configurations have besides, in whose defaults the sizes would not fit."""
    return {
        "head_dim": sizes["width"] // sizes["heads"],
        "num_key_value_heads": sizes["heads"],
        "num_decoder_layers": sizes["layers"],
    }


@torch.no_grad()
def embeddings_from(model: Any, width: int) -> Tensor:  # (vocabulary, width) float32
    """The model's word vectors, on the CPU; where `width` is smaller, their `width` leading principal components.

    The sign of each component makes its largest entry positive, so that machines agree. Raises ModelError where the
    model's vectors are narrower than `width`.
    """
    check_width(model, width)
    vectors: Tensor = model.get_input_embeddings().weight.detach().float().cpu()
    if width == vectors.shape[1]:
        return vectors.clone()
    centred = vectors.double() - vectors.double().mean(dim=0)
    axes: Tensor = torch.linalg.eigh(centred.T @ centred)[1].flip(1)[:, :width]  # eigenvalues ascend
    largest = axes.gather(0, axes.abs().argmax(dim=0, keepdim=True))
    projected: Tensor = centred @ (axes * largest.sign())
    return projected.float()


def check_width(model: Any, width: int) -> None:
    """Raises ModelError where the model's word vectors are narrower than `width`."""
    own = model.get_input_embeddings().weight.shape[1]
    if width > own:
        raise ModelError(
            f"student width {width} is more than the teacher's vectors have ({own}); "
            "make it smaller, or set pretrained: false"
        )


def _initialised(model: Any, source: Classifier, width: int, pretrained: bool) -> Any:
    """The model; where `pretrained`, with the source's token vectors, scaled to a mean square of 1."""
    if pretrained:
        vectors = embeddings_from(source.model, width)
        with torch.no_grad():
            model.embedding.weight[:, :width] = vectors / vectors.square().mean().sqrt()
    return model


def _input_settings(source: Classifier, pairs: bool) -> dict[str, Any]:
    """The part of a configuration that says how tokens are read, and what the outputs are called."""
    tokenizer = source.tokenizer
    types = tokenizer("a", "b", return_token_type_ids=True)["token_type_ids"]
    has_types = 1 in types
    if pairs and not has_types and tokenizer.sep_token_id is None:
        raise ModelError(
            f"{type(tokenizer).__name__} has neither token types nor a separator to tell the texts of a pair apart; "
            "give a student that reads pairs"
        )
    return {
        "vocab_size": source.model.get_input_embeddings().num_embeddings,
        "pairs": pairs,
        "type_vocab_size": 2 if pairs and has_types else 1,
        "separator": tokenizer.sep_token_id if pairs else None,
        "pad_token_id": source.pad_id,
        **head_settings(source.target),
    }


def _check_option(key: str, name: str, value: Any) -> None:
    if name in ("pretrained", "weighted"):
        if not isinstance(value, bool):
            raise ModelError(f"{key} is {short_repr(value)}; give true or false")
    elif isinstance(value, bool) or not isinstance(value, int | float):
        raise ModelError(f"{key} is {short_repr(value)}; give a number")
    elif name == "dropout":
        if not 0 <= value < 1:
            raise ModelError(f"{key} is {value}; give a number from 0 to below 1")
    elif value < 1 or value != int(value):
        raise ModelError(f"{key} is {value}; give a whole number from 1")
