"""Logs of JSON lines: what a kill cuts off is not written yet, and every other change is refused by its line."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import xxhash

from augkd.errors import WorkspaceError
from augkd.workspace.line_log import append_lines, is_line_log, read_lines

RECORDS = [{"key": "a", "text": "naïve ☕"}, {"key": "b", "n": [1, 2.5, None]}, {"key": "c", "xxh3": "0" * 16}]


def test_a_line_is_json_with_the_checksum_of_what_stands_before_it(tmp_path: Path) -> None:
    append_lines(tmp_path / "log", [RECORDS[0]])
    line = (tmp_path / "log").read_text()
    body = '{"key": "a", "text": "naïve ☕"'
    assert line == f'{body}, "xxh3": "{xxhash.xxh3_64_hexdigest(body.encode())}"}}\n'
    assert json.loads(line)["text"] == "naïve ☕"


def test_records_are_read_from_where_the_last_reading_ended(tmp_path: Path) -> None:
    path = tmp_path / "log"
    assert read_lines(path) == ([], 0)
    append_lines(path, RECORDS[:1])
    first, end = read_lines(path)
    append_lines(path, RECORDS[1:2])
    assert (first, read_lines(path, end)) == (RECORDS[:1], (RECORDS[1:2], path.stat().st_size))


def test_a_cut_at_any_byte_of_the_last_line_loses_that_line_alone_and_the_next_one_replaces_it(tmp_path: Path) -> None:
    path = tmp_path / "log"
    append_lines(path, RECORDS[:2])
    whole = path.read_bytes()
    start = whole.index(b"\n") + 1
    for place in range(start, len(whole)):
        path.write_bytes(whole[:place])
        assert read_lines(path) == (RECORDS[:1], start), place
        append_lines(path, RECORDS[1:2])
        assert path.read_bytes() == whole, place


def test_a_flipped_bit_anywhere_is_refused_with_its_line_or_leaves_the_last_line_unread(tmp_path: Path) -> None:
    path, rng = tmp_path / "log", random.Random(0)
    append_lines(path, RECORDS[:2])
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << rng.randrange(8)]) + whole[place + 1 :])
        if place == len(whole) - 1:
            assert read_lines(path)[0] == RECORDS[:1]
            continue
        with pytest.raises(WorkspaceError, match=r"log:[12] is damaged: it does not have its checksum; do this$"):
            read_lines(path, remedy="do this")


def test_the_number_of_a_damaged_line_counts_from_the_start_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "log"
    append_lines(path, RECORDS[:1])
    _, end = read_lines(path)
    append_lines(path, RECORDS[1:2])
    path.write_bytes(path.read_bytes().replace(b"2.5", b"2.6"))
    with pytest.raises(WorkspaceError, match=r"log:2 is damaged"):
        read_lines(path, end)


def test_lines_of_another_program_are_no_log(tmp_path: Path) -> None:
    append_lines(tmp_path / "ours", RECORDS[:1])
    (tmp_path / "theirs").write_text('{"text": "a cat", "label": "animal"}\n')
    assert is_line_log(tmp_path / "ours")
    assert not is_line_log(tmp_path / "theirs")
