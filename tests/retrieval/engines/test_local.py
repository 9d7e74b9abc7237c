"""A build on one machine: interrupted anywhere it ends in the same bytes, and what cannot work is refused at once."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.seed_encoder import SeedEncoder, files_of, lines

from augkd.data.corpus import CorpusSource
from augkd.errors import AugkdError, DataError, IndexFolderError, RecipeError
from augkd.retrieval.dense.search import Index
from augkd.retrieval.engines.local import build_dense

TESTS = Path(__file__).parents[2]


@pytest.mark.parametrize("factory", ["auto", "IVF4,SQ8"])
@pytest.mark.parametrize("fail_after", [0, 1, 3])
def test_an_interrupted_build_resumes_and_ends_byte_identical(tmp_path: Path, factory: str, fail_after: int) -> None:
    source = lines(tmp_path, "c.txt", range(200))
    build_dense(tmp_path / "whole", source, SeedEncoder(), factory=factory, chunk=50)
    with pytest.raises(KeyboardInterrupt):
        build_dense(tmp_path / "cut", source, SeedEncoder(fail_after), factory=factory, chunk=50)
    with pytest.raises(IndexFolderError, match="unfinished"):
        Index.open(tmp_path / "cut")

    resumed = SeedEncoder()
    build_dense(tmp_path / "cut", source, resumed, factory=factory, chunk=50)

    assert resumed.calls == 4 - fail_after
    assert files_of(tmp_path / "cut") == files_of(tmp_path / "whole")


def test_a_part_without_its_vectors_is_encoded_again(tmp_path: Path) -> None:
    source = lines(tmp_path, "c.txt", range(200))
    build_dense(tmp_path / "whole", source, SeedEncoder(), chunk=50)
    with pytest.raises(KeyboardInterrupt):
        build_dense(tmp_path / "cut", source, SeedEncoder(2), chunk=50)
    (tmp_path / "cut" / "build" / "vectors-00001.npy").unlink()
    (tmp_path / "cut" / "texts" / ".part-00002.arrow.1.tmp").write_bytes(b"half")

    resumed = SeedEncoder()
    build_dense(tmp_path / "cut", source, resumed, chunk=50)

    assert resumed.calls == 3
    assert files_of(tmp_path / "cut") == files_of(tmp_path / "whole")


def test_a_build_killed_with_sigkill_resumes_and_ends_byte_identical(tmp_path: Path) -> None:
    source = lines(tmp_path, "c.txt", range(200))
    build_dense(tmp_path / "whole", source, SeedEncoder(), factory="IVF4,SQ8", chunk=50)
    program = (
        f"import sys; sys.path[:0] = [{str(TESTS)!r}, {str(TESTS.parent)!r}]\n"
        "from pathlib import Path\n"
        "from support.seed_encoder import CorpusSource, SeedEncoder\n"
        "from augkd.retrieval.engines.local import build_dense\n"
        f"build_dense(Path({str(tmp_path / 'cut')!r}), CorpusSource({source.dataset!r}), SeedEncoder(2, kill=True), "
        "factory='IVF4,SQ8', chunk=50)\n"
    )
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert process.returncode == -signal.SIGKILL, process.stderr.decode()

    resumed = SeedEncoder()
    build_dense(tmp_path / "cut", source, resumed, factory="IVF4,SQ8", chunk=50)

    assert resumed.calls == 2
    assert files_of(tmp_path / "cut") == files_of(tmp_path / "whole")


def test_a_finished_build_is_opened_and_one_of_other_sources_replaced(tmp_path: Path) -> None:
    source = lines(tmp_path, "c.txt", range(60))
    build_dense(tmp_path / "index", source, SeedEncoder(), chunk=50)
    again = SeedEncoder(fail_after=0)
    assert len(build_dense(tmp_path / "index", source, again, chunk=50)) == 60
    assert again.calls == 0

    other = SeedEncoder()
    other.fingerprint = "another"
    build_dense(tmp_path / "index", source, other, chunk=50)
    assert other.calls == 2


def test_progress_ends_at_the_count(tmp_path: Path) -> None:
    calls: list[tuple[int, int | None]] = []
    source = lines(tmp_path, "c.txt", range(60))
    build_dense(tmp_path / "index", source, SeedEncoder(), chunk=25, progress=lambda *call: calls.append(call))
    assert calls == [(25, None), (50, None), (60, None)]


def test_an_empty_corpus_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "empty.jsonl"
    path.write_text('{"text": ""}\n')
    with pytest.raises(DataError, match="no usable text"):
        build_dense(tmp_path / "index", CorpusSource(str(path)), SeedEncoder())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"factory": "IVFoo"}, "factory 'IVFoo' is not usable"),
        ({"factory": "IDMap,Flat"}, "drop the IDMap"),
        ({"factory": "IVF64,Flat"}, "has 64 lists for 60 texts"),
        ({"factory": "OPQ16,IVF8,PQ16"}, r"learns a rotation \(OPQ\).* not 60; leave out the OPQ"),
        ({"recall": 0.0}, "recall is 0.0"),
    ],
)
def test_unusable_options_are_refused_in_one_line(tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        build_dense(tmp_path / "index", lines(tmp_path, "c.txt", range(60)), SeedEncoder(), **options)
    assert isinstance(caught.value, AugkdError)
    assert "\n" not in str(caught.value)


def test_a_build_beyond_the_memory_budget_is_refused_before_a_text_is_encoded(tmp_path: Path) -> None:
    source = lines(tmp_path, "c.txt", range(300))
    encoder = SeedEncoder(fail_after=0)
    with pytest.raises(
        RecipeError, match=r"no index of 300 vectors of 16 reaches .* in 97\.7 KiB \(.*\): Flat needs"
    ) as caught:
        build_dense(tmp_path / "i", source, encoder, memory=100_000)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "i").exists()
    with pytest.raises(KeyboardInterrupt):  # the twin: with more memory it starts
        build_dense(tmp_path / "i", source, encoder, memory=2**30)
