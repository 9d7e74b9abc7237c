"""Digests of files that are remembered: once for each state of a file, one for each path, and only so many."""

from __future__ import annotations

import os
from pathlib import Path

from augkd.workspace.file_memory import FileMemory


def test_a_file_is_read_again_only_when_the_system_shows_a_change(tmp_path: Path) -> None:
    read: list[str] = []
    memory = FileMemory(lambda path: read.append(path.name) or path.read_text())
    path = tmp_path / "a"
    path.write_text("first")
    assert [memory.of(path, path.stat()) for _ in range(3)] == ["first"] * 3
    path.write_text("other")
    os.utime(path, ns=(0, 0))
    assert [memory.of(path, path.stat()) for _ in range(2)] == ["other"] * 2
    assert read == ["a", "a"]


def test_a_file_that_is_replaced_a_thousand_times_is_remembered_once(tmp_path: Path) -> None:
    memory = FileMemory(Path.read_text)
    path = tmp_path / "a"
    for number in range(1000):
        path.write_text(str(number))
        assert memory.of(path, path.stat()) == str(number)
        os.utime(path, ns=(number, number))
    assert len(memory) == 1


def test_the_file_that_was_asked_for_longest_ago_is_forgotten_first(tmp_path: Path) -> None:
    read: list[str] = []
    memory = FileMemory(lambda path: read.append(path.name) or path.name, most=2)
    for name in ("a", "b", "c"):
        (tmp_path / name).write_text(name)

    def ask(name: str) -> str:
        return memory.of(tmp_path / name, (tmp_path / name).stat())

    assert [ask(name) for name in ("a", "b", "a", "c", "a", "b")] == ["a", "b", "a", "c", "a", "b"]
    assert read == ["a", "b", "c", "b"], "b made room for c"
    assert len(memory) == 2
