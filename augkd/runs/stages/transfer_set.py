"""From texts to a transfer set: candidates from every source, the tutor's logits of all of them, rows on disk.

Evaluation texts are kept out here, whichever source a candidate comes from, and counted.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from augkd.candidates.augmented_samples import read_candidates
from augkd.candidates.candidate import Candidate
from augkd.candidates.drift import measure, summary
from augkd.candidates.model_texts import SUBSTITUTION_CACHE, ModelTexts, make_model_texts
from augkd.candidates.neighbours.find import SOURCE, Neighbours, find_neighbours
from augkd.data.cleaning import NORMALISATION, normalised
from augkd.data.given_transfer_set import copy_training_rows
from augkd.data.target import Target
from augkd.data.task import Example, Task, texts_of
from augkd.data.task import Texts as TaskTexts
from augkd.data.transfer_set import TransferSet, write_card, write_rows
from augkd.errors import DataError
from augkd.models.locate import locate, model_fingerprint
from augkd.recipe import DataOptions, GeneratedOptions, NeighbourOptions, SubstitutionOptions, dump
from augkd.retrieval.manifest import index_identity
from augkd.retrieval.retriever import Retriever
from augkd.runs.context import RunContext
from augkd.runs.stages.index import IndexStage
from augkd.runs.stages.index_texts import texts_of_index
from augkd.runs.stages.labels import LabelRounds, Texts
from augkd.runs.stages.left_out import check_originals, write_left_out
from augkd.runs.stages.masked_lm import MaskedLMStage
from augkd.runs.stages.rows import RowCounts, transfer_rows
from augkd.runs.stages.teacher import Tutor
from augkd.runs.stages.teacher_pass import labelling
from augkd.workspace.files import write_json
from augkd.workspace.fingerprints import file_fingerprint, fingerprint
from augkd.workspace.folders import CACHE, begin, end
from augkd.workspace.locks import claimed
from augkd.workspace.manifests import finished
from augkd.workspace.progress import Progress, Steps

if TYPE_CHECKING:
    from augkd.runs.stages.teacher_pass import Label


def make_transfer_set(
    context: RunContext,
    tutor: Tutor,
    index: IndexStage,
    masked_lms: MaskedLMStage,
    rounds: LabelRounds | None = None,
) -> TransferSet:
    """The originals with their candidates, labelled by `tutor`, made unless it is there already.

    All of them are labelled, or those that `rounds` choose. Raises DataError when the tutor has no output for a
    labelled text.
    """
    options = context.recipe.data
    made_from: dict[str, Any] = {
        "task": context.task.fingerprint,
        "teacher": tutor.fingerprint,
        "normalisation": NORMALISATION,
    }
    if options.transfer_set is None:
        made_from |= {
            "index": index_identity(index.retriever.manifest) if options.neighbours else None,
            "data": _identity(options, masked_lms),
            "max_length": context.recipe.training.max_length,
        }
    if rounds is not None:
        made_from |= rounds.identity
    folder = context.folders.of("transfer_set", fingerprint(made_from))
    with claimed(folder):
        if not finished(folder, "transfer_set", made_from):
            started = time.perf_counter()
            begin(folder, "transfer_set", made_from)
            given = context.given_transfer_set
            facts = (
                _copy(folder, context, given) if given else _write(folder, context, tutor, index, masked_lms, rounds)
            )
            shutil.rmtree(folder / CACHE / SUBSTITUTION_CACHE, ignore_errors=True)
            seconds = time.perf_counter() - started
            facts |= {"task": context.task.name, "labels": context.target.labels, "seconds": seconds}
            end(folder, "transfer_set", made_from, **facts)
    return TransferSet.open(folder)


def _identity(options: DataOptions, masked_lms: MaskedLMStage) -> dict[str, Any]:
    """What decides the candidates, besides task, index and tutor."""
    samples = options.augmented_samples
    models: dict[str, Any] = {
        name: None if source is None else dump(source) | _models_of(source, masked_lms)
        for name, source in (("generated", options.generated), ("substitution", options.substitution))
    }
    if options.labelled is not None:
        models["labelled"] = options.labelled
    return models | {
        "neighbours": dump(options.neighbours) | {"index": None} if options.neighbours else None,
        "augmented_samples": file_fingerprint(Path(samples)) if samples else None,
    }


def _models_of(options: GeneratedOptions | SubstitutionOptions, masked_lms: MaskedLMStage) -> dict[str, Any]:
    encoder = model_fingerprint(locate(options.encoder))
    return {"model": model_fingerprint(masked_lms.folder(options)), "adapt": None, "encoder": encoder}


def _copy(folder: Path, context: RunContext, given: Path) -> dict[str, Any]:
    """Copies a given transfer set without the rows that were cut off for validation and test; the facts."""
    source, task, name = TransferSet.open(given), context.task, context.recipe.data.transfer_set
    if source.target != dataclasses.replace(context.target, thresholds=()):
        raise DataError(f"{name} has the labels {', '.join(source.labels)}, the task {', '.join(task.labels)}")
    own = context.recipe.task.dataset == name  # else the task brings its own validation and test texts
    ids = [example.id for example in context.originals] if own else source.column("id")
    counts = copy_training_rows(source, folder, ids, task)
    none = {"excluded_near_copies": 0, "outside_teacher_bounds": 0, "too_far_from_original": 0, "short": 0}
    data = {name: value for name, value in dataclasses.asdict(counts).items() if not name.startswith("_")} | none
    write_card(folder, task.name, [f"{name.replace('_', ' ')}: {value}" for name, value in data.items()])
    return {"data": data, "teacher_rows": 0, "generator_rows": 0}


# ---- candidates, labels, rows ----


@dataclass(frozen=True)
class _Gathered:
    """Candidates of every source, by example, and what was left out on the way."""

    train: tuple[Example, ...]  # originals, and the texts of an index where they stand for themselves
    pools: list[list[Candidate]]
    found: Neighbours
    made: ModelTexts
    withheld_samples: int


def _write(
    folder: Path,
    context: RunContext,
    tutor: Tutor,
    index: IndexStage,
    masked_lms: MaskedLMStage,
    rounds: LabelRounds | None,
) -> dict[str, Any]:
    """Writes rows, card and what was withheld (not the manifest); the facts for the manifest."""
    options, target, outputs = context.recipe.data, context.target, tutor.outputs
    gathered = _gather(folder, context, index, masked_lms)
    train, pools, rows_before = gathered.train, gathered.pools, outputs.rows

    chosen = None if rounds is None else rounds.choose(Texts(train, pools))
    texts = [*texts_of(train), *((c.text, c.text_pair) for c in itertools.chain.from_iterable(pools))]
    asked_about = texts if chosen is None else chosen.texts
    label = labelling(context, tutor)
    logits = _logits(label, texts, asked_about, partial(context.progress, "teacher logits"))
    check_originals(train, logits, outputs, set(asked_about))
    outside = _outside_teacher_bounds(pools, logits, options.neighbours, target)
    logits[len(train) :][outside] = np.nan  # left out like those the teacher does not know

    written = RowCounts()
    write_rows(folder, transfer_rows(train, pools, logits, target, written), target)
    write_json(folder / "withheld.json", [dataclasses.asdict(copy) for copy in gathered.found.withheld])
    if any(gathered.made.pools):
        write_json(folder / "drift.json", _drift(train, pools, gathered.made, logits, target))

    facts = write_left_out(folder, outputs, asked_about)
    counts = _counts(written, gathered, int(outside.sum())) | _labelled(context)
    if facts:
        counts["left_out"] = sum(sum(teacher["left_out"].values()) for teacher in facts["asked"])
    if chosen is not None:
        counts["labelled_by_the_teacher"] = len(chosen.texts)
        facts["label_rounds"] = {"chosen": [len(picked) for picked in chosen.rounds], "students": chosen.scores}
    write_card(folder, context.task.name, [f"{name.replace('_', ' ')}: {value}" for name, value in counts.items()])
    teacher_rows = outputs.rows - rows_before
    return {"data": counts, "teacher_rows": teacher_rows, "generator_rows": gathered.made.rows, **facts}


def _logits(
    label: Label, texts: TaskTexts, asked_about: TaskTexts, progress: Steps
) -> NDArray[np.float32]:  # (texts, outputs)
    """The teacher's logits of those of `texts` that it is asked about; nan for the others."""
    if asked_about is texts:
        return label(texts, progress)
    known = label(asked_about, progress)
    of_text = dict(zip(asked_about, known, strict=True))
    none = np.full(known.shape[1], np.nan, dtype=np.float32)
    return np.stack([of_text.get(text, none) for text in texts])


