"""What a compressed file may expand to: a few kilobytes never become gigabytes of memory."""

from __future__ import annotations

import gzip
import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import zstandard

from augkd.data.compression import LONGEST, open_text
from augkd.data.corpus import CorpusCounts, CorpusSource, stream_corpus
from augkd.data.formats import Damaged, rows_of
from augkd.data.task import load_task
from augkd.errors import DataError

HUGE = 1 << 30  # characters: 1 GiB


def bomb(path: Path, head: bytes, filling: bytes, tail: bytes) -> Path:
    """A file of about a megabyte that expands to `head`, a gibibyte of `filling`, and `tail`."""
    block, blocks = filling * (1 << 20), HUGE >> 20
    if path.suffix == ".gz":
        with gzip.open(path, "wb", compresslevel=1) as stream:
            stream.write(head)
            for _ in range(blocks):
                stream.write(block)
            stream.write(tail)
        return path
    with path.open("wb") as raw, zstandard.ZstdCompressor(level=1).stream_writer(raw) as stream:
        stream.write(head)
        for _ in range(blocks):
            stream.write(block)
        stream.write(tail)
    return path


_PEAK = """
import resource, sys
from augkd.data.tables import read_rows, read_texts
from augkd.errors import DataError
kind, path = sys.argv[1:]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
from pathlib import Path
try:
    rows = list(read_texts(Path(path), "text") if kind == "corpus" else read_rows(Path(path)))
    print(len(rows), rows[-1].message if hasattr(rows[-1], "message") else "")
except DataError as exc:
    print("refused:", exc)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.parametrize("packing", [".gz", ".zst"])
@pytest.mark.parametrize(
    ("name", "head", "tail"),
    [
        ("train.txt", b"first\n", b"\nlast\n"),
        ("train.csv", b"text,label\nfirst,a\n", b",b\nlast,b\n"),
        ("train.tsv", b"text\tlabel\nfirst\ta\n", b"\tb\nlast\tb\n"),
        ("train.jsonl", b'{"text": "first"}\n{"text": "', b'"}\n{"text": "last"}\n'),
        ("train.json", b'[{"text": "first"}, {"text": "', b'"}]\n'),
        ("train.json", b'{\n"text": ["first", "', b'"]}\n'),
    ],
)
@pytest.mark.slow
def test_a_bomb_takes_little_memory_and_is_refused_in_a_task_and_counted_in_a_corpus(
    tmp_path: Path, packing: str, name: str, head: bytes, tail: bytes
) -> None:
    path = bomb(tmp_path / f"{name}{packing}", head, b"a", tail)
    assert path.stat().st_size < 6_000_000
    for kind in ("task", "corpus"):
        done = subprocess.run(
            [sys.executable, "-c", _PEAK, kind, str(path)], capture_output=True, text=True, check=True
        )
        said, megabytes = done.stdout.rsplit("\n", 2)[:2]
        assert "characters" in said
        assert ("refused:" in said) == (kind == "task")
        assert int(megabytes) < 500, "took 1.2 GB"


def test_a_line_of_the_longest_length_is_read_and_one_more_character_is_not(tmp_path: Path) -> None:
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(b"short\n" + b"a" * (LONGEST - 1) + b"\nend\n", 1))
    assert [len(row["text"]) for row in rows_of(path, None) if not isinstance(row, Damaged)] == [5, LONGEST - 1, 3]
    path.write_bytes(gzip.compress(b"short\n" + b"a" * LONGEST + b"\nend\n", 1))
    with pytest.raises(DataError, match=r"is damaged after row 1 \(a line of more than 16,777,216 characters\)"):
        list(rows_of(path, None))


def test_a_task_names_the_file_and_a_corpus_goes_on_with_the_next(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "a.txt.gz").write_bytes(gzip.compress(b"first text\n" + b"a" * (LONGEST + 1) + b"\nlost\n", 1))
    (folder / "b.txt").write_text("second text\n")
    counts = CorpusCounts()
    assert list(stream_corpus(CorpusSource(dataset=str(folder)), counts)) == ["first text", "second text"]
    assert (counts.unreadable, counts.kept) == (1, 2)
    assert "a line of more than 16,777,216 characters" in counts.unreadable_files[0]
    line = json.dumps({"text": "a" * LONGEST, "label": "x"})
    (tmp_path / "train.jsonl.gz").write_bytes(gzip.compress(line.encode() + b"\n", 1))
    with pytest.raises(DataError, match=r"train.jsonl.gz is damaged after row 0 \(a line of more than"):
        load_task(dataset=str(tmp_path / "train.jsonl.gz"))


def test_a_frame_of_zstd_is_expanded_piece_by_piece(tmp_path: Path) -> None:
    path = bomb(tmp_path / "a.txt.zst", b"", b"a\n", b"end\n")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with open_text(path) as stream:
        for _ in range(1000):
            assert stream.readline() == "a\n"
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) < 200 * 1024  # KiB


def test_lines_are_the_same_with_any_line_end_and_read_as_before(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"a\r\nb\rc\n\nd")
    with open_text(path) as stream:
        assert list(stream) == ["a\n", "b\n", "c\n", "\n", "d"]
    with open_text(path, keep_line_ends=True) as stream:
        assert list(stream) == ["a\r\n", "b\r", "c\n", "\n", "d"]
    with open_text(path) as stream:
        assert (stream.read(3), stream.readline(), stream.read()) == ("a\nb", "\n", "c\n\nd")


def test_a_null_character_in_a_table_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "train.csv"
    path.write_bytes(b"text,label\n" + b"some\x00text,a\n" * 20)
    rows = list(rows_of(path, None))
    assert len(rows) == 20
