"""ONNX Runtime sends nothing from an augkd session."""

from __future__ import annotations

from typing import Any

import pytest

from augkd.models.onnx_graph import session


def test_telemetry_is_off_before_a_session_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    calls: list[Any] = []
    monkeypatch.setattr(onnxruntime, "disable_telemetry_events", lambda: calls.append("off"))
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda model, options, providers: calls.append(model))
    session(b"model", threads=1)
    assert calls == ["off", b"model"]
