"""Commands that read from object storage, an S3 server on this machine: results are those of the same files here."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.command_line import Augkd
from support.seed_encoder import files_of
from support.storage import BUCKET, SECRET, change, upload
from support.tiny import sentences

from augkd.recipe import load_index_recipe, load_recipe
from augkd.retrieval.build import build_index
from augkd.runs.plan import plan
from augkd.runs.run import Run
from augkd.workspace.storage import Storage

pytestmark = pytest.mark.usefixtures("s3", "cache")
SHORT = ("--set", "training.epochs=1", "--set", "training.max_length=32")


@pytest.fixture
def augkd(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Augkd:
    return Augkd(monkeypatch, capsys)


@pytest.fixture(autouse=True)
def no_secret_is_written(tmp_path: Path) -> Any:
    """Holds for every test of this file."""
    yield
    written = files_of(tmp_path)
    assert [name for name, content in written.items() if SECRET.encode() in content or b"AKIDEXAMPLE" in content] == []


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Path:
    """A task, a corpus, a recipe of a static index, and the built index; uploaded by the tests that need them."""
    home = tmp_path_factory.mktemp("home")
    (home / "task").mkdir()
    for split, rows in (("train", sentences(0)), ("validation", sentences(10)[:18]), ("test", sentences(20)[:18])):
        lines = "".join(f"{text},{label}\n" for text, label in rows)
        (home / "task" / f"{split}.csv").write_text(f"text,label\n{lines}")
    (home / "corpus").mkdir()
    for number in range(2):
        texts = [text for text, _ in sentences(40 + number)]
        (home / f"corpus/part-{number}.txt").write_text("\n".join(texts) + "\n")
    encoder = {"kind": "static", "model": str(tiny_bert), "dim": 8, "sample": 100}
    (home / "index.yaml").write_text(yaml.safe_dump({"corpus": str(home / "corpus"), "encoder": encoder}))
    recipe = {
        "task": str(home / "task"),
        "teacher": {"model": str(tiny_bert), "epochs": 1, "learning_rate": 1e-3},
        "student": {"layers": [0, 2]},
        "data": {"neighbours": {"index": str(home / "index.yaml"), "k": 2}},
        "training": {"kd": {"weight": 1.0}, "epochs": 1, "max_length": 32},
    }
    (home / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return home


@pytest.fixture(scope="module")
def index(home: Path) -> Path:
    """The built index of the recipe."""
    build_index(load_index_recipe(str(home / "index.yaml")), home / "index")
    return home / "index"


@pytest.fixture(scope="module")
def finished(home: Path, index: Path) -> Path:
    """A run on the task and the index in folders."""
    overrides = [f"task={home / 'task'}", f"data.neighbours.index={index}"]
    Run(load_recipe(str(home / "recipe.yaml"), overrides), home / "run").results()
    return home / "run"


def build(augkd: Augkd, home: Path, out: Path, *options: object) -> Path:
    assert augkd("index", "build", home / "index.yaml", "--out", out, *options).code == 0
    return out


def test_an_index_of_a_corpus_in_storage_is_the_one_of_the_same_files_here(
    augkd: Augkd, home: Path, index: Path, tmp_path: Path
) -> None:
    url = upload(home / "corpus", f"{BUCKET}/corpus")
    here = files_of(index)
    there = files_of(build(augkd, home, tmp_path / "there", "--set", f"corpus={url}"))
    manifests = [json.loads(files.pop("manifest.json")) for files in (here, there)]
    del there[".lock"]
    assert here == there
    assert manifests[1].pop("recipe")["corpus"]["dataset"] == url
    del manifests[0]["recipe"], manifests[0]["checksum"], manifests[1]["checksum"]
    assert manifests[0] == manifests[1]


def test_a_corpus_that_changes_in_storage_is_indexed_again(augkd: Augkd, home: Path, tmp_path: Path) -> None:
    url = upload(home / "corpus", f"{BUCKET}/changing")
    options = ("--set", f"corpus={url}", "--set", "encoder={kind: lexical}")
    out = build(augkd, home, tmp_path / "index", *options)
    before = (out / "manifest.json").stat().st_mtime_ns
    build(augkd, home, out, *options)
    assert (out / "manifest.json").stat().st_mtime_ns == before, "unchanged: nothing is built"
    change(f"{url}/part-1.txt", b"something else entirely\n")
    assert json.loads((build(augkd, home, out, *options) / "manifest.json").read_text())["count"] == 91


def test_a_search_of_an_index_in_storage_finds_what_it_finds_here(augkd: Augkd, index: Path) -> None:
    url = upload(index, f"{BUCKET}/index")
    for command in (("search", "where is my dog ?", "-k", "7", "--json"), ("dropped", "--json")):
        name, *rest = command
        here, there = augkd("index", name, index, *rest), augkd("index", name, url, *rest)
        assert here.code == there.code == 0
        assert here.json == there.json
    assert len(augkd("index", "search", url, "dog", "-k", "7", "--json").json) == 7
    assert f"index: {url}" in augkd("index", "info", url, "--verify").out


def test_shards_in_storage_merge_into_the_index_of_one_build(
    augkd: Augkd, home: Path, index: Path, tmp_path: Path
) -> None:
    first = upload(build(augkd, home, tmp_path / "1", "--shard", "1/2", "--encoder", index), f"{BUCKET}/shard-1")
    second = upload(build(augkd, home, tmp_path / "2", "--shard", "2/2", "--encoder", first), f"{BUCKET}/shard-2")
    assert augkd("index", "merge", first, second, "--out", tmp_path / "merged").code == 0
    assert (tmp_path / "merged/vectors.faiss").read_bytes() == (index / "vectors.faiss").read_bytes()


def test_a_run_on_a_task_and_an_index_in_storage_has_the_bytes_of_one_on_folders(
    augkd: Augkd, home: Path, index: Path, finished: Path, tmp_path: Path
) -> None:
    task, built = upload(home / "task", f"{BUCKET}/task"), upload(index, f"{BUCKET}/run-index")
    sets = ("--set", f"task={task}", "--set", f"data.neighbours.index={built}")
    assert augkd("run", home / "recipe.yaml", "--out", tmp_path / "run", *sets).code == 0
    here, there = files_of(finished), files_of(tmp_path / "run")
    for written in ("transfer_set/data/train-00000.parquet", "teacher/model.safetensors", "student/model.safetensors"):
        assert here[written] == there[written], written
    manifests = [json.loads(files["transfer_set/manifest.json"]) for files in (here, there)]
    assert manifests[0]["made_from"] == manifests[1]["made_from"]
    assert augkd("verify", tmp_path / "run").code == 0
    assert b"s3://" not in there["student/README.md"], "a bucket's name is not in a card"


def test_a_student_of_a_transfer_set_in_storage_is_the_one_of_the_folder(
    augkd: Augkd, finished: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    made = finished / "transfer_set"
    url = upload(made, f"{BUCKET}/made/transfer_set")
    for name, given in {"here": made, "there": url}.items():
        options = ("--transfer-set", given, "--student", tiny_bert, "--out", tmp_path / name, *SHORT)
        assert augkd("distill", *options).code == 0
    assert len({(tmp_path / name / "student/model.safetensors").read_bytes() for name in ("here", "there")}) == 1


def test_a_transfer_set_in_storage_is_read_with_a_manifest_and_without(augkd: Augkd, finished: Path) -> None:
    made = finished / "transfer_set"
    url = upload(made, f"{BUCKET}/shown/transfer_set")
    bare = upload(made / "data", f"{BUCKET}/bare/transfer_set/data").removesuffix("/data")
    shown = [augkd("transfer", "show", place, "--json").json for place in (made, url, bare)]
    assert shown[0] == shown[1] == shown[2]


def test_a_transfer_set_that_was_damaged_in_storage_is_refused_by_name(
    augkd: Augkd, finished: Path, tmp_path: Path
) -> None:
    url = upload(finished / "transfer_set", f"{BUCKET}/damaged/transfer_set")
    assert augkd("transfer", "show", url).code == 0
    change(f"{url}/data/train-00000.parquet")
    assert augkd("transfer", "show", url).code == 0, "the copy is whole, and the manifest has not changed"
    shutil.rmtree(tmp_path / "cache")
    done = augkd("transfer", "show", url)
    assert done.code == 1
    assert f"error: {url}/data/train-00000.parquet is damaged: its checksum" in done.err


def test_check_copies_the_task_and_reads_of_corpus_and_index_only_what_it_reads_here(
    home: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = upload(index, f"{BUCKET}/check-index")
    task, corpus = upload(home / "task", f"{BUCKET}/check-task"), upload(home / "corpus", f"{BUCKET}/check-corpus")
    copied: list[str] = []
    blocks = Storage.blocks
    monkeypatch.setattr(Storage, "blocks", lambda self, name: (copied.append(self.url), blocks(self, name))[1])
    recipe = str(home / "recipe.yaml")
    lines = "\n".join(plan(load_recipe(recipe, [f"task={task}", f"data.neighbours.index={built}"])))
    assert f"{built}: 180 texts" in lines
    lines = "\n".join(plan(load_recipe(recipe, [f"data.neighbours.index.corpus={corpus}"])))
    assert f"{corpus}: size unknown until read" in lines
    assert set(copied) == {task}


def test_the_rows_of_a_parquet_corpus_in_storage_are_counted_without_a_copy(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "corpus").mkdir()
    for rows in (3, 4):
        pq.write_table(pa.table({"text": [str(number) for number in range(rows)]}), tmp_path / f"corpus/{rows}.parquet")
    url = upload(tmp_path / "corpus", f"{BUCKET}/parquet")
    monkeypatch.setattr(Storage, "blocks", None)
    lines = "\n".join(plan(load_recipe(str(home / "recipe.yaml"), [f"data.neighbours.index.corpus={url}"])))
    assert f"{url}: 7 texts" in lines


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("index build HOME/index.yaml --out s3://bucket/out", "s3://bucket/out cannot be written"),
        ("run HOME/recipe.yaml --out s3://bucket/out", "s3://bucket/out cannot be written"),
        ("index add s3://bucket/index new.txt", "s3://bucket/index cannot be written"),
        ("transfer jsonl HOME --out s3://bucket/out", "s3://bucket/out cannot be written"),
        ("check HOME/recipe.yaml --set teacher.model=s3://bucket/m", "model is not read from storage; copy it here"),
        ("check HOME/recipe.yaml --set teacher.answers=s3://b/a", "answers is not read from storage; copy it here"),
        ("index search s3://bucket/nothing dog", "s3://bucket/nothing has no manifest.json"),
        ("check HOME/recipe.yaml --set task=s3://bucket/nothing", "s3://bucket/nothing has no data file"),
        ("check HOME/recipe.yaml --set task=s3://AKIDEXAMPLE:x@bucket/task", "s3://bucket/task holds credentials"),
    ],
)
def test_what_cannot_be_read_or_written_is_one_line(
    augkd: Augkd, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    done = augkd(*command.replace("HOME", str(home)).split())
    assert done.code == 1
    assert done.err.startswith("error: ")
    assert message in done.err
    assert done.err.count("\n") == 1
    assert "AKIDEXAMPLE" not in done.err
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_wrong_credentials_are_one_line_that_says_where_to_put_them(
    augkd: Augkd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()

    def denied(self: Any, *_: Any, **__: Any) -> Any:
        raise PermissionError("Access Denied for https://bucket/x?X-Amz-Signature=5ec3e7")

    monkeypatch.setattr("s3fs.S3FileSystem._open", denied)
    done = augkd("index", "search", f"{BUCKET}/index-of-others", "dog")
    assert done.err == (
        f"error: {BUCKET}/index-of-others/manifest.json cannot be read (Access Denied for https://bucket/x); set "
        "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; FSSPEC_S3_ANON=true for a public bucket\n"
    )
