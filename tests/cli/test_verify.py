"""`augkd verify`: what it read, what is damaged, and its status."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.command_line import Augkd

from augkd.workspace.folders import begin, end


def artefact(folder: Path) -> Path:
    begin(folder, "index", {"seed": 1})
    (folder / "vectors.faiss").write_bytes(b"v" * 100)
    (folder / "texts.arrow").write_bytes(b"t" * 50)
    end(folder, "index", {"seed": 1})
    return folder


def test_a_whole_folder_is_status_0_and_a_damaged_one_names_the_files_with_status_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    augkd, folder = Augkd(monkeypatch, capsys), artefact(tmp_path / "runs" / "index")
    whole = augkd("verify", tmp_path / "runs", "--json")
    assert whole.code == 0, whole.err
    assert whole.json == {
        "artefacts": [{"folder": str(folder), "kind": "index", "files": 2, "bytes": 150}],
        "damaged": [],
    }
    (folder / "vectors.faiss").write_bytes(b"v" * 99 + b"w")
    (folder / "texts.arrow").unlink()
    damaged = augkd("verify", tmp_path / "runs")
    assert damaged.code == 1
    assert f"damaged: {folder / 'vectors.faiss'} is damaged" in damaged.err
    assert f"damaged: {folder / 'texts.arrow'} is missing" in damaged.err
    assert damaged.err.splitlines()[-1].startswith(f"error: {tmp_path / 'runs'}: 2 files are damaged or missing")
