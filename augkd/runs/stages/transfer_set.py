"""Texts to transfer set: index, candidates, the teacher's word on all of them, rows on disk.

Evaluation texts are kept out here, whatever source a candidate comes from, and counted.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from augkd.candidates.candidate import Candidate
from augkd.candidates.drift import measure, summary
from augkd.candidates.from_models import Made
from augkd.candidates.neighbours.find import SOURCE, Found, find_neighbours, teacher_distance
from augkd.data.cleaning import normalised
from augkd.data.task import Example, Task, read_augmented_samples, texts_of
from augkd.data.transfer_set import write_card, write_rows
from augkd.distill.teacher.outputs import TeacherOutputs
from augkd.errors import DataError
from augkd.recipe import DataOptions, NeighbourOptions
from augkd.retrieval.retriever import Retriever
from augkd.workspace.files import write_json
from augkd.workspace.progress import Progress


def write_transfer_set(
    folder: Path,
    task: Task,
    labels: Sequence[str],
    outputs: TeacherOutputs,
    options: DataOptions,
    index: Retriever | None,
    progress: Progress,
    made: Made | None = None,
) -> dict[str, int]:
    """Finds candidates, has the teacher label everything, writes the rows (not the manifest); returns the counts.

    `made` are candidates to be added to those found; how far they drifted from their originals goes to drift.json.

    Raises DataError when the teacher has no output for a labelled text.
    """
    train = task.train
    excluded = {normalised(text) for text in task.evaluation_texts()} - {""}
    if index is not None and options.neighbours is not None:
        found = _neighbours(task, index, options.neighbours, progress)
    else:
        found = Found([[] for _ in train], 0, 0)
    sampled, withheld = _from_jsonl(options.augmented_samples, train, excluded)
    made = made or Made.none(len(train))
    pools = [[*near, *more, *own] for near, more, own in zip(found.candidates, sampled, made.pools, strict=True)]
    wanted = [*texts_of(train), *((c.text, c.text_pair) for c in itertools.chain.from_iterable(pools))]

    logits = outputs.logits(wanted, lambda done, total: progress("teacher logits", done, total))
    unknown = np.isnan(logits.sum(axis=1))  # a row is known or it is all nan
    if unknown[: len(train)].any():
        place = int(unknown.argmax())
        raise DataError(f"the teacher has no output for the labelled text '{train[place].text[:60]}'; add it")
    strays = _strays(pools, logits, options.neighbours)
    logits[len(train) :][strays] = np.nan  # left out like those the teacher does not know
    write_rows(folder, _rows(train, pools, logits, labels), labels)
    write_json(folder / "withheld.json", [dataclasses.asdict(copy) for copy in found.withheld])

    if any(made.pools):
        write_json(folder / "drift.json", _drift(train, pools, made, logits))

    known = ~np.isnan(logits.sum(axis=1))
    labelled = [wanted[place] for place in np.flatnonzero(known)[len(train) :]]  # without those left out
    counts = {
        "originals": len(train),
        "candidates": len(labelled),
        "candidates_unique": len(set(labelled)),
        "excluded_evaluation_texts": found.excluded_evaluation_texts + withheld + made.withheld,
        "excluded_near_copies": found.excluded_near_copies,
        "outside_teacher_bounds": int(strays.sum()),
        "too_far_from_original": made.too_far,
        "short": found.short,
    }
    write_card(folder, task.name, [f"{name.replace('_', ' ')}: {value}" for name, value in counts.items()])
    return counts


def _drift(
    train: Sequence[Example], pools: Sequence[Sequence[Candidate]], made: Made, logits: NDArray[np.float32]
) -> dict[str, Any]:
    """How far each source's made texts are from their originals, as means and quantiles."""
    own = [{id(candidate) for candidate in pool} for pool in made.pools]
    is_made = [id(candidate) in mine for pool, mine in zip(pools, own, strict=True) for candidate in pool]
    cosine = np.array([value for row in made.cosine for value in row], dtype=np.float32)
    of_candidates = logits[len(train) :][np.array(is_made, dtype=bool)]
    return summary(measure(train, made.pools, cosine, logits[: len(train)], of_candidates))


def _neighbours(task: Task, index: Retriever, options: NeighbourOptions, progress: Progress) -> Found:
    return find_neighbours(
        task.train,
        index,
        k=options.k,
        evaluation=list(task.evaluation_texts()),
        near_copy=options.near_copy,
        queries=options.queries,
        unit=options.unit,
        language=options.language,
        pairs=options.pairs,
        diversity=options.diversity,
        unique=options.unique,
        min_distance=options.min_distance,
        max_distance=options.max_distance,
        progress=lambda done, total: progress("neighbours", done, total),
    )


def _strays(
    pools: Sequence[Sequence[Candidate]], logits: NDArray[np.float32], options: NeighbourOptions | None
) -> NDArray[np.bool_]:  # (candidates,)
    """Which neighbours the teacher sees too near their original or too far from it; `logits` begin with originals."""
    owner = np.repeat(np.arange(len(pools)), [len(pool) for pool in pools])
    if options is None or (options.min_teacher_distance == 0 and options.max_teacher_distance is None):
        return np.zeros(len(owner), dtype=bool)
    distance = teacher_distance(logits[owner], logits[len(pools) :])
    most = math.inf if options.max_teacher_distance is None else options.max_teacher_distance
    neighbour = np.array([candidate.source == SOURCE for pool in pools for candidate in pool], dtype=bool)
    return neighbour & ((distance < options.min_teacher_distance) | (distance > most))


def _from_jsonl(path: str | None, train: Sequence[Example], excluded: set[str]) -> tuple[list[list[Candidate]], int]:
    """Candidates from a Minimax-kNN or Glitter file, by example id; evaluation texts are withheld and counted."""
    if path is None:
        return [[] for _ in train], 0
    samples = read_augmented_samples(Path(path))
    if not any(example.id in samples for example in train):
        raise DataError(f"{path}: no guid is the id of a training example (e.g. '{train[0].id}'); align the ids")
    withheld: set[str] = set()
    pools = []
    for example in train:
        pool = []
        for rank, (text, pair) in enumerate(samples.get(example.id, [])):
            if {normalised(text), normalised(pair or "")} & excluded:
                withheld.add(normalised(text))
            elif (text, pair) != (example.text, example.text_pair):
                pool.append(Candidate(f"s{rank}", example.id, text, pair, "augmented_samples", 1.0 / (1 + rank)))
        pools.append(pool)
    return pools, len(withheld)


def _rows(
    train: Sequence[Example],
    pools: Sequence[Sequence[Candidate]],
    logits: NDArray[np.float32],  # originals, then all candidates
    labels: Sequence[str],
) -> Iterator[dict[str, Any]]:
    place = len(train)
    for row, (example, pool) in enumerate(zip(train, pools, strict=True)):
        believed = logits[place : place + len(pool)]
        place += len(pool)
        candidates = [
            dataclasses.asdict(candidate) | {"teacher_logits": values.tolist()}
            for candidate, values in zip(pool, believed, strict=True)
            if not np.isnan(values).any()
        ]
        yield original_row(example, logits[row], candidates, labels)


def original_row(
    example: Example, logits: NDArray[Any], candidates: list[dict[str, Any]], labels: Sequence[str]
) -> dict[str, Any]:
    """One row of a transfer set; the label by name."""
    label = example.label
    return {
        "id": example.id,
        "text": example.text,
        "text_pair": example.text_pair,
        "label": labels[int(label)] if labels and label is not None else label,
        "teacher_logits": logits.tolist(),
        "candidates": candidates,
    }
