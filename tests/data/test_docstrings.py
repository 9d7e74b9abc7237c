"""The built-in task: complete in every split, free of leaks, and learnable, yet not trivially."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

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


def folded(text: str) -> str:
    return "".join(filter(str.isalnum, text.casefold()))


def test_every_split_has_every_one_of_8_to_12_classes(rows):
    classes = {row["label"] for row in rows}
    assert 8 <= len(classes) <= 12
    assert {(row["split"], row["label"]) for row in rows} == set(itertools.product(SPLITS, classes))


def test_the_split_is_about_80_10_10(rows):
    counts = Counter(row["split"] for row in rows)
    assert len(rows) > 4000
    for split in ("validation", "test"):
        assert 0.05 < counts[split] / len(rows) < 0.15


def test_no_text_occurs_twice_even_with_other_case_and_punctuation(rows):
    assert len({folded(row["text"]) for row in rows}) == len(rows)


def test_ids_are_unique(rows):
    assert len({row["id"] for row in rows}) == len(rows)


def test_no_module_is_parted_by_the_split(rows):
    splits = defaultdict(set)
    for row in rows:
        file = row["id"].split(":")[0]
        splits[".".join(file.split(".")[:2])].add(row["split"])
    assert all(len(found) == 1 for found in splits.values())


def test_the_rows_repeat_in_order(rows):
    assert list(demo.task_rows()) == rows


def test_the_head_of_the_rows_is_mixed(rows):
    assert len({row["label"] for row in rows[:200]}) == len({row["label"] for row in rows})


def test_the_docstring_of_json_dumps_is_a_format(rows):
    found = [row for row in rows if row["text"] == "Serialize ``obj`` to a JSON formatted ``str``."]
    assert [(row["label"], row["id"].rpartition(":")[0]) for row in found] == [("formats", "json:dumps")]


def test_texts_are_single_lines_of_4_to_60_words(rows):
    for text in (row["text"] for row in rows):
        assert 4 <= len(text.split()) <= 60
        assert text == " ".join(text.split())


def test_each_module_stands_in_one_topic():
    names = " ".join(demo.TOPICS.values()).split()
    assert len(names) == len(set(names))


def test_nothing_is_imported_and_nothing_printed():
    code = "import sys; from augkd.data.docstrings import corpus_texts, task_rows; n = sum(1 for _ in task_rows()); "
    code += "next(corpus_texts()); "
    code += "assert n; sys.exit(bool({'turtle', 'telnetlib', 'tkinter', 'numpy', 'torch'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-W", "default", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_tfidf_regression_beats_the_majority_by_15_points(rows):
    train, test = ([row for row in rows if row["split"] == split] for split in ("train", "test"))
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    model = LogisticRegression(C=10, max_iter=200)
    model.fit(words.fit_transform(row["text"] for row in train), [row["label"] for row in train])
    truth = np.array([row["label"] for row in test])
    accuracy = np.mean(model.predict(words.transform(row["text"] for row in test)) == truth)
    majority = max(Counter(truth).values()) / len(truth)
    assert majority + 0.15 < accuracy < 0.9


def test_the_corpus_has_10000_texts_and_none_of_the_task(rows, corpus):
    assert len(corpus) == 10_001
    assert len(set(corpus)) > 8000
    assert all(4 <= len(text.split()) <= 60 for text in corpus)
    assert not {folded(text) for text in corpus} & {folded(row["text"]) for row in rows}


def test_the_head_of_the_corpus_comes_from_many_packages():
    root = Path(demo.sysconfig.get_paths()["purelib"])
    assert len({path.relative_to(root).parts[0] for path in demo._installed_files()[:300]}) >= 8


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


def test_long_paragraphs_are_cut_after_the_last_whole_sentence():
    sentence = "word " * 19 + "end."
    assert demo._prose(" ".join(["A " + sentence] * 4)) == " ".join(["A " + sentence] * 2)
    assert demo._prose("word " * 61) is None


@pytest.mark.parametrize(
    "text", ["Only three words", ">>> print(1, 2, 3) and more", "1 2 3 4 5 words", "x = a[1] + {2: 3}"]
)
def test_what_is_no_prose_is_dropped(text):
    assert demo._prose(text) is None


def test_missing_sources_are_told_as_a_user_error(monkeypatch, tmp_path):
    monkeypatch.setattr(demo.sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path), "purelib": str(tmp_path)})
    with pytest.raises(DataError, match="standard library"):
        next(demo.task_rows())
    with pytest.raises(DataError, match="no Python file"):
        demo._installed_files()


def test_the_fingerprint_follows_the_installed_packages(monkeypatch):
    before = demo.fingerprint()
    assert before == demo.fingerprint()
    assert len(before) == 64
    monkeypatch.setattr(demo.metadata, "distributions", lambda: iter(()))
    assert demo.fingerprint() != before
