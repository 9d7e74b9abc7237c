"""The tables of an index recipe: corpus, encoder and FAISS index. An index recipe knows no task."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from augkd.recipe.table import MINILM, Count, Seed, Table
from augkd.recipe.units import parse_bytes

STATIC_DIM = 256


class CorpusOptions(Table):
    """Unlabelled text; the options of `augkd.data.corpus.CorpusSource`."""

    dataset: str
    text: str = "text"
    split: str = "train"
    config: str | None = None
    limit: Count | None = Field(None, ge=1)
    min_chars: Count = Field(1, ge=1)
    max_chars: Count = Field(2000, ge=1)
    sentences: str | None = None  # language code by whose rules documents are split; none: one text a row
    duplicates: Literal["keep", "exact", "near"] = "exact"
    near: float = Field(0.8, ge=0.5, le=1)  # Jaccard similarity at which two texts are near-duplicates
    encoding: str | None = None  # of the files; none: the one that each shows, else UTF-8
    delimiter: str | None = None  # between the columns of a CSV file; none: the one that each shows
    sheet: str | None = None  # of a workbook; none: the only one


class EncoderOptions(Table):
    """What turns texts into unit vectors; kind `lexical` builds a BM25 index, which has none."""

    kind: Literal["sentence", "static", "lexical"] = "sentence"
    model: str = MINILM  # kind static: the model its token vectors are distilled from
    max_length: int | None = Field(None, ge=8, le=2**20)
    precision: Literal["auto", "float32", "bfloat16", "int8"] = "auto"
    query_prompt: str | None = None  # put before each query; none: the model's own, if it has one
    document_prompt: str | None = None  # put before each text of the corpus
    dim: int | None = Field(None, ge=2, le=2**14)  # length of a vector; none: 256 if static, else the model's own
    sample: int = Field(20_000, ge=1, le=10**8)  # static vectors are fitted to this many texts from the start
    rerank: int = Field(0, ge=0, le=10**6)  # top hits of a static index scored again by the full model; 0: off
    workers: int | None = Field(None, ge=1, le=1024)  # batches encoded in parallel on a CPU; none: one per core

    @property
    def static_dim(self) -> int:
        """The length of a static vector."""
        return self.dim or STATIC_DIM

    @model_validator(mode="after")
    def _consistent(self) -> EncoderOptions:
        for name in ("query_prompt", "document_prompt"):
            if getattr(self, name) is not None and self.kind != "sentence" and not self.rerank:
                raise ValueError(f"{name} is for a sentence model; kind {self.kind} has none, drop it")
        if self.rerank and self.kind != "static":
            raise ValueError(f"rerank needs kind static; the scores of kind {self.kind} are final, drop it")
        return self


class FaissOptions(Table):
    """The FAISS index: its factory string, the recall@10 it is tuned to, and its memory budget."""

    factory: str = "auto"
    recall: float = Field(0.95, gt=0, le=1)
    memory: str | int | None = None  # bytes, or text like 2GiB; none: no limit

    @field_validator("memory")
    @classmethod
    def _memory(cls, value: str | int | None) -> str | int | None:
        if value is not None:
            parse_bytes(value, "faiss.memory")
        return value

    @property
    def memory_bytes(self) -> int | None:
        """The memory budget in bytes; None for no limit."""
        return None if self.memory is None else parse_bytes(self.memory)


class IndexRecipe(Table):
    """One index: its corpus, encoder and FAISS index."""

    corpus: CorpusOptions
    encoder: EncoderOptions = Field(default_factory=lambda: EncoderOptions.model_validate({}))
    faiss: FaissOptions = Field(default_factory=lambda: FaissOptions.model_validate({}))
    seed: Seed = 0

    @field_validator("corpus", mode="before")
    @classmethod
    def _corpus(cls, value: Any) -> Any:
        return {"dataset": value} if isinstance(value, str) else value
