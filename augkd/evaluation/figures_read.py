"""The figures that commands left as JSON, checked against their types: a folder may be a stranger's."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, NotRequired, TypeVar

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic cannot read typing's before Python 3.12

from augkd.errors import WorkspaceError, short_repr
from augkd.workspace.checksums import read_checked

_T = TypeVar("_T")

Log = list[dict[str, int | float | str | bool | None]]  # log.json: the entries of a training


class ExportedFile(TypedDict):
    """A file of an export."""

    bytes: int


class ExportCheck(TypedDict):
    """How far an exported model is from PyTorch."""

    score: NotRequired[float | None]


class ExportFigures(TypedDict):
    """What a report shows of export.json."""

    files: dict[str, ExportedFile]
    checks: dict[str, ExportCheck]


class BenchRow(TypedDict):
    """One model in one batch size."""

    name: str
    precision: str
    bytes: int
    median_ms: float
    p95_ms: float
    texts_per_second: float
    speedup: float


class BenchFigures(TypedDict):
    """What a report shows of bench.json."""

    batch_sizes: dict[str, list[BenchRow]]
    threads: int


def read_figures(path: Path, kind: type[_T]) -> _T:
    """The content of a JSON file that must be of type `kind`; raises WorkspaceError that names the first other key."""
    value = read_checked(path, "run the command that wrote it again")
    try:
        _adapter(kind).validate_python(value, strict=True)  # type: ignore[arg-type]
    except ValidationError as exc:
        error = exc.errors(include_url=False)[0]
        where = ".".join(short_repr(part).strip("'") for part in error["loc"]) or "its content"
        given = "is missing" if error["type"] == "missing" else f"is {short_repr(error['input'])}: {error['msg']}"
        raise WorkspaceError(f"{path}: {where} {given}; run the command that wrote it again") from exc
    return value  # type: ignore[no-any-return]


@functools.cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
