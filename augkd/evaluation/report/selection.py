"""The sections of a run's report about its texts: who errs on which, what was there to choose, what was chosen.

Counts are over the whole transfer set, or over the originals that the trace kept; only the explorer may show fewer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from augkd.evaluation.report.blocks import Cell, Explorer, Plot, Section, Table, Words, count, figure, shaded, share
from augkd.evaluation.report.data import Predictions, RunData, belief
from augkd.evaluation.report.explorer import MADE, replaced_words
from augkd.evaluation.report.figures import Series, Sheet, bars, densities, points

_MATRIX = 20  # classes that a confusion matrix is readable for; of more, the most frequent confusions
_POINTS = 1000  # of a regression's scatter: more weigh 60 bytes each and show no more
_RANKS = 16
_GROUPS, _TEXTS = 8, 4  # originals with made texts, and texts of each, that are printed


# ---- who errs where ----


def errors(run: RunData, sheet: Sheet) -> Section | None:
    """Confusion of student and teacher; for regression what they say against what is true."""
    found = run.predictions
    if found is None:
        return None
    if not run.names:
        return Section("errors", "Where they err", "", [_scatter(found, sheet)])
    student = found.student.argmax(axis=1)
    known = [("student", student)]
    right = share(float((student == found.labels).sum()), len(student))
    lead = f"The student is right on {right} of {len(student):,} labelled texts of the {found.split} split."
    if found.teacher is not None:
        teacher = found.teacher.argmax(axis=1)
        known.append(("teacher", teacher))
        alone = int(((student != found.labels) & (teacher == found.labels)).sum())
        back = int(((student == found.labels) & (teacher != found.labels)).sum())
        lead = (
            f"Of {len(student):,} labelled texts of the {found.split} split, the student and the teacher agree on "
            f"{share(float((student == teacher).sum()), len(student))}. The teacher alone is right on {alone}, the "
            f"student alone on {back}."
        )
    return Section("errors", "Where they err", lead, [_confusion(who, p, found.labels, run.names) for who, p in known])


def confusion(predicted: NDArray[Any], labels: NDArray[Any], classes: int) -> NDArray[np.int64]:  # (classes, classes)
    """Texts by true class (rows) and predicted class (columns)."""
    return np.bincount(labels * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def _confusion(who: str, predicted: NDArray[Any], labels: NDArray[Any], names: Sequence[str]) -> Table:
    matrix = confusion(predicted, labels, len(names))
    if len(names) > _MATRIX:
        return _confused(who, matrix, names)
    cells = shaded(matrix.tolist(), [[count(value) if value else "·" for value in row] for row in matrix.tolist()])
    totals = matrix.sum(axis=1)
    rows: list[list[str | Cell]] = [
        [name, *row, share(float(matrix[place, place]), float(totals[place]))]
        for place, (name, row) in enumerate(zip(names, cells, strict=True))
    ]
    return Table(f"Confusion of the {who}", ["true", *names, "right"], rows, f"what the {who} says")


def _confused(who: str, matrix: NDArray[np.int64], names: Sequence[str]) -> Table:
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:20]
    pairs = [divmod(int(place), len(names)) for place in order if wrong.flat[place]]
    rows = [[names[true], names[said], count(wrong[true, said])] for true, said in pairs]
    return Table(f"Most frequent confusions of the {who}", ["true", "predicted", "texts"], rows)


def _scatter(found: Predictions, sheet: Sheet) -> Plot:
    rows = np.arange(len(found.labels))
    if len(rows) > _POINTS:
        rows = np.sort(np.random.default_rng(0).permutation(rows)[:_POINTS])
    series = [Series("student", found.labels[rows], found.student[rows, 0])]
    if found.teacher is not None:
        series.append(Series("teacher", found.labels[rows], found.teacher[rows, 0]))
    wide = [f"{one.name} {np.sqrt(np.mean((np.asarray(one.y) - np.asarray(one.x)) ** 2)):.3f}" for one in series]
    said = f"Predicted against true on the {found.split} split; root mean squared error: {', '.join(wide)}."
    return Plot(points(sheet, said, series, "true", "predicted", diagonal=True), said)


# ---- the texts ----


def explorer(run: RunData) -> Section | None:
    """The transfer set, to search and filter; the page's script fills it."""
    if run.transfer is None:
        return None
    lead = f"{len(run.transfer):,} originals with {len(run.candidates.owner):,} candidates."
    labels = run.transfer.column("label")
    if run.names and any(label is not None for label in labels):
        said, _ = belief(run.transfer.teacher())
        known = [(label, run.names[place]) for label, place in zip(labels, said, strict=True) if label is not None]
        lead += f" The teacher disagrees with the label of {sum(a != b for a, b in known):,} originals."
    if run.trace is None:
        lead += " This run did not record which candidates were picked."
    return Section("explorer", "Transfer set", lead, [Explorer()])


