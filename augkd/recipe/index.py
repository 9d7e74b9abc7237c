"""The tables of an index recipe: a corpus, an encoder, a FAISS factory."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from augkd.recipe.table import MINILM, Table
from augkd.recipe.units import parse_bytes


class CorpusOptions(Table):
    """Unlabelled text: `augkd.data.corpus.CorpusSource`."""

    dataset: str
    text: str = "text"
    split: str = "train"
    config: str | None = None
    limit: int | None = Field(None, ge=1)
    min_chars: int = Field(1, ge=1)
    max_chars: int = Field(2000, ge=1)
    sentences: str | None = None  # language to split documents into sentences by, like en; none: a row is a text
    duplicates: Literal["keep", "exact", "near"] = "exact"
    near: float = Field(0.8, ge=0.5, le=1)  # Jaccard similarity from which texts count as near-duplicates


class EncoderOptions(Table):
    """Text → unit vectors; `lexical` has none (BM25)."""

    kind: Literal["sentence", "static", "lexical"] = "sentence"
    model: str = MINILM  # static: the model that its token vectors are distilled from
    max_length: int | None = Field(None, ge=8)
    precision: Literal["auto", "float32", "bfloat16", "int8"] = "auto"
    dim: int = Field(256, ge=2)  # of static vectors
    sample: int = Field(20_000, ge=1)  # first texts of the corpus that static vectors are fitted to
    rerank: int = Field(0, ge=0)  # best hits that the full model scores again; 0: none
    workers: int | None = Field(None, ge=1)  # batches a CPU encodes at once; none: one a core

    @model_validator(mode="after")
    def _consistent(self) -> EncoderOptions:
        if self.rerank and self.kind != "static":
            raise ValueError(f"rerank is for kind static, not {self.kind}, whose scores are final")
        return self


class FaissOptions(Table):
    """Which FAISS index, the recall@10 it is tuned to, and the memory it may take."""

    factory: str = "auto"
    recall: float = Field(0.95, gt=0, le=1)
    memory: str | int | None = None  # like 2GiB

    @field_validator("memory")
    @classmethod
    def _memory(cls, value: str | int | None) -> str | int | None:
        if value is not None:
            parse_bytes(value, "faiss.memory")
        return value

    @property
    def budget(self) -> int | None:
        """`memory` in bytes."""
        return None if self.memory is None else parse_bytes(self.memory)


class IndexRecipe(Table):
    """One index: a corpus, an encoder, a FAISS factory."""

    corpus: CorpusOptions
    encoder: EncoderOptions = Field(default_factory=lambda: EncoderOptions.model_validate({}))
    faiss: FaissOptions = Field(default_factory=lambda: FaissOptions.model_validate({}))
    seed: int = 0

    @field_validator("corpus", mode="before")
    @classmethod
    def _corpus(cls, value: Any) -> Any:
        return {"dataset": value} if isinstance(value, str) else value
