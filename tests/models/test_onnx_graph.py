"""ONNX Runtime sends nothing from an augkd session, and leaves nothing of its telemetry on the disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
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


def test_loading_the_runtime_writes_no_file(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environment |= {"HOME": str(tmp_path), "TMPDIR": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    command = "from augkd.models.onnx_graph import load_runtime; load_runtime().SessionOptions()"
    subprocess.run([sys.executable, "-c", command], check=True, env=environment, timeout=120)
    # onnxruntime 1.32 by itself: .ses, .cache/Microsoft/DeveloperTools/.onnxruntime/deviceid and onnxruntime.db
    assert [path for path in tmp_path.rglob("*") if path.is_file() and "matplotlib" not in path.parts] == []
