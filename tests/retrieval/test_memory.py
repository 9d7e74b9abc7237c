"""The plan's memory is that of the process, and a budget bounds the process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.command_line import Augkd

from augkd.errors import RecipeError
from augkd.recipe import EncoderOptions, dump
from augkd.retrieval.dense.choice import choose
from augkd.retrieval.dense.size import plan_index
from augkd.retrieval.memory import Overhead, overhead_of

QUESTIONS = Path(__file__).parents[3] / "shared/data/corpora/questions.parquet"
_BUILD = r"""
import json, re, sys
from pathlib import Path
from augkd.recipe import IndexRecipe
from augkd.retrieval.build import build_index
index = build_index(IndexRecipe.model_validate(json.loads(sys.argv[1])), Path(sys.argv[2]))
# not getrusage: its peak is inherited from the process that started this one
peak = 1024 * int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])
print(json.dumps([peak, index.manifest.on_disk()["memory_plan"]["process"]]))
"""


def measured(recipe: dict[str, Any], out: Path) -> tuple[int, int]:
    """Peak memory of a process that builds this index, and what its plan says."""
    command = [sys.executable, "-c", _BUILD, json.dumps(recipe), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    peak, planned = json.loads(done.stdout.splitlines()[-1])
    return peak, planned


def test_the_process_is_the_larger_of_the_encoder_s_peak_and_faiss_beside_the_encoder() -> None:
    alone = plan_index(10**6, 384).options[0]
    assert alone.process_bytes == alone.build_bytes
    beside = plan_index(10**6, 384, overhead=Overhead(held=7 * 10**8, peak=9 * 10**8)).options[0]
    assert (beside.build_bytes, beside.process_bytes) == (alone.build_bytes, alone.build_bytes + 7 * 10**8)
    assert plan_index(1000, 16, overhead=Overhead(7 * 10**8, 9 * 10**8)).options[0].process_bytes == 9 * 10**8


def test_a_budget_counts_python_and_the_encoder() -> None:
    needed = plan_index(10**6, 384).options[0].build_bytes
    overhead = Overhead(held=7 * 10**8, peak=9 * 10**8)
    chosen = choose(10**6, 384, memory=needed + overhead.held, overhead=overhead)
    assert chosen == "IVF4096,PQ96x4fs,Refine(SQ8)"
    assert choose(10**6, 384, memory=needed + overhead.held - 1, overhead=overhead) != chosen
    with pytest.raises(RecipeError, match=r"of which Python and the encoder hold 668 MiB, and 858 MiB at most"):
        choose(10**6, 384, memory=overhead.peak - 1, overhead=overhead)
    with pytest.raises(RecipeError, match="needs 858 MiB"):
        choose(1000, 384, "Flat", memory=overhead.peak - 1, overhead=overhead)
    assert plan_index(10**8, 384, 10**9, 0.9, overhead=Overhead(10**9, 10**9)).machines == 0
    assert plan_index(10**8, 384, 2 * 10**9, 0.9, overhead=Overhead(10**9, 10**9)).machines > 10


def test_a_larger_sample_and_a_larger_model_take_more() -> None:
    def peak(**options: Any) -> int:
        return overhead_of({"encoder": dump(EncoderOptions.model_validate(options))}).peak

    assert peak(kind="static", sample=40_000) - peak(kind="static", sample=20_000) == 4 * 384 * 8 * 20_000
    assert peak(kind="static") > peak(kind="sentence") > overhead_of(None).peak


@pytest.mark.skipif(sys.platform != "linux", reason="measured on Linux")
def test_a_budget_that_the_process_exceeds_is_refused_and_one_that_it_keeps_is_kept(
    tiny_bert: Path,
    corpus_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    encoder = {"model": str(tiny_bert), "max_length": 32}
    (tmp_path / "index.yaml").write_text(yaml.safe_dump({"corpus": str(corpus_file), "encoder": encoder}))
    command = ("index", "build", tmp_path / "index.yaml", "--out", tmp_path / "no", "--set", "faiss.memory=200MB")
    done = Augkd(monkeypatch, capsys)(*command)
    assert done.code == 1
    assert "in 191 MiB (of which Python and the encoder hold" in done.err
    assert not (tmp_path / "no" / "texts").exists()

    recipe = {"corpus": str(corpus_file), "encoder": encoder, "faiss": {"memory": "800MB"}}
    peak, planned = measured(recipe, tmp_path / "yes")
    assert peak < 800e6
    assert planned == pytest.approx(peak, rel=0.2)


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.skipif(not QUESTIONS.exists(), reason="needs the corpora")
@pytest.mark.parametrize("encoder", [{"kind": "sentence"}, {"kind": "static"}], ids=["sentence", "static"])
def test_the_plan_of_real_questions_is_within_a_fifth_of_the_process(encoder: dict[str, Any], tmp_path: Path) -> None:
    recipe = {"corpus": {"dataset": str(QUESTIONS), "limit": 20_000}, "encoder": encoder}
    peak, planned = measured(recipe, tmp_path / "index")
    assert planned == pytest.approx(peak, rel=0.2)
