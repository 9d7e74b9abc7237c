"""The BiLSTM student (Distilled-BiLSTM, Tang et al. 2019): last states of both directions, one ReLU layer, outputs.

Each direction is a separate LSTM; the backward one reads the tokens in reverse order, real ones first. Padding thus
comes after all real tokens and changes nothing, as with packed sequences, which ONNX cannot express.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel, initialization
from transformers.modeling_outputs import SequenceClassifierOutput

from augkd.models.small_students.siamese import compare_texts, text_masks


class BiLSTMConfig(PreTrainedConfig):  # type: ignore[misc]
    """Sizes of a BiLSTM classifier; the paper uses width 300, hidden 150, one layer, 200 or 400 ReLU units."""

    model_type = "augkd_bilstm"
    attribute_map = {"hidden_size": "hidden", "num_hidden_layers": "layers"}  # noqa: RUF012

    vocab_size: int = 30522
    width: int = 128  # dimensions of a token vector
    hidden: int = 256  # dimensions of the state of each direction
    layers: int = 1
    dense: int = 200  # ReLU units between the states and the outputs
    dropout: float = 0.3  # applied to the token vectors, between layers, and before the last layer
    pairs: bool = False  # True: the two texts are read separately and compared; False: all tokens are one text
    separator: int | None = None  # the token that ends the first text, for a tokenizer without token types
    type_vocab_size: int = 1  # 2: the tokenizer marks the second text with token type 1
    pad_token_id: int | None = 0


class _BothDirections(nn.Module):
    """One layer: a forward and a backward LSTM over (n, length, width) → (n, length, 2 · hidden)."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.forward_lstm = nn.LSTM(width, hidden, batch_first=True)
        self.backward_lstm = nn.LSTM(width, hidden, batch_first=True)

    def forward(self, vectors: Tensor, lengths: Tensor) -> Tensor:
        order = _reversed_positions(lengths, vectors.shape[1])
        ahead, back = _states(self.forward_lstm, vectors), _states(self.backward_lstm, _gather(vectors, order))
        return torch.cat([ahead, _gather(back, order)], dim=-1)


def _states(lstm: nn.LSTM, vectors: Tensor) -> Tensor:
    """All states, (n, length, hidden); in float32 under autocast on a CPU whose oneDNN has no LSTM in bfloat16."""
    if vectors.device.type == "cpu" and torch.is_autocast_enabled("cpu") and not _has_bf16():
        with torch.autocast("cpu", enabled=False):
            float_states: Tensor = lstm(vectors.float())[0]
            return float_states
    states: Tensor = lstm(vectors)[0]
    return states


def _has_bf16() -> bool:
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)  # private in torch
    return supported is not None and bool(supported())


class BiLSTMForSequenceClassification(PreTrainedModel):  # type: ignore[misc]
    """A bidirectional LSTM over token vectors, with a `save_pretrained` folder like any other classifier."""

    config_class = BiLSTMConfig
    base_model_prefix = "bilstm"

    def __init__(self, config: BiLSTMConfig):
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        widths = [config.width, *[2 * config.hidden] * (config.layers - 1)]
        self.layers = nn.ModuleList([_BothDirections(width, config.hidden) for width in widths])
        self.dense = nn.Linear((8 if config.pairs else 2) * config.hidden, config.dense)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(config.dense, config.num_labels)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        """The table of token vectors."""
        return self.embedding

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replaces the table of token vectors."""
        self.embedding = value

    def forward(
        self,
        input_ids: Tensor | None = None,  # (n, length)
        attention_mask: Tensor | None = None,  # (n, length); the ones are contiguous
        token_type_ids: Tensor | None = None,  # (n, length); used for pairs only
        inputs_embeds: Tensor | None = None,  # (n, length, width), instead of the vectors of `input_ids`
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput:
        """Logits (n, outputs), and the usual loss where `labels` are given."""
        vectors = self.embedding(input_ids) if inputs_embeds is None else inputs_embeds
        mask = torch.ones_like(vectors[..., 0]) if attention_mask is None else attention_mask
        texts = [mask.bool()]
        if self.config.pairs:
            texts = text_masks(input_ids, mask, token_type_ids, self.config.separator)
        both = self._last_states(vectors.repeat(len(texts), 1, 1), torch.cat(texts))  # one pass over all texts
        states = compare_texts([both[: len(vectors)], both[len(vectors) :]] if self.config.pairs else [both])
        logits = self.classifier(self.dropout(self.dense(states).relu()))
        loss = None if labels is None else self.loss_function(labels, logits, self.config)
        return SequenceClassifierOutput(loss=loss, logits=logits)

    def _last_states(self, vectors: Tensor, text: Tensor) -> Tensor:  # (n, 2 · hidden); zeros for an empty text
        lengths = text.sum(dim=1)
        start = text.long().argmax(dim=1)  # left padding shifts a text, the first text of a pair shifts the second
        # a text of a pair is shorter than the pair; an exported graph keeps the whole length, which changes nothing
        longest = vectors.shape[1] if torch.compiler.is_exporting() else max(1, int(lengths.max()))
        places = start[:, None] + torch.arange(longest, device=text.device)[None, :]
        states = self.dropout(_gather(vectors, places.clamp(max=vectors.shape[1] - 1)))
        for number, layer in enumerate(self.layers):
            states = layer(self.dropout(states) if number else states, lengths)
        ahead, back = states.chunk(2, dim=-1)
        last = _gather(ahead, (lengths - 1).clamp(min=0)[:, None])[:, 0]
        return torch.cat([last, back[:, 0]], dim=-1) * (lengths > 0)[:, None]

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Embedding):
            initialization.normal_(module.weight, std=1.0)  # with the usual 0.02 an LSTM's gates would hardly move
        else:
            super()._init_weights(module)


def _reversed_positions(lengths: Tensor, longest: int) -> Tensor:  # (n, longest)
    """Positions that read each row's real tokens backwards; what comes after them repeats the first token."""
    places = torch.arange(longest, device=lengths.device)
    return (lengths[:, None] - 1 - places[None, :]).clamp(min=0)


def _gather(vectors: Tensor, places: Tensor) -> Tensor:
    """`vectors` (n, length, width) at `places` (n, m) of each row: (n, m, width)."""
    return vectors.gather(1, places[..., None].expand(-1, -1, vectors.shape[-1]))
