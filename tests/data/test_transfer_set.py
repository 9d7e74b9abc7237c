"""A transfer set is read back by augkd, by `datasets` and as the JSONL of the papers; anything else is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from augkd.data import transfer_set
from augkd.data.augmented_samples import read_augmented_samples
from augkd.data.transfer_set import TransferSet, describe, in_memory, write_card, write_rows
from augkd.errors import DataError

LABELS = ("animal", "food")


def candidate(number: int, logits: list[float], pair: str | None = None) -> dict[str, Any]:
    return {
        "id": f"c{number}",
        "text": f"candidate {number}",
        "text_pair": pair,
        "source": "corpus",
        "score": 1 - number / 8,
        "teacher_logits": logits,
    }


def row(
    number: int, label: Any, logits: list[float], candidates: list[dict[str, Any]], pair: str | None = None
) -> dict[str, Any]:
    text = f"text {number}"
    original = {"id": f"train-{number}", "text": text, "text_pair": pair, "label": label, "teacher_logits": logits}
    return {**original, "candidates": candidates}


ROWS = [
    row(0, "food", [0.5, 1.5], [candidate(1, [1.0, 2.0]), candidate(2, [3.0, 4.0])]),
    row(1, None, [2.5, -1.0], []),
    row(2, "animal", [0.0, 0.25], [candidate(3, [5.0, 6.0])]),
]


def written(folder: Path, rows: list[dict[str, Any]] = ROWS, labels: tuple[str, ...] = LABELS) -> Path:
    write_rows(folder, iter(rows), labels)
    return folder


@pytest.mark.parametrize("group", [1, 2, 10_000])
def test_rows_survive_the_round_trip_whatever_the_row_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: int
) -> None:
    monkeypatch.setattr(transfer_set, "_ROW_GROUP", group)
    opened = TransferSet.open(written(tmp_path))
    assert opened.labels == LABELS
    assert len(opened) == 3
    assert opened.table.to_pylist() == ROWS
    assert opened.column("label") == ["food", None, "animal"]
    assert opened.teacher().tolist() == [[0.5, 1.5], [2.5, -1.0], [0.0, 0.25]]


@pytest.mark.parametrize("group", [1, 10_000])
def test_candidates_have_the_right_owner_where_an_original_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: int
) -> None:
    monkeypatch.setattr(transfer_set, "_ROW_GROUP", group)
    candidates = TransferSet.open(written(tmp_path)).candidates()
    assert candidates.owner.tolist() == [0, 0, 2]
    assert candidates.text == ["candidate 1", "candidate 2", "candidate 3"]
    assert candidates.text_pair == [None] * 3
    assert candidates.score.tolist() == [0.875, 0.75, 0.625]
    assert candidates.teacher.tolist() == [[1, 2], [3, 4], [5, 6]]
    assert candidates.teacher.dtype == np.float32
    assert candidates.teacher.flags.writeable


def test_a_set_without_any_candidate_has_an_empty_pool_of_the_right_width() -> None:
    candidates = in_memory([ROWS[1]], LABELS).candidates()
    assert candidates.owner.shape == (0,)
    assert candidates.teacher.shape == (0, 2)


def test_an_in_memory_set_equals_the_written_one(tmp_path: Path) -> None:
    assert in_memory(ROWS, LABELS).table.equals(TransferSet.open(written(tmp_path)).table)


def test_regression_targets_are_floats_and_have_one_output(tmp_path: Path) -> None:
    rows = [row(0, 2.5, [2.25], [candidate(1, [3.5])]), row(1, None, [0.5], [])]
    opened = TransferSet.open(written(tmp_path, rows, ()))
    assert opened.labels == ()
    assert opened.column("label") == [2.5, None]
    assert opened.teacher().shape == (2, 1)
    assert opened.candidates().teacher.tolist() == [[3.5]]


def test_datasets_opens_the_folder_offline(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    folder = written(tmp_path / "set")
    write_card(folder, "a title", ["one line"])
    (folder / "manifest.json").write_text("{}")  # must not be taken for data
    cache = tmp_path_factory.mktemp("cache")
    loaded = datasets.load_dataset(str(folder), split="train", cache_dir=str(cache))
    assert loaded.num_rows == 3
    assert loaded[0]["teacher_logits"] == [0.5, 1.5]
    assert [c["text"] for c in loaded[0]["candidates"]] == ["candidate 1", "candidate 2"]
    assert loaded[1]["candidates"] == []


def test_a_folder_without_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no data/\*\.parquet"):
        TransferSet.open(tmp_path)


def test_another_parquet_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "data" / "x.parquet")
    with pytest.raises(DataError, match="lacks id, text_pair, label, teacher_logits, candidates"):
        TransferSet.open(tmp_path)


def test_a_set_whose_label_names_were_lost_is_refused(tmp_path: Path) -> None:
    table = in_memory(ROWS, LABELS).table.replace_schema_metadata(None)
    (tmp_path / "data").mkdir()
    pq.write_table(table, tmp_path / "data" / "train-00000.parquet")
    with pytest.raises(DataError, match="has no label names"):
        TransferSet.open(tmp_path)


def test_a_file_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "x.parquet").write_bytes(b"PAR1 cut off")
    with pytest.raises(DataError, match="is not a readable Parquet file"):
        TransferSet.open(tmp_path)


def test_logits_of_the_wrong_width_are_refused() -> None:
    wrong = in_memory([row(0, "food", [1.0, 2.0, 3.0], [])], LABELS)
    with pytest.raises(DataError, match="some rows of teacher_logits do not have 2 values"):
        wrong.teacher()


def test_a_writer_killed_midway_leaves_no_set(tmp_path: Path) -> None:
    def killed() -> Any:
        yield ROWS[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_rows(tmp_path, killed(), LABELS)
    with pytest.raises(DataError, match="has no data"):
        TransferSet.open(tmp_path)


@pytest.mark.parametrize("pair", [None, "a second text"])
def test_the_jsonl_is_read_back_by_the_reader_of_the_papers_format(tmp_path: Path, pair: str | None) -> None:
    rows = [row(0, "food", [0.0, 1.0], [candidate(1, [0.0, 0.0], pair), candidate(2, [0.0, 0.0], pair)], pair)]
    rows.append(row(1, "animal", [0.0, 1.0], [], pair))
    in_memory(rows, LABELS).write_jsonl(tmp_path / "train.jsonl")
    assert read_augmented_samples(tmp_path / "train.jsonl") == {
        "train-0": [("candidate 1", pair), ("candidate 2", pair)],
        "train-1": [],
    }


def test_the_jsonl_is_a_task_for_load_task(tmp_path: Path) -> None:
    from augkd.data.task import load_task

    rows = [row(i, LABELS[i % 2], [0.0, 1.0], [candidate(1, [0.0, 0.0])]) for i in range(20)]
    in_memory(rows, LABELS).write_jsonl(tmp_path / "train.jsonl")
    task = load_task(dataset=str(tmp_path))
    assert task.labels == LABELS
    assert {e.text for e in (*task.train, *task.validation, *task.test)} == {r["text"] for r in rows}


def test_a_described_row_shows_the_prediction_of_the_teacher() -> None:
    lines = list(describe(ROWS[0], LABELS))
    assert lines[0] == "[train-0] text 0  (label food; teacher food 0.73)"  # 1 / (1 + e⁻¹) = 0.731
    assert lines[1] == "    0.875 corpus: candidate 1  (teacher food 0.73)"


@pytest.mark.parametrize(("group", "sizes"), [(1, [1, 1, 1, 0]), (2, [2, 1]), (3, [3, 0]), (10_000, [3])])
def test_a_row_group_holds_so_many_originals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: int, sizes: list[int]
) -> None:
    monkeypatch.setattr(transfer_set, "_ROW_GROUP", group)
    file = pq.ParquetFile(written(tmp_path) / "data" / "train-00000.parquet")
    assert [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)] == sizes


def test_a_card_is_written_again_under_the_folder_s_name_or_a_given_one(tmp_path: Path) -> None:
    folder = written(tmp_path / "mine")
    for title, heading in ((None, "# Transfer set: mine"), ("another one", "# Transfer set: another one")):
        assert transfer_set.write_card_again(folder, title) == folder / "README.md"
        assert heading in (folder / "README.md").read_text().splitlines()
