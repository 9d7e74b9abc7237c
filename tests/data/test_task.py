"""Labels mean what the file says, splits cut from train never overlap, and what is ambiguous is refused by name."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from augkd.data.augmented_samples import read_augmented_samples
from augkd.data.splits import cut, subsample
from augkd.data.target import Target
from augkd.data.task import Example, Task, load_task, with_labelled
from augkd.errors import DataError, RecipeError

DATA = Path(__file__).parents[3] / "shared/data"


def folder(path: Path, facts: dict[str, Any] | None = None, **splits: list[dict[str, Any]]) -> str:
    for split, rows in splits.items():
        (path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if facts is not None:
        (path / "labels.json").write_text(json.dumps(facts))
    return str(path)


def rows(*labels: Any, start: int = 0) -> list[dict[str, Any]]:
    return [{"text": f"text {number}", "label": label} for number, label in enumerate(labels, start)]


def three(path: Path, *labels: Any, facts: dict[str, Any] | None = None, **options: Any) -> Task:
    name = folder(path, facts, train=rows(*labels), dev=rows(labels[0]), test=rows(labels[-1]))
    return load_task(dataset=name, **options)


def indices(task: Task) -> list[Any]:
    return [example.label for example in task.train]


# ---- labels ----


@pytest.mark.parametrize(
    ("labels", "names", "expected"),
    [
        (["b", "a", "c"], ("a", "b", "c"), [1, 0, 2]),
        ([10, 9, 10], ("9", "10"), [1, 0, 1]),
        (["10", "9", "10"], ("9", "10"), [1, 0, 1]),  # as a CSV writes them
        ([True, False, True], ("False", "True"), [1, 0, 1]),
        ([1.0, 0.0, 1.0], ("0", "1"), [1, 0, 1]),
        ([0.5, 1, 2], (), [0.5, 1.0, 2.0]),
        (["0.5", "1", "2"], (), [0.5, 1.0, 2.0]),
    ],
)
def test_written_labels_decide_names_and_kind(tmp_path: Path, labels: Any, names: Any, expected: Any) -> None:
    task = three(tmp_path, *labels)
    assert (task.labels, indices(task)) == (names, expected)
    assert task.metric == ("accuracy" if names else "pearson")
    assert task.target == Target(names)


@pytest.mark.parametrize("labels", [[1, 0, 1], ["neg", "pos", "neg"], ["1", "0", "1"], [True, False, True]])
def test_given_names_decide_the_order(tmp_path: Path, labels: Any) -> None:
    task = three(tmp_path, *labels, labels=["pos", "neg"])
    assert (task.labels, indices(task)) == (("pos", "neg"), [1, 0, 1])


def test_labels_json_gives_names_pair_and_metric(tmp_path: Path) -> None:
    facts = {
        "task": "mine",
        "type": "classification",
        "text_columns": ["q", "a"],
        "label_names": ["no", "yes"],
        "metrics": ["matthews_corrcoef"],
    }
    examples = [{"q": f"q{n}", "a": f"a{n}", "label": n % 2} for n in range(2)]
    task = load_task(dataset=folder(tmp_path, facts, train=examples, validation=examples, test=examples))
    assert (task.name, task.labels, task.metric, task.is_pair) == ("mine", ("no", "yes"), "matthews", True)
    assert task.train[1] == Example("train-1", "q1", "a1", 1)
    assert list(task.evaluation_texts()) == ["q0", "a0", "q1", "a1"] * 2


def test_whole_numbers_are_regression_when_labels_json_says_so(tmp_path: Path) -> None:
    task = three(tmp_path, 5, 0, 3, facts={"type": "regression", "metrics": ["spearman"]})
    assert (task.labels, indices(task), task.metric) == ((), [5.0, 0.0, 3.0], "spearman")


def test_train_may_lack_some_labels_and_a_note_counts_them(tmp_path: Path) -> None:
    name = folder(tmp_path, train=rows("a", None, "b", ""), dev=rows("a"), test=rows("b"))
    task = load_task(dataset=name)
    assert indices(task) == [0, None, 1, None]
    assert task.notes == ("train: 2 of 4 rows have no label, only the teacher's outputs",)


def test_a_task_without_label_column_is_unlabelled_throughout(tmp_path: Path) -> None:
    examples = [{"text": f"t{n}"} for n in range(30)]
    task = load_task(dataset=folder(tmp_path, train=examples))
    assert {e.label for e in task.train + task.validation + task.test} == {None}
    assert (len(task.train), len(task.validation), len(task.test)) == (24, 3, 3)
    assert "no label column" in task.notes[0]


@pytest.mark.parametrize(
    ("train", "dev", "options", "message"),
    [
        (["a", "b"], ["c"], {}, r"dev\.jsonl row 1: label 'c' never occurs in train \(a, b\).*`labels`"),
        (
            ["a", "b"],
            ["c"],
            {"labels": ["a", "b"]},
            r"dev\.jsonl row 1: label 'c' is neither one of the 2 names \(a, b\)",
        ),
        ([0, 7], [0], {"labels": ["a", "b"]}, r"train\.jsonl row 2: label 7 is neither one of .* index 0\.\.1"),
        (["a", "b"], [None], {}, r"dev\.jsonl: 1 of 1 validation rows have no label \(first: validation-0\)"),
        ([1, float("nan")], [1], {}, r"train\.jsonl row 2: label is nan"),
        (["a", "a"], ["a"], {}, r"train\.jsonl: every training label is 'a'"),
        ([0.5, 1], [1], {"regression": False}, r"label 0\.5 is not a class"),
        (["a", "b"], ["a"], {"regression": True}, r"row 1: label 'a' is not a number"),
        ([[0, 1], 1], [[1]], {}, r"row 2: label 1 is not a list, as other rows have; write \[1\]"),
        ([{"a": 1}, {"a": 0}], [{"a": 1}], {}, r"row 1: label \{'a': 1\} is a dict"),
        (["a"], ["a"], {}, r"1 training example; give at least 2"),
        (["a", "b"], ["a"], {"label": "lable"}, r"no column 'lable' \(it has: text, label\); did you mean 'label'"),
        (["a", "b"], ["a"], {"text": "body"}, r"no column 'body' \(it has: text, label\); name one with `text`"),
    ],
)
def test_labels_that_contradict_each_other_are_refused(
    tmp_path: Path, train: Any, dev: Any, options: Any, message: str
) -> None:
    name = folder(tmp_path, train=rows(*train), dev=rows(*dev), test=rows(train[0]))
    with pytest.raises(DataError, match=message):
        load_task(dataset=name, **options)


# ---- texts, pairs, ids ----


def test_empty_texts_are_dropped_and_noted_and_the_other_rows_keep_their_numbers(tmp_path: Path) -> None:
    examples = rows("a", "b", "a")
    examples[1]["text"] = "  "
    examples.append({"text": "last", "label": "b"})
    task = load_task(dataset=folder(tmp_path, train=examples, dev=rows("a"), test=rows("b")))
    assert [example.id for example in task.train] == ["train-0", "train-2", "train-3"]
    assert task.notes == ("train: 1 of 4 rows dropped, their text is empty",)


def test_a_split_without_text_is_refused(tmp_path: Path) -> None:
    name = folder(tmp_path, train=rows("a", "b"), dev=[{"text": "", "label": "a"}], test=rows("b"))
    with pytest.raises(DataError, match=r"dev\.jsonl: no row of validation has a text in column 'text' \(1 rows\)"):
        load_task(dataset=name)


def test_a_pair_with_one_side_is_refused_and_an_empty_pair_column_is_none(tmp_path: Path) -> None:
    examples = [{"text": f"t{n}", "text_pair": pair, "label": n} for n, pair in enumerate(["x", "", None])]
    name = folder(tmp_path, train=examples, dev=examples[:1], test=examples[:1])
    with pytest.raises(DataError, match=r"pair column 'text_pair' is empty in 2 of 3 rows \(first: train-1\)"):
        load_task(dataset=name)
    name = folder(tmp_path, train=examples[1:], dev=examples[1:], test=examples[1:])
    assert not load_task(dataset=name).is_pair
    with pytest.raises(DataError, match="is empty in 2 of 2 rows"):
        load_task(dataset=name, text_pair="text_pair")


@pytest.mark.parametrize("column", ["id", "guid"])
def test_ids_are_the_files_own_where_they_are_unique(tmp_path: Path, column: str) -> None:
    examples = [row | {column: 7 + n} for n, row in enumerate(rows("a", "b"))]
    task = load_task(dataset=folder(tmp_path, train=examples, dev=[examples[0], examples[0]], test=examples))
    assert [e.id for e in task.train] == ["7", "8"]
    assert [e.id for e in task.validation] == ["validation-0", "validation-1"]


def test_glitter_files_give_texts_and_candidates_under_one_id(tmp_path: Path) -> None:
    examples = [
        {"guid": "g1", "label": "a", "text_a": "p", "text_b": None, "augmented_samples": ["p1", "p2"]},
        {
            "guid": "g2",
            "label": "b",
            "text_a": "q",
            "text_b": None,
            "augmented_samples": [{"text_a": "x", "text_b": "y"}],
        },
    ]
    name = folder(tmp_path, train=examples, dev=examples[:1], test=examples[:1])
    task = load_task(dataset=name)
    assert [(e.id, e.text, e.text_pair) for e in task.train] == [("g1", "p", None), ("g2", "q", None)]
    assert read_augmented_samples(tmp_path / "train.jsonl") == {"g1": [("p1", None), ("p2", None)], "g2": [("x", "y")]}


def test_candidates_without_guid_are_keyed_by_row_and_checked(tmp_path: Path) -> None:
    folder(tmp_path, a=[{"augmented_samples": None}, {"augmented_samples": ["x"]}], b=[{"text": "x"}])
    assert read_augmented_samples(tmp_path / "a.jsonl") == {"train-0": [], "train-1": [("x", None)]}
    with pytest.raises(DataError, match="no column 'augmented_samples'"):
        read_augmented_samples(tmp_path / "b.jsonl")
    folder(tmp_path, c=[{"augmented_samples": [3]}])
    with pytest.raises(DataError, match=r"c\.jsonl row 1: augmented sample 3 is not a text"):
        read_augmented_samples(tmp_path / "c.jsonl")


# ---- splits ----


def single_file(path: Path) -> str:
    labels = ["a"] * 60 + ["b"] * 30 + ["rare"] * 3
    (path / "all.csv").write_text("text,label\n" + "".join(f"t{n},{label}\n" for n, label in enumerate(labels)))
    return str(path / "all.csv")


def test_missing_splits_are_cut_by_label_without_overlap_and_repeat(tmp_path: Path) -> None:
    task = load_task(dataset=single_file(tmp_path), seed=1)
    for split in (task.validation, task.test):
        assert Counter(example.label for example in split) == {0: 6, 1: 3, 2: 1}
    texts = [example.text for split in (task.train, task.validation, task.test) for example in split]
    assert sorted(texts) == sorted(f"t{n}" for n in range(93))
    assert task.notes[0] == "validation: cut from train, 10 of 93 rows (seed 1)"
    assert load_task(dataset=single_file(tmp_path), seed=1) == task
    assert load_task(dataset=single_file(tmp_path), seed=2).fingerprint != task.fingerprint


def test_only_the_missing_split_is_cut(tmp_path: Path) -> None:
    task = load_task(dataset=folder(tmp_path, train=rows(*"ab" * 20), valid=rows("a", start=90)))
    assert (len(task.train), len(task.validation), len(task.test)) == (36, 1, 4)
    assert task.validation[0].text == "text 90"


def test_equal_texts_stay_on_one_side() -> None:
    texts = [n // 4 for n in range(80)]
    parts = cut([0] * 80, texts, 2, 0.1, 3)
    assert [len(part) for part in parts] == [8, 8]
    sides = [{texts[row] for row in part} for part in parts]
    rest = {texts[row] for row in range(80) if row not in parts[0] + parts[1]}
    assert not sides[0] & sides[1]
    assert not (sides[0] | sides[1]) & rest


def test_a_row_without_label_is_never_cut() -> None:
    (part,) = cut([None, 0, None, 0, 0], [0, 1, 2, 3, 2], 1, 0.5, 0)
    assert part in ([1], [3])


def test_subsample_keeps_proportions_and_every_class() -> None:
    strata = ["a"] * 80 + ["b"] * 19 + ["c"]
    assert Counter(strata[row] for row in subsample(strata, 20, 0)) == {"a": 15, "b": 4, "c": 1}
    assert subsample(strata, 20, 0) == subsample(strata, 20, 0) != subsample(strata, 20, 1)


def test_max_train_takes_some_of_train_and_notes_it(tmp_path: Path) -> None:
    task = load_task(dataset=single_file(tmp_path), max_train=10)
    assert (len(task.train), len(task.validation)) == (10, 10)
    assert task.notes[-1] == "train: 10 of 73 rows taken (max_train, seed 0)"


def test_labelled_keeps_the_proportions_the_order_and_the_evaluation_splits(tmp_path: Path) -> None:
    task = three(tmp_path, *["a"] * 80, *["b"] * 19, "c")
    few = with_labelled(task, 20)
    assert Counter(indices(few)) == {0: 15, 1: 4, 2: 1}
    places = [task.train.index(example) for example in few.train]
    assert places == sorted(places)
    assert (few.validation, few.test, few.fingerprint) == (task.validation, task.test, task.fingerprint)
    assert few.train == with_labelled(task, 20).train != with_labelled(task, 20, seed=1).train
    assert with_labelled(task, None) is task


def test_labelled_leaves_texts_without_a_label_where_they_are(tmp_path: Path) -> None:
    task = three(tmp_path, "a", None, "b", "a", None, "b")
    assert indices(with_labelled(task, 2)) == [0, None, 1, None]
    with pytest.raises(RecipeError, match=r"labelled is 5, but task \S+ has 4 labelled training texts"):
        with_labelled(task, 5)


def test_labelled_draws_numbers_too(tmp_path: Path) -> None:
    task = three(tmp_path, *(number + 0.5 for number in range(9)))
    drawn = indices(with_labelled(task, 4))
    assert len(drawn) == 4
    assert set(drawn) < set(indices(task))


def test_labelled_that_cannot_be_is_an_error_of_one_line(tmp_path: Path) -> None:
    task = three(tmp_path, *"abcabcabc")
    assert len(with_labelled(task, 9).train) == 9
    assert Counter(indices(with_labelled(task, 3))) == {0: 1, 1: 1, 2: 1}
    with pytest.raises(RecipeError, match=r"data\.labelled is 10, .* give at most 9, or leave it out for all") as error:
        with_labelled(task, 10)
    assert "\n" not in str(error.value)
    with pytest.raises(RecipeError, match=r"data\.labelled is 2, .* has 3 classes; give at least 3"):
        with_labelled(task, 2)


def test_too_few_rows_to_cut_from_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"2 rows are too few to cut validation from; give a validation file"):
        load_task(dataset=folder(tmp_path, train=rows("a", "b")))


def test_the_splits_option_names_files_and_is_the_complete_list(tmp_path: Path) -> None:
    name = folder(tmp_path, big=rows(*"ab" * 20), held=rows("a", start=50), test=rows("b", start=60))
    task = load_task(dataset=name, splits={"train": "big.jsonl", "validation": "held.jsonl"})
    assert (len(task.train), len(task.validation), len(task.test)) == (36, 1, 4)
    with pytest.raises(DataError, match=r"no file 'hled.jsonl' for validation; did you mean 'held.jsonl'"):
        load_task(dataset=name, splits={"train": "big.jsonl", "validation": "hled.jsonl"})
    with pytest.raises(DataError, match=r"has no train file \(it has: big.jsonl"):
        load_task(dataset=name)


def test_two_files_for_one_split_are_refused_unless_they_are_shards(tmp_path: Path) -> None:
    shards = {"train-00000-of-00002": rows("a", "b"), "train-00001-of-00002": rows("a", start=5)}
    name = folder(tmp_path, **shards, dev=rows("a"), test=rows("b"))
    assert len(load_task(dataset=name).train) == 3
    folder(tmp_path, train=rows("a", "b"))
    with pytest.raises(DataError, match=r"has 3 files for train .*splits: \{train:"):
        load_task(dataset=name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"splits": {"trian": "x"}}, "no split 'trian'; did you mean 'train'"),
        ({"splits": {"test": "x"}}, "lacks 'train'"),
        ({"max_train": 1}, "max_train is 1; give at least 2"),
        ({"labels": ["a", "b"], "regression": True}, "give one of the two"),
        ({"labels": ["a", "a"]}, "different names"),
    ],
)
def test_options_out_of_range_are_refused(options: Any, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_task(dataset="x.csv", **options)


# ---- sources ----


def test_a_path_that_is_not_there_is_not_looked_up_on_the_hub(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone.csv' does not exist"):
        load_task(dataset=str(tmp_path / "gone.csv"))


def test_a_damaged_labels_json_is_an_error(tmp_path: Path) -> None:
    name = folder(tmp_path, train=rows("a", "b"))
    (tmp_path / "labels.json").write_text("{")
    with pytest.raises(DataError, match=r"labels.json is not valid JSON"):
        load_task(dataset=name)


def test_a_hub_dataset_brings_its_class_names_and_a_hidden_label_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})

    def split(*labels: int) -> Any:
        return datasets.Dataset.from_list(rows(*labels), features=features)

    loaded = datasets.DatasetDict(train=split(*[1, 0] * 15), validation=split(1), test=split(-1, -1))
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: loaded)
    with pytest.raises(DataError, match=r"2 of 2 test rows have no label .*`splits`"):
        load_task(dataset="org/name")
    task = load_task(dataset="org/name", splits={"train": "train", "validation": "validation"})
    assert (task.name, task.labels, task.validation[0].label) == ("name", ("no", "yes"), 1)
    assert len(task.test) == 4
    with pytest.raises(DataError, match=r"no split 'dev' \(it has: train, validation, test\)"):
        load_task(dataset="org/name", splits={"train": "train", "validation": "dev"})


def test_the_built_in_task_loads() -> None:
    task = load_task(dataset="augkd:docstrings", max_train=50)
    assert (task.name, len(task.train)) == ("docstrings", 50)
    assert len(task.labels) > 1


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "sizes", "outputs", "metric"),
    [
        ("trec", (4895, 546, 500), 6, "accuracy"),
        ("stsb", (5734, 1498, 1379), 1, "pearson"),
        ("mrpc", (3661, 408, 1725), 2, "f1"),
    ],
)
def test_real_tasks_load_whole(name: str, sizes: tuple[int, int, int], outputs: int, metric: str) -> None:
    if not (DATA / name).is_dir():
        pytest.skip(f"{DATA / name} is absent")
    task = load_task(dataset=str(DATA / name))
    assert (len(task.train), len(task.validation), len(task.test)) == sizes
    assert (task.target.outputs, task.metric, task.notes) == (outputs, metric, ())
