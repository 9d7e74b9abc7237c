"""The sections of a run's report about its texts: errors of student and teacher, candidates, selection, attention.

Counts are over the whole transfer set, or over the originals in the trace; only the explorer may show a sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from augkd.data.target import present
from augkd.evaluation.predictions import Predictions
from augkd.evaluation.report.blocks import Cell, Explorer, Plot, Section, Table, Words, count, decimal, percent, shaded
from augkd.evaluation.report.data import Record, RunData
from augkd.evaluation.report.explorer import REWRITTEN, replaced_words
from augkd.evaluation.report.figures import Series, StyleSheet, bars, densities, points

_LARGEST_MATRIX = 20  # classes; with more, the most frequent confusions are listed instead
_POINTS = 1000  # of a scatter plot: more weigh 60 bytes each and show nothing new
_RANKS = 16
_ORIGINALS, _TEXTS = 8, 4  # originals with rewritten texts, and texts of each, that are printed


# ---- errors ----


def errors(run: RunData, sheet: StyleSheet) -> Section | None:
    """Confusion matrices of student and teacher, or a table of several labels; numbers are drawn against labels."""
    predictions = run.predictions
    if predictions is None:
        return None
    if run.target.regression:
        return Section("errors", "Errors", "", [_scatter(predictions, sheet)])
    labels, names, same = predictions.labels, run.target.labels, run.target.same
    table = _TABLES[run.target.activation]
    models = {"student": predictions.target.predictions(predictions.student)}
    right = same(models["student"], labels)
    texts = f"On the {len(labels):,} labelled texts of the {predictions.split} split{_RIGHT[run.target.activation]}"
    intro = f"{texts}, the student is right on {percent(float(right.sum()), len(labels))}."
    if predictions.teacher is not None:
        models["teacher"] = predictions.teacher_target.predictions(predictions.teacher)
        teacher_right = same(models["teacher"], labels)
        agreed = same(models["student"], models["teacher"])
        intro = (
            f"{texts}, student and teacher agree on {percent(float(agreed.sum()), len(labels))}. "
            f"Only the teacher is right on {(teacher_right & ~right).sum():,} of them, "
            f"only the student on {(right & ~teacher_right).sum():,}."
        )
    return Section("errors", "Errors", intro, [table(name, p, labels, names) for name, p in models.items()])


def confusion(predicted: NDArray[Any], labels: NDArray[Any], classes: int) -> NDArray[np.int64]:  # (classes, classes)
    """Number of texts by true class (rows) and predicted class (columns)."""
    return np.bincount(labels * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def _confusion(model: str, predicted: NDArray[Any], labels: NDArray[Any], names: Sequence[str]) -> Table:
    matrix = confusion(predicted, labels, len(names))
    if len(names) > _LARGEST_MATRIX:
        return _most_confused(model, matrix, names)
    cells = shaded(matrix.tolist(), [[count(value) if value else "·" for value in row] for row in matrix.tolist()])
    totals = matrix.sum(axis=1)
    rows: list[list[str | Cell]] = [
        [name, *row, percent(float(matrix[place, place]), float(totals[place]))]
        for place, (name, row) in enumerate(zip(names, cells, strict=True))
    ]
    return Table(f"Confusion matrix of the {model}", ["true class", *names, "recall"], rows, "predicted class")


def _by_label(model: str, predicted: NDArray[Any], labels: NDArray[Any], names: Sequence[str]) -> Table:
    """Precision, recall and F1 of each of several labels, at the thresholds of the model."""
    chosen, real = predicted == 1, labels == 1
    hits = (chosen & real).sum(axis=0)
    rows: list[list[str | Cell]] = [
        [
            name,
            count(real[:, place].sum()),
            count(chosen[:, place].sum()),
            percent(float(hits[place]), float(chosen[:, place].sum())),
            percent(float(hits[place]), float(real[:, place].sum())),
            percent(2 * float(hits[place]), float(chosen[:, place].sum() + real[:, place].sum())),
        ]
        for place, name in enumerate(names)
    ]
    head = ["label", "texts", "predicted", "precision", "recall", "F1"]
    return Table(f"Labels of the {model}, at its own thresholds", head, rows)


def _most_confused(model: str, matrix: NDArray[np.int64], names: Sequence[str]) -> Table:
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:20]
    pairs = [divmod(int(place), len(names)) for place in order if wrong.flat[place]]
    rows = [[names[true], names[predicted], count(wrong[true, predicted])] for true, predicted in pairs]
    return Table(f"Most frequent confusions of the {model}", ["true class", "predicted class", "texts"], rows)


_RIGHT = {"softmax": "", "sigmoid": ", counted as right where all labels are"}
_TABLES = {"softmax": _confusion, "sigmoid": _by_label}


def _scatter(predictions: Predictions, sheet: StyleSheet) -> Plot:
    labels = predictions.labels
    outputs = {"student": predictions.student[:, 0]}
    if predictions.teacher is not None:
        outputs["teacher"] = predictions.teacher[:, 0]
    rmse = [f"{name} {np.sqrt(np.mean((values - labels) ** 2)):.3f}" for name, values in outputs.items()]
    caption = (
        f"Predicted against true values on the {predictions.split} split; root mean squared error: {', '.join(rmse)}."
    )
    rows = np.arange(len(labels))
    if len(rows) > _POINTS:
        rows = np.sort(np.random.default_rng(0).permutation(rows)[:_POINTS])
    series = [Series(name, labels[rows], values[rows]) for name, values in outputs.items()]
    return Plot(points(sheet, caption, series, "true value", "predicted value", diagonal=True), caption)


# ---- texts ----


def explorer(run: RunData) -> Section | None:
    """The transfer set, to search and filter; the page's script fills it in."""
    if run.transfer is None:
        return None
    intro = f"{len(run.transfer):,} labelled texts (originals) with {len(run.candidates.owner):,} candidates."
    labels = _labels(run)
    if not run.target.regression and present(labels).any():
        wrong = present(labels) & ~run.target.same(run.target.predictions(run.transfer.teacher()), labels)
        intro += f" The teacher disagrees with {wrong.sum():,} of {present(labels).sum():,} labels."
    if run.trace is None:
        intro += " This run did not record which candidates were picked."
    return Section("explorer", "Transfer set", intro, [Explorer()])


