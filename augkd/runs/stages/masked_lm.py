"""The masked language models of a recipe: a checkpoint as it is, or warmed up on unlabelled text and kept.

Generator and substitution share one when they are told the same; a seed more costs nothing.
"""

from __future__ import annotations

import dataclasses
import random
import shutil
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING

from augkd.candidates.generator.adapt import HELD_OUT, adapt
from augkd.data.cleaning import normalised
from augkd.data.corpus import CorpusCounts, CorpusSource, stream_corpus
from augkd.errors import ModelError
from augkd.models.locate import locate, model_fingerprint
from augkd.models.masked_lm import load_masked_lm
from augkd.recipe import AdaptOptions, dumped
from augkd.retrieval.open import index_identity
from augkd.workspace.fingerprints import fingerprint
from augkd.workspace.folders import begin, end
from augkd.workspace.locks import claimed
from augkd.workspace.manifests import finished
from augkd.workspace.progress import Progress

if TYPE_CHECKING:
    from augkd.retrieval.retriever import Retriever

FolderOf = Callable[[str, str], Path]  # (stage, identity) → where it lies


def masked_lm_folder(
    model: str,
    options: AdaptOptions | None,
    index: Callable[[], Retriever],
    evaluation: Collection[str],
    folder_of: FolderOf,
    progress: Progress,
    *,
    rate: float,
    max_length: int,
    precision: str,
) -> Path:
    """The folder of `model`, or of what `options` make of it with a share `rate` of the tokens masked.

    `index` gives the texts where `options` name no corpus; texts of `evaluation` are never learned from. Raises
    ModelError for a model without a masked-LM head that is not to be warmed up.
    """
    backbone = locate(model)
    if options is None:
        if not load_masked_lm(model, precision).trained_head:
            raise ModelError(f"model '{model}' has no masked-LM head; add adapt: {{steps: 1000}}, which trains one")
        return backbone
    source = CorpusSource(**dumped(options.corpus)) if options.corpus else None
    made = {
        "backbone": model_fingerprint(backbone),
        "texts": source.fingerprint() if source else index_identity(index()),
        "evaluation": fingerprint(sorted(evaluation)),
        "options": dumped(options) | {"corpus": None},
        "mask": rate,
        "max_length": max_length,
        "precision": precision,
    }
    identity = fingerprint(made)
    folder = folder_of(f"masked_lm-{identity[:8]}", identity)  # generator and substitution may have one each
    with claimed(folder):
        if finished(folder, "masked_lm", made):
            return folder
        started = time.perf_counter()
        begin(folder, "masked_lm", made)
        wanted = options.steps * options.batch_size + HELD_OUT
        texts = _sample(source, wanted, options.seed) if source else _rows(index(), wanted, options.seed)
        withheld = {normalised(text) for text in evaluation}
        lm = load_masked_lm(model, precision)
        before, after = adapt(
            lm,
            [text for text in texts if normalised(text) not in withheld],
            folder / "checkpoints",
            steps=options.steps,
            batch_size=options.batch_size,
            learning_rate=options.learning_rate,
            rate=rate,
            max_length=max_length,
            seed=options.seed,
            progress=lambda done, total: progress("masked language model", done, total),
        )
        lm.save(folder)
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        facts = {"before": dataclasses.asdict(before), "held_out": dataclasses.asdict(after), "rows": dict(lm.rows)}
        end(folder, "masked_lm", made, seconds=time.perf_counter() - started, **facts)
    return folder


def _rows(index: Retriever, wanted: int, seed: int) -> list[str]:
    """`wanted` texts of the index, all of a smaller one, in its order."""
    places = sorted(random.Random(seed).sample(range(len(index)), min(wanted, len(index))))
    return index.texts(places)


def _sample(source: CorpusSource, wanted: int, seed: int) -> list[str]:
    """`wanted` texts of the corpus in one pass, each as likely as any other (reservoir; Vitter 1985)."""
    rng = random.Random(seed)
    kept: list[str] = []
    for number, text in enumerate(stream_corpus(source, CorpusCounts())):
        if number < wanted:
            kept.append(text)
        elif (place := rng.randrange(number + 1)) < wanted:
            kept[place] = text
    return kept
