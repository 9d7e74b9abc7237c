"""The INT8 form of a sentence encoder: exported to ONNX by torch itself, quantised and run by ONNX Runtime.

Optimum is not used, since its releases pin older versions of transformers. Only the transformer is replaced;
tokenisation, pooling and any dense layers stay those of sentence-transformers. Weights are quantised once, per output
channel; activations at run time, per batch. That is fast and coarse: 0.89 of MiniLM's ten nearest questions are found,
and quantising each token's activations separately would find 0.94 (measured), so `auto` never chooses INT8.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch

from augkd.models.onnx_graph import check_extra, load_runtime, quiet_exporters, session, to_onnx
from augkd.workspace.files import replacing
from augkd.workspace.fingerprints import fingerprint
from augkd.workspace.manifests import finished, versions, write_manifest

_FILE = "model_quantized.onnx"  # the name Hub users expect
_KIND = "onnx_encoder"


def use_int8(
    model: Any,  # SentenceTransformer on the CPU; its transformer is replaced
    weights: str,  # fingerprint of the model folder
    cache: Path | None,  # the folder that keeps exported files; None: a temporary one
) -> None:
    """Replaces the transformer of `model` by an INT8 session, which is exported first unless `cache` has it.

    Raises ModelError when the extra `onnx` is not installed or the architecture cannot be exported.
    """
    check_extra("encoder precision int8")
    module = model[0]
    with tempfile.TemporaryDirectory() as scratch:
        path = _exported(module.model, weights, cache or Path(scratch))
        module.model = Int8Transformer(path, module.model.config)


class Int8Transformer(torch.nn.Module):
    """An ONNX Runtime session in place of a transformers model; safe to call from several threads."""

    def __init__(self, path: Path, config: Any) -> None:
        super().__init__()
        self.config = config  # the replaced model's: sentence-transformers reads the output names from it
        # as in torch: one thread per batch, several batches at once
        self._session = session(path.read_bytes(), threads=1)
        self._anchor = torch.nn.Parameter(torch.zeros(1), requires_grad=False)  # tells callers the device and dtype

    def forward(
        self,
        input_ids: torch.Tensor,  # (n, width)
        attention_mask: torch.Tensor,  # (n, width)
        **_: Any,  # token types: zero for single texts, and constant in the export
    ) -> Any:  # a BaseModelOutput
        """The last hidden state, (n, width, hidden)."""
        feed = {"input_ids": input_ids.numpy(), "attention_mask": attention_mask.numpy()}
        from transformers.modeling_outputs import BaseModelOutput  # transformers takes a second to import

        return BaseModelOutput(last_hidden_state=torch.from_numpy(self._session.run(None, feed)[0]))


def _exported(transformer: torch.nn.Module, weights: str, cache: Path) -> Path:
    exporters = {name: version for name, version in versions().items() if name in ("torch", "transformers")}
    made_from = {"weights": weights, "exporters": exporters, "bits": 7}
    folder = cache / f"int8-{fingerprint(made_from)[:16]}"
    path = folder / _FILE
    if finished(folder, _KIND, made_from):
        return path

    folder.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        _quantise(transformer, temporary)
    write_manifest(folder, _KIND, made_from)
    return path


def _quantise(transformer: torch.nn.Module, path: Path) -> None:
    load_runtime()
    from onnxruntime.quantization import QuantType, quantize_dynamic

    ids = torch.arange(21).reshape(3, 7)
    kind = type(transformer).__name__
    exported = to_onnx(
        _LastHiddenState(transformer).eval(),
        {"input_ids": ids, "attention_mask": torch.ones_like(ids)},
        "last_hidden_state",
        kind,
        "use precision bfloat16 or float32",
    )
    with quiet_exporters():
        # 7 bits: products of 8-bit numbers overflow 16 bits on CPUs without VNNI
        quantize_dynamic(exported, str(path), weight_type=QuantType.QInt8, per_channel=True, reduce_range=True)


class _LastHiddenState(torch.nn.Module):
    def __init__(self, transformer: torch.nn.Module) -> None:
        super().__init__()
        self.transformer = transformer

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.transformer(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return output
