"""Every format and compression reads back what was written, and every damage is reported with its file and line."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from augkd.data import parquet
from augkd.data.formats import Damaged
from augkd.data.parquet import parquet_batches, parquet_count
from augkd.data.tables import column_names, data_files, local_path, read_rows, read_texts
from augkd.errors import DataError

ROWS = [{"text": "a, b", "label": "x"}, {"text": "né ✓", "label": "y"}]
CONTENT = {
    ".csv": 'text,label\n"a, b",x\nné ✓,y\n',
    ".tsv": "text\tlabel\na, b\tx\nné ✓\ty\n",
    ".jsonl": '{"text": "a, b", "label": "x"}\n\n{"text": "né ✓", "label": "y"}\n',
    ".json": '{"text": "a, b", "label": "x"}\n{"text": "né ✓", "label": "y"}',
}


def write(path: Path, data: bytes) -> Path:
    packed = {".gz": gzip.compress, ".zst": zstandard.compress}.get(path.suffix)
    path.write_bytes(packed(data) if packed else data)
    return path


@pytest.mark.parametrize("packing", ["", ".gz", ".zst"])
@pytest.mark.parametrize("kind", CONTENT)
def test_a_text_format_reads_back_plain_and_compressed(tmp_path: Path, kind: str, packing: str) -> None:
    path = write(tmp_path / f"a{kind}{packing}", CONTENT[kind].encode())
    assert list(read_rows(path)) == ROWS
    assert list(read_rows(path, ["label", "absent"])) == [{"label": "x"}, {"label": "y"}]
    assert column_names(path) == ["text", "label"]


@pytest.mark.parametrize("packing", ["", ".gz", ".zst"])
def test_a_txt_file_has_one_text_per_line(tmp_path: Path, packing: str) -> None:
    path = write(tmp_path / f"a.txt{packing}", b"\xef\xbb\xbfone\r\n\ntwo \xe2\x80\xa8 \xc3\xa9")
    assert [row["text"] for row in read_rows(path)] == ["one", "", "two \u2028 é"]
    assert column_names(path) == ["text"]


def test_parquet_reads_only_the_wanted_columns(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS), path)
    assert list(read_rows(path)) == ROWS
    assert list(read_rows(path, ["label"])) == [{"label": "x"}, {"label": "y"}]
    assert (column_names(path), parquet_count(path)) == (["text", "label"], 2)


def test_consecutive_zst_frames_are_all_read(tmp_path: Path) -> None:
    path = tmp_path / "a.txt.zst"
    path.write_bytes(zstandard.compress(b"one\n") + zstandard.compress(b"two\n"))
    assert [row["text"] for row in read_rows(path)] == ["one", "two"]


def test_tsv_keeps_stray_quotes_and_unquotes_whole_fields(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", b'text\n"Hi, he said\n"say ""x"""\n')
    assert [row["text"] for row in read_rows(path)] == ['"Hi, he said', 'say "x"']


def test_csv_keeps_line_breaks_in_quotes_and_long_fields(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", b'text\n"a\r\nb"\n' + b"x" * 200_000 + b"\n")
    assert [row["text"] for row in read_rows(path)] == ["a\r\nb", "x" * 200_000]


def test_a_lone_surrogate_in_json_is_replaced(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", b'{"text": "a\\ud800"}')
    assert list(read_rows(path)) == [{"text": "a\ufffd"}]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"text": "a"}\n{"text": \n', r"a\.jsonl line 2 is not valid JSON .*one object per line"),
        ("a.jsonl", '{"text": "a"}\n\n[1, 2]\n', r"a\.jsonl line 3 is a list, not an object: \[1, 2\]"),
        ("a.csv", "text,label\na,x\na,b,x\n", r"a\.csv line 3 has 3 fields, its header has 2: .*quote fields"),
        ("a.csv", 'text\n"open\n', r"a\.csv line 2 is not valid CSV .*quotes"),
        ("a.csv", "", r"a\.csv is empty; its first line must name the columns"),
        ("a.csv", "text,text\n", r"a\.csv names the column 'text' twice"),
        ("a.tsv", "text\tlabel\na\tb\tc\n", r"a\.tsv line 2 has 3 fields.*as \.csv"),
        ("a.parquet", "PAR1 no", r"a\.parquet is not a readable Parquet file"),
        ("a.docx", "", r"a\.docx has an unsupported file type; give \.txt"),
    ],
)
def test_a_bad_file_is_reported_with_its_line(tmp_path: Path, name: str, content: str, message: str) -> None:
    path = write(tmp_path / name, content.encode())
    with pytest.raises(DataError, match=message) as caught:
        list(read_rows(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a.txt.gz", "a.txt.zst"])
def test_a_compressed_file_that_is_truncated_or_foreign_is_damaged(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, "".join(f"line {n * n * 7919 % 10007}\n" for n in range(5000)).encode())
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match=rf"{name} is damaged after row \d+ .*copy or write it again"):
        list(read_rows(path))
    path.write_bytes(b"plain text")
    with pytest.raises(DataError, match="is damaged after row 0"):
        list(read_rows(path))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", b"one\ncaf\xe9\n"),
        ("a.csv", b"text\none\ncaf\xe9\n"),
        ("a.tsv.gz", b"text\none\ncaf\xe9\n"),
        ("a.jsonl", b'{"text": "one"}\n{"text": "caf\xe9"}\n'),
    ],
)
def test_bytes_that_are_not_utf8_are_refused_in_rows_and_kept_in_texts(
    tmp_path: Path, name: str, content: bytes
) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(DataError, match=rf"{name} row 2: column 'text' is not UTF-8 \(byte 0xe9\); save the file"):
        list(read_rows(path))
    assert list(read_texts(path, "text")) == ["one", "caf\udce9"]


