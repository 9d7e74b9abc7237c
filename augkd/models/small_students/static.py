"""The static student: the mean of token vectors and one linear layer; no token sees another.

The mean may be weighted, with one learnt log-weight per token that starts at 0. The weights are the last column of the
embedding table, so that anything that trims or perturbs rows of the table (a smaller vocabulary, FreeLB) includes them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel, initialization
from transformers.modeling_outputs import SequenceClassifierOutput

from augkd.models.small_students.siamese import compare_texts, text_masks


class StaticConfig(PreTrainedConfig):  # type: ignore[misc]
    """Sizes of a static classifier."""

    model_type = "augkd_static"
    attribute_map = {"hidden_size": "width"}  # noqa: RUF012

    vocab_size: int = 30522
    width: int = 256  # dimensions of a token vector
    dropout: float = 0.1  # applied to the mean
    weighted: bool = True  # True: each token has a learnt weight; False: all weigh the same
    pairs: bool = False  # True: the two texts are averaged separately and compared; False: all tokens are one text
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
        """The table of token vectors, with the log-weight as last column where the mean is weighted."""
        return self.embedding

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replaces the table of token vectors."""
        self.embedding = value

    def forward(
        self,
        input_ids: Tensor | None = None,  # (n, length)
        attention_mask: Tensor | None = None,  # (n, length)
        token_type_ids: Tensor | None = None,  # (n, length); used for pairs only
        inputs_embeds: Tensor | None = None,  # (n, length, width [+ 1]), instead of the rows of `input_ids`
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput:
        """Logits (n, outputs), and the usual loss where `labels` are given."""
        rows = self.embedding(input_ids) if inputs_embeds is None else inputs_embeds
        mask = torch.ones_like(rows[..., 0]) if attention_mask is None else attention_mask
        texts = [mask.bool()]
        if self.config.pairs:
            texts = text_masks(input_ids, mask, token_type_ids, self.config.separator)
        means = compare_texts([self._mean(rows, text) for text in texts])
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
