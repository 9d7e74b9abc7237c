"""The `data` table: the sources of candidates, and the selector that keeps some of them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from augkd.recipe import options
from augkd.recipe.index import CorpusOptions, IndexRecipe
from augkd.recipe.label_budget import LabelBudgetOptions
from augkd.recipe.table import MINILM, BatchSize, Count, Seed, Steps, Table
from augkd.recipe.training import NamedOptions


class NeighbourOptions(Table):
    """k neighbours of each labelled text, from an index recipe or a built index folder."""

    index: IndexRecipe | str
    k: int = Field(8, ge=1, le=256)
    # of the k of each text, so many drawn at random; used: as many as training comes to (`Recipe.for_texts`); none: all
    sample: int | Literal["used"] | None = None
    queries: Literal["example", "label", "task", "mix"] = "example"
    unit: Literal["text", "sentence"] = "text"  # sentence: replaces one sentence of the text with its neighbour
    language: str = "en"  # code of the language whose rules split a text into sentences
    pairs: Literal["each", "unit", "both"] = "each"  # replaces one side, both at once, or half the k each
    diversity: float = Field(0.0, ge=0, le=1)  # MMR: weight of the dissimilarity to candidates already chosen; 0: off
    unique: bool = False  # gives a corpus text to one owner only
    near_copy: float = Field(0.95, gt=0, le=1)  # cosine at which a text is a copy of an evaluation text
    min_distance: float = Field(0.0, ge=0, le=2)  # cosine distance to the owner in the encoder's space
    max_distance: float = Field(2.0, ge=0, le=2)
    min_teacher_distance: float = Field(0.0, ge=0)  # total variation of teacher probabilities; regression: difference
    max_teacher_distance: float | None = Field(None, gt=0)

    @field_validator("sample", mode="before")
    @classmethod
    def _sample(cls, value: Any) -> Any:
        if value is None or value == "used" or (type(value) is int and value > 0):
            return value
        raise ValueError("give a number from 1 to k, or used")

    @model_validator(mode="after")
    def _sample_is_of_k(self) -> NeighbourOptions:
        if isinstance(self.sample, int) and self.sample > self.k:
            raise ValueError(f"sample is {self.sample} of k = {self.k} neighbours; give at most k")
        return self

    @property
    def kept(self) -> int:
        """Neighbours of each text that the teacher labels, where there are k."""
        return self.sample if isinstance(self.sample, int) else self.k


class AdaptOptions(Table):
    """MLM adaptation: the masked language model is first trained on unlabelled text of the domain."""

    corpus: CorpusOptions | None = None  # none: the texts of data.neighbours.index
    steps: Steps = Field(1000, ge=1)  # optimiser steps
    batch_size: BatchSize = 64
    learning_rate: float = Field(1e-4, gt=0)
    seed: Seed = 0

    @field_validator("corpus", mode="before")
    @classmethod
    def _corpus(cls, value: Any) -> Any:
        return {"dataset": value} if isinstance(value, str) else value


class GeneratorOptions(Table):
    """Texts generated in every step by a masked language model trained to find where teacher and student differ.

    Rashid et al. 2021 (MATE-KD).
    """

    model: str = MINILM  # a masked LM with the vocabulary of teacher and student
    adapt: AdaptOptions | None = None
    samples: int = Field(1, ge=1, le=64)  # per original and step
    mask: float = Field(0.3, gt=0, lt=1)  # share of the tokens that is masked
    temperature: float = Field(1.0, gt=0)  # temperature of the Gumbel-softmax
    ascend: Steps = Field(10, ge=0)  # gradient-ascent steps of the generator in a row; 0: it is never trained
    every: Steps = Field(100, ge=1)  # steps of the student between two rounds of ascent
    objective: Literal["kl", "cross_entropy", "squared_error"] = "kl"  # maximised; cross_entropy: as published
    learning_rate: float = Field(2e-4, gt=0)
    schedule: Literal["constant", "linear"] = "constant"
    max_grad_norm: float = Field(5.0, gt=0)
    batch_size: BatchSize = 32  # originals per gradient-ascent step


class GeneratedOptions(Table):
    """Texts of a trained generator, written into the transfer set."""

    model: str  # generator/trained of a finished run, or any masked language model
    samples: int = Field(4, ge=1, le=256)
    mask: float = Field(0.3, gt=0, lt=1)
    max_distance: float = Field(2.0, ge=0, le=2)  # cosine distance to the original in the encoder's space
    encoder: str = MINILM  # defines that space
    seed: Seed = 0


class SubstitutionOptions(Table):
    """Words replaced with predictions of a masked language model: TinyBERT's augmentation (Jiao et al. 2020)."""

    model: str = MINILM
    adapt: AdaptOptions | None = None
    n: int = Field(8, ge=1, le=256)  # texts per original; the paper's N_a is 10 to 30
    probability: float = Field(0.4, gt=0, le=1)  # probability that a word is replaced
    top_k: int = Field(15, ge=1, le=1000)  # number of most probable words to draw from; the paper's K
    pairs: Literal["each", "both"] = "each"
    max_distance: float = Field(2.0, ge=0, le=2)
    encoder: str = MINILM
    seed: Seed = 0