def selection(run: RunData, sheet: Sheet) -> Section | None:
    """How picked candidates differ from those passed over."""
    trace = run.trace
    if trace is None or run.transfer is None or not trace.picked.size:
        return None
    found = run.candidates
    selector = run.results["data"]["selector"]
    blocks: list[Plot | Table] = []
    for epoch in sorted({0, len(trace.picked) - 1}):
        values, picked = trace.divergence[epoch].astype(np.float32), trace.picked[epoch] == 1
        scored = ~np.isnan(values)
        groups = [("picked", values[scored & picked]), ("passed over", values[scored & ~picked])]
        if not all(len(group) for _, group in groups):
            continue
        medians = [float(np.median(group)) for _, group in groups]
        said = f"Epoch {epoch + 1}: median divergence {medians[0]:.3g} of picked, {medians[1]:.3g} of passed over."
        blocks.append(Plot(densities(sheet, said, groups, "divergence of teacher and student"), said))
    ranks = _ranks(found.owner)[trace.candidates]
    shown = {
        f"{rank + 1}" + " (nearest)" * (rank == 0): 100 * float(trace.picked[:, ranks == rank].mean())
        for rank in range(min(_RANKS, ranks.max() + 1))
    }
    said = "How often the candidate at each place of its source's order, the nearest first, was picked, per epoch."
    blocks.append(Plot(bars(sheet, said, shown, "% of epochs", lambda value: f"{value:.0f} %"), said))
    ever = float((trace.picked.any(axis=0)).mean())
    lead = (
        f"The selector is {selector}. Over {len(trace.picked)} epochs, {100 * ever:.1f} % of the candidates were "
        f"picked at least once; an epoch picks {100 * float(trace.picked.mean()):.1f} % of them."
    )
    if len(trace.candidates) < trace.total:
        lead += (
            f" The trace kept {len(trace.candidates):,} of {trace.total:,} candidates, of originals drawn at random."
        )
    return Section("selection", "Picked and passed over", lead, blocks)


def _ranks(owner: NDArray[np.int64]) -> NDArray[np.int64]:  # (m,) → (m,)
    """The place of each candidate among its owner's, from 0."""
    first = np.searchsorted(owner, owner)
    return np.arange(len(owner)) - first


def sources(run: RunData) -> Section | None:
    """What each source of candidates gave."""
    if run.transfer is None:
        return None
    found = run.candidates
    if not len(found.owner):
        return None
    kinds = np.array(found.source)
    agreement = _agreement(run)
    rows = []
    for name in sorted(set(found.source)):
        mine = kinds == name
        known = agreement[mine & ~np.isnan(agreement)]
        rows.append(
            [
                name,
                count(mine.sum()),
                share(float(len(np.unique(found.owner[mine]))), len(run.transfer)),
                figure(float(np.nanmean(found.score[mine])) if not np.isnan(found.score[mine]).all() else None),
                figure(float(known.mean()) if len(known) else None),
                *_traced(run, mine),
            ]
        )
    agrees = "teacher gives the original's label" if run.names else "|teacher's value − original's label|"
    head = ["source", "candidates", "originals with one", "mean similarity", agrees, "picked", "mean divergence"]
    lead = (
        "Picked: the share of its candidates that an epoch picks. Mean divergence: in the last epoch, of scored ones."
    )
    return Section("sources", "Candidates by source", lead, [Table("Candidates by source", head, rows)])


