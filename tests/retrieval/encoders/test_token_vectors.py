"""Vectors of vocabulary entries against closed forms: published weights, NumPy's eigenvectors and normal equations."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from augkd.retrieval.encoders.token_vectors import (
    ENTRY_RIDGE,
    LEAST,
    MAP_RIDGE,
    PAIR_RIDGE,
    SIF_COUNTED,
    fit,
    pair_counts,
    pair_keys,
    principal_components,
    rank_frequency,
    sif_weights,
    token_counts,
)

RNG = np.random.default_rng(0)
ENTRIES = [2, 3, 5, 8, 9]
ROWS = [[2, 3, 2], [], [9, 4, 100, 3], [5], [5, 9, 9, 2], [3, 5]]  # 4 and 100 are no entries; no text contains 8


def test_zipf_frequencies_and_sif_weights_are_the_published_ones() -> None:
    np.testing.assert_allclose(rank_frequency(3), np.array([6, 4, 3]) / 13)  # 1/2, 1/3, 1/4
    np.testing.assert_allclose(sif_weights(np.array([0.0, 1e-4, 1.0])), [1, 0.5, 1e-4 / 1.0001], rtol=1e-6)


def test_the_sign_of_a_component_does_not_depend_on_the_solver() -> None:
    vectors = RNG.normal(size=(40, 6)).astype(np.float32)
    rotated, share = principal_components(vectors, 2)
    directions, *_ = np.linalg.lstsq(vectors - vectors.mean(axis=0), rotated, rcond=None)
    assert (directions[np.abs(directions).argmax(axis=0), [0, 1]] > 0).all()
    singular = np.linalg.svd(vectors - vectors.mean(axis=0), compute_uv=False)
    np.testing.assert_allclose(share, (singular[:2] ** 2).sum() / (singular**2).sum(), rtol=1e-5)


def test_tokens_are_counted_by_entry_and_others_left_out() -> None:
    expected = [[2, 1, 0, 0, 0], [0] * 5, [0, 1, 0, 0, 1], [0, 0, 1, 0, 0], [1, 0, 1, 0, 2], [0, 1, 1, 0, 0]]
    assert token_counts(ROWS, ENTRIES).toarray().tolist() == expected


def flat(rows: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([id_ for row in rows for id_ in row], dtype=np.int64), np.array(
        [len(row) for row in rows], dtype=np.int64
    )


def test_pairs_are_neighbours_within_a_text_and_its_edges() -> None:
    texts, keys = pair_keys(*flat([[1, 2], [], [2]]), size=10)
    assert texts.tolist() == [0, 0, 0, 2, 2]
    assert [divmod(key, 11) for key in keys.tolist()] == [(10, 1), (1, 2), (2, 10), (10, 2), (2, 10)]
    for rows in ([], [[]], [[], []]):
        texts, keys = pair_keys(*flat(rows), size=10)
        assert len(texts) == len(keys) == 0


def test_pairs_in_several_texts_are_counted_and_a_text_counts_once() -> None:
    assert LEAST == 2
    rows = [[1, 2, 1, 2], [3, 3, 3], [1, 2]]
    keys, counts = pair_counts(*pair_keys(*flat(rows), size=10), len(rows))
    assert [divmod(key, 11) for key in keys.tolist()] == [(1, 2), (2, 10), (10, 1)]
    assert counts.toarray().tolist() == [[2, 1, 1], [0, 0, 0], [1, 1, 1]]  # (3, 3) is twice in one text
    none, counts = pair_counts(*pair_keys(*flat([[1], [2]]), size=10), 2)
    assert len(none) == 0
    assert counts.shape == (2, 0)


@pytest.mark.parametrize("embedded", [True, False])
def test_the_fit_solves_the_normal_equations_and_an_unseen_entry_has_the_map_alone(embedded: bool) -> None:
    rng = np.random.default_rng(0)
    alone, targets = rng.normal(size=(5, 4)).astype(np.float32), rng.normal(size=(6, 4)).astype(np.float32)
    embeddings = rng.normal(size=(5, 3)).astype(np.float32) if embedded else None
    keys, pairs = pair_counts(*pair_keys(*flat(ROWS), size=101), len(ROWS))
    entry_vectors, pair_vectors = fit(alone, embeddings, token_counts(ROWS, ENTRIES), pairs, targets)
    assert pair_vectors.shape == (len(keys), 4)
    assert len(keys) > 1

    counts = token_counts(ROWS, ENTRIES).toarray().astype(np.float64)
    shares = (counts.sum(axis=0) + 0.5) / (counts.sum(axis=0) + 0.5).sum()
    start = alone * (SIF_COUNTED / (SIF_COUNTED + shares))[:, None]
    rows = counts / np.sqrt(np.maximum(counts.sum(axis=1), 1))[:, None]
    start *= (rows @ start * targets).sum() / ((rows @ start) ** 2).sum()
    features = np.hstack([start, alone, np.ones((5, 1)), *([] if embeddings is None else [embeddings])])
    inputs = rows @ features
    squares = inputs.T @ inputs + MAP_RIDGE * np.eye(features.shape[1])
    start = start + features @ np.linalg.solve(squares, inputs.T @ (targets - rows @ start))
    lengths = np.linalg.norm(counts @ start, axis=1, keepdims=True)
    rows, both = (
        np.divide(table, lengths, out=np.zeros_like(table), where=lengths > 0)
        for table in (counts, np.hstack([counts, pairs.toarray().astype(np.float64)]))
    )
    ridge = np.diag([ENTRY_RIDGE] * 5 + [PAIR_RIDGE] * len(keys))
    change = np.linalg.solve(both.T @ both + ridge, both.T @ (targets - rows @ start))
    np.testing.assert_allclose(entry_vectors, start + change[:5], atol=1e-5)
    np.testing.assert_allclose(pair_vectors, change[5:], atol=1e-5)
    np.testing.assert_allclose(entry_vectors[3], start[3], atol=1e-6)
    assert np.abs(entry_vectors[0] - start[0]).max() > 0.01  # the twin: an entry that texts contain does change


def test_the_number_of_threads_changes_no_byte_of_a_fit() -> None:
    rng = np.random.default_rng(0)
    alone, targets = rng.normal(size=(5, 70)).astype(np.float32), rng.normal(size=(6, 70)).astype(np.float32)
    _, pairs = pair_counts(*pair_keys(*flat(ROWS), size=101), len(ROWS))
    before, fits = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 20):
            torch.set_num_threads(threads)
            fits.append(np.concatenate(fit(alone, None, token_counts(ROWS, ENTRIES), pairs, targets)))
    finally:
        torch.set_num_threads(before)
    assert all(np.array_equal(fits[0], other) for other in fits[1:])
