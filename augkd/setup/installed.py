"""Which of the libraries that augkd's package metadata requires are installed, and in which version.

The requirements are read from the metadata of the installed package, so that nothing here has to be kept up to date.
A library is looked up by its metadata and not imported; whether it loads is for `doctor` to find out.
"""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Library:
    """A required library."""

    name: str
    installed: str | None  # version; None when it is missing
    required: str  # version specifier, such as >=2.0
    problem: str | None  # with the command that solves it; None when all is well


@dataclass(frozen=True)
class Extra:
    """An optional part of augkd."""

    name: str
    missing: list[str]  # libraries that are not installed or too old
    command: str  # installs it


def libraries() -> list[Library]:
    """The libraries that augkd always needs."""
    return [_library(line) for line in _requirements() if "extra ==" not in line]


def extras() -> list[Extra]:
    """The optional parts, without the one for augkd's own development."""
    names = [name for name in _metadata().get_all("Provides-Extra") or [] if name != "dev"]
    return [_extra(name) for name in names]


def _extra(name: str) -> Extra:
    own = [_library(line) for line in _requirements() if _belongs(line, name)]
    missing = [library.name for library in own if library.problem]
    return Extra(name, missing, f"pip install 'augkd[{name}]'")


def _metadata() -> Any:
    return importlib.metadata.metadata("augkd")


def _requirements() -> list[str]:
    return importlib.metadata.requires("augkd") or []


def _belongs(line: str, extra: str) -> bool:
    from packaging.requirements import Requirement

    marker = Requirement(line).marker
    return marker is not None and "extra ==" in line and marker.evaluate({"extra": extra})


def _library(line: str) -> Library:
    from packaging.requirements import Requirement

    requirement = Requirement(line)
    name, specifier = requirement.name, str(requirement.specifier)
    try:
        installed = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Library(name, None, specifier, f"{name} is not installed; pip install '{name}{specifier}'")
    if requirement.specifier.contains(installed, prereleases=True):
        return Library(name, installed, specifier, None)
    problem = f"{name} {installed} does not satisfy {specifier}; pip install -U '{name}{specifier}'"
    return Library(name, installed, specifier, problem)
