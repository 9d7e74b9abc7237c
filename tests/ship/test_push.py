"""Exactly the files that belong on the Hub are uploaded; tried against a stand-in for the Hub on this machine."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from support.finished_run import finished_run
from support.manifests import change_manifest, complete_manifest

from augkd.errors import RecipeError, WorkspaceError
from augkd.runs.cards import write_cards
from augkd.ship.push import plan_upload, push, upload_lines
from augkd.workspace.files import write_json


@dataclass
class StandIn:
    """A Hub that accepts everything, or rejects everything with `status`, and records it."""

    address: str = ""
    status: int = 200
    created: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    tokens: set[str | None] = field(default_factory=set)
    paths: list[str] = field(default_factory=list)

    def answer(self, path: str, body: bytes) -> dict[str, Any]:
        self.paths.append(path)
        if path == "/api/repos/create":
            self.created.append(json.loads(body))
            owner, name = self.created[-1]["organization"], self.created[-1]["name"]
            return {"url": f"{self.address}/{owner}/{name}"}
        if "/preupload/" in path:
            names = [file["path"] for file in json.loads(body)["files"]]
            return {"files": [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]}
        if "/commit/" not in path:
            assert path == "/api/validate-yaml", path  # the head of a card
            return {"errors": [], "warnings": []}
        for line in body.splitlines():
            operation = json.loads(line)
            if operation["key"] == "file":
                self.files[operation["value"]["path"]] = base64.b64decode(operation["value"]["content"])
        name = path.removeprefix("/api/").removeprefix("models/").split("/commit/")[0]
        return {"success": True, "commitOid": "0" * 40, "commitUrl": f"{self.address}/{name}/commit/{'0' * 40}"}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[StandIn]:
    stand_in = StandIn()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.whole_body()
            stand_in.tokens.add(self.headers["Authorization"])
            status = stand_in.status
            value = stand_in.answer(self.path, body) if status == 200 else {"error": "You may not write here"}
            answer = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def whole_body(self) -> bytes:
            if "Content-Length" in self.headers:
                return self.rfile.read(int(self.headers["Content-Length"]))
            body = b""
            while size := int(self.rfile.readline(), 16):  # a commit comes in chunks
                body += self.rfile.read(size)
                self.rfile.readline()
            return body

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    stand_in.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", stand_in.address)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "not-a-real-token")
    monkeypatch.setenv("HOME", str(tmp_path / "home" / "ann"))
    yield stand_in
    server.shutdown()
    server.server_close()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run with everything a student's folder may hold, public and private."""
    out = finished_run(tmp_path / "run")
    student = out / "student"
    write_cards(out)
    write_json(student / "tokenizer_config.json", {"name_or_path": "/home/ann/models/big", "unk_token": "[UNK]"})
    for name in ("model.safetensors", "tokenizer.json", "onnx/model.onnx", "onnx/model_quantized.onnx"):
        (student / name).parent.mkdir(exist_ok=True)
        (student / name).write_bytes(b"{}")
    for name in ("log.json", "logs/stage-1/events.out", "checkpoints/stage-1/optimizer.pt", "training_args.bin"):
        (student / name).parent.mkdir(parents=True, exist_ok=True)
        (student / name).write_bytes(b"private")
    write_json(out / "transfer_set" / "withheld.json", ["an evaluation text"])
    return out


STUDENT = {
    *("README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"),
    *("onnx/model.onnx", "onnx/model_quantized.onnx"),
}


def test_a_student_is_uploaded_as_a_model_with_exactly_its_own_files(hub: StandIn, run: Path) -> None:
    assert push(run, "ann/polls", private=True) == f"{hub.address}/ann/polls"
    assert set(hub.files) == STUDENT
    (created,) = hub.created
    assert (created["organization"], created["name"], created["visibility"]) == ("ann", "polls", "private")
    assert hub.paths[-1] == "/api/models/ann/polls/commit/main"
    assert hub.files["README.md"] == (run / "student" / "README.md").read_bytes()
    assert hub.tokens == {"Bearer not-a-real-token"}
    assert not any(b"not-a-real-token" in content for content in hub.files.values())


def test_a_local_path_is_removed_from_the_configuration(hub: StandIn, run: Path) -> None:
    push(run / "student", "ann/polls")
    config = json.loads(hub.files["tokenizer_config.json"])
    assert config == {"name_or_path": "big", "unk_token": "[UNK]"}
    assert b"private" not in b"".join(hub.files.values())
    assert hub.created[0].get("visibility") is None, "public or private, by the account's default"


def test_a_transfer_set_is_uploaded_as_a_dataset_without_the_withheld_texts(hub: StandIn, run: Path) -> None:
    push(run, "ann/polls-set", what="transfer-set")
    assert set(hub.files) == {"README.md", "data/train-00000.parquet"}
    assert hub.created[0]["type"] == "dataset"
    assert hub.paths[-1] == "/api/datasets/ann/polls-set/commit/main"
    parquet = (run / "transfer_set" / "data" / "train-00000.parquet").read_bytes()
    assert hub.files["data/train-00000.parquet"] == parquet


