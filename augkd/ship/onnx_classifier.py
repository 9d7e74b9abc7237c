"""A student in ONNX: its graph, exported from PyTorch, and a session with the same `predict` as the PyTorch student.

Both get the same rows in the same groups, so that a comparison sees a difference in arithmetic and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from augkd.models.classifier import Classifier, Pair
from augkd.models.devices import token_budget_of
from augkd.models.onnx_graph import to_onnx
from augkd.models.tokens import RowGroups, takes_token_types

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class OnnxClassifier:
    """An ONNX Runtime session with the tokenizer of the student that it was exported from."""

    session: Any  # onnxruntime.InferenceSession
    source: Classifier

    def predict(self, texts: Sequence[Pair]) -> Tensor:  # (n, outputs) float32, in the order of the task's labels
        """Logits of texts, forwarded in groups of similar length."""
        tokens = self.source.tokens(texts)
        groups = RowGroups.of(tokens, token_budget_of(_CPU))
        pieces = [self.forward(tokens.take(rows).padded(self.source.pad_id)) for rows in groups]
        logits = groups.restore(pieces)
        return logits if self.source.order is None else logits[:, list(self.source.order)]

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:  # (n, outputs) in the order of the model's outputs
        """Logits of one padded batch."""
        feed = {entry.name: inputs[entry.name].numpy() for entry in self.session.get_inputs()}
        return torch.from_numpy(self.session.run(None, feed)[0])


def export_graph(classifier: Classifier) -> Any:  # onnx.ModelProto
    """The float32 graph, from `input_ids`, `attention_mask` and, if the model takes them, `token_type_ids` to `logits`.

    Raises ModelError when the architecture cannot be exported.
    """
    model = classifier.model
    ids = (torch.arange(21).reshape(3, 7) % 5) + 5  # example input without padding
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if takes_token_types(model):
        inputs["token_type_ids"] = (torch.arange(7) > 3).long().repeat(3, 1)
    return to_onnx(_Logits(model).eval(), inputs, "logits", type(model).__name__, "serve it with PyTorch")


class _Logits(nn.Module):
    """A classifier with positional inputs that returns a tensor, as the exporter requires."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        output: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask, **types).logits
        return output
