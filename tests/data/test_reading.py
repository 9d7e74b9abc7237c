"""Files as people have them: every encoding, dialect and workbook gives the same rows, and what is unclear is asked."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.workbook import workbook

from augkd.data.corpus import CorpusCounts, CorpusSource, stream_corpus
from augkd.data.formats import describe
from augkd.data.reading import Reading, encoding_of, guess_encodings
from augkd.data.tables import column_names, read_rows, read_texts
from augkd.data.task import load_task
from augkd.errors import DataError, RecipeError
from augkd.workspace.fingerprints import file_fingerprint, fingerprint

TEXTS = ["Schön war's; wirklich", "naja, mäßig", 'er sagte "gut"', "zwei\r\nZeilen", "größer | kleiner"]
ROWS = [{"text": text, "label": ("gut", "schlecht")[place % 2]} for place, text in enumerate(TEXTS)]


def csv_text(delimiter: str) -> str:
    quoted = ['"' + row["text"].replace('"', '""') + '"' + delimiter + row["label"] for row in ROWS]
    return "\r\n".join([f"text{delimiter}label", *quoted]) + "\r\n"


# ---- encodings ----


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_a_csv_reads_back_whatever_its_encoding_and_delimiter(tmp_path: Path, encoding: str, delimiter: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(csv_text(delimiter).encode(encoding))
    assert list(read_rows(path)) == ROWS
    assert column_names(path) == ["text", "label"]
    assert list(read_texts(path, "text")) == TEXTS


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_a_utf16_corpus_has_no_nuls(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("eine Zeile\nnoch eine, größere\n".encode(encoding))
    assert list(stream_corpus(CorpusSource(str(path)), CorpusCounts())) == ["eine Zeile", "noch eine, größere"]


def test_text_without_nuls_is_utf8_and_a_few_nuls_are_damage() -> None:
    assert encoding_of("größer".encode() * 50) == "utf-8-sig"
    assert encoding_of(b"a few \0 nuls \0 only" * 10) == "utf-8-sig"
    assert encoding_of(b"") == "utf-8-sig"
    assert encoding_of("größer".encode("utf-16-le") * 50) == "utf-16-le"
    assert encoding_of(b"\xef\xbb\xbfx", "utf8") == "utf-8-sig"


def test_another_encoding_is_asked_for_with_the_option_and_read_with_it(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(csv_text(";").encode("cp1252"))
    with pytest.raises(
        DataError, match=r"not UTF-8 \(byte 0xf6\).* looks like cp1252 \('Schön'\): set encoding: cp1252"
    ):
        list(read_rows(path))
    assert list(read_rows(path, None, Reading(encoding="cp1252"))) == ROWS
    task = load_task(dataset=str(path), encoding="cp1252", text="text")
    assert task.notes[0] == "train: read as cp1252, with semicolons between columns"
    assert "größer | kleiner" in {example.text for example in (*task.train, *task.validation, *task.test)}


def test_encodings_that_cannot_be_told_apart_are_all_named() -> None:
    sample = ("Le café était très élégant, ça coûte 5 € — «voilà». " * 3).encode("cp1252")
    found = dict(guess_encodings(sample))
    assert next(iter(found)) == "cp1252"
    assert found["cp1252"] == "très"
    assert found["cp1250"] == "trčs"
    assert dict(guess_encodings("Привет, как дела? Хороший день. ".encode("cp1251") * 3)) == {"cp1251": "Привет"}


def test_an_unknown_encoding_or_delimiter_is_refused_in_one_line() -> None:
    with pytest.raises(RecipeError, match="encoding 'cp1225' is not known; did you mean 'cp1252'"):
        Reading(encoding="cp1225")
    with pytest.raises(RecipeError, match="encoding 'hex' is not known"):
        Reading(encoding="hex")
    with pytest.raises(RecipeError, match="delimiter is ';;'; give one character"):
        CorpusSource("a.csv", delimiter=";;")


def test_a_missing_library_is_named_with_its_pip_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("charset_normalizer", "python_calamine", "clevercsv.detect"):
        monkeypatch.setitem(sys.modules, name, None)
    (tmp_path / "a.txt").write_bytes("größer\n".encode("cp1252"))
    with pytest.raises(DataError, match=r"save the file as UTF-8, or name its encoding.*pip install 'augkd\[files\]'"):
        list(read_rows(tmp_path / "a.txt"))
    with pytest.raises(DataError, match=r"a\.xlsx, augkd needs python-calamine; pip install 'augkd\[files\]'"):
        list(read_rows(workbook(tmp_path / "a.xlsx", {"one": [["text"], ["a"]]})))
    (tmp_path / "a.csv").write_text(csv_text(";"))
    assert [row["label"] for row in read_rows(tmp_path / "a.csv")] == [row["label"] for row in ROWS]


def test_the_fingerprint_of_a_corpus_changes_only_where_it_is_read_in_another_way(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,n\na,1\n")
    known = {
        **{"text": "text", "split": "train", "config": None, "limit": None, "min_chars": 1, "max_chars": 2000},
        **{"sentences": None, "duplicates": "exact", "near": 0.8},
    }
    plain = fingerprint({**known, "dataset": [["a.csv", file_fingerprint(path)]]})
    assert CorpusSource(str(path)).fingerprint() == plain, "that of indexes built before"
    assert CorpusSource(str(path), encoding="cp1252").fingerprint() != plain
    (tmp_path / "b").mkdir()
    utf16 = tmp_path / "b" / "a.csv"
    utf16.write_bytes("text,n\na,1\n".encode("utf-16"))
    before = fingerprint({**known, "dataset": [["a.csv", file_fingerprint(utf16)]]})
    assert CorpusSource(str(utf16)).fingerprint() != before


# ---- dialects ----


@pytest.mark.parametrize(
    ("content", "how"),
    [
        ("text;label\n'gut; ja';a\n'schlecht';b\n", "with semicolons between columns, ' around fields"),
        ('text,label\n"sagte \\"ja\\", oft",a\n"schlecht",b\n', "with \\ before quotes"),
        ("sep=;\r\ntext;label\r\ngut, ja;a\r\n", "with semicolons between columns"),
        ("id;text, long;label\n1;a, b;x\n2;c, d, e;y\n", "with semicolons between columns"),
        ("text,label\na,b\n", ""),
        ("text\nhello, world\nanother; one\n", ""),
        ('text,label\n"open,a\nb,c\n', ""),  # damage is no dialect
        ("text,label\n\"don't,x\nit's,y\n", ""),
    ],
)
def test_a_dialect_is_found_where_all_rows_fit_it(tmp_path: Path, content: str, how: str) -> None:
    (tmp_path / "a.csv").write_text(content, newline="")
    assert describe(tmp_path / "a.csv") == how


def test_quotes_and_escapes_of_other_dialects_are_undone(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text;label\n'gut; ja';a\n'it''s';b\n")
    assert [row["text"] for row in read_rows(tmp_path / "a.csv")] == ["gut; ja", "it's"]
    (tmp_path / "b.csv").write_text('text,label\n"sagte \\"ja\\", oft",a\n"schlecht",b\n')
    assert [row["text"] for row in read_rows(tmp_path / "b.csv")] == ['sagte "ja", oft', "schlecht"]


def test_two_delimiters_that_fit_are_a_question_and_the_option_its_answer(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text;rating, stars\nok;4,5\nbad;1,0\n")
    with pytest.raises(DataError, match=r"a\.csv has ',' or ';' between its columns, and both fit; set delimiter: ';'"):
        list(read_rows(path))
    rows = list(read_rows(path, None, Reading(delimiter=";")))
    assert rows == [{"text": "ok", "rating, stars": "4,5"}, {"text": "bad", "rating, stars": "1,0"}]


def test_a_few_damaged_rows_do_not_hide_the_delimiter(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text;label\n" + "gut, ja;a\n" * 20 + "ohne Label\n")
    values = list(read_texts(path, "text"))
    assert values[:20] == ["gut, ja"] * 20
    assert "line 22 has 1 fields, its header has 2" in values[20].message


def test_unnamed_columns_are_numbered_as_pandas_does(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(",text,label,\n0,a,x,\n1,b,y,\n")
    assert column_names(path) == ["Unnamed: 0", "text", "label", "Unnamed: 3"]
    assert [row["text"] for row in read_rows(path)] == ["a", "b"]


# ---- workbooks ----


def test_a_workbook_gives_the_rows_of_its_only_sheet(tmp_path: Path) -> None:
    rows = [
        ["text", "label", "n", "ok"],
        ["größer, ja", "gut", 3, True],
        [None, None, None, None],
        ["zwei", None, 1.5, False],
    ]
    path = workbook(tmp_path / "a.xlsx", {"Blatt 1": rows, "leer": []})
    assert list(read_rows(path)) == [
        {"text": "größer, ja", "label": "gut", "n": 3, "ok": True},
        {"text": "zwei", "label": None, "n": 1.5, "ok": False},
    ]
    assert column_names(path) == ["text", "label", "n", "ok"]
    assert list(read_texts(path, "text")) == ["größer, ja", "zwei"]


def test_a_sheet_is_asked_for_where_there_are_several(tmp_path: Path) -> None:
    path = workbook(tmp_path / "a.xlsx", {"one": [["text"], ["a"]], "two": [["text"], ["b"]]})
    with pytest.raises(DataError, match=r"a\.xlsx has 2 sheets with cells \('one', 'two'\); name one with sheet"):
        list(read_rows(path))
    assert list(read_rows(path, None, Reading(sheet="two"))) == [{"text": "b"}]
    with pytest.raises(DataError, match=r"has no sheet 'tow' with cells; did you mean 'two'\?"):
        list(read_rows(path, None, Reading(sheet="tow")))
    (tmp_path / "b.xlsx").write_bytes(b"no workbook")
    with pytest.raises(DataError, match=r"b\.xlsx is not a readable workbook"):
        list(read_rows(tmp_path / "b.xlsx"))


# ---- values ----


def test_binary_text_is_read_as_text_and_other_bytes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    labels = ["x", "y"] * 20
    texts = [f"größer {n}".encode() for n in range(40)]
    pq.write_table(pa.table({"text": texts, "label": labels, "image": [b"\xff\xd8"] * 40}), path)
    task = load_task(dataset=str(path))
    assert {example.text for example in task.train} <= {text.decode() for text in texts}
    assert list(read_texts(path, "text"))[:2] == ["größer 0", "größer 1"]
    with pytest.raises(DataError, match=r"column 'image' is b'\\xff\\xd8', not a text"):
        load_task(dataset=str(path), text="image")


def test_columns_of_dictionaries_read_as_their_values_and_lists_and_structs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = {
        "text": pa.array([f"text {n}" for n in range(40)]).dictionary_encode(),
        "label": pa.array(["x", "y"] * 20).dictionary_encode(),
        "parts": [["a", "b"]] * 40,
        "meta": [{"lang": "de"}] * 40,
    }
    pq.write_table(pa.table(table), path)
    assert load_task(dataset=str(path)).labels == ("x", "y")
    for column in ("parts", "meta"):
        with pytest.raises(DataError, match=rf"column '{column}' is .*, not a text; name another column"):
            load_task(dataset=str(path), text=column)
        with pytest.raises(DataError, match=rf"column '{column}' is .*, not a text"):
            list(stream_corpus(CorpusSource(str(path), text=column), CorpusCounts()))


def test_a_field_of_a_struct_is_a_column(tmp_path: Path) -> None:
    pairs = [{"de": f"Satz {n}", "en": f"sentence {n}"} for n in range(40)]
    table = pa.table({"translation": pairs, "label": ["x", "y"] * 20})
    pq.write_table(table, tmp_path / "a.parquet")
    lines = [json.dumps({"translation": pair, "label": "xy"[n % 2]}) for n, pair in enumerate(pairs)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    for path in (tmp_path / "a.parquet", tmp_path / "a.jsonl"):
        assert sorted(column_names(path)) == ["label", "translation", "translation.de", "translation.en"]
        task = load_task(dataset=str(path), text="translation.de", text_pair="translation.en")
        example = task.train[3]
        assert example.text.replace("Satz", "sentence") == example.text_pair
        assert list(read_texts(path, "translation.en")) == [pair["en"] for pair in pairs]
        with pytest.raises(DataError, match=r"did you mean 'translation\.en'"):
            load_task(dataset=str(path), text="translation.eng")


def test_nan_is_a_missing_text(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [f'{{"text": "text {n}", "label": "{"xy"[n % 2]}"}}' for n in range(40)]
    path.write_text("\n".join(['{"text": NaN, "label": "x"}'] * 6 + rows))
    assert load_task(dataset=str(path)).notes[0] == "train: 6 of 46 rows dropped, their text is empty"
    counts = CorpusCounts()
    assert "nan" not in set(stream_corpus(CorpusSource(str(path)), counts))
    assert (counts.kept, counts.empty) == (40, 6)
