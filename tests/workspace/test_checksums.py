"""What augkd wrote is compared with its checksums before it is used, and a file that lists others signs itself."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import xxhash

from augkd.errors import WorkspaceError
from augkd.workspace import checksums
from augkd.workspace.checkpoints import CHECKPOINT, check_checkpoint, last_checkpoint, mark_whole, rotate
from augkd.workspace.checksums import check, read_checked, read_signed, table_of, write_signed
from augkd.workspace.chunk_log import log_path, record_chunk, recorded_chunks
from augkd.workspace.disk import check_room, system_problem, writing
from augkd.workspace.file_memory import FileMemory
from augkd.workspace.files import replacing, sweep, sweep_writes_of, write_text
from augkd.workspace.folders import begin, end
from augkd.workspace.line_log import append_lines
from augkd.workspace.locks import locked
from augkd.workspace.manifests import check_if_ours, finished
from augkd.workspace.verify import verify

VALUE = {"kind": "polls", "seed": 17, "shares": [0.25, None, 1e-7], "text": "naïve ‖ text", "nested": {"a": 1}}


def flip(path: Path, place: int, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)


def artefact(folder: Path) -> Path:
    begin(folder, "index", {"seed": 1})
    (folder / "sub").mkdir()
    for name, content in (("a", b"first" * 40), ("sub/b", b"second"), ("README.md", b"card"), (".hidden", b"x")):
        (folder / name).write_bytes(content)
    end(folder, "index", {"seed": 1})
    return folder


# ---- tables ----


def test_a_table_has_size_and_xxh3_of_every_file_but_cards_hidden_ones_and_artefacts_of_their_own(
    tmp_path: Path,
) -> None:
    folder = artefact(tmp_path / "outer")
    artefact(folder / "inner")
    assert table_of(folder) == {
        "a": {"bytes": 200, "xxh3": xxhash.xxh3_64_hexdigest(b"first" * 40)},
        "sub/b": {"bytes": 6, "xxh3": xxhash.xxh3_64_hexdigest(b"second")},
    }
    assert table_of(tmp_path / "nowhere") == {}


@pytest.mark.parametrize("name", ["a", "sub/b", "manifest.json"])
@pytest.mark.parametrize("how", ["flip", "cut", "grow", "remove"])
def test_a_changed_file_is_refused_by_name_and_its_twin_is_not(tmp_path: Path, name: str, how: str) -> None:
    folder = artefact(tmp_path / "index")
    assert finished(folder, "index", {"seed": 1})
    path, whole = folder / name, (folder / name).read_bytes()
    if how == "flip":
        flip(path, len(whole) // 2)
    elif how == "remove":
        path.unlink()
    else:
        path.write_bytes(whole[:-1] if how == "cut" else whole + b" ")
    if name == "manifest.json" and how == "remove":
        assert not finished(folder, "index", {"seed": 1})  # unfinished, whatever it was
        return
    with pytest.raises(WorkspaceError, match=f"{name} is ") as caught:
        finished(folder, "index", {"seed": 1})
    assert f"remove {folder} and run" in str(caught.value)
    path.write_bytes(whole)
    assert finished(folder, "index", {"seed": 1})


def test_a_name_that_leads_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"x")
    (tmp_path / "in").mkdir()
    entry = checksums.entry_of(tmp_path / "secret")
    for name in ("../secret", str(tmp_path / "secret"), ".hidden"):
        with pytest.raises(WorkspaceError, match="not a name that augkd gives a file"):
            check(tmp_path / "in", {name: entry})


def test_models_from_elsewhere_are_not_compared_and_those_of_augkd_are(tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "manifest.json").write_text('{"name": "web app", "format": 3}')
    check_if_ours(tmp_path / "web")
    check_if_ours(tmp_path)
    folder = artefact(tmp_path / "ours")
    flip(folder / "a", 3)
    with pytest.raises(WorkspaceError, match="ours/a is damaged"):
        check_if_ours(folder)


# ---- signed JSON ----


def test_signed_json_survives_the_round_trip_and_no_flipped_bit_or_cut(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    write_signed(path, VALUE)
    assert {key: value for key, value in read_signed(path).items() if key != "checksum"} == VALUE
    whole = path.read_bytes()
    rng = random.Random(0)
    for place in range(len(whole)):
        flip(path, place, rng.randrange(8))
        with pytest.raises(WorkspaceError, match=r"state\.json is damaged"):
            read_signed(path)
        path.write_bytes(whole[:place])
        with pytest.raises(WorkspaceError, match=r"state\.json is damaged"):
            read_signed(path)
        path.write_bytes(whole)
    write_signed(path, read_signed(path))
    assert path.read_bytes() == whole  # an old signature is not signed again


# ---- checkpoints ----


def checkpoint(folder: Path, step: int) -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    (path / "model.safetensors").write_bytes(b"weights %d" % step)
    mark_whole(path, {"rows": {"training": step}})
    return path


def test_a_damaged_checkpoint_is_refused_and_without_it_the_one_before_is_used(tmp_path: Path) -> None:
    first, second = checkpoint(tmp_path, 9), checkpoint(tmp_path, 10)
    assert last_checkpoint(tmp_path) == second
    assert check_checkpoint(second)["rows"] == {"training": 10}
    flip(second / "model.safetensors", 2)
    with pytest.raises(WorkspaceError, match=rf"model\.safetensors is damaged.*; remove {second} and run the same"):
        last_checkpoint(tmp_path)
    for path in second.iterdir():
        path.unlink()
    assert last_checkpoint(tmp_path) == first
    assert not second.exists()


def test_rotation_keeps_the_newest_and_the_best_and_takes_the_mark_first(tmp_path: Path) -> None:
    paths = [checkpoint(tmp_path, step) for step in (1, 2, 3, 4)]
    rotate(tmp_path, None, None)
    assert all(path.exists() for path in paths)
    rotate(tmp_path, 2, str(paths[1]))
    assert [path.exists() for path in paths] == [False, True, False, True]
    rotate(tmp_path, 1, str(paths[1]))
    assert [path.exists() for path in paths] == [False, True, False, True]
    rotate(tmp_path, 1, None)
    assert last_checkpoint(tmp_path) == paths[3]
    (paths[3] / CHECKPOINT).unlink()  # a kill while it was removed
    assert last_checkpoint(tmp_path) is None


# ---- the log of encoded chunks ----


def test_a_chunk_is_recorded_once_it_is_complete_and_a_torn_line_counts_as_none(tmp_path: Path) -> None:
    (tmp_path / "build").mkdir()
    entries = {}
    for number in range(3):
        path = tmp_path / "build" / f"vectors-{number}"
        path.write_bytes(b"v" * number)
        entries |= record_chunk(tmp_path, [path])
    assert recorded_chunks(tmp_path) == entries == table_of(tmp_path, [f"build/vectors-{n}" for n in range(3)])
    log = log_path(tmp_path)
    whole = log.read_bytes()
    log.write_bytes(whole[:-7])
    assert list(recorded_chunks(tmp_path)) == ["build/vectors-0", "build/vectors-1"]
    record_chunk(tmp_path, [tmp_path / "build" / "vectors-2"])
    assert log.read_bytes() == whole
    log.write_bytes(whole[:-7])
    record_chunk(tmp_path, [tmp_path / "build" / "vectors-2"])  # without a look at it first
    assert log.read_bytes() == whole
    for place in (0, 20, 60):
        flip(log, place)
        with pytest.raises(
            WorkspaceError, match=rf"chunks\.jsonl:1 is damaged: .*; remove {tmp_path / 'build'} and run"
        ):
            recorded_chunks(tmp_path)
        log.write_bytes(whole)


# ---- verify ----


def test_verify_reads_all_bytes_below_a_folder_and_names_every_damaged_file(tmp_path: Path) -> None:
    outer = artefact(tmp_path / "run")
    inner = artefact(outer / ".cache" / "static")
    checkpoint(tmp_path / "run" / "checkpoints", 5)
    assert verify(tmp_path).damaged == ()
    assert sorted((a.kind, a.files) for a in verify(tmp_path).artefacts) == [
        ("checkpoint", 1),
        ("index", 2),
        ("index", 2),
    ]
    status = (outer / "a").stat()
    flip(outer / "a", 7)
    os.utime(outer / "a", ns=(status.st_atime_ns, status.st_mtime_ns))
    (inner / "sub" / "b").unlink()
    assert {line.split(" is ")[0] for line in verify(tmp_path).damaged} == {str(outer / "a"), str(inner / "sub/b")}
    (tmp_path / "empty").mkdir()
    for nothing in (tmp_path / "empty", tmp_path / "nowhere"):
        with pytest.raises(WorkspaceError, match="give that of a run, an index or a student"):
            verify(nothing)


# ---- when the machine says no ----


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full; 2.0 MB needed, "),
        (RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"), "the disk is full"),
        (OSError(errno.EROFS, "Read-only file system"), "read-only file system"),
        (PermissionError(errno.EACCES, "Permission denied"), "permission denied"),
        (IsADirectoryError(errno.EISDIR, "Is a directory"), "is a folder; give the name of a file"),
    ],
)
def test_an_error_of_the_disk_becomes_one_line_with_the_path(tmp_path: Path, error: Exception, expected: str) -> None:
    path = tmp_path / "vectors.faiss"
    with pytest.raises(WorkspaceError) as caught, writing(path, 2_000_000):
        raise error
    assert str(path) in str(caught.value)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_error_that_is_not_of_the_disk_stays_what_it_is(tmp_path: Path) -> None:
    for error in (ValueError("a bug"), FileNotFoundError(errno.ENOENT, "No such file", "/elsewhere/corpus.txt")):
        with pytest.raises(type(error)), writing(tmp_path / "out"):
            raise error


def test_a_file_where_a_folder_should_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    for action in (lambda: locked(tmp_path / "out").__enter__(), lambda: write_text(tmp_path / "out" / "x" / "y", "z")):
        with pytest.raises(WorkspaceError, match=f"{tmp_path / 'out'} is a file; give another folder"):
            action()
    assert (tmp_path / "out").read_text() == "mine"


def test_more_than_is_free_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match=r"has too little room for the index: .* GB needed, .* free"):
        check_room(tmp_path / "new" / "folder", 10**18, "the index")
    check_room(tmp_path / "new", 1, "the index")
    assert "check that it is there" in system_problem(FileNotFoundError(errno.ENOENT, "No such file", "/no/such"))


def test_leftovers_of_a_killed_process_are_swept_and_those_of_a_running_one_stay(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / "sub").mkdir()
    left = tmp_path / "sub" / f".report.html.{dead.pid}.tmp"
    alive = tmp_path / f".report.html.{os.getppid()}.tmp"
    own, foreign = tmp_path / ".notes.tmp", tmp_path / ".mine.abc.tmp"
    for path in (left, alive, own, foreign):
        path.write_text("half")
    sweep(tmp_path)
    assert [path.exists() for path in (left, alive, own, foreign)] == [False, True, True, True]
    left.write_text("half")
    with locked(tmp_path):
        assert not left.exists()


def test_a_write_that_fails_leaves_nothing_and_the_old_file(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "old")

    def fail() -> None:
        with replacing(tmp_path / "file", 10) as temporary:
            temporary.write_text("half")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(WorkspaceError, match=r"file cannot be written: the disk is full; 0\.0 MB needed"):
        fail()
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "old")]


def test_a_file_is_hashed_once_in_a_process_and_again_after_any_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = artefact(tmp_path / "index")
    time.sleep(0.05)  # until a change would show in the time of change
    hashed: list[str] = []
    real = checksums.checksum
    memory = FileMemory(lambda path: hashed.append(path.name) or real(path))
    monkeypatch.setattr(checksums, "_remembered", memory)
    for _ in range(3):
        assert finished(folder, "index", {"seed": 1})
    assert hashed == ["a", "b"]
    status = (folder / "a").stat()
    flip(folder / "a", 1)
    os.utime(folder / "a", ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(WorkspaceError, match="a is damaged"):
        finished(folder, "index", {"seed": 1})


# ---- JSON that may be signed ----


def test_a_json_file_with_a_checksum_is_compared_and_one_of_an_older_augkd_is_read(tmp_path: Path) -> None:
    path = tmp_path / "compare.json"
    write_text(path, '{"rows": [1]}')
    assert read_checked(path, "do this") == {"rows": [1]}
    write_signed(path, {"rows": [1]})
    assert read_checked(path, "do this") == {"rows": [1]}
    path.write_bytes(path.read_bytes().replace(b"1\n", b"2\n"))
    with pytest.raises(WorkspaceError, match=r"compare\.json is damaged: .*; do this$"):
        read_checked(path, "do this")
    assert any("compare.json is damaged" in line for line in verify(tmp_path).damaged)


def test_answers_and_rounds_are_verified_and_files_of_other_programs_are_not(tmp_path: Path) -> None:
    append_lines(tmp_path / "answers.jsonl", [{"key": "a", "answer": "A"}, {"key": "b", "answer": "B"}])
    write_signed(tmp_path / "round-1.json", {"texts": [], "student": None})
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "answers.jsonl").write_text('{"text": "a cat", "label": "animal"}\n')
    (theirs / "compare.json").write_text('{"rows": []}')
    result = verify(tmp_path)
    assert (sorted(each.kind for each in result.artefacts), result.damaged) == (
        ["answers of a teacher", "round of a label budget"],
        (),
    )
    flip(tmp_path / "answers.jsonl", 60)
    flip(tmp_path / "round-1.json", 3)
    assert len(verify(tmp_path).damaged) == 2


def test_a_signed_file_that_is_missing_or_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match=r"facts\.json is missing; do this$"):
        read_signed(tmp_path / "facts.json", "do this")
    (tmp_path / "facts.json").mkdir()
    with pytest.raises(WorkspaceError, match=r"facts\.json cannot be read \(Is a directory\)$"):
        read_signed(tmp_path / "facts.json")


def test_a_file_that_the_manifest_does_not_list_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "extra").write_text("x")
    with pytest.raises(WorkspaceError, match=r"extra is not listed in the manifest; remove .* and run"):
        check(tmp_path, {}, ["extra"])


def test_what_a_dead_process_left_of_a_write_is_swept_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for process in (dead.pid, os.getppid(), os.getpid()):
        (tmp_path / f".page.html.{process}.tmp").write_text("")
    (tmp_path / f".other.html.{dead.pid}.tmp").write_text("")
    sweep_writes_of(tmp_path / "page.html")
    # a temporary file with our own number is older than we are: what this process writes, it removes itself
    assert {path.name for path in tmp_path.iterdir()} == {
        f".page.html.{os.getppid()}.tmp",
        f".other.html.{dead.pid}.tmp",
    }
