"""Libraries and extras are those of augkd's own metadata, and each missing one has its command."""

from __future__ import annotations

from importlib.metadata import version

import pytest

from augkd.setup import installed
from augkd.setup.installed import Extra, extras, libraries


@pytest.fixture
def requirements(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The requirements in augkd's metadata, which a test may change."""
    lines = ["numpy>=2.0", "rich>=13.9", "tensorboard>=2.20; extra == 'tensorboard'", "no-such-thing>=1; extra == 'x'"]
    monkeypatch.setattr(installed, "_requirements", lambda: lines)
    return lines


def test_the_installed_libraries_are_those_of_the_metadata(requirements: list[str]) -> None:
    required = libraries()
    names = ("numpy", "rich")
    assert {library.name: library.installed for library in required} == {name: version(name) for name in names}
    assert [library.problem for library in required] == [None, None]


def test_a_library_that_is_old_or_missing_has_a_problem_with_its_command(requirements: list[str]) -> None:
    requirements += ["numpy>=99", "absent-library>=2.1"]
    assert [library.problem for library in libraries() if library.problem] == [
        f"numpy {version('numpy')} does not satisfy >=99; pip install -U 'numpy>=99'",
        "absent-library is not installed; pip install 'absent-library>=2.1'",
    ]


def test_an_extra_that_is_missing_is_no_problem_but_has_a_command(
    requirements: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Metadata:
        def get_all(self, key: str) -> list[str]:
            assert key == "Provides-Extra"
            return ["x", "dev"]

    monkeypatch.setattr(installed, "_metadata", Metadata)
    assert extras() == [Extra("x", ["no-such-thing"], "pip install 'augkd[x]'")]
    assert not any(library.problem for library in libraries())
