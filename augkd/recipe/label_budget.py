"""The `data.label_budget` table: how many unlabelled texts the teacher is asked about, and which."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from augkd.errors import RecipeError
from augkd.recipe import options
from augkd.recipe.table import MINILM, Table
from augkd.recipe.training import NamedOptions


def _random() -> NamedOptions:
    return {"random": {}}


class LabelBudgetOptions(Table):
    """Of the unlabelled texts only so many are labelled by the teacher, chosen in rounds."""

    texts: int = Field(ge=1)  # unlabelled texts that the teacher labels; those with a label come on top
    rounds: int | list[int] = 4  # equal rounds, or the texts labelled after each one
    by: NamedOptions = Field(default_factory=_random)
    of: Literal["candidates", "index"] = "candidates"  # index: all its texts, and no neighbours are searched
    pool: int = Field(20_000, ge=1)  # texts to choose from; of more, as many are drawn at random
    near: float = Field(0.9, gt=0, le=1)  # cosine from which two texts of a round are near-duplicates; 1: equal
    encoder: str = MINILM  # its vectors define near, and the teacher is estimated from them
    score: bool = False  # also trains and scores a student after each round where the selector needs none

    @field_validator("by", mode="before")
    @classmethod
    def _by(cls, value: Any) -> Any:
        value = {value: {}} if isinstance(value, str) else value
        if not isinstance(value, dict) or len(value) != 1:
            raise ValueError("give one selector, e.g. entropy or {predicted_divergence: {temperature: 2.0}}")
        ((name, given),) = value.items()
        return {name: options.check_member("label selector", name, given or {})}

    @model_validator(mode="after")
    def _rounds_end_at_texts(self) -> LabelBudgetOptions:
        if isinstance(self.rounds, int):
            if not 1 <= self.rounds <= self.texts:
                raise ValueError(f"rounds is {self.rounds}; give 1 to {self.texts}, one text each at least")
        elif not self.rounds or sorted(set(self.rounds)) != self.rounds or min(self.rounds) < 1:
            raise ValueError(f"rounds is {self.rounds}; give growing numbers of texts, e.g. [250, 500, 1000]")
        elif self.rounds[-1] != self.texts:
            raise ValueError(f"the last of rounds is {self.rounds[-1]}; it must be texts, {self.texts}")
        return self

    @property
    def sizes(self) -> list[int]:
        """Texts labelled after each round."""
        if isinstance(self.rounds, list):
            return self.rounds
        return [round(self.texts * number / self.rounds) for number in range(1, self.rounds + 1)]

    def check(self, problem_type: str) -> None:
        """Raises RecipeError for a selector that the task cannot have; called before a teacher is trained."""
        name, _ = self.selector
        if name != "random" and problem_type != "single_label_classification":
            raise RecipeError(f"label selector '{name}' needs one class per text; use random for this task")

    @property
    def selector(self) -> tuple[str, dict[str, Any]]:
        """The selector's name and options."""
        ((name, given),) = self.by.items()
        return name, given
