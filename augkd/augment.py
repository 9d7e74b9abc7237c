"""Texts to transfer set: index, candidates, the teacher's word on all of them, rows on disk.

Evaluation texts are kept out here, whatever source a candidate comes from, and counted.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from augkd.candidates.neighbours import Candidate, Found, find_neighbours
from augkd.data.corpus import CorpusSource, fold
from augkd.data.task import Example, Task, read_augmented_samples
from augkd.data.transfer_set import write_card, write_rows
from augkd.distill.models import Pair
from augkd.distill.teacher import TeacherOutputs
from augkd.errors import DataError, ModelError
from augkd.recipe import DataOptions, IndexRecipe, NeighbourOptions, dumped
from augkd.retrieval.encoder import SentenceEncoder
from augkd.retrieval.index import Index, build_index

Progress = Callable[[str, int, int | None], None]  # stage, done, total


def write_transfer_set(
    folder: Path,
    task: Task,
    labels: Sequence[str],
    outputs: TeacherOutputs,
    options: DataOptions,
    index: Index | None,
    progress: Progress,
) -> dict[str, int]:
    """Finds candidates, has the teacher label everything, writes the rows (not the manifest); returns the counts.

    Raises DataError when the teacher has no output for a labelled text.
    """
    train = task.train
    excluded = {fold(text) for text in task.evaluation_texts()} - {""}
    if index is not None and options.neighbours is not None:
        found = _neighbours(train, index, options.neighbours, excluded, progress)
    else:
        found = Found([[] for _ in train], 0, 0)
    sampled, withheld = _from_jsonl(options.augmented_samples, train, excluded)
    pools = [[*near, *more] for near, more in zip(found.candidates, sampled, strict=True)]
    wanted = [*texts_of(train), *((c.text, c.text_pair) for c in itertools.chain.from_iterable(pools))]

    logits = outputs.logits(wanted, lambda done, total: progress("teacher logits", done, total))
    unknown = np.isnan(logits.sum(axis=1))  # a row is known or it is all nan
    if unknown[: len(train)].any():
        place = int(unknown.argmax())
        raise DataError(f"the teacher has no output for the labelled text '{train[place].text[:60]}'; add it")
    write_rows(folder, _rows(train, pools, logits, labels), labels)

    labelled = [wanted[place] for place in np.flatnonzero(~unknown)[len(train) :]]  # without the dropped ones
    counts = {
        "originals": len(train),
        "candidates": len(labelled),
        "candidates_unique": len(set(labelled)),
        "excluded_evaluation_texts": found.excluded_evaluation_texts + withheld,
        "short": found.short,
    }
    write_card(folder, task.name, [f"{name.replace('_', ' ')}: {value}" for name, value in counts.items()])
    return counts


def make_index(recipe: IndexRecipe, folder: Path, progress: Callable[[int, int | None], None]) -> Index:
    """Builds (or resumes, or opens) an index recipe's index in `folder`."""
    options = recipe.encoder
    encoder = SentenceEncoder.load(options.model, max_length=options.max_length, precision=options.precision)
    source = CorpusSource(**dumped(recipe.corpus))
    return build_index(
        folder,
        source,
        encoder,
        factory=recipe.faiss.factory,
        recall=recipe.faiss.recall,
        seed=recipe.seed,
        recipe=dict(dumped(recipe)),
        progress=progress,
    )


def encoder_of(index: Index) -> SentenceEncoder:
    """The encoder an index was built with; raises ModelError when its weights are not the ones of then."""
    options = index.manifest["recipe"]["encoder"]
    encoder = SentenceEncoder.load(options["model"], max_length=options["max_length"], precision=options["precision"])
    if encoder.fingerprint != index.manifest["made_from"]["encoder"]:
        raise ModelError(
            f"encoder '{options['model']}' is not the one that {index.folder} was built with; build the index again"
        )
    return encoder


def texts_of(examples: Sequence[Example]) -> list[Pair]:
    """Texts (and second texts) of examples."""
    return [(example.text, example.text_pair) for example in examples]


def _neighbours(
    train: Sequence[Example], index: Index, options: NeighbourOptions, excluded: set[str], progress: Progress
) -> Found:
    return find_neighbours(
        train,
        index,
        encoder_of(index),
        k=options.k,
        excluded=excluded,
        min_distance=options.min_distance,
        max_distance=options.max_distance,
        progress=lambda done, total: progress("neighbours", done, total),
    )


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
            if {fold(text), fold(pair or "")} & excluded:
                withheld.add(fold(text))
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
