"""PyTorch to ONNX: what the INT8 encoder of an index and an exported student have in common.

It uses torch's own exporter and ONNX Runtime rather than Optimum, whose releases pin older transformers. The graph
contains no path of the machine that it was made on.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from augkd.errors import ModelError

_EXTRA = ("onnx", "onnxscript", "onnxruntime")


def check_extra(
    feature: str,  # what needs the extra: the subject of the message
) -> None:
    """Raises ModelError when the extra `onnx` is not installed."""
    missing = [name for name in _EXTRA if importlib.util.find_spec(name) is None]
    if missing:
        raise ModelError(f"{feature} needs {', '.join(missing)}; pip install 'augkd[onnx]'")


def to_onnx(
    module: nn.Module,  # takes `inputs` in their order and returns one tensor; on the CPU, in eval mode
    inputs: Mapping[str, Tensor],  # each (rows, width): two different sizes, neither of them 0 or 1
    output: str,
    name: str,  # the architecture, for the message
    instead: str,  # what to do if it cannot be exported
) -> Any:  # onnx.ModelProto
    """The graph of `module` for any number of rows of any width. Raises ModelError."""
    sizes = {0: torch.export.Dim("rows"), 1: torch.export.Dim("width")}
    # torch 2.13 keeps the traced LSTM of one export, and the next one fails on it (KeyError in its dispatch cache)
    torch.ops.aten.lstm.input._dispatch_cache.clear()
    try:
        # no gradients: with them attention takes a path that depends on the length of the example (models.attention)
        with quiet_exporters(), torch.no_grad():
            program = torch.onnx.export(
                module,
                tuple(inputs.values()),
                dynamo=True,
                verbose=False,
                input_names=list(inputs),
                output_names=[output],
                dynamic_shapes=[sizes] * len(inputs),
            )
    except Exception as exc:  # each of the exporter's passes has exceptions of its own
        reason = str(exc.__cause__ or exc).strip().split("\n")[0][:160]
        raise ModelError(f"{name} cannot be exported to ONNX ({reason}); {instead}") from exc
    assert program is not None
    model = program.model_proto
    del model.graph.value_info[:]  # ONNX Runtime infers shapes itself and fails on torch's
    _drop_sources(model)
    return model


def _drop_sources(model: Any) -> None:
    """Drops the stack traces that torch attaches to nodes: they contain paths of the exporting machine."""
    graphs = [model.graph, *model.functions]
    for graph in graphs:
        for node in graph.node:
            del node.metadata_props[:]
            node.doc_string = ""
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        del value.metadata_props[:]
    del model.graph.metadata_props[:]


def session(model: bytes, threads: int) -> Any:  # onnxruntime.InferenceSession
    """An ONNX Runtime session on the CPU that uses `threads` threads per call."""
    onnxruntime = load_runtime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def load_runtime() -> Any:  # the module onnxruntime
    """ONNX Runtime without telemetry: its wheels, from 1.32, hold a client for Microsoft's servers.

    When it is imported that client writes an identifier of the machine to the home folder and a session file to the
    temporary one; only the environment variable keeps it from that.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    return onnxruntime


@contextlib.contextmanager
def quiet_exporters() -> Iterator[None]:
    """Silences torch's and ONNX Runtime's warnings for developers (missing torchvision, deprecations)."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
