"""A folder is finished, unfinished or not ours; nothing half-written is ever taken for complete."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from augkd.errors import WorkspaceError
from augkd.workspace.files import read_json, replacing, write_json, write_text
from augkd.workspace.fingerprints import file_fingerprint, fingerprint
from augkd.workspace.folders import begin, end
from augkd.workspace.locks import locked
from augkd.workspace.manifests import FORMAT, finished, read_kind, write_manifest

INPUTS = {"corpus": "abc", "seed": 1}


# ---- fingerprints ----


def test_a_fingerprint_does_not_depend_on_key_order_but_on_everything_else() -> None:
    expected = fingerprint({"a": 1, "b": {"c": [1, 2], "d": None}})
    assert expected == fingerprint({"b": {"d": None, "c": [1, 2]}, "a": 1})
    others = [{"a": 1}, {"a": 1, "b": {"c": [2, 1], "d": None}}, {"a": "1", "b": {"c": [1, 2], "d": None}}]
    assert len({expected, *map(fingerprint, others)}) == 4


def test_text_that_is_not_valid_unicode_has_a_fingerprint() -> None:
    assert fingerprint("\udcff") != fingerprint("\udcfe")


def test_the_fingerprint_of_a_folder_changes_with_a_name_or_a_byte_and_with_nothing_else(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "sub").mkdir(parents=True)
    for name, order in (("one", ("a", "sub/b")), ("two", ("sub/b", "a"))):
        for file in order:
            (tmp_path / name / file).write_text(file)
    before = file_fingerprint(tmp_path / "one")
    assert before == file_fingerprint(tmp_path / "two")
    (tmp_path / "two" / "a").write_text("A")
    assert before != file_fingerprint(tmp_path / "two")
    (tmp_path / "one" / "a").rename(tmp_path / "one" / "c")
    assert before != file_fingerprint(tmp_path / "one")


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are read to be hashed, in order."""
    names: list[str] = []
    digest = hashlib.file_digest

    def recorded(stream: Any, algorithm: str) -> Any:
        names.append(Path(stream.name).name)
        return digest(stream, algorithm)

    monkeypatch.setattr(hashlib, "file_digest", recorded)
    return names


def test_a_file_is_read_once_however_often_and_by_whatever_path_it_is_hashed(
    tmp_path: Path, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"one")
    monkeypatch.chdir(tmp_path)
    fingerprints = {file_fingerprint(path), file_fingerprint(path), file_fingerprint(Path("weights"))}
    assert fingerprints == {hashlib.sha256(b"one").hexdigest()}
    assert hashed == ["weights"]
    file_fingerprint(tmp_path)
    assert hashed == ["weights"]


def test_a_changed_file_is_read_again_even_when_its_size_stays_and_it_changes_at_once(
    tmp_path: Path, hashed: list[str]
) -> None:
    path = tmp_path / "weights"
    for content in (b"one", b"two", b"six", b"ten"):  # written within one tick of the kernel's clock
        path.write_bytes(content)
        assert file_fingerprint(path) == hashlib.sha256(content).hexdigest()
    assert len(hashed) == 4


def test_a_file_whose_modification_time_is_set_back_is_read_again(tmp_path: Path, hashed: list[str]) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"one")
    before = path.stat()
    file_fingerprint(path)
    path.write_bytes(b"two")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file_fingerprint(path) == hashlib.sha256(b"two").hexdigest()
    assert len(hashed) == 2


# ---- completely or not at all ----


def test_a_failed_write_leaves_the_old_content_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_text(path, "old")

    def killed() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        killed()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_successful_write_replaces_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file"
    write_text(path, "old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"  # until the end
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def test_json_survives_the_round_trip_and_damage_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"a": [1, None, "é"]})
    assert read_json(path) == {"a": [1, None, "é"]}
    path.write_text('{"a": ')
    with pytest.raises(WorkspaceError, match="cannot be read"):
        read_json(path)
    with pytest.raises(WorkspaceError, match="is missing"):
        read_json(tmp_path / "y.json")


# ---- begin, end, finished ----


