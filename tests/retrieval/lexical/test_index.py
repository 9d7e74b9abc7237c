"""BM25 against its formula by hand, a full scan and bm25s; complete after a kill, refused when damaged."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from support.manifests import sign_again

from augkd.data.corpus import CorpusSource
from augkd.errors import DataError, IndexFolderError, RecipeError
from augkd.retrieval.lexical import postings
from augkd.retrieval.lexical.index import LexicalIndex, build_lexical, words
from augkd.retrieval.lexical.postings import K1, B
from augkd.workspace.fingerprints import file_fingerprint

CATS = ["The cat sat.", "The cat and the dog ran to the park", "A dog barked", "Birds"]


def corpus(folder: Path, texts: list[str]) -> CorpusSource:
    path = folder / "corpus.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return CorpusSource(str(path), duplicates="keep")


def zipf_texts(count: int) -> list[str]:
    """Short texts over 60 words, the first in most texts and the last in few, as in a language."""
    rng = np.random.default_rng(0)
    share = 1 / np.arange(1, 61)
    return [
        " ".join(f"w{word}" for word in rng.choice(60, rng.integers(1, 12), p=share / share.sum()))
        for _ in range(count)
    ]


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def lucene(texts: list[str], query: str) -> list[float]:
    """BM25 of each text, Lucene's variant, by its definition: a sum over the query's words as often as they occur."""
    documents = [Counter(words(text)) for text in texts]
    lengths = [document.total() for document in documents]
    mean = sum(lengths) / len(texts)
    scores = [0.0] * len(texts)
    for word in words(query):
        frequency = sum(word in document for document in documents)
        idf = math.log(1 + (len(texts) - frequency + 0.5) / (frequency + 0.5))
        for number, (document, length) in enumerate(zip(documents, lengths, strict=True)):
            norm = K1 * (1 - B + B * length / mean)
            scores[number] += idf * document[word] / (document[word] + norm)
    return scores


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[LexicalIndex, list[str]]:
    folder = tmp_path_factory.mktemp("large")
    texts = zipf_texts(400)
    return build_lexical(folder / "index", corpus(folder, texts), chunk=64), texts


def test_the_score_of_a_text_is_lucenes_bm25_worked_by_hand(tmp_path: Path) -> None:
    index = build_lexical(tmp_path / "index", corpus(tmp_path, CATS))
    hits = index.search(["the DOG"], 4)
    # 4 texts of 3, 9, 3, 1 words, mean 4; "the" and "dog" are both in 2 of 4: idf = ln(1 + 2.5 / 2.5) = ln 2
    first = math.log(2) * 1 / (1 + 1.5 * (0.25 + 0.75 * 3 / 4))  # a word that occurs once in 3 words
    second = math.log(2) * (3 / (3 + 1.5 * (0.25 + 0.75 * 9 / 4)) + 1 / (1 + 1.5 * (0.25 + 0.75 * 9 / 4)))
    assert hits.ids.tolist() == [[1, 0, 2, -1]]  # 0 and 2 tie: the lower id first
    np.testing.assert_allclose(hits.scores[0, :3], [second, first, first], rtol=1e-6)
    assert hits.scores[0, 3] == -np.inf


def test_a_word_repeated_in_the_query_counts_twice(tmp_path: Path) -> None:
    index = build_lexical(tmp_path / "index", corpus(tmp_path, CATS))
    once, twice = index.search(["dog"], 2), index.search(["dog dog"], 2)
    np.testing.assert_allclose(twice.scores, 2 * once.scores, rtol=1e-6)


@pytest.mark.parametrize("k", [1, 3, 10, 500])
def test_the_best_of_a_query_are_those_of_a_full_scan(large: tuple[LexicalIndex, list[str]], k: int) -> None:
    index, texts = large
    queries = [*texts[:25], "w59 w0 w1", "w0", "w1 w1 w1 w50", " ".join(f"w{number}" for number in range(60))]
    hits = index.search(queries, k)
    assert hits.ids.shape == (len(queries), k)
    for row, query in enumerate(queries):
        truth = np.array(lucene(texts, query))
        count = min(k, int((truth > 0).sum()))
        ids = hits.ids[row, :count]
        assert len(set(ids.tolist())) == count
        np.testing.assert_allclose(truth[ids], np.sort(truth)[::-1][:count], rtol=1e-5)
        np.testing.assert_allclose(hits.scores[row, :count], truth[ids], rtol=1e-5)
        assert (hits.ids[row, count:] == -1).all()


def test_skipping_texts_early_changes_no_byte_of_the_hits(
    large: tuple[LexicalIndex, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    index, texts = large
    queries = [*texts[100:200], " ".join(texts[:40])]
    early = index.search(queries, 5)
    monkeypatch.setattr(postings, "_kth", lambda sums, k: -math.inf)  # no text is ever skipped
    whole = index.search(queries, 5)
    np.testing.assert_array_equal(early.ids, whole.ids)
    np.testing.assert_array_equal(early.scores, whole.scores)


def test_texts_are_skipped_early(large: tuple[LexicalIndex, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    index, texts = large
    skipped = []
    promising = postings._promising

    def counting(candidates: np.ndarray, sums: np.ndarray, k: int, rest: float) -> tuple[np.ndarray, np.ndarray]:
        kept = promising(candidates, sums, k, rest)
        skipped.append(len(candidates) - len(kept[0]))
        return kept

    monkeypatch.setattr(postings, "_promising", counting)
    index.search(texts[100:200], 5)
    assert sum(skipped) > 100 * 100  # of 400 texts, on average more than 100 a query


def test_scores_are_those_of_bm25s(large: tuple[LexicalIndex, list[str]]) -> None:
    bm25s = pytest.importorskip("bm25s")
    index, texts = large
    reference = bm25s.BM25(k1=K1, b=B, method="lucene")
    reference.index([words(text) for text in texts], show_progress=False)
    queries = texts[:50]
    _, scores = reference.retrieve([words(query) for query in queries], k=10, show_progress=False)
    np.testing.assert_allclose(index.search(queries, 10).scores, scores, rtol=1e-5)


def test_texts_without_a_word_of_the_query_are_not_found(tmp_path: Path) -> None:
    index = build_lexical(tmp_path / "index", corpus(tmp_path, CATS))
    hits = index.search(["birds", "zebra", "", "?!"], 3)
    assert hits.ids.tolist() == [[3, -1, -1], [-1, -1, -1], [-1, -1, -1], [-1, -1, -1]]
    assert np.isneginf(hits.scores[1:]).all()


def test_equal_texts_come_in_order_of_id_also_at_the_border_of_k(tmp_path: Path) -> None:
    index = build_lexical(tmp_path / "index", corpus(tmp_path, ["red fox", "blue fox", "red fox", "red fox"]))
    assert index.search(["red fox"], 2).ids.tolist() == [[0, 2]]


def test_the_average_of_a_group_orders_texts_by_their_mean_score(large: tuple[LexicalIndex, list[str]]) -> None:
    index, texts = large
    group = texts[:7]
    mean = np.mean([lucene(texts, text) for text in group], axis=0)
    hits = index.search_average([group], 10)
    np.testing.assert_allclose(mean[hits.ids[0]], np.sort(mean)[::-1][:10], rtol=1e-5)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Who's U.S. president no. 44?", ["who", "s", "u", "s", "president", "no", "44"]),
        ("Straße CAFÉ ﬁne", ["strasse", "café", "fine"]),
        ("cafe\u0301", ["café"]),
        ("हिन्दी भाषा।", ["हिन्दी", "भाषा"]),
        ("東京は3月", ["東", "京", "は", "3", "月"]),
        ("snake_case — naïve", ["snake", "case", "naïve"]),
        ("", []),
    ],
)
def test_words_are_normalised_runs_of_letters_and_digits(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_words_of_plain_ascii_are_found_as_in_any_other_text() -> None:
    text = "".join(map(chr, range(128))) + " It's 3.5%_of A-b"
    assert words(text) == words(text + " é")[:-1]


def test_a_build_killed_at_any_part_ends_in_the_bytes_of_an_uninterrupted_one(tmp_path: Path) -> None:
    source = corpus(tmp_path, zipf_texts(100))
    build_lexical(tmp_path / "whole", source, chunk=16)
    code = """