def selection(run: RunData, sheet: StyleSheet) -> Section | None:
    """How picked candidates differ from those that were not picked."""
    trace = run.trace
    if trace is None or run.transfer is None or not trace.picked.size:
        return None
    epochs = sorted({0, len(trace.picked) - 1})
    plots = [plot for epoch in epochs if (plot := _divergences(run, sheet, epoch)) is not None]
    ever = float((trace.picked.any(axis=0)).mean())
    intro = (
        f"The selector is {run.results['data']['selector']}. On average, an epoch picks "
        f"{percent(float(trace.picked.mean()), 1)} of the candidates; {percent(ever, 1)} were picked at least once in "
        f"{len(trace.picked)} epochs."
    )
    if len(trace.candidates) < trace.total:
        intro += (
            f" The trace covers {len(trace.candidates):,} of {trace.total:,} candidates: those of a random sample of "
        )
        intro += "originals."
    return Section("selection", "Selection", intro, [*plots, _picked_by_rank(run, sheet)])


def _divergences(run: RunData, sheet: StyleSheet, epoch: int) -> Plot | None:
    """Histograms of the divergences of picked and other candidates in an epoch; None where a group has none."""
    assert run.trace is not None
    values, picked = run.trace.divergence[epoch].astype(np.float32), run.trace.picked[epoch] == 1
    scored = ~np.isnan(values)
    groups = [("picked", values[scored & picked]), ("not picked", values[scored & ~picked])]
    if not all(len(group) for _, group in groups):
        return None
    medians = [float(np.median(group)) for _, group in groups]
    caption = (
        f"Epoch {epoch + 1}: the median divergence is {medians[0]:.3g} for picked candidates and {medians[1]:.3g} for "
        "the others."
    )
    return Plot(densities(sheet, caption, groups, "divergence between teacher and student"), caption)


def _picked_by_rank(run: RunData, sheet: StyleSheet) -> Plot:
    assert run.trace is not None
    ranks = _ranks(run.candidates.owner)[run.trace.candidates]
    shares = {
        f"{rank + 1}" + " (nearest)" * (rank == 0): 100 * float(run.trace.picked[:, ranks == rank].mean())
        for rank in range(min(_RANKS, ranks.max() + 1))
    }
    caption = "How often a candidate was picked, by its rank among the original's candidates (1: the nearest)."
    return Plot(bars(sheet, caption, shares, "% of epochs", lambda value: f"{value:.0f} %"), caption)


def _ranks(owner: NDArray[np.int64]) -> NDArray[np.int64]:  # (m,) → (m,)
    """The place of each candidate among its owner's, from 0."""
    first = np.searchsorted(owner, owner)
    return np.arange(len(owner)) - first


def sources(run: RunData) -> Section | None:
    """A table of the candidates of each source."""
    if run.transfer is None or not len(run.candidates.owner):
        return None
    agreement, source = _agreement(run), np.array(run.candidates.source)
    rows = [_source_row(run, name, source == name, agreement) for name in sorted(set(run.candidates.source))]
    agreement_name = "distance" if run.target.regression else "agreement"
    head = ["source", "candidates", "originals covered", "similarity", agreement_name, "picked", "divergence"]
    intro = (
        "Distance: between the teacher's output for a candidate and the original's label. "
        if run.target.regression
        else "Agreement: candidates for which the teacher predicts the original's label (of several labels, the share "
        "that both have of those that one has). "
    )
    intro += "Picked: candidates picked in an epoch. Divergence: in the last epoch, where scored. All are means."
    return Section("sources", "Sources", intro, [Table("Candidates by source", head, rows)])


