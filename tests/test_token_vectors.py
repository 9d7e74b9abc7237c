"""Vectors of vocabulary entries against closed forms: published weights, NumPy's eigenvectors and normal equations."""

from __future__ import annotations

import numpy as np

from augkd.retrieval.token_vectors import (
    RIDGE,
    SIF_COUNTED,
    fitted,
    principal_components,
    rank_frequency,
    sif_weights,
    token_counts,
)

RNG = np.random.default_rng(0)
ENTRIES = [2, 3, 5, 8, 9]
ROWS = [[2, 3, 2], [], [9, 4, 100, 3], [5], [5, 9, 9, 2], [3, 5]]  # 4 and 100 are no entries; no text holds 8


def test_zipf_frequencies_and_sif_weights_are_the_published_ones() -> None:
    np.testing.assert_allclose(rank_frequency(3), np.array([6, 4, 3]) / 13)  # 1/2, 1/3, 1/4
    np.testing.assert_allclose(sif_weights(np.array([0.0, 1e-4, 1.0])), [1, 0.5, 1e-4 / 1.0001], rtol=1e-6)


def test_the_sign_of_a_component_does_not_depend_on_the_solver() -> None:
    vectors = RNG.normal(size=(40, 6)).astype(np.float32)
    turned, share = principal_components(vectors, 2)
    directions, *_ = np.linalg.lstsq(vectors - vectors.mean(axis=0), turned, rcond=None)
    assert (directions[np.abs(directions).argmax(axis=0), [0, 1]] > 0).all()
    singular = np.linalg.svd(vectors - vectors.mean(axis=0), compute_uv=False)
    np.testing.assert_allclose(share, (singular[:2] ** 2).sum() / (singular**2).sum(), rtol=1e-5)


def test_tokens_are_counted_by_entry_and_others_left_out() -> None:
    expected = [[2, 1, 0, 0, 0], [0] * 5, [0, 1, 0, 0, 1], [0, 0, 1, 0, 0], [1, 0, 1, 0, 2], [0, 1, 1, 0, 0]]
    assert token_counts(ROWS, ENTRIES).toarray().tolist() == expected


def test_the_fit_solves_the_normal_equations_and_leaves_unseen_entries_alone() -> None:
    vectors = RNG.normal(size=(5, 4)).astype(np.float32)
    wanted = RNG.normal(size=(6, 4)).astype(np.float32)
    found = fitted(vectors, token_counts(ROWS, ENTRIES), wanted)

    counts = token_counts(ROWS, ENTRIES).toarray().astype(np.float64)
    shares = (counts.sum(axis=0) + 0.5) / (counts.sum(axis=0) + 0.5).sum()
    start = vectors * (SIF_COUNTED / (SIF_COUNTED + shares))[:, None]
    rows = counts / np.sqrt(np.maximum(counts.sum(axis=1), 1))[:, None]
    start *= (rows @ start * wanted).sum() / ((rows @ start) ** 2).sum()
    expected = start + np.linalg.solve(rows.T @ rows + RIDGE * np.eye(5), rows.T @ (wanted - rows @ start))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(found[3], start[3], atol=1e-6)
    assert np.abs(found[0] - start[0]).max() > 0.01  # the twin: a seen entry moves
