"""A number out of bounds is refused where it enters, in one line that names it, by `check` and by every command."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.command_line import Augkd

from augkd.errors import RecipeError, short_repr
from augkd.recipe.options import family
from augkd.recipe.units import parse_bytes, parse_seconds

SEED = "less than or equal to 4294967295"


@pytest.fixture
def augkd(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Augkd:
    return Augkd(monkeypatch, capsys)


@pytest.mark.parametrize(
    ("override", "key", "reason"),
    [
        ("seed=-1", "seed is -1", "greater than or equal to 0"),
        (f"seed={10**20}", f"seed is {10**20}", SEED),
        ("seed=4294967296", "seed is 4294967296", SEED),
        (f"seed={'9' * 5000}", "--set 'seed'", "a number of 5000 digits is too long"),
        (f"seed=0x{'f' * 5000}", "--set 'seed'", "is too long"),
        ("teacher.seed=-1", "teacher.seed is -1", "greater than or equal to 0"),
        (f"teacher.seed={10**20}", "teacher.seed", SEED),
        ("data.neighbours.index.seed=-1", "data.neighbours.index.seed is -1", "greater than or equal to 0"),
        ("training.epochs=1e300", "training.epochs is 1e+300", "less than or equal to 100000"),
        ("teacher.epochs=1e300", "teacher.epochs is 1e+300", "less than or equal to 100000"),
        ("training.batch_size=10000000000", "training.batch_size", "less than or equal to 1048576"),
        ("training.max_length=10000000000", "training.max_length", "less than or equal to 1048576"),
        ("training.budget=1e400", "training.budget", "write it like 90s"),
        (f"training.budget={'9' * 400}d", "training.budget", "give 10000 d 0 h at most"),
        ("student={bilstm: {width: 9999999999}}", "student.bilstm.width", "less than or equal to 16384"),
        ("data.neighbours.index.encoder.dim=9999999999", "encoder.dim", "less than or equal to 16384"),
        ("data.neighbours.index.faiss.memory=1e400GB", "faiss.memory", "give 1 byte to"),
        ("data.neighbours.index.faiss.memory=0.1B", "faiss.memory", "give 1 byte to"),
        (f"data.select={{minimax: {{keep: {10**20}}}}}", "selector 'minimax' option 'keep'", f"at most {2**63 - 1}"),
        ("training.epochs=.nan", "training.epochs is nan", "finite"),
        (f"training.epochs={10**39}", "training.epochs", "less than or equal to 100000"),
    ],
)
def test_a_recipe_s_number_out_of_bounds_is_one_line(
    augkd: Augkd, recipe_file: Path, override: str, key: str, reason: str
) -> None:
    done = augkd("check", recipe_file, "--set", override)
    (line,) = done.err.splitlines()
    assert (done.code, line.startswith("error: ")) == (1, True)
    assert key in line
    assert reason in line
    assert len(line) < 400


def test_the_largest_values_that_are_allowed_pass(augkd: Augkd, recipe_file: Path) -> None:
    sets = ("seed=4294967295", "teacher.seed=0", "training.epochs=100000", "training.batch_size=1048576")
    done = augkd("check", recipe_file, *(part for value in sets for part in ("--set", value)))
    assert (done.code, done.err) == (0, "")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--vectors", "inf"), "inf is not in the range 1<=x<=1e+15"),
        (("--vectors", "nan"), "nan is not in the range"),
        (("--vectors", "1e300"), "1e+300 is not in the range"),
        (("--vectors", "0"), "0 is not in the range"),
        (("--vectors", "9" * 5000), "inf is not in the range"),
        (("--vectors", "1e6", "--dim", "9999999999"), "should be less than or equal to 16384"),
        (("--vectors", "1e6", "--recall", "nan"), "nan is not in the range 0.01<=x<=1"),
    ],
)
def test_a_plan_of_no_size_is_wrong_usage(augkd: Augkd, options: tuple[str, ...], reason: str) -> None:
    done = augkd("index", "plan", *options)
    assert (done.code, "Traceback" in done.err) == (2, False)
    assert reason in done.err


@pytest.mark.parametrize(
    "command",
    [
        ("compare", "kd", "--out", "x", "--seeds", "10001"),
        ("compare", "kd", "--out", "x", "--jobs", "100000"),
        ("index", "search", "x", "text", "-k", "99999999999"),
        ("bench-student", "x", "--seconds", "inf"),
    ],
)
def test_an_option_out_of_bounds_is_wrong_usage(augkd: Augkd, command: tuple[str, ...]) -> None:
    done = augkd(*command)
    assert done.code == 2
    assert "is not in the range" in done.err or "should be less than or equal to" in done.err


@pytest.mark.parametrize("size", ["1e400", "9" * 400, "2e18", "0.0001 KB"])
def test_a_size_that_no_machine_has_is_refused(size: str) -> None:
    with pytest.raises(RecipeError, match=r"give 1 byte to 1\.05e"):
        parse_bytes(size)


def test_the_largest_size_and_time_pass() -> None:
    assert parse_bytes("1048576 TiB") == 2**60
    assert parse_seconds("10000d") == 864_000_000
    with pytest.raises(RecipeError, match="at most"):
        parse_seconds("10000d1s")


def test_a_number_too_long_for_python_is_described() -> None:
    assert short_repr(16**5000) == "a int too long to show"
    assert short_repr(12) == "12"
    assert "keep" in [option.name for option in family("selector")["minimax"].options]
