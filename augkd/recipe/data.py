"""The table of extra texts: where they come from, and which of them are kept."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from augkd.errors import short_repr
from augkd.recipe import options
from augkd.recipe.index import CorpusOptions, IndexRecipe
from augkd.recipe.table import MINILM, Table
from augkd.recipe.training import Named


class NeighbourOptions(Table):
    """k neighbours of each labelled text, from an index recipe or a built index folder."""

    index: IndexRecipe | str
    k: int = Field(8, ge=1, le=256)
    queries: Literal["example", "label", "task", "mix"] = "example"
    unit: Literal["text", "sentence"] = "text"  # sentence: one sentence of the text is replaced by its neighbour
    language: str = "en"  # of the sentences
    pairs: Literal["each", "unit", "both"] = "each"  # one side of a pair replaced, both at once, or half of each
    diversity: float = Field(0.0, ge=0, le=1)  # weight of unlikeness to the ones chosen already (MMR); 0: off
    unique: bool = False  # a text of the corpus goes to one owner only
    near_copy: float = Field(0.95, gt=0, le=1)  # cosine from which a text counts as a copy of an evaluation text
    min_distance: float = Field(0.0, ge=0, le=2)  # cosine distance in the encoder's space
    max_distance: float = Field(2.0, ge=0, le=2)
    min_teacher_distance: float = Field(0.0, ge=0)  # total variation of the teacher's beliefs; regression: difference
    max_teacher_distance: float | None = Field(None, gt=0)


class AdaptOptions(Table):
    """Trains the generator as a masked language model first, on unlabelled text."""

    corpus: CorpusOptions | None = None  # none: the texts of data.neighbours.index
    steps: int = Field(1000, ge=1)
    batch_size: int = Field(64, ge=1)
    learning_rate: float = Field(1e-4, gt=0)
    seed: int = 0

    @field_validator("corpus", mode="before")
    @classmethod
    def _corpus(cls, value: Any) -> Any:
        return {"dataset": value} if isinstance(value, str) else value


class GeneratorOptions(Table):
    """New texts each step from a masked language model that learns where student and teacher differ (MATE-KD)."""

    model: str = MINILM  # a masked LM with the vocabulary of teacher and student
    adapt: AdaptOptions | None = None
    samples: int = Field(1, ge=1, le=64)  # for each original and step
    mask: float = Field(0.3, gt=0, lt=1)  # share of the tokens
    temperature: float = Field(1.0, gt=0)  # of the Gumbel-softmax
    ascend: int = Field(10, ge=0)  # steps of the generator in a row; 0: it stays as it is
    every: int = Field(100, ge=1)  # steps of the student between them
    objective: Literal["kl", "cross_entropy", "squared_error"] = "kl"  # that it climbs; cross_entropy as published
    learning_rate: float = Field(2e-4, gt=0)
    schedule: Literal["constant", "linear"] = "constant"
    max_grad_norm: float = Field(5.0, gt=0)
    batch_size: int = Field(32, ge=1)  # originals of a step of the generator


class GeneratedOptions(Table):
    """Texts of a trained generator, written into the transfer set."""

    model: str  # a folder that a run left in generator/trained, or any masked LM
    samples: int = Field(4, ge=1, le=256)
    mask: float = Field(0.3, gt=0, lt=1)
    max_distance: float = Field(2.0, ge=0, le=2)  # cosine distance to the original in the encoder's space
    encoder: str = MINILM  # of that space
    seed: int = 0


class SubstitutionOptions(Table):
    """Words replaced by ones that a masked language model would put there (TinyBERT's augmentation)."""

    model: str = MINILM
    adapt: AdaptOptions | None = None
    n: int = Field(8, ge=1, le=256)  # texts for each original; the paper's N_a is 10 to 30
    probability: float = Field(0.4, gt=0, le=1)  # of a word to be replaced
    most: int = Field(15, ge=1)  # words to choose from
    pairs: Literal["each", "both"] = "each"
    max_distance: float = Field(2.0, ge=0, le=2)
    encoder: str = MINILM
    seed: int = 0


def _everything() -> Named:
    return {"everything": {}}


class DataOptions(Table):
    """Extra texts, and which of them are kept."""

    neighbours: NeighbourOptions | None = None
    augmented_samples: str | None = None  # JSONL of Minimax-kNN or Glitter
    generated: GeneratedOptions | None = None
    substitution: SubstitutionOptions | None = None
    generator: GeneratorOptions | None = None
    select: Named = Field(default_factory=_everything)
    temperature: float = Field(2.0, gt=0)  # of the divergence that minimax ranks by
    refresh: int = Field(1, ge=1)  # epochs between scorings; stale scores in between
    weight: float = Field(1.0, ge=0)  # of all chosen candidates together against the originals, whatever their number

    @field_validator("select", mode="before")
    @classmethod
    def _select(cls, value: Any) -> Any:
        value = {value: {}} if isinstance(value, str) else value
        if not isinstance(value, dict) or len(value) != 1:
            raise ValueError(f"give one selector, e.g. {{minimax: {{keep: 4}}}}, not {short_repr(value)}")
        ((name, given),) = value.items()
        return {name: options.check_member("selector", name, given or {})}

    @model_validator(mode="after")
    def _warm(self) -> DataOptions:
        for name in ("generator", "substitution"):
            source = getattr(self, name)
            if source and source.adapt and source.adapt.corpus is None and self.neighbours is None:
                raise ValueError(f"{name}.adapt has no text to learn from; give {name}.adapt.corpus")
        return self

    @property
    def stored(self) -> bool:
        """Whether the transfer set has candidates."""
        sources = (self.neighbours, self.augmented_samples, self.generated, self.substitution)
        return any(source is not None for source in sources)

    @property
    def augmented(self) -> bool:
        """Whether there are candidates at all."""
        return self.stored or self.generator is not None