def _gather(folder: Path, context: RunContext, index: IndexStage, masked_lms: MaskedLMStage) -> _Gathered:
    task, recipe, options, progress = context.student_task, context.recipe, context.recipe.data, context.progress
    evaluation = {normalised(text) for text in task.evaluation_texts()} - {""}
    made = make_model_texts(task, options, recipe.training.max_length, masked_lms, folder / CACHE, progress)
    found = Neighbours.none(len(task.train))
    sampled: list[list[Candidate]] = [[] for _ in task.train]
    withheld = 0
    alone: list[Example] = []
    if options.neighbours is not None and options.label_budget is not None and options.label_budget.of == "index":
        alone = texts_of_index(task, index.retriever, options.neighbours, options.label_budget, recipe.seed)
    elif options.neighbours is not None:
        found = _neighbours(task, index.retriever, options.neighbours, progress)
    if options.augmented_samples is not None:
        sampled, withheld = read_candidates(Path(options.augmented_samples), task.train, evaluation)
    pools = [[*near, *more, *own] for near, more, own in zip(found.candidates, sampled, made.pools, strict=True)]
    pools += [[] for _ in alone]
    made = dataclasses.replace(made, pools=[*made.pools, *([] for _ in alone)])
    return _Gathered((*task.train, *alone), pools, found, made, withheld)


