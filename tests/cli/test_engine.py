"""Commands on a Ray cluster: their options, their output, Ctrl-C; and without --engine ray, no trace of Ray."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.seed_encoder import files_of

from augkd.cli.engine import connected
from augkd.errors import RecipeError


@pytest.fixture
def index_recipe(tmp_path: Path, tiny_bert: Path) -> Path:
    (tmp_path / "corpus.txt").write_text("".join(f"text number {number} of many\n" for number in range(40_000)))
    recipe = tmp_path / "index.yaml"
    encoder = f"{{model: {tiny_bert}, kind: static, dim: 16, sample: 500}}"
    recipe.write_text(f"corpus: {{dataset: {tmp_path / 'corpus.txt'}}}\nencoder: {encoder}\nfaiss: {{factory: Flat}}\n")
    return recipe


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("rai", None, None, None, None), "--engine is 'rai'; did you mean 'ray'?"),
        (("local", "auto", None, None, None), "--address auto is for --engine ray; add that, or leave it out"),
        (("local", None, 2, None, None), "--workers 2 is for --engine ray"),
        (("local", None, None, 1.0, None), "--cpus-per-worker 1.0 is for --engine ray"),
        (("local", None, None, None, 0.0), "--gpus-per-worker 0.0 is for --engine ray"),
    ],
)
def test_options_that_do_not_fit_the_engine_are_rejected(options: tuple[object, ...], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        connected(*options)
    assert str(caught.value).startswith(message)
    with connected("local", None, None, None, None) as cluster:
        assert cluster is None


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("index build demo --shard 1/2 --engine ray", "--shard 1/2 is for machines without Ray"),
        (
            "compare demo --jobs 3 --engine ray",
            "--jobs 3 is for this machine alone; with --engine ray give --workers 3",
        ),
        ("augment demo --engine ray --cpus-per-worker 1.5", "CPUs per worker is 1.5"),
    ],
)
def test_commands_reject_what_does_not_go_with_ray(tmp_path: Path, command: str, message: str) -> None:
    done = augkd(*command.split(), "--out", tmp_path / "out")
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_commands_on_one_machine_do_not_import_ray(index_recipe: Path, tmp_path: Path) -> None:
    program = (
        "import sys; from augkd.cli.app import main\n"
        "try: main()\n"
        "except SystemExit as exit: print('ray' in sys.modules, 'faiss' in sys.modules, exit.code, file=sys.stderr)\n"
    )
    (tmp_path / "corpus.txt").write_text("".join(f"text number {number}\n" for number in range(300)))
    arguments = [
        "index",
        "build",
        str(index_recipe),
        "--out",
        str(tmp_path / "index"),
        "--set",
        "encoder.kind=sentence",
    ]
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == "False True 0", done.stderr


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
def test_a_build_on_a_cluster_is_interrupted_by_ctrl_c_and_continues(
    ray_address: str, index_recipe: Path, tmp_path: Path
) -> None:
    here = augkd("index", "build", index_recipe, "--out", tmp_path / "here", "--json")
    assert here.returncode == 0, here.stderr
    command = ["index", "build", index_recipe, "--out", tmp_path / "ray", "--json"]
    command += ["--engine", "ray", "--address", ray_address, "--workers", "2"]
    with started(*command) as process:
        wait_for(tmp_path / "ray" / "build" / "chunks.jsonl")
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert stderr.splitlines()[-1] == "interrupted; the same command continues"
    assert not (tmp_path / "ray" / "manifest.json").exists()

    done = augkd(*command)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads(here.stdout), "nothing but the result is on stdout"
    assert files_of(tmp_path / "ray") == files_of(tmp_path / "here")


def augkd(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "augkd.cli.app", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


def started(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "augkd.cli.app", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 200
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert path.exists()
