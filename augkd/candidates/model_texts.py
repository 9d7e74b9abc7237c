"""Candidates that a masked language model writes: texts of a trained generator, and texts with words substituted.

Each is compared with its original in an encoder's space, and those beyond the recipe's bound never reach the teacher.
Evaluation texts among them are withheld, as among any other candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np

from augkd.candidates.candidate import Candidate
from augkd.candidates.drift import bound_drift, cosines
from augkd.candidates.generator.generated_texts import generate_texts
from augkd.candidates.generator.generator import SOURCE as GENERATED
from augkd.candidates.generator.generator import Generator
from augkd.candidates.substitution.substitute import SOURCE as SUBSTITUTED
from augkd.candidates.substitution.substitute import substitute
from augkd.data.cleaning import normalised
from augkd.data.task import Task
from augkd.models.locate import model_fingerprint
from augkd.models.masked_lm import MaskedLM
from augkd.recipe import DataOptions, GeneratedOptions, SubstitutionOptions
from augkd.retrieval.encoders.make import make_encoder
from augkd.workspace.progress import Progress

SUBSTITUTION_CACHE = "words"  # substitutions predicted so far, in the cache of an unfinished transfer set


class MaskedLMs(Protocol):
    """Finds masked language models and loads them."""

    def folder(self, options: GeneratedOptions | SubstitutionOptions, /) -> Path:
        """The folder of the model that `options` ask for."""
        ...

    def load(self, folder: Path, /) -> MaskedLM:
        """The model in a folder."""
        ...


@dataclass(frozen=True)
class ModelTexts:
    """Candidates that a model wrote, by example, with the cosine of each to its original."""

    pools: list[list[Candidate]]
    cosine: list[list[float]]
    withheld: int = 0  # evaluation texts among them
    too_far: int = 0  # rejected by the recipe's max_distance
    rows: int = 0  # rows forwarded to write them

    @classmethod
    def none(cls, examples: int) -> ModelTexts:
        """No candidate for any example."""
        return cls([[] for _ in range(examples)], [[] for _ in range(examples)])

    def join(self, other: ModelTexts) -> ModelTexts:
        """Both, these first."""
        return ModelTexts(
            [[*pool, *more] for pool, more in zip(self.pools, other.pools, strict=True)],
            [[*values, *more] for values, more in zip(self.cosine, other.cosine, strict=True)],
            self.withheld + other.withheld,
            self.too_far + other.too_far,
            self.rows + other.rows,
        )


def make_model_texts(
    task: Task, options: DataOptions, max_length: int, masked_lms: MaskedLMs, cache: Path, progress: Progress
) -> ModelTexts:
    """The candidates of `generated` and `substitution` for each training text; none where the recipe has neither.

    Raises ModelError for a model that is not a masked language model.
    """
    texts = ModelTexts.none(len(task.train))
    if options.generated is not None:
        lm = masked_lms.load(masked_lms.folder(options.generated))
        texts = texts.join(_generated(task, options.generated, max_length, lm, cache, progress))
    if options.substitution is not None:
        texts = texts.join(_substituted(task, options.substitution, max_length, masked_lms, cache, progress))
    return texts


def _generated(
    task: Task, options: GeneratedOptions, max_length: int, lm: MaskedLM, cache: Path, progress: Progress
) -> ModelTexts:
    generator = Generator(lm, options.mask)
    pools = generate_texts(
        task.train,
        generator,
        samples=options.samples,
        max_length=max_length,
        seed=options.seed,
        progress=partial(progress, "generated texts"),
    )
    return _bounded(task, pools, options, GENERATED, generator.lm.rows["generator"], cache)


def _substituted(
    task: Task, options: SubstitutionOptions, max_length: int, masked_lms: MaskedLMs, cache: Path, progress: Progress
) -> ModelTexts:
    folder = masked_lms.folder(options)
    lm = masked_lms.load(folder)
    substitutions = substitute(
        task.train,
        lm.model,
        lm.tokenizer,
        n=options.n,
        probability=options.probability,
        top_k=options.top_k,
        max_length=max_length,
        pairs=options.pairs,
        seed=options.seed,
        saved=cache / SUBSTITUTION_CACHE / model_fingerprint(folder)[:12],
        progress=partial(progress, "substitution"),
    )
    return _bounded(task, substitutions.candidates, options, SUBSTITUTED, substitutions.rows, cache)


def _bounded(
    task: Task,
    pools: Sequence[Sequence[Candidate]],
    options: GeneratedOptions | SubstitutionOptions,
    source: str,
    rows: int,
    cache: Path,
) -> ModelTexts:
    """The candidates without evaluation texts and without those that drifted too far."""
    evaluation = {normalised(text) for text in task.evaluation_texts()} - {""}
    usable = [
        [c for c in pool if not {normalised(c.text), normalised(c.text_pair or "")} & evaluation] for pool in pools
    ]
    withheld = sum(map(len, pools)) - sum(map(len, usable))
    encoder = make_encoder({"kind": "sentence", "model": options.encoder}, cache)
    cosine = cosines(task.train, usable, encoder)
    bounded = bound_drift(usable, cosine, options.max_distance, {source})
    ends = np.cumsum([len(pool) for pool in bounded.candidates])
    return ModelTexts(
        bounded.candidates,
        [values.tolist() for values in np.split(cosine[bounded.kept], ends[:-1])],
        withheld,
        sum(bounded.rejected.values()),
        rows,
    )
