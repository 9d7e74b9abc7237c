"""What a manifest says of its folder, and the line that a wrong one gets."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from augkd.errors import WorkspaceError
from augkd.workspace.checksums import checksum
from augkd.workspace.manifest_kinds import Header
from augkd.workspace.manifests import (
    FORMAT,
    MANIFEST,
    STATE,
    check_files,
    check_if_ours,
    describe_kind,
    finished,
    kind_of,
    parse_manifest,
    read_any,
    read_kind,
    read_manifest,
    rewrite_manifest,
    versions,
    write_manifest,
)

MADE_FROM = {"corpus": "a" * 64, "options": {"k": 3}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A finished artefact of two files."""
    folder = tmp_path / "artefact"
    (folder / "data").mkdir(parents=True)
    (folder / "one.bin").write_bytes(b"one")
    (folder / "data" / "two.bin").write_bytes(b"twotwo")
    write_manifest(folder, "teacher", MADE_FROM, rows={"training": 7}, seconds=1.5)
    return folder


def test_a_manifest_records_kind_inputs_facts_versions_and_every_file(folder: Path) -> None:
    written = json.loads((folder / MANIFEST).read_text())
    assert (written["format"], written["kind"], written["made_from"]) == (2, "teacher", MADE_FROM)
    assert (written["rows"], written["seconds"]) == ({"training": 7}, 1.5)
    assert written["versions"]["numpy"] == np.__version__
    assert set(written["files"]) == {"one.bin", "data/two.bin"}
    assert written["files"]["data/two.bin"] == {"bytes": 6, "xxh3": checksum(folder / "data" / "two.bin")}


def test_given_files_are_recorded_in_place_of_those_in_the_folder(folder: Path) -> None:
    table = {"one.bin": {"bytes": 3, "xxh3": checksum(folder / "one.bin")}}
    write_manifest(folder, "teacher", MADE_FROM, files=table)
    assert read_any(folder)["files"] == table
    write_manifest(folder, "teacher", MADE_FROM, files={})
    assert read_any(folder)["files"] == {}


def test_an_artefact_is_finished_for_its_kind_and_inputs_alone(folder: Path, tmp_path: Path) -> None:
    (folder / STATE).write_text("{}")
    assert not finished(folder, "teacher", MADE_FROM | {"corpus": "b"})
    assert (folder / STATE).exists()
    assert finished(folder, "teacher", MADE_FROM)
    assert not (folder / STATE).exists()
    assert not finished(tmp_path / "nothing", "teacher", MADE_FROM)
    with pytest.raises(WorkspaceError, match="holds augkd's teacher, not augkd's student; give the student folder"):
        finished(folder, "student", MADE_FROM)


def test_a_finished_artefact_with_a_damaged_file_is_an_error_and_not_work_to_repeat(folder: Path) -> None:
    (folder / "one.bin").write_bytes(b"ONE")
    assert not finished(folder, "teacher", {})
    with pytest.raises(WorkspaceError, match=r"one\.bin"):
        finished(folder, "teacher", MADE_FROM)


def test_only_the_files_that_are_named_are_compared(folder: Path) -> None:
    manifest = parse_manifest(folder, read_any(folder), Header)
    (folder / "one.bin").write_bytes(b"ONE")
    check_files(folder, manifest, ["data/two.bin"])
    with pytest.raises(WorkspaceError, match=r"one\.bin"):
        check_files(folder, manifest, ["data/two.bin", "one.bin"])
    with pytest.raises(WorkspaceError, match=r"one\.bin"):
        check_files(folder, manifest)


def test_a_folder_is_checked_if_augkd_wrote_it_and_what_it_does_not_list_is_left_alone(folder: Path) -> None:
    check_if_ours(folder)
    check_if_ours(folder, ["unknown.bin"])
    (folder / "one.bin").write_bytes(b"ONE")
    check_if_ours(folder, ["data/two.bin", "unknown.bin"])
    for names in (None, ["one.bin"]):
        with pytest.raises(WorkspaceError, match=r"one\.bin"):
            check_if_ours(folder, names)
    (folder / MANIFEST).write_text('{"name": "of another program", "kind": "extension"}')
    check_if_ours(folder)
    (folder / MANIFEST).unlink()
    check_if_ours(folder)