def test_an_artefact_is_finished_only_after_its_end_and_only_for_its_inputs(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    assert not finished(folder, "index", INPUTS)
    assert begin(folder, "index", INPUTS) is False
    (folder / "part").write_text("x")
    assert not finished(folder, "index", INPUTS)
    end(folder, "index", INPUTS, count=3)
    assert finished(folder, "index", INPUTS)
    assert finished(folder, "index", {"seed": 1, "corpus": "abc"})
    assert not finished(folder, "index", {**INPUTS, "seed": 2})
    assert not (folder / "building.json").exists()
    manifest = read_kind(folder, "index")
    assert (manifest["kind"], manifest["made_from"], manifest["count"]) == ("index", INPUTS, 3)
    assert manifest["versions"]["torch"]


def test_unfinished_work_for_the_same_inputs_is_kept(tmp_path: Path) -> None:
    begin(tmp_path / "a", "index", INPUTS)
    (tmp_path / "a" / "part").write_text("x")
    assert begin(tmp_path / "a", "index", INPUTS) is True
    assert (tmp_path / "a" / "part").read_text() == "x"


@pytest.mark.parametrize("done", [False, True])
def test_work_for_other_inputs_is_removed_finished_or_not(tmp_path: Path, done: bool) -> None:
    folder = tmp_path / "a"
    begin(folder, "index", INPUTS)
    (folder / "sub").mkdir()
    (folder / "sub" / "part").write_text("x")
    if done:
        end(folder, "index", INPUTS)
    assert begin(folder, "index", {**INPUTS, "seed": 2}) is False
    assert sorted(path.name for path in folder.iterdir()) == ["building.json"]


def test_unfinished_work_of_another_kind_is_not_taken_over(tmp_path: Path) -> None:
    begin(tmp_path / "a", "index", INPUTS)
    (tmp_path / "a" / "part").write_text("x")
    assert begin(tmp_path / "a", "teacher", INPUTS) is False
    assert not (tmp_path / "a" / "part").exists()


def test_a_link_in_an_old_artefact_is_removed_and_what_it_points_to_stays(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("x")
    begin(tmp_path / "a", "index", INPUTS)
    (tmp_path / "a" / "link").symlink_to(tmp_path / "precious")
    begin(tmp_path / "a", "index", {"other": 1})
    assert not (tmp_path / "a" / "link").exists()
    assert (tmp_path / "precious" / "file").read_text() == "x"


def test_a_folder_with_files_of_someone_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(WorkspaceError, match="did not write"):
        begin(tmp_path, "index", INPUTS)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_an_empty_folder_or_one_with_only_our_lock_is_accepted(tmp_path: Path) -> None:
    with locked(tmp_path / "a"):
        assert begin(tmp_path / "a", "index", INPUTS) is False
    assert finished(tmp_path / "a", "index", INPUTS) is False


def test_a_finished_artefact_of_another_kind_is_refused_and_left_alone(tmp_path: Path) -> None:
    begin(tmp_path / "a", "teacher", INPUTS)
    (tmp_path / "a" / "weights").write_text("x")
    end(tmp_path / "a", "teacher", INPUTS)
    for ask in (begin, finished):
        with pytest.raises(WorkspaceError, match="holds augkd's teacher, not augkd's index"):
            ask(tmp_path / "a", "index", INPUTS)
    assert finished(tmp_path / "a", "teacher", INPUTS)
    assert (tmp_path / "a" / "weights").read_text() == "x"


def test_a_manifest_of_another_program_is_refused(tmp_path: Path) -> None:
    for text in ('{"name": "web app"}', "[1]"):
        (tmp_path / "manifest.json").write_text(text)
        with pytest.raises(WorkspaceError, match="holds something unknown"):
            read_kind(tmp_path, "index")
        with pytest.raises(WorkspaceError, match="holds"):
            begin(tmp_path, "index", INPUTS)


def test_a_newer_format_is_refused_and_the_current_one_read(tmp_path: Path) -> None:
    write_manifest(tmp_path, "index", INPUTS)
    assert read_kind(tmp_path, "index")["format"] == FORMAT
    newer = json.loads((tmp_path / "manifest.json").read_text()) | {"format": FORMAT + 1}
    write_json(tmp_path / "manifest.json", newer)
    with pytest.raises(WorkspaceError, match="upgrade augkd"):
        read_kind(tmp_path, "index")


def test_a_folder_without_manifest_is_unfinished_and_one_that_is_not_there_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="is unfinished"):
        read_kind(tmp_path, "index")
    with pytest.raises(WorkspaceError, match="does not exist"):
        read_kind(tmp_path / "a", "index")


# ---- one writer ----


def test_a_second_writer_is_refused_until_the_first_is_done(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(WorkspaceError, match="another augkd is working"), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


def test_a_second_process_is_refused_and_a_dead_one_leaves_no_lock(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, sys\nfrom augkd.workspace.locks import locked\n"
        "with locked(pathlib.Path(sys.argv[1])):\n    os._exit(0)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with locked(tmp_path):
        refused = subprocess.run(command, check=False, capture_output=True, text=True)
    assert "WorkspaceError: another augkd is working" in refused.stderr
    assert subprocess.run(command, check=False).returncode == 0  # dies holding the lock
    with locked(tmp_path):
        pass
