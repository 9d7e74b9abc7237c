"""Candidates that are made, not found: texts of a trained generator, and texts with words substituted.

What was made is measured against its original in an encoder's space, and what strayed beyond the recipe's bound never
reaches the teacher. Texts that turn out to be evaluation texts are withheld like any other candidate's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from augkd.candidates.candidate import Candidate
from augkd.candidates.drift import cosines, within
from augkd.candidates.generator.generator import SOURCE as GENERATED
from augkd.candidates.generator.generator import Generator
from augkd.candidates.generator.written import written
from augkd.candidates.substitution.substitute import SOURCE as SUBSTITUTED
from augkd.candidates.substitution.substitute import substitute
from augkd.data.cleaning import normalised
from augkd.data.task import Task
from augkd.models.locate import model_fingerprint
from augkd.models.masked_lm import load_masked_lm
from augkd.recipe import DataOptions, GeneratedOptions, SubstitutionOptions, TrainingOptions
from augkd.retrieval.encoders.make import make_encoder
from augkd.workspace.progress import Progress

WORDS = "words"  # what substitution has found so far, in the cache of an unfinished transfer set

Folder = Callable[[GeneratedOptions | SubstitutionOptions], Path]  # of the masked language model


def make_candidates(
    task: Task, options: DataOptions, training: TrainingOptions, folder: Folder, cache: Path, progress: Progress
) -> Made:
    """The candidates of `generated` and `substitution` for each training text; nothing where the recipe has neither.

    Raises ModelError for a model that is no masked language model.
    """
    made = Made.none(len(task.train))
    if options.generated is not None:
        made = made.join(_generated(task, options.generated, training, folder(options.generated), cache, progress))
    if options.substitution is not None:
        lm = folder(options.substitution)
        made = made.join(_substituted(task, options.substitution, training, lm, cache, progress))
    return made


def _generated(
    task: Task, options: GeneratedOptions, training: TrainingOptions, folder: Path, cache: Path, progress: Progress
) -> Made:
    generator = Generator(load_masked_lm(str(folder), training.precision), options.mask)
    pools = written(
        task.train,
        generator,
        samples=options.samples,
        max_length=training.max_length,
        seed=options.seed,
        progress=lambda done, total: progress("generated texts", done, total),
    )
    return _measured(task, pools, options, GENERATED, generator.lm.rows["generator"], cache)


def _substituted(
    task: Task, options: SubstitutionOptions, training: TrainingOptions, folder: Path, cache: Path, progress: Progress
) -> Made:
    lm = load_masked_lm(str(folder), training.precision)
    found = substitute(
        task.train,
        lm.model,
        lm.tokenizer,
        n=options.n,
        probability=options.probability,
        most=options.most,
        max_length=training.max_length,
        pairs=options.pairs,
        seed=options.seed,
        saved=cache / WORDS / model_fingerprint(folder)[:12],
        progress=lambda done, total: progress("substitution", done, total),
    )
    return _measured(task, found.candidates, options, SUBSTITUTED, found.rows, cache)


def _measured(
    task: Task,
    pools: Sequence[Sequence[Candidate]],
    options: GeneratedOptions | SubstitutionOptions,
    source: str,
    rows: int,
    cache: Path,
) -> Made:
    evaluation = {normalised(text) for text in task.evaluation_texts()} - {""}
    fit = [[c for c in pool if not {normalised(c.text), normalised(c.text_pair or "")} & evaluation] for pool in pools]
    withheld = sum(map(len, pools)) - sum(map(len, fit))
    encoder = make_encoder({"kind": "sentence", "model": options.encoder}, cache)
    cosine = cosines(task.train, fit, encoder)
    bounded = within(fit, cosine, options.max_distance, {source})
    return Made(
        bounded.candidates,
        [row.tolist() for row in np.split(cosine[bounded.kept], np.cumsum([len(p) for p in bounded.candidates])[:-1])],
        withheld,
        sum(bounded.rejected.values()),
        rows,
    )


@dataclass(frozen=True)
class Made:
    """Candidates that a model made, by example, with the cosine of each to its original."""

    pools: list[list[Candidate]]
    cosine: list[list[float]]
    withheld: int = 0  # evaluation texts among them
    too_far: int = 0  # left out by the recipe's max_distance
    rows: int = 0  # forwarded to make them

    @classmethod
    def none(cls, examples: int) -> Made:
        """Nothing for each example."""
        return cls([[] for _ in range(examples)], [[] for _ in range(examples)])

    def join(self, other: Made) -> Made:
        """Both, these first."""
        return Made(
            [[*one, *more] for one, more in zip(self.pools, other.pools, strict=True)],
            [[*one, *more] for one, more in zip(self.cosine, other.cosine, strict=True)],
            self.withheld + other.withheld,
            self.too_far + other.too_far,
            self.rows + other.rows,
        )