import os, signal, sys
from pathlib import Path
from augkd.data.corpus import CorpusSource
from augkd.retrieval.lexical import index as lexical, postings
def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)
def build(folder, progress=None):
    source = CorpusSource(sys.argv[1], duplicates="keep")
    lexical.build_lexical(Path(sys.argv[2], folder), source, chunk=16, progress=progress)
for folder in ("texts", "postings"):
    child = os.fork()  # importing takes longer than building
    if child == 0 and folder == "texts":
        build(folder, lambda done, _: done > 40 and kill())
    elif child == 0:
        postings._save = kill
        build(folder)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
"""
    subprocess.run([sys.executable, "-c", code, source.dataset, str(tmp_path)], check=True)
    for folder in (tmp_path / "texts", tmp_path / "postings"):
        with pytest.raises(IndexFolderError, match="unfinished"):
            LexicalIndex.open(folder)
        build_lexical(folder, source, chunk=16)
        assert files_of(folder) == files_of(tmp_path / "whole")


def test_a_finished_build_is_opened_and_not_written_again(tmp_path: Path) -> None:
    source = corpus(tmp_path, CATS)
    build_lexical(tmp_path / "index", source)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "index").rglob("*")}
    build_lexical(tmp_path / "index", source)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "index").rglob("*")} == before


def test_another_corpus_replaces_the_index(tmp_path: Path) -> None:
    build_lexical(tmp_path / "index", corpus(tmp_path, [f"text {number}" for number in range(40)]), chunk=8)
    index = build_lexical(tmp_path / "index", corpus(tmp_path, CATS), chunk=8)
    assert index.texts(range(len(index))) == CATS


def test_progress_counts_the_texts(tmp_path: Path) -> None:
    calls: list[tuple[int, int | None]] = []
    source = corpus(tmp_path, CATS)
    build_lexical(tmp_path / "index", source, chunk=3, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(3, None), (4, None)]


def test_the_manifest_describes_the_index(tmp_path: Path) -> None:
    recipe = {"encoder": {"kind": "lexical"}}
    manifest = build_lexical(tmp_path / "index", corpus(tmp_path, CATS), recipe=recipe).manifest.on_disk()
    assert manifest["kind"] == "index"
    assert manifest["encoder"] == {"kind": "lexical", "variant": "lucene", "k1": 1.5, "b": 0.75, "words": 1}
    assert (manifest["count"], manifest["words"], manifest["words_per_text"]) == (4, 11, 4.0)
    assert manifest["recipe"] == recipe
    assert manifest["sha256"] == file_fingerprint(tmp_path / "index" / "postings")


@pytest.mark.parametrize("name", ["ids.npy", "scores.npy", "starts.npy", "bounds.npy", "words.txt"])
def test_a_damaged_file_is_refused(tmp_path: Path, name: str) -> None:
    build_lexical(tmp_path / "index", corpus(tmp_path, CATS))
    path = tmp_path / "index" / "postings" / name
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(IndexFolderError, match=f"postings/{name} is damaged: its checksum is not .*; remove "):
        LexicalIndex.open(tmp_path / "index")


@pytest.mark.parametrize("name", ["ids.npy", "scores.npy", "starts.npy", "bounds.npy"])
def test_an_empty_file_is_refused_though_the_manifest_lists_it_so(tmp_path: Path, name: str) -> None:
    build_lexical(tmp_path / "index", corpus(tmp_path, CATS))
    (tmp_path / "index" / "postings" / name).write_bytes(b"")
    sign_again(tmp_path / "index")
    with pytest.raises(IndexFolderError, match="its postings do not fit each other"):
        LexicalIndex.open(tmp_path / "index")


def test_missing_parts_are_refused(tmp_path: Path) -> None:
    build_lexical(tmp_path / "index", corpus(tmp_path, CATS), chunk=2)
    (tmp_path / "index" / "texts" / "part-00001.arrow").unlink()
    with pytest.raises(IndexFolderError, match=r"part-00001\.arrow is missing; remove "):
        LexicalIndex.open(tmp_path / "index")
    with pytest.raises(IndexFolderError, match="does not exist"):
        LexicalIndex.open(tmp_path / "nowhere")


def test_a_corpus_without_words_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has 2 texts without a word; choose another text column"):
        build_lexical(tmp_path / "index", corpus(tmp_path, ["?!", "..."]))
    with pytest.raises(DataError, match="no usable text"):
        build_lexical(tmp_path / "other", corpus(tmp_path, [""]))


def test_vectors_of_a_lexical_index_are_refused(tmp_path: Path) -> None:
    index = build_lexical(tmp_path / "index", corpus(tmp_path, CATS))
    with pytest.raises(RecipeError, match="has no vectors; use a dense index if you need them"):
        index.search(["dog"], 1, vectors=True)