def _neighbours(task: Task, index: Retriever, options: NeighbourOptions, progress: Progress) -> Neighbours:
    assert options.sample != "used"  # a number since `Recipe.for_texts`
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
        sample=options.sample,
        progress=partial(progress, "neighbours"),
    )


def _outside_teacher_bounds(
    pools: Sequence[Sequence[Candidate]],
    logits: NDArray[np.float32],
    options: NeighbourOptions | None,
    target: Target,
) -> NDArray[np.bool_]:  # (candidates,)
    """Which neighbours' teacher outputs are too near to, or too far from, their original's.

    `logits` are those of the originals, then of all candidates.
    """
    owner = np.repeat(np.arange(len(pools)), [len(pool) for pool in pools])
    if options is None or (options.min_teacher_distance == 0 and options.max_teacher_distance is None):
        return np.zeros(len(owner), dtype=bool)
    distance = target.distance(logits[owner], logits[len(pools) :])
    farthest = math.inf if options.max_teacher_distance is None else options.max_teacher_distance
    neighbour = np.array([candidate.source == SOURCE for pool in pools for candidate in pool], dtype=bool)
    return neighbour & ((distance < options.min_teacher_distance) | (distance > farthest))


def _drift(
    train: Sequence[Example],
    pools: Sequence[Sequence[Candidate]],
    made: ModelTexts,
    logits: NDArray[np.float32],
    target: Target,
) -> dict[str, Any]:
    """How far the texts that models wrote are from their originals, by source, as means and quantiles."""
    own = [{id(candidate) for candidate in pool} for pool in made.pools]
    is_made = [id(candidate) in mine for pool, mine in zip(pools, own, strict=True) for candidate in pool]
    cosine = np.array([value for row in made.cosine for value in row], dtype=np.float32)
    of_candidates = logits[len(train) :][np.array(is_made, dtype=bool)]
    return summary(measure(train, made.pools, cosine, logits[: len(train)], of_candidates, target))


def _labelled(context: RunContext) -> dict[str, int]:
    """How many labelled texts there are, where the student sees only some of them."""
    if context.recipe.data.labelled is None:
        return {}
    return {"labelled_texts_of_the_task": sum(example.label is not None for example in context.task.train)}


def _counts(written: RowCounts, gathered: _Gathered, outside: int) -> dict[str, int]:
    found, made = gathered.found, gathered.made
    withheld = found.excluded_evaluation_texts + gathered.withheld_samples + made.withheld
    return {
        "originals": written.originals,
        "candidates": written.candidates,
        "candidates_unique": len(written.texts),
        "excluded_evaluation_texts": withheld,
        "excluded_near_copies": found.excluded_near_copies,
        "outside_teacher_bounds": outside,
        "too_far_from_original": made.too_far,
        "short": found.short,
    }
