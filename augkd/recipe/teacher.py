"""The `teacher` table: a model, several models, numbers on disk, an LLM behind an API, or answers of people.

An API key is never part of a recipe: `endpoint.key` names the environment variable that holds it, so no manifest, log,
card or error can contain it.
"""

from __future__ import annotations

import re
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from augkd.errors import RecipeError
from augkd.recipe.table import BatchSize, Epochs, Seed, Table

Layers = list[int] | dict[Literal["middle", "uniform", "first", "last", "distilbert"], int]  # or {rule: number}

PLACEHOLDERS = ("text", "text_pair", "options")  # of a prompt
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]*")  # no lower case: a key that is pasted here is recognised as one
_OWN_PARAMETERS = ("messages", "model", "stream", "n")


class EndpointOptions(Table):
    """A server with the OpenAI-compatible chat API, and how it is asked."""

    url: str
    key: str = "OPENAI_API_KEY"  # environment variable that holds the key; a server without keys needs none
    probabilities: Literal["auto", "logprobs", "text"] = "auto"  # of the option letters, or from the answer's text
    permutations: int = Field(1, ge=1, le=52)  # orders of the options that are averaged, a request each
    evaluate: bool = False  # also asks about validation and test texts, for the teacher's own scores
    parameters: dict[str, Any] = Field(default_factory=dict)  # merged into each request; null leaves one out
    concurrency: int = Field(8, ge=1, le=256)  # requests at once
    rate: float | None = Field(None, gt=0)  # requests per minute; none: no limit
    timeout: float = Field(60.0, gt=0, le=86_400)  # seconds for one request
    retries: int = Field(6, ge=0, le=1000)  # with back-off, after 429, 5xx, a cut connection, a timeout, malformed JSON

    @model_validator(mode="after")
    def _holds_no_secret(self) -> EndpointOptions:
        """Raises RecipeError, whose message never shows the value."""
        if _VARIABLE.fullmatch(self.key) is None:
            raise RecipeError(
                "teacher.endpoint.key must be the name of an environment variable in capitals, like OPENAI_API_KEY; "
                "the key itself never goes into a recipe"
            )
        try:
            parts = urlsplit(self.url)
            host = parts.hostname
        except ValueError:
            parts, host = urlsplit(""), None
        if parts.scheme not in ("http", "https") or not host:
            raise RecipeError("teacher.endpoint is no URL; write it like http://localhost:8000/v1")
        if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
            raise RecipeError(
                "the URL of teacher.endpoint has a user, a password or a query; give the plain URL, and the key in "
                f"the environment variable {self.key}"
            )
        for name in _OWN_PARAMETERS:
            if name in self.parameters:
                raise RecipeError(f"teacher.endpoint.parameters cannot set '{name}'; drop it")
        return self


class TeacherOptions(Table):
    """Who teaches: a checkpoint, a backbone to fine-tune, several teachers, stored logits, an LLM, or people."""

    model: str | None = None  # folder or Hub name; with `endpoint`, the model's name there
    epochs: Epochs = Field(0, ge=0)
    learning_rate: float = Field(1e-4, gt=0)
    batch_size: BatchSize = 32
    labels: list[str] | None = None  # class names, for a checkpoint whose labels are LABEL_0, LABEL_1, …
    seed: Seed = 0
    layers: Layers | None = None  # keeps only these layers of the backbone: a smaller teacher
    ensemble: list[TeacherOptions] | None = Field(None, min_length=2)  # several teachers whose outputs are averaged
    average: Literal["logits", "probabilities"] = "logits"
    logits: str | None = None  # Parquet file with texts and a list column, in place of a model
    column: Literal["logits", "probabilities"] = "logits"
    missing: Literal["error", "drop"] = "error"  # a text without an output stops the run, or is left out
    endpoint: EndpointOptions | None = None  # an LLM behind an API; `model` is its name there
    prompt: str | None = None  # with {text}, {options} and, for pairs, {text_pair}; none: a plain question
    descriptions: dict[str, str] | None = None  # label → what it means, shown beside the option
    answers: str | None = None  # folder of answers: an endpoint's are kept there; alone, people's are imported there
    smoothing: float = Field(0.1, gt=0, lt=1)  # of an answer that is a label without probabilities
    calibrate: bool = True  # fits a temperature to the labelled texts that were asked about

    @field_validator("endpoint", mode="before")
    @classmethod
    def _endpoint(cls, value: Any) -> Any:
        return {"url": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _has_one_source(self) -> TeacherOptions:
        model = self.model if self.endpoint is None else None
        answers = self.answers if self.endpoint is None else None
        if sum(given is not None for given in (model, self.logits, self.ensemble, self.endpoint, answers)) != 1:
            raise ValueError("give one of 'model', 'logits', 'ensemble', 'answers', or 'endpoint' with 'model'")
        beside = self.model_fields_set - {"ensemble", "average", "model", "logits"}
        if self.ensemble is not None and beside:
            raise ValueError(f"'{min(beside)}' stands beside 'ensemble'; move it into the members")
        if self.layers is not None and (self.kind != "model" or self.epochs == 0):
            raise ValueError("'layers' cuts a backbone before it is fine-tuned; give 'model' and 'epochs'")
        self._check_endpoint()
        return self

    def _check_endpoint(self) -> None:
        if self.endpoint is None:
            if self.prompt is not None or self.descriptions is not None:
                raise RecipeError("teacher.prompt and teacher.descriptions are for a teacher with an endpoint")
            return
        if self.model is None:
            raise RecipeError("teacher.endpoint needs teacher.model, the name of the model at that server")
        if self.epochs:
            raise RecipeError("teacher.epochs fine-tunes a model here; drop it beside teacher.endpoint")
        if self.prompt is not None:
            for name in ("text", "options"):
                if f"{{{name}}}" not in self.prompt:
                    raise RecipeError(f"teacher.prompt lacks {{{name}}}; it stands for the {name} of a request")

    @property
    def kind(self) -> Literal["model", "logits", "ensemble", "endpoint", "answers"]:
        """Which kind of teacher it is."""
        if self.endpoint is not None:
            return "endpoint"
        if self.model is not None:
            return "model"
        if self.logits is not None:
            return "logits"
        return "answers" if self.ensemble is None else "ensemble"

    @property
    def network(self) -> str | None:
        """The model that is run on this machine; None for every other kind of teacher."""
        return self.model if self.kind == "model" else None