@pytest.mark.parametrize(
    ("content", "kind"),
    [('{"kind": "run"}', "run"), ('{"kind": 3}', None), ('["kind"]', None), ("{}", None)],
)
def test_the_kind_is_a_text_or_none(tmp_path: Path, content: str, kind: str | None) -> None:
    (tmp_path / MANIFEST).write_text(content)
    assert kind_of(tmp_path) == kind
    assert kind_of(tmp_path / "nothing") is None


def test_a_kind_is_described_as_augkd_s_or_as_unknown() -> None:
    assert [describe_kind(kind) for kind in ("run", 3, None)] == [
        "augkd's run",
        "something unknown",
        "something unknown",
    ]


def test_a_folder_that_is_no_artefact_is_told_from_one_that_is_unfinished_and_one_that_is_not_there(
    tmp_path: Path,
) -> None:
    with pytest.raises(WorkspaceError, match=r"is unfinished \(no manifest\.json\); run the command"):
        read_kind(tmp_path, "run")
    with pytest.raises(WorkspaceError, match=r"run folder .* does not exist; run the command"):
        read_kind(tmp_path / "nothing", "run")
    (tmp_path / MANIFEST).write_text('["a", "list"]')
    with pytest.raises(WorkspaceError, match="holds something unknown, not augkd's run"):
        read_kind(tmp_path, "run")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": FORMAT + 1}, f"has format {FORMAT + 1}, this augkd reads up to {FORMAT}; upgrade augkd"),
        ({"format": 1}, "is of an older augkd, without checksums"),
        ({"kind": "student"}, r"manifest\.json"),
    ],
)
def test_a_manifest_of_ours_without_its_signature_is_an_error(
    folder: Path, changes: dict[str, object], message: str
) -> None:
    value = {key: entry for key, entry in read_any(folder).items() if key != "checksum"}
    (folder / MANIFEST).write_text(json.dumps(value | changes))
    with pytest.raises(WorkspaceError, match=message) as failure:
        read_any(folder)
    assert ("of an older augkd" in str(failure.value)) == (changes == {"format": 1})


def test_one_key_of_ours_is_not_yet_a_manifest_of_ours(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text('{"format": 99}')
    assert read_any(tmp_path) == {"format": 99}
    (tmp_path / MANIFEST).write_text('{"format": 99, "kind": "run"}')
    with pytest.raises(WorkspaceError, match="upgrade augkd"):
        read_any(tmp_path)


def test_a_key_that_is_missing_or_wrong_is_named_with_its_value(folder: Path) -> None:
    value = dict(read_any(folder))
    del value["made_from"]
    with pytest.raises(WorkspaceError, match=r"manifest\.json: made_from is missing; the folder is damaged"):
        parse_manifest(folder, value, Header)
    value = dict(read_any(folder)) | {"made_from": "x"}
    with pytest.raises(WorkspaceError, match=r"manifest\.json: made_from is 'x': Input should be"):
        parse_manifest(folder, value, Header)
    value = dict(read_any(folder)) | {"files": {"one.bin": {"bytes": -1, "xxh3": "0" * 16}}}
    with pytest.raises(WorkspaceError, match=r"files\.one\.bin\.bytes is -1: Input should be greater"):
        parse_manifest(folder, value, Header)


def test_a_rewritten_manifest_is_read_as_it_was_written(folder: Path) -> None:
    class Teacher(Header):
        KIND = "teacher"

    value = read_any(folder) | {"seconds": 2.5}
    rewrite_manifest(folder, {key: entry for key, entry in value.items() if key != "checksum"})
    assert read_manifest(folder, Teacher).on_disk()["seconds"] == 2.5
    assert read_manifest(folder, Teacher).made_from == MADE_FROM


def test_versions_name_the_libraries_that_are_installed() -> None:
    assert versions()["numpy"] == np.__version__
    assert {"augkd", "torch", "transformers", "faiss-cpu", "pyarrow"} <= versions().keys()
    assert all(versions().values())
