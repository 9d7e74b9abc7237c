"""The wheel, built from a clean copy and put before the checkout: it carries the recipes and the type marker."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of what git tracks or would: nothing that only lies around in this checkout can get into it."""
    pytest.importorskip("build")
    pytest.importorskip("hatchling")
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    copy = tmp_path_factory.mktemp("source")
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(copy)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = out.glob("*.whl")
    return built


def test_the_wheel_holds_every_module_and_every_recipe_and_nothing_else(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    modules = {f"augkd/{path.relative_to(ROOT / 'augkd').as_posix()}" for path in (ROOT / "augkd").rglob("*.py")}
    recipes = {f"augkd/_recipes/{path.relative_to(ROOT).as_posix()}" for path in ROOT.glob("[ip]*es/*.yaml")}
    assert {path.name for path in map(Path, recipes)} >= {"minimax-knn.yaml", "questions.yaml"}
    page = {f"augkd/evaluation/report/page/{path.name}" for path in (ROOT / "augkd/evaluation/report/page").iterdir()}
    assert len(page) == 4  # of the report: template, explorer, style, script
    assert names == modules | recipes | page | {"augkd/py.typed"}


def test_an_installed_augkd_finds_its_recipes(wheel: Path, task_folder: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    # the unpacked wheel goes first in the path, so that this checkout, installed editable, is not what is imported
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r})\n"
        f"import augkd; assert augkd.__file__.startswith({str(tmp_path / 'site')!r}), augkd.__file__\n"
        "from augkd.cli.app import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "check", "minimax-knn", "--set", f"task.dataset={task_folder}"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "90 train, 18 validation, 18 test" in done.stdout
    assert "90 originals, at most 720 candidates" in done.stdout


def test_the_wheel_declares_the_command_and_the_licence(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    by_name = {Path(name).name: name for name in archive.namelist() if ".dist-info/" in name}
    assert "augkd = augkd.cli.app:main" in archive.read(by_name["entry_points.txt"]).decode()
    assert "License-Expression: Apache-2.0" in archive.read(by_name["METADATA"]).decode()
    assert "LICENSE" in by_name