def test_what_a_comparison_shares_is_found_where_the_run_recorded_it(run: Path, tmp_path: Path) -> None:
    shared = tmp_path / "shared" / "transfer_set-kd"
    shared.parent.mkdir()
    (run / "transfer_set").rename(shared)
    with pytest.raises(WorkspaceError, match="has no transfer-set, or it was removed; give another --what"):
        plan_upload(run, "transfer-set")
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["stages"]["transfer_set"] = "../shared/transfer_set-kd"
    change_manifest(run, **manifest)
    assert {file.name for file in plan_upload(run, "transfer-set").files} == {"README.md", "data/train-00000.parquet"}
    (run / "student" / "README.md").unlink()
    assert "README.md" in {file.name for file in plan_upload(run).files}, "its card is written from the shared one"


def index_folder(folder: Path, kind: str = "sentence") -> Path:
    recipe = {"corpus": {"dataset": "/home/ann/mail.txt"}, "encoder": {"kind": kind, "model": "a/b"}}
    facts = {"count": 5, "dim": 4, "factory": "Flat", "recipe": recipe, "encoder": {"kind": kind, "model": "a/b"}}
    complete_manifest(folder, "index", **facts)
    for name in ("vectors.faiss", "texts/part-00000.arrow", "dropped.jsonl", ".verified.json", ".lock"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def test_an_index_is_uploaded_with_a_card_and_a_manifest_without_local_paths(hub: StandIn, tmp_path: Path) -> None:
    push(index_folder(tmp_path / "index"), "ann/mail")
    assert set(hub.files) == {"README.md", "manifest.json", "vectors.faiss", "texts/part-00000.arrow"}
    manifest = json.loads(hub.files["manifest.json"])
    assert manifest["recipe"]["corpus"]["dataset"] == "mail.txt"
    assert manifest["made_from"]["corpus"] == "c"
    assert "- count: 5" in hub.files["README.md"].decode()
    assert "Licence: unknown" in hub.files["README.md"].decode()


def test_an_index_that_could_not_be_searched_elsewhere_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="static encoder"):
        plan_upload(index_folder(tmp_path / "index", "static"))


def test_without_a_card_a_run_s_student_gets_one_and_a_lone_student_is_rejected(run: Path, tmp_path: Path) -> None:
    card = (run / "student" / "README.md").read_text()
    (run / "student" / "README.md").unlink()
    readme = next(file.source for file in plan_upload(run).files if file.name == "README.md")
    assert readme == card.encode()
    assert not (run / "student" / "README.md").exists(), "planning writes nothing"
    lone = tmp_path / "lone"
    (run / "student").rename(lone)
    with pytest.raises(WorkspaceError, match=r"has no README\.md; write one"):
        plan_upload(lone)


def test_a_planned_upload_lists_files_and_sizes_and_sends_nothing(hub: StandIn, run: Path) -> None:
    upload = plan_upload(run)
    assert (upload.kind, {file.name for file in upload.files}) == ("student", STUDENT)
    lines = upload_lines(upload)
    assert lines[-1].endswith("student, 7 files")
    assert any(line.split() == ["2", "B", "model.safetensors"] for line in lines)
    assert hub.paths == []


@pytest.mark.parametrize(
    ("line", "reason"),
    [("trained in {home}/data", "names a folder of this machine"), ("login: hf_" + "a" * 34, "like a Hub token")],
)
def test_a_card_that_names_a_home_folder_or_a_token_stops_the_push(
    hub: StandIn, run: Path, tmp_path: Path, line: str, reason: str
) -> None:
    card = run / "student" / "README.md"
    text = card.read_text()
    card.write_text(text + line.format(home=tmp_path / "home" / "ann"))
    with pytest.raises(WorkspaceError, match=reason) as caught:
        push(run, "ann/polls")
    assert f"README.md line {len(text.splitlines()) + 1}" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert hub.paths == []
    card.write_text(text)
    push(run, "ann/polls")
    assert hub.files


def test_without_a_token_or_a_network_nothing_is_tried(
    hub: StandIn, run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WorkspaceError, match="HF_HUB_OFFLINE is set; unset it"):
        push(run, "ann/polls")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    with pytest.raises(WorkspaceError, match="there is none; run `hf auth login`, or set HF_TOKEN"):
        push(run, "ann/polls")
    assert hub.paths == []


def test_a_rejection_by_the_hub_is_a_one_line_error(hub: StandIn, run: Path) -> None:
    hub.status = 403
    with pytest.raises(WorkspaceError, match="the Hub rejected the student") as caught:
        push(run, "ann/polls")
    assert "You may not write here" in str(caught.value)
    assert "\n" not in str(caught.value)
    hub.status = 200
    with pytest.raises(WorkspaceError, match="a/b/c"):
        push(run, "a/b/c")


def test_a_folder_of_another_kind_is_rejected(run: Path, tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="is not a folder"):
        plan_upload(tmp_path / "nowhere")
    with pytest.raises(WorkspaceError, match=r"has no config\.json; give the folder of a finished student"):
        plan_upload(tmp_path)
    with pytest.raises(WorkspaceError, match="holds augkd's transfer_set, not a student"):
        plan_upload(run / "transfer_set", "student")
    complete_manifest(tmp_path / "teacher", "teacher", {})
    with pytest.raises(WorkspaceError, match="augkd's teacher, which cannot be pushed"):
        plan_upload(tmp_path / "teacher")
    with pytest.raises(RecipeError, match="did you mean 'student'"):
        plan_upload(run, "studnet")
