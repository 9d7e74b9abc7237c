"""JSON files hold no NaN: what is not a finite number is null."""

from __future__ import annotations

import json
import math
from pathlib import Path

from augkd.workspace.files import json_text, write_json


def test_numbers_that_are_not_finite_become_null(tmp_path: Path) -> None:
    value = {"a": math.nan, "b": [1.5, math.inf, (-math.inf, 2)], "c": {"d": "NaN", "e": None, "f": True}}
    write_json(tmp_path / "x.json", value)
    expected = {"a": None, "b": [1.5, None, [None, 2]], "c": {"d": "NaN", "e": None, "f": True}}

    def no_constant(name: str) -> None:
        raise AssertionError(name)

    assert json.loads((tmp_path / "x.json").read_text(), parse_constant=no_constant) == expected
    assert json_text(1e308) == "1e+308"
