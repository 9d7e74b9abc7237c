"""A transfer set from elsewhere is checked column by column; damage is one line that names file, column and row."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from augkd.data.arrow_columns import number_rows, numbers, text_column
from augkd.data.target import Target
from augkd.data.transfer_set import TransferSet, in_memory, schema
from augkd.errors import DataError

LABELS = ("no", "yes")
CANDIDATE = {"id": "c", "text": "near", "text_pair": None, "source": "neighbours", "score": 0.5}
ROW = {"id": "1", "text": "one", "text_pair": None, "label": "yes", "teacher_logits": [0.0, 1.0]}
ROWS = [
    {**ROW, "candidates": [{**CANDIDATE, "teacher_logits": [2.0, 3.0]}]},
    {**ROW, "id": "2", "label": None, "candidates": []},
]
Change = Callable[[list[dict[str, Any]]], None]


def written(folder: Path, rows: list[dict[str, Any]], metadata: dict[bytes, bytes] | None = None) -> Path:
    (folder / "data").mkdir(parents=True, exist_ok=True)
    table = in_memory(rows, LABELS).table
    if metadata is not None:
        table = table.replace_schema_metadata({**table.schema.metadata, **metadata})
    pq.write_table(table, folder / "data" / "train-00000.parquet")
    return folder


def changed(**values: Any) -> list[dict[str, Any]]:
    """The rows with other values in the first one; `candidate_…` in its candidate."""
    first = {**ROWS[0], **{name: value for name, value in values.items() if not name.startswith("candidate_")}}
    inner = {name.removeprefix("candidate_"): value for name, value in values.items() if name.startswith("candidate_")}
    if inner:
        first["candidates"] = [{**ROWS[0]["candidates"][0], **inner}]
    return [first, ROWS[1]]


def test_what_augkd_writes_is_read_as_it_is(tmp_path: Path) -> None:
    opened = TransferSet.open(written(tmp_path, ROWS))
    assert opened.table.to_pylist() == in_memory(ROWS, LABELS).table.to_pylist()
    assert opened.labels == LABELS
    np.testing.assert_array_equal(opened.teacher(), [[0, 1], [0, 1]])
    np.testing.assert_array_equal(opened.candidates().teacher, [[2, 3]])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"id": None}, "column id row 0 is empty"),
        ({"text": None}, "column text row 0 is empty"),
        ({"label": "maybe"}, "label 'maybe' is none of no, yes"),
        ({"teacher_logits": None}, "column teacher_logits row 0 is empty"),
        ({"teacher_logits": [1.0]}, "column teacher_logits row 0 has 1 values, not 2"),
        ({"teacher_logits": [1.0, 2.0, 3.0]}, "row 0 has 3 values, not 2"),
        ({"teacher_logits": [1.0, None]}, "column teacher_logits row 1 is empty"),
        ({"teacher_logits": [1.0, float("nan")]}, "value 1 is nan, which is not finite"),
        ({"teacher_logits": [float("inf"), 1.0]}, "value 0 is inf, which is not finite"),
        ({"candidates": None}, "column candidates row 0 is empty"),
        ({"candidates": [None]}, "holds an empty candidate"),
        ({"candidate_text": None}, "column candidates.text row 0 is empty"),
        ({"candidate_id": None}, "column candidates.id row 0 is empty"),
        ({"candidate_source": None}, "column candidates.source row 0 is empty"),
        ({"candidate_score": None}, "column candidates.score row 0 is empty"),
        ({"candidate_score": float("nan")}, "column candidates.score value 0 is nan"),
        ({"candidate_teacher_logits": None}, "column candidates.teacher_logits row 0 is empty"),
        ({"candidate_teacher_logits": [1.0]}, "candidates.teacher_logits row 0 has 1 values, not 2"),
        ({"candidate_teacher_logits": [1.0, None]}, "candidates.teacher_logits row 1 is empty"),
    ],
)
def test_a_value_that_cannot_be_is_refused_with_its_place(tmp_path: Path, values: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as raised:
        TransferSet.open(written(tmp_path, changed(**values)))
    assert str(tmp_path) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"5", "are 5, not a list of names"),
        (b'{"a": 1}', "not a list of names"),
        (b"[1, 2]", r"are \[1, 2\], not a list of names"),
        (b'["yes"]', "must be two or more different ones"),
        (b'["yes", "yes"]', "must be two or more different ones"),
    ],
)
def test_label_names_that_are_none_are_refused(tmp_path: Path, stored: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        TransferSet.open(written(tmp_path, ROWS, {b"augkd.labels": stored}))


def test_columns_of_other_types_are_cast_where_nothing_is_lost_and_refused_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    path = tmp_path / "data" / "a.parquet"
    plain = in_memory(ROWS, LABELS).table
    wide = plain.set_column(1, "text", plain["text"].cast(pa.large_string()))
    wide = wide.set_column(4, "teacher_logits", wide["teacher_logits"].cast(pa.list_(pa.float64())))
    pq.write_table(wide.replace_schema_metadata(plain.schema.metadata), path)
    assert TransferSet.open(tmp_path).table.schema.equals(schema(Target(LABELS)))
    for name, values in (("candidates", ["a", "b"]), ("teacher_logits", [1.0, 2.0]), ("text", [[1], [2]])):
        other = plain.set_column(plain.schema.get_field_index(name), name, pa.array(values))
        pq.write_table(other.replace_schema_metadata(plain.schema.metadata), path)
        with pytest.raises(DataError, match=f"column {name} holds "):
            TransferSet.open(tmp_path)


def test_a_candidate_without_a_second_text_is_refused(tmp_path: Path) -> None:
    plain = in_memory(ROWS, LABELS).table
    kind = pa.list_(
        pa.struct([field for field in plain.schema.field("candidates").type.value_type if field.name != "text_pair"])
    )
    rows = [
        [{name: value for name, value in c.items() if name != "text_pair"} for c in row["candidates"]] for row in ROWS
    ]
    other = plain.set_column(5, "candidates", pa.array(rows, kind)).replace_schema_metadata(plain.schema.metadata)
    (tmp_path / "data").mkdir()
    pq.write_table(other, tmp_path / "data" / "a.parquet")
    try:
        opened = TransferSet.open(tmp_path)
    except DataError as exc:
        assert "column candidates holds" in str(exc)  # noqa: PT017 - depends on the version of Arrow
    else:
        assert opened.candidates().text_pair == [None]


# ---- columns by themselves ----


def test_rows_of_numbers_become_a_matrix() -> None:
    for kind in (pa.list_(pa.float32()), pa.large_list(pa.float64()), pa.list_(pa.int8()), pa.list_(pa.float16(), 2)):
        matrix = number_rows(pa.chunked_array([pa.array([[1, 2]], kind), pa.array([[3, 4]], kind)]), "x")
        np.testing.assert_array_equal(matrix, [[1, 2], [3, 4]])
        assert matrix.dtype == np.float32
        matrix[0, 0] = 5  # torch needs memory that can be written to


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (pa.array([1.0, 2.0]), "holds double; each row must be a list of numbers"),
        (pa.array(["a"]), "holds string"),
        (pa.array([["a"]]), "holds string; give numbers"),
        (pa.array([[1.0], None]), "row 1 is empty"),
        (pa.array([[1.0], [1.0, 2.0]]), "row 1 has 2 values, not 1"),
        (pa.array([[1e300]]), "value 0 is inf, which is not finite as a float32"),
        (pa.array([None, None]), "holds null"),
        (pa.array([[None]]), "holds null"),
        (pa.array([[True]]), "holds bool"),
        (pa.array([{"a": 1.0}]), "holds struct"),
    ],
)
def test_rows_that_are_no_numbers_are_refused(array: pa.Array, message: str) -> None:
    with pytest.raises(DataError, match=message):
        number_rows(array, "column x")


def test_texts_are_texts() -> None:
    for kind in (pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())):
        assert text_column(pa.chunked_array([pa.array(["a"], kind)]), "x").to_pylist() == ["a"]
    assert text_column(pa.array(["a", None]), "x", nullable=True).to_pylist() == ["a", None]
    for array in (pa.array([1]), pa.array([1.5]), pa.array([["a"]]), pa.array([{"a": 1}])):
        with pytest.raises(DataError, match="column x cannot be read as a text"):
            text_column(array, "column x")
    with pytest.raises(DataError, match="column x row 1 is empty"):
        text_column(pa.array(["a", None]), "column x")


def test_numbers_are_finite() -> None:
    np.testing.assert_array_equal(numbers(pa.array([1, 2]), "x"), [1, 2])
    with pytest.raises(DataError, match="x holds string; give numbers"):
        numbers(pa.array(["1"]), "x")