def _agreement(run: RunData) -> NDArray[np.float64]:  # (m,)
    """1 where the teacher says a candidate has its original's label, else 0; for regression the distance. nan: none."""
    assert run.transfer is not None
    found, labels = run.candidates, run.transfer.column("label")
    if not run.names:
        given = np.array([np.nan if label is None else label for label in labels])
        return np.asarray(np.abs(found.teacher[:, 0] - given[found.owner]), dtype=np.float64)
    places = {name: place for place, name in enumerate(run.names)}
    wanted = np.array([np.nan if label is None else places[label] for label in labels])[found.owner]
    return np.where(np.isnan(wanted), np.nan, found.teacher.argmax(axis=1) == wanted)


def _traced(run: RunData, mine: NDArray[np.bool_]) -> list[str]:
    trace = run.trace
    if trace is None or not trace.picked.size:
        return ["–", "–"]
    columns = mine[trace.candidates]
    if not columns.any():
        return ["–", "–"]
    last = trace.divergence[-1, columns].astype(np.float32)
    scored = last[~np.isnan(last)]
    return [share(float(trace.picked[:, columns].mean()), 1.0), figure(float(scored.mean()) if len(scored) else None)]


def made_texts(run: RunData) -> Section | None:
    """Texts made from originals, with the words that are not the original's."""
    if run.transfer is None:
        return None
    found, originals = run.candidates, run.transfer.column("text")
    groups: dict[int, list[list[tuple[str, bool]]]] = {}
    for owner, text, source in zip(found.owner.tolist(), found.text, found.source, strict=True):
        if source in MADE and (owner in groups or len(groups) < _GROUPS) and len(groups.get(owner, [])) < _TEXTS:
            replaced = set(replaced_words(originals[owner], text))
            words = [(word, place in replaced) for place, word in enumerate(text.split(" "))]
            groups.setdefault(owner, []).append(words)
    if not groups:
        return None
    lead = "The first originals with generated or substituted texts; the words that were put in are marked."
    return Section(
        "generated", "Generated texts", lead, [Words([(originals[o], texts) for o, texts in groups.items()])]
    )


# ---- layers ----


def attention(run: RunData) -> Section | None:
    """ALP's weights of each student layer over the teacher's layers, at the first log entry and at the last."""
    entries = [entry for entry in run.log if any(name.startswith("attention/") for name in entry)]
    if not entries:
        return None
    tables = [_heat(entry, when) for entry, when in ((entries[0], "first"), (entries[-1], "last"))]
    lead = "The weights of a student layer add up to 1; layers are counted from 0. A dot is outside the layer's bucket."
    return Section("attention", "ALP: teacher layers that student layers follow", lead, tables)


def _heat(entry: dict[str, Any], when: str) -> Table:
    weights = {name: value for name, value in entry.items() if name.startswith("attention/")}
    places = [tuple(map(int, name.split("/")[1:])) for name in weights]
    shape = tuple(max(axis) + 1 for axis in zip(*places, strict=True))
    matrix = np.zeros(shape)
    for place, value in zip(places, weights.values(), strict=True):
        matrix[place] = value
    texts = [[f"{value:.2f}" if value else "·" for value in row] for row in matrix.tolist()]
    rows: list[list[str | Cell]] = [[f"student {j}", *cells] for j, cells in enumerate(shaded(matrix.tolist(), texts))]
    caption = f"Step {entry.get('step', '–')}, the {when} that was logged"
    return Table(caption, ["", *(f"{layer}" for layer in range(shape[1]))], rows, "teacher layer")
