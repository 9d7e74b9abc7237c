"""What all tables of a recipe have in common: frozen, strict, no unknown keys."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

MINILM = "sentence-transformers/all-MiniLM-L6-v2"  # the default encoder and masked language model
IDENTITY = "identity"  # pydantic context of a dump that leaves out what does not change the result


class Table(BaseModel):
    """A table of a recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def dump(recipe: BaseModel) -> dict[str, Any]:
    """A recipe, or a table of one, as plain values without the keys that do not change the result."""
    return recipe.model_dump(mode="json", context=IDENTITY)
