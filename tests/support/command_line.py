"""Command lines run in this process."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any

import pytest

from augkd.cli.app import main


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Augkd:
    """Runs a command line in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *command: object) -> Done:
        self._capsys.readouterr()
        self._monkeypatch.setattr(sys, "argv", ["augkd", *map(str, command)])
        with pytest.raises(SystemExit) as exit_:
            main()
        shown = self._capsys.readouterr()
        return Done(int(exit_.value.code or 0), shown.out, shown.err)