def _source_row(run: RunData, name: str, own: NDArray[np.bool_], agreement: NDArray[np.float64]) -> list[str]:
    candidates = run.candidates
    assert run.transfer is not None
    return [
        name,
        count(own.sum()),
        percent(float(len(np.unique(candidates.owner[own]))), len(run.transfer)),
        _mean(candidates.score[own]),
        _mean(agreement[own]) if run.target.regression else _mean_percent(agreement[own]),
        *_selected(run, own),
    ]


def _mean(values: NDArray[Any]) -> str:
    known = values[~np.isnan(values)]
    return decimal(float(known.mean()) if len(known) else None)


def _mean_percent(values: NDArray[Any]) -> str:
    known = values[~np.isnan(values)]
    return percent(float(known.sum()), len(known))


def _labels(run: RunData) -> NDArray[Any]:  # (originals,) as `Target.encode` gives them
    assert run.transfer is not None
    return run.target.encode(run.transfer.column("label"))


def _agreement(run: RunData) -> NDArray[np.float64]:  # (m,)
    """How far the teacher predicts the original's label for a candidate; for regression the distance to it.

    nan where the original has no label.
    """
    labels = _labels(run)[run.candidates.owner]
    predicted = run.target.predictions(run.candidates.teacher)
    agreement = np.abs(predicted - labels) if run.target.regression else run.target.agreement(predicted, labels)
    return np.where(present(labels), agreement, np.nan)


def _selected(run: RunData, own: NDArray[np.bool_]) -> list[str]:
    """How often a source's candidates were picked, and their mean divergence, from the trace."""
    trace = run.trace
    if trace is None or not trace.picked.size or not own[trace.candidates].any():
        return ["–", "–"]
    columns = own[trace.candidates]
    return [percent(float(trace.picked[:, columns].mean()), 1), _mean(trace.divergence[-1, columns].astype(np.float32))]


def rewritten_texts(run: RunData) -> Section | None:
    """Examples of generated and substituted texts, with the words that differ from the original."""
    if run.transfer is None:
        return None
    candidates, originals = run.candidates, run.transfer.column("text")
    groups: dict[int, list[list[tuple[str, bool]]]] = {}
    for owner, text, source in zip(candidates.owner.tolist(), candidates.text, candidates.source, strict=True):
        if (
            source in REWRITTEN
            and (owner in groups or len(groups) < _ORIGINALS)
            and len(groups.get(owner, [])) < _TEXTS
        ):
            replaced = set(replaced_words(originals[owner], text))
            words = [(word, place in replaced) for place, word in enumerate(text.split(" "))]
            groups.setdefault(owner, []).append(words)
    if not groups:
        return None
    intro = "Examples of generated and substituted texts below their originals; new words are marked."
    examples = [(originals[owner], texts) for owner, texts in groups.items()]
    return Section("generated", "Generated texts", intro, [Words(examples)])


# ---- attention ----


def attention(run: RunData) -> Section | None:
    """ALP's attention of each student layer over the teacher's layers, in the first and the last log entry."""
    entries = [entry for entry in run.log if any(name.startswith("attention/") for name in entry)]
    if not entries:
        return None
    tables = [_attention_table(entry, when) for entry, when in ((entries[0], "first"), (entries[-1], "last"))]
    intro = "The weights of a student layer sum to 1. Layers are counted from 0. A dot: outside the layer's bucket."
    return Section("attention", "ALP attention over teacher layers", intro, tables)


def _attention_table(entry: Record, when: str) -> Table:
    weights = {name: value for name, value in entry.items() if name.startswith("attention/")}
    places = [tuple(map(int, name.split("/")[1:])) for name in weights]
    shape = tuple(max(axis) + 1 for axis in zip(*places, strict=True))
    matrix = np.zeros(shape)
    for place, value in zip(places, weights.values(), strict=True):
        matrix[place] = value
    texts = [[f"{value:.2f}" if value else "·" for value in row] for row in matrix.tolist()]
    rows: list[list[str | Cell]] = [[f"student {j}", *cells] for j, cells in enumerate(shaded(matrix.tolist(), texts))]
    caption = f"Step {entry.get('step', '–')}, the {when} one logged"
    return Table(caption, ["", *(f"{layer}" for layer in range(shape[1]))], rows, "teacher layer")
