"""The environment of a command: bounded caches and no telemetry, unless the user says otherwise."""

from __future__ import annotations

import os

import pytest

from augkd.models.libraries import set_environment

BOUNDS = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")


def test_a_command_bounds_the_kernels_of_both_caches_and_what_the_user_has_set_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    environment: dict[str, str] = {"LRU_CACHE_CAPACITY": "2000"}
    monkeypatch.setattr(os, "environ", environment)
    set_environment()
    assert [environment[name] for name in BOUNDS] == ["128", "2000"]
    assert environment["ORT_DISABLE_TELEMETRY"] == "1"
