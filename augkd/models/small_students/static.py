"""The static student: the mean of token vectors and one linear layer; no token sees another.

The mean may be weighted, with one learnt log-weight a token that starts at 0. It is the last column of the embedding
table, so that whatever cuts or perturbs rows of the table (a trimmed vocabulary, FreeLB) takes it along.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel, initialization
from transformers.modeling_outputs import SequenceClassifierOutput

from augkd.models.small_students.siamese import side_by_side, texts_of


class StaticConfig(PreTrainedConfig):  # type: ignore[misc]
    """Sizes of a static classifier."""

    model_type = "augkd_static"
    attribute_map = {"hidden_size": "width"}  # noqa: RUF012

    vocab_size: int = 30522
    width: int = 256  # of a token's vector
    dropout: float = 0.1  # of the mean
    weighted: bool = True  # tokens weigh what they learn to; otherwise all the same
    pairs: bool = False  # two texts are averaged apart and compared; otherwise all tokens are one text
    separator: int | None = None  # the token that ends the first text, for a tokenizer without token types
    type_vocab_size: int = 1  # 2: the tokenizer marks the second text with token type 1
    pad_token_id: int | None = 0


class StaticForSequenceClassification(PreTrainedModel):  # type: ignore[misc]
    """A mean of token vectors under a linear layer, with a `save_pretrained` folder like any other classifier."""

    config_class = StaticConfig
    base_model_prefix = "static"

    def __init__(self, config: StaticConfig):
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocab_size, config.width + config.weighted)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear((4 if config.pairs else 1) * config.width, config.num_labels)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        """The table of token vectors, each with its log-weight at the end where the mean is weighted."""
        return self.embedding

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Puts another table in its place."""
        self.embedding = value

    def forward(
        self,
        input_ids: Tensor | None = None,  # (n, length)
        attention_mask: Tensor | None = None,  # (n, length)
        token_type_ids: Tensor | None = None,  # (n, length); only looked at for pairs
        inputs_embeds: Tensor | None = None,  # (n, length, width [+ 1]), in place of the rows of `input_ids`
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput:
        """Logits (n, outputs), and the usual loss where `labels` are given."""
        rows = self.embedding(input_ids) if inputs_embeds is None else inputs_embeds
        mask = torch.ones_like(rows[..., 0]) if attention_mask is None else attention_mask
        texts = [mask.bool()]
        if self.config.pairs:
            texts = texts_of(input_ids, mask, token_type_ids, self.config.separator)
        means = side_by_side([self._mean(rows, text) for text in texts])
        logits = self.classifier(self.dropout(means))
        loss = None if labels is None else self.loss_function(labels, logits, self.config)
        return SequenceClassifierOutput(loss=loss, logits=logits)

    def _mean(self, rows: Tensor, text: Tensor) -> Tensor:  # (n, width); zeros for an empty text
        vectors = rows[..., : self.config.width]
        scores = rows[..., self.config.width] if self.config.weighted else torch.zeros_like(rows[..., 0])
        weights = scores.masked_fill(~text, torch.finfo(scores.dtype).min).softmax(dim=1) * text
        return (weights[..., None] * vectors).sum(dim=1)

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.Embedding):
            initialization.normal_(module.weight, std=1.0)
            if self.config.weighted:
                initialization.zeros_(module.weight[:, self.config.width :])