def test_parquet_text_that_is_not_utf8_is_refused_in_rows_and_kept_in_texts(tmp_path: Path) -> None:
    text = pa.array([b"one", b"caf\xe9", None], pa.binary()).view(pa.string())
    for number, column in enumerate((text, text.dictionary_encode())):
        path = tmp_path / f"{number}.parquet"
        pq.write_table(pa.table({"text": column}), path)
        with pytest.raises(DataError, match="parquet holds text that is not UTF-8"):
            list(read_rows(path))
        assert list(read_texts(path, "text")) == ["one", "caf\udce9", None]


def test_damage_stands_between_the_texts_that_can_be_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", b'text,n\none,1\na,b,c\n"bad"quote,2\ntwo,2\n"open,3\nlost')
    values = list(read_texts(path, "text"))
    assert [value if isinstance(value, str) else value.message.split(" (")[0] for value in values] == [
        "one",
        f"{path} line 3 has 3 fields, its header has 2: ['a', 'b', 'c']; "
        "quote fields that hold commas, or name the delimiter",
        f"{path} line 4 is not valid CSV",
        "two",
        f"{path} line 7 is not valid CSV",
    ]
    assert not any(value.whole for value in values if isinstance(value, Damaged))


@pytest.mark.parametrize("name", ["a.txt.gz", "a.txt.zst"])
def test_a_truncated_file_gives_its_complete_lines_then_the_damage(tmp_path: Path, name: str) -> None:
    rng = random.Random(0)
    lines = [f"line {rng.random()}" for _ in range(20_000)]
    path = write(tmp_path / name, "".join(f"{line}\n" for line in lines).encode())
    path.write_bytes(path.read_bytes()[:-5000])
    *texts, damage = read_texts(path, "text")
    assert texts == lines[: len(texts)]
    assert len(texts) > 5000
    assert isinstance(damage, Damaged)
    assert damage.whole
    assert f"{name} is damaged after row {len(texts)} (" in damage.message


def test_a_folder_is_not_a_damaged_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(DataError, match=r"cannot be read .*check the path"):
        list(read_texts(tmp_path / "a.txt", "text"))


def test_large_rows_make_small_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "_BATCH_BYTES", 1 << 14)
    path = tmp_path / "a.parquet"
    texts = [f"{n:07d}" * 300 for n in range(20)]  # 2.1 kB each
    pq.write_table(pa.table({"text": texts}), path, use_dictionary=False)
    assert [batch.num_rows for batch in parquet_batches(path, ["text"])] == [7, 7, 6]
    assert list(read_texts(path, "text")) == texts


def test_a_damaged_header_is_reported_too(tmp_path: Path) -> None:
    (tmp_path / "a.csv.gz").write_bytes(b"plain text")
    with pytest.raises(DataError, match="damaged in line 1"):
        column_names(tmp_path / "a.csv.gz")


def test_a_folder_gives_its_data_files_in_name_order(tmp_path: Path) -> None:
    for name in ("b.csv", "a.txt.gz", "labels.json", "notes.md", ".hidden/c.txt", "sub/d.parquet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [p.relative_to(tmp_path).as_posix() for p in data_files(tmp_path)] == ["a.txt.gz", "b.csv", "sub/d.parquet"]


def test_missing_paths_and_folders_without_data_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.csv does not exist"):
        data_files(tmp_path / "gone.csv")
    with pytest.raises(DataError, match=r"has no data file; put \.txt"):
        data_files(tmp_path)


def test_only_what_cannot_be_a_path_is_a_hub_name(tmp_path: Path) -> None:
    assert local_path("some-org/some-name") is None
    assert local_path(str(tmp_path)) == tmp_path
    for name in ("./gone", "/gone/away", "gone.csv", "gone.jsonl.gz"):
        with pytest.raises(DataError, match=f"'{name}' does not exist"):
            local_path(name)
