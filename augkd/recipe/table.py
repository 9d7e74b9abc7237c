"""What all tables of a recipe have in common: frozen, strict, no unknown keys."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

MINILM = "sentence-transformers/all-MiniLM-L6-v2"  # the default encoder and masked language model
IDENTITY = "identity"  # pydantic context of a dump that leaves out what does not change the result

# What a value may be at most: beyond, a library overflows, the machine has no memory for it, or a training has no end.
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]  # NumPy's and PyTorch's generators all take it
Epochs = Annotated[float, Field(le=100_000)]
Steps = Annotated[int, Field(le=10**9)]
Count = Annotated[int, Field(le=10**12)]  # of texts, characters
BatchSize = Annotated[int, Field(ge=1, le=2**20)]
Width = Annotated[int, Field(ge=1, le=2**14)]  # of a layer: 16,384 × a vocabulary of 30,000 are 2 GB


class Table(BaseModel):
    """A table of a recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def dump(recipe: BaseModel) -> dict[str, Any]:
    """A recipe, or a table of one, as plain values without the keys that do not change the result."""
    return recipe.model_dump(mode="json", context=IDENTITY)
