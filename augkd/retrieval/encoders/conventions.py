"""What a sentence model expects in front of a text, and how much of a vector it needs: its own conventions.

Some models are trained with prompts, others for queries than for documents (e5's `query: ` and `passage: `), and some
so that the first dimensions of a vector suffice (Matryoshka: Kusupati et al. 2022). Both are read from the model's own
files, and a recipe's options replace them.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from augkd.errors import ModelError
from augkd.workspace.files import read_json

_FILE = "config_sentence_transformers.json"
_DOCUMENT = ("document", "passage", "corpus")  # names of prompts, the first that is not empty counts


@dataclass(frozen=True)
class Conventions:
    """Prompts for queries and for documents ("": none), and the leading dimensions that are kept (None: all)."""

    query: str = ""
    document: str = ""
    dim: int | None = None

    @classmethod
    def of(
        cls,
        folder: Path,
        *,
        query_prompt: str | None = None,
        document_prompt: str | None = None,
        dim: int | None = None,
    ) -> Conventions:
        """Those of the model in `folder`, with the options that are given in their place; ModelError for a bad file."""
        path = folder / _FILE
        config: Any = read_json(path) if path.is_file() else {}
        prompts = config.get("prompts") or {} if isinstance(config, dict) else None
        if not isinstance(prompts, dict):
            raise ModelError(f"{path} states no table of prompts; give a folder that sentence-transformers wrote")
        default = prompts.get(config.get("default_prompt_name")) or ""
        query = prompts.get("query") or default
        document = next((prompts[name] for name in _DOCUMENT if prompts.get(name)), default)
        return cls(
            query if query_prompt is None else query_prompt,
            document if document_prompt is None else document_prompt,
            dim or config.get("truncate_dim"),
        )

    @property
    def prompts(self) -> dict[str, str]:
        """The prompts that are not empty, by the names of their options."""
        both = {"query_prompt": self.query, "document_prompt": self.document}
        return {name: prompt for name, prompt in both.items() if prompt}

    @property
    def identity(self) -> list[Any]:
        """For a fingerprint; empty where nothing is added or cut."""
        return [] if self == Conventions() else [astuple(self)]
