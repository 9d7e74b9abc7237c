"""The built-in task: complete in every split, free of leaks, and learnable, yet not trivially."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from augkd.data import docstrings as demo
from augkd.errors import DataError

SPLITS = {"train", "validation", "test"}


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    return list(demo.task_rows())


@pytest.fixture(scope="module")
def corpus() -> list[str]:
    return list(itertools.islice(demo.corpus_texts(), 10_001))


def letters(text: str) -> str:
    return "".join(filter(str.isalnum, text.casefold()))


def eights(texts: Iterable[str]) -> set[str]:
    """Every eight words in a row."""
    found = set()
    for text in texts:
        words = "".join(character if character.isalpha() else " " for character in text.casefold()).split()
        found |= {" ".join(words[place : place + 8]) for place in range(len(words) - 7)}
    return found


def test_every_split_has_every_one_of_the_6_topics(rows):
    classes = {row["label"] for row in rows}
    assert classes == set(demo.TOPICS)
    assert len(classes) == 6
    assert {(row["split"], row["label"]) for row in rows} == set(itertools.product(SPLITS, classes))


def test_the_test_split_is_large_and_no_topic_outweighs_the_others(rows):
    counts = Counter(row["split"] for row in rows)
    assert counts["test"] >= 1000
    assert counts["validation"] >= 250
    assert counts["train"] >= 2000
    for split, most in demo.SIZES.items():
        topics = Counter(row["label"] for row in rows if row["split"] == split)
        assert 0.5 * max(topics.values()) < min(topics.values()) <= max(topics.values()) <= most


def test_no_text_occurs_twice_even_with_other_names_numbers_and_punctuation(rows):
    assert len({letters(row["text"]) for row in rows}) == len(rows)
    assert len({demo._key(row["text"]) for row in rows}) == len(rows)


def test_texts_that_differ_in_names_and_numbers_alone_count_as_one():
    first, second = (
        "Builds a `BertConfig` of ViTModel with 12 layers.",
        "builds a `VitConfig` of BertModel with 24 layers",
    )
    assert demo._key(first) == demo._key(second) == "buildsaofwithlayers"
    assert demo._key(first) != demo._key("Builds a `BertConfig` of ViTModel with 12 heads.")


def test_ids_are_unique(rows):
    assert len({row["id"] for row in rows}) == len(rows)


def test_no_module_is_parted_by_the_split(rows):
    splits = defaultdict(set)
    for row in rows:
        file = row["id"].split(":")[0]
        splits[".".join(file.split(".")[:4])].add(row["split"])
    assert all(len(found) == 1 for found in splits.values())
    assert len(splits) > 300


def test_no_training_text_shares_eight_words_in_a_row_with_a_held_out_one(rows):
    train = eights(row["text"] for row in rows if row["split"] == "train")
    held_out = eights(row["text"] for row in rows if row["split"] != "train")
    assert len(held_out) > 5000
    assert not train & held_out


def test_no_text_names_a_package(rows):
    words = {word for row in rows for word in letters_and_spaces(row["text"]).split()}
    assert not words & {*demo.PACKAGES, "np", "pd", "nx", "pytorch", "scikit"}
    assert "tensor" in words, "what a text is about stays"


def letters_and_spaces(text: str) -> str:
    return "".join(character if character.isalnum() else " " for character in text.casefold())


@pytest.mark.slow
def test_the_rows_repeat_in_order(rows):
    demo._task.cache_clear()
    assert list(demo.task_rows()) == rows


def test_the_head_of_the_rows_is_mixed(rows):
    assert len({row["label"] for row in rows[:50]}) == len({row["label"] for row in rows})


def test_a_docstring_of_networkx_is_about_graphs(rows):
    found = {row["label"] for row in rows if row["id"].startswith("networkx.")}
    assert found == {"graphs"}
    labels = {row["label"] for row in rows if row["id"].startswith("sympy.")}
    assert labels == {"algebra", "physics", "statistics"}


def test_texts_are_single_lines_of_8_to_32_words(rows):
    for text in (row["text"] for row in rows):
        assert 8 <= len(text.split()) <= 32
        assert text == " ".join(text.split())


def test_each_module_stands_in_one_topic():
    names = " ".join(demo.TOPICS.values()).split()
    assert len(names) == len(set(names))
    assert {name.split(".")[0] for name in names} <= set(demo.PACKAGES)


@pytest.mark.slow
def test_nothing_is_imported_and_nothing_printed():
    code = "import sys; from augkd.data import docstrings as demo; assert sum(1 for _ in demo.task_rows()); "
    code += "next(demo.corpus_texts()); sys.exit(bool({*demo.PACKAGES} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-W", "default", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_tfidf_regression_is_far_above_the_majority_and_far_below_certainty(rows):
    train, test = ([row for row in rows if row["split"] == split] for split in ("train", "test"))
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    model = LogisticRegression(C=10, max_iter=200)
    model.fit(words.fit_transform(row["text"] for row in train), [row["label"] for row in train])
    truth = np.array([row["label"] for row in test])
    accuracy = np.mean(model.predict(words.transform(row["text"] for row in test)) == truth)
    assert max(Counter(truth).values()) / len(truth) < 0.25
    assert 0.65 < accuracy < 0.85


@pytest.mark.slow
def test_the_corpus_has_10000_texts_and_none_of_the_task(rows, corpus):
    assert len(corpus) == 10_001
    assert len(set(corpus)) > 8000
    assert all(5 <= len(text.split()) <= 32 for text in corpus)
    assert not {letters(text) for text in corpus} & {letters(row["text"]) for row in rows}


@pytest.mark.slow
def test_no_text_of_the_corpus_shares_eight_words_in_a_row_with_a_held_out_one(rows, corpus):
    held_out = eights(row["text"] for row in rows if row["split"] != "train")
    assert not eights(corpus) & held_out
    assert eights(corpus) & eights(row["text"] for row in rows if row["split"] == "train"), "of train it may"


def test_the_corpus_passes_over_the_modules_of_validation_and_test(rows):
    task = demo._task(demo._folders())
    assert task.held_out >= {".".join(row["id"].split(":")[0].split(".")[:4]) for row in rows if row["split"] == "test"}


def test_the_head_of_the_corpus_comes_from_every_package():
    files = sorted(demo._files(demo._folders()), key=lambda found: demo._digest(found[1]))
    assert {module.split(".")[0] for _, module in files[:300]} == set(demo.PACKAGES)


@pytest.mark.slow
def test_the_corpus_repeats_in_order(corpus):
    assert list(itertools.islice(demo.corpus_texts(), 50)) == corpus[:50]


def test_a_file_that_does_not_parse_gives_nothing(tmp_path):
    file = tmp_path / "broken.py"
    file.write_text('def f(:\n    """One two three four five."""\n')
    assert list(demo._docstrings(file)) == []
    file.write_text('def f():\n    """One two three four five."""\n')
    assert list(demo._docstrings(file)) == [("f:1", "One two three four five.")]


def test_nested_definitions_are_found_under_their_qualified_names(tmp_path):
    file = tmp_path / "nested.py"
    file.write_text(
        '"""M."""\nif 1:\n    class A:\n        "A."\n        def f(self):\n            "F."\ndef g():\n    "G."\n'
    )
    assert list(demo._docstrings(file)) == [("1", "M."), ("A:3", "A."), ("A.f:5", "F."), ("g:7", "G.")]


def test_long_descriptions_are_cut_after_the_last_whole_sentence():
    sentence = "word " * 9 + "end."
    assert demo._description(" ".join(["A " + sentence] * 4)) == " ".join(["A " + sentence] * 2)
    assert demo._description("word " * 33) == ""


def test_a_description_ends_before_what_is_no_prose():
    docstring = "Adds an edge.\n\nBoth nodes\nare added too.\n\nParameters\n----------\nu : node\n\nSee the examples."
    assert demo._description(docstring) == "Adds an edge. Both nodes are added too."
    assert list(demo._paragraphs("Adds an edge to it.\n\n>>> f(1)\n\nNo edge is added twice to it.")) == [
        *("Adds an edge to it.", "No edge is added twice to it.")
    ]


@pytest.mark.parametrize("text", [">>> print(1, 2, 3) and more", "1 2 3 4 5 words", "x = a[1] + {2: 3}", "Parameters"])
def test_what_is_no_prose_is_dropped(text):
    assert demo._prose(text) is None


def test_private_definitions_and_short_texts_are_no_rows(tmp_path):
    file = tmp_path / "some.py"
    text = "Finds the shortest path between two of the nodes."
    file.write_text(f'def f():\n    "{text}"\ndef _g():\n    "{text}"\ndef h():\n    "Finds it."\n')
    assert list(demo._rows_of_file(file, "a.b", "graphs")) == [{"text": text, "label": "graphs", "id": "a.b:f:1"}]


def test_a_missing_package_is_a_user_error_that_names_it(monkeypatch):
    monkeypatch.setattr(demo.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"the sources of networkx, which is not installed; pip install networkx"):
        next(demo.task_rows())