def _everything() -> NamedOptions:
    return {"everything": {}}


class DataOptions(Table):
    """The labelled texts that the student sees, the sources of candidates, and the selector that keeps some of them."""

    labelled: Count | None = Field(None, ge=2)  # labelled texts of the student, by class; of the teacher: all
    neighbours: NeighbourOptions | None = None
    augmented_samples: str | None = None  # JSONL file of Minimax-kNN or Glitter
    transfer_set: str | None = None  # a finished transfer set (folder or Hub name) in place of all other sources
    generated: GeneratedOptions | None = None
    substitution: SubstitutionOptions | None = None
    generator: GeneratorOptions | None = None
    label_budget: LabelBudgetOptions | None = None  # none: the teacher labels every text
    select: NamedOptions = Field(default_factory=_everything)
    temperature: float = Field(2.0, gt=0)  # temperature of the divergence that minimax ranks by
    refresh: Steps = Field(1, ge=1)  # epochs between two scorings; in between, the last scores are used
    weight: float = Field(1.0, ge=0)  # loss weight of all selected candidates together, relative to the originals

    @field_validator("select", mode="before")
    @classmethod
    def _select(cls, value: Any) -> Any:
        value = {value: {}} if isinstance(value, str) else value
        if not isinstance(value, dict) or len(value) != 1:
            raise ValueError("give one selector, e.g. {minimax: {keep: 4}}")
        ((name, given),) = value.items()
        chosen = options.check_member("selector", name, given or {})
        if 0 < chosen.get("of", 0) < chosen.get("keep", 1):
            raise ValueError(f"{name} would keep {chosen['keep']} of {chosen['of']} scored; raise of, or lower keep")
        return {name: chosen}

    @model_validator(mode="after")
    def _adaptation_has_a_corpus(self) -> DataOptions:
        for name in ("generator", "substitution"):
            source = getattr(self, name)
            if source and source.adapt and source.adapt.corpus is None and self.neighbours is None:
                raise ValueError(f"{name}.adapt has no text to train on; give {name}.adapt.corpus")
        return self

    @model_validator(mode="after")
    def _transfer_set_is_alone(self) -> DataOptions:
        if self.transfer_set is not None:
            others = ("neighbours", "augmented_samples", "generated", "substitution", "generator")
            given = [name for name in others if getattr(self, name) is not None]
            if given:
                raise ValueError(f"transfer_set holds all texts already; drop {' and '.join(given)}, or transfer_set")
        return self

    @model_validator(mode="after")
    def _label_budget_has_texts(self) -> DataOptions:
        if self.label_budget is None:
            return self
        if self.transfer_set is not None or self.generator is not None:
            source = "transfer_set" if self.transfer_set is not None else "generator"
            raise ValueError(f"label_budget bounds what the teacher labels before training; drop it or {source}")
        if self.label_budget.of == "index" and self.neighbours is None:
            raise ValueError("label_budget.of: index needs an index; give neighbours.index")
        return self

    @property
    def drawn_in_turn(self) -> int | None:
        """How many candidates of each text the selector draws in an epoch, all before any again; None: not in turn."""
        ((name, given),) = self.select.items()
        option = {"random": "keep", "minimax": "of"}.get(name)
        if option is None:
            return None
        defaults = {known.name: known.default for known in options.family("selector")[name].options}
        return int(given.get(option, defaults[option])) or None

    @property
    def has_stored_candidates(self) -> bool:
        """Whether the transfer set has candidates."""
        alone = self.label_budget is not None and self.label_budget.of == "index"  # texts of the index have no owner
        neighbours = None if alone else self.neighbours
        sources = (neighbours, self.augmented_samples, self.generated, self.substitution, self.transfer_set)
        return any(source is not None for source in sources)

    @property
    def has_candidates(self) -> bool:
        """Whether there are candidates at all, stored or generated during training."""
        return self.has_stored_candidates or self.generator is not None
