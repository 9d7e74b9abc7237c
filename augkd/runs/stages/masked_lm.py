"""The masked language models of a run: a checkpoint as it is, or adapted to unlabelled text and kept.

Generator and substitution share one where their options are the same.
"""

from __future__ import annotations

import dataclasses
import random
import shutil
import time
from pathlib import Path
from typing import Any

from augkd.data.cleaning import NORMALISATION, normalised
from augkd.data.corpus import CorpusCounts, CorpusSource, stream_corpus
from augkd.errors import ModelError
from augkd.models.locate import locate, model_fingerprint
from augkd.models.masked_lm import MaskedLM, load_masked_lm
from augkd.recipe import AdaptOptions, GeneratedOptions, GeneratorOptions, SubstitutionOptions, dump
from augkd.retrieval.manifest import index_identity
from augkd.retrieval.retriever import Retriever
from augkd.runs.context import RunContext, named_if_it_diverges
from augkd.runs.stages.index import IndexStage
from augkd.workspace.fingerprints import fingerprint
from augkd.workspace.folders import begin, end
from augkd.workspace.locks import claimed
from augkd.workspace.manifests import finished

MaskedLMOptions = GeneratorOptions | GeneratedOptions | SubstitutionOptions
_SUBSTITUTION_MASK = 0.3  # share of the tokens masked in adaptation; substitution itself masks word by word


class MaskedLMStage:
    """Finds or makes the folder of each masked language model, and loads a fresh one for each use."""

    def __init__(self, context: RunContext, index: IndexStage):
        """`index` gives the texts of an adaptation whose options name no corpus."""
        self._context, self._index = context, index
        self._folders: dict[str, Path] = {}
        self._checked: dict[Path, MaskedLM] = {}  # loaded for a check, not used yet

    def folder(self, options: MaskedLMOptions) -> Path:
        """The folder of the model that `options` ask for.

        Raises ModelError for a model without a masked-LM head that is not to be adapted.
        """
        adaptation = None if isinstance(options, GeneratedOptions) else options.adapt
        mask = options.mask if isinstance(options, GeneratorOptions) else _SUBSTITUTION_MASK
        key = fingerprint([options.model, adaptation and dump(adaptation), mask if adaptation else None])
        if key not in self._folders:
            if adaptation is None:
                self._folders[key] = self._plain(options.model)
            else:
                self._folders[key] = self._adapted(options.model, adaptation, mask)
        return self._folders[key]

    def load(self, folder: Path) -> MaskedLM:
        """The model in `folder`, fresh: a generator's training changes its weights, so nothing is shared."""
        return self._checked.pop(folder, None) or load_masked_lm(str(folder), self._context.recipe.training.precision)

    def _plain(self, model: str) -> Path:
        folder = locate(model)
        lm = self.load(folder)
        if not lm.trained_head:
            raise ModelError(f"model '{model}' has no masked-LM head; add adapt: {{steps: 1000}}, which trains one")
        self._checked[folder] = lm
        return folder

    def _adapted(self, model: str, options: AdaptOptions, mask: float) -> Path:
        context, training = self._context, self._context.recipe.training
        backbone = locate(model)
        source = CorpusSource(**dump(options.corpus)).here(context.progress) if options.corpus else None
        evaluation = list(context.task.evaluation_texts())
        made_from = {
            "backbone": model_fingerprint(backbone),
            "texts": source.fingerprint() if source else index_identity(self._index.retriever.manifest),
            "evaluation": fingerprint(sorted(evaluation)),
            "normalisation": NORMALISATION,
            "options": dump(options) | {"corpus": None},
            "mask": mask,
            "max_length": training.max_length,
            "precision": training.precision,
        }
        identity = fingerprint(made_from)
        folder = context.folders.of(f"masked_lm-{identity[:8]}", identity)  # two sources may need one each
        with claimed(folder):
            if not finished(folder, "masked_lm", made_from):
                begin(folder, "masked_lm", made_from)
                withheld = {normalised(text) for text in evaluation}
                texts = [text for text in self._texts(source, options) if normalised(text) not in withheld]
                end(folder, "masked_lm", made_from, **self._adapt(folder, model, texts, options, mask))
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # last: a kill here costs no training
        return folder

    def _adapt(self, folder: Path, model: str, texts: list[str], options: AdaptOptions, mask: float) -> dict[str, Any]:
        """Adapts `model` into `folder`; the facts for its manifest."""
        from augkd.candidates.generator.adapt import adapt  # transformers takes seconds to import

        started, training, progress = time.perf_counter(), self._context.recipe.training, self._context.progress
        lm = load_masked_lm(model, training.precision)
        with named_if_it_diverges("masked language model"):
            before, after = adapt(
                lm,
                texts,
                folder / "checkpoints",
                steps=options.steps,
                batch_size=options.batch_size,
                learning_rate=options.learning_rate,
                rate=mask,
                max_length=training.max_length,
                seed=options.seed,
                progress=lambda done, total: progress("masked language model", done, total),
            )
        lm.save(folder)
        facts = {"before": dataclasses.asdict(before), "held_out": dataclasses.asdict(after), "rows": dict(lm.rows)}
        return facts | {"seconds": time.perf_counter() - started}

    def _texts(self, source: CorpusSource | None, options: AdaptOptions) -> list[str]:
        from augkd.candidates.generator.adapt import HELD_OUT

        size = options.steps * options.batch_size + HELD_OUT
        return sample(source, size, options.seed) if source else _indexed(self._index.retriever, size, options.seed)


def _indexed(index: Retriever, size: int, seed: int) -> list[str]:
    """`size` texts of the index in its order; all of them where there are fewer."""
    places = sorted(random.Random(seed).sample(range(len(index)), min(size, len(index))))
    return index.texts(places)


def sample(source: CorpusSource, size: int, seed: int) -> list[str]:
    """`size` texts of the corpus in one pass, each as likely as any other (reservoir sampling; Vitter 1985)."""
    rng = random.Random(seed)
    kept: list[str] = []
    for number, text in enumerate(stream_corpus(source, CorpusCounts())):
        if number < size:
            kept.append(text)
        elif (place := rng.randrange(number + 1)) < size:
            kept[place] = text
    return kept
