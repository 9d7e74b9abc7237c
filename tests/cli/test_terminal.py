"""Progress without a terminal is one line per step that matters."""

from __future__ import annotations

import pytest

from augkd.cli.terminal import Bars


def test_without_a_terminal_the_headline_is_a_line_for_each_run_that_is_done(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Bars() as bars:
        for text, done in (("soon", 0), ("sooner", 0), ("now", 1)):
            bars.headline(text, done, 2)
    assert capsys.readouterr().err.splitlines() == ["all runs: 0 of 2 done, soon", "all runs: 1 of 2 done, now"]


def test_a_stage_that_begins_again_is_timed_anew(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two stages of training have one name; without it the second would go at a negative rate."""
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    with Bars() as bars:
        for second, done in ((100, 50), (110, 100), (120, 1), (130, 21)):
            now[0] = float(second)
            bars("student", done, 100 if done >= 50 else 21)
    assert capsys.readouterr().err.splitlines()[-2:] == [
        "student: 100 of 100, 5.0/s, 0 s left",
        "student: 21 of 21, 2.0/s, 0 s left",
    ]
