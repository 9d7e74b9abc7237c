"""Tiny sentence-transformers models on disk: with prompts, shorter vectors, other modules than a transformer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Router, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling, StaticEmbedding
from support.architectures import bert_tokenizer, write_model

WIDTH = 16


def write_sentence_model(
    folder: Path, *, architecture: str = "bert", pooling: str = "mean", include_prompt: bool = True, **settings: Any
) -> Path:
    """A transformer with pooling; `settings` are options of SentenceTransformer (prompts, truncate_dim)."""
    module = Transformer(str(write_model(architecture, folder.with_name(f"{folder.name}-backbone"))))
    pool = Pooling(WIDTH, pooling_mode=pooling, include_prompt=include_prompt)
    SentenceTransformer(modules=[module, pool], device="cpu", **settings).save(str(folder))
    return folder


def write_static_embedding(folder: Path, **settings: Any) -> Path:
    """Static token vectors, as `minishlab/potion` has them."""
    torch.manual_seed(0)
    module = StaticEmbedding(bert_tokenizer().backend_tokenizer, embedding_dim=WIDTH)
    SentenceTransformer(modules=[module], device="cpu", **settings).save(str(folder))
    return folder


def write_router(folder: Path) -> Path:
    """Two routes: queries through one set of token vectors, documents through another."""
    torch.manual_seed(0)
    query, document = (StaticEmbedding(bert_tokenizer().backend_tokenizer, embedding_dim=WIDTH) for _ in range(2))
    router = Router.for_query_document(query_modules=[query], document_modules=[document])
    SentenceTransformer(modules=[router], device="cpu").save(str(folder))
    return folder


def old_layout(folder: Path) -> Path:
    """Moves the transformer of a model into `0_Transformer`, where sentence-transformers 1 and 2 kept it."""
    inner = folder / "0_Transformer"
    inner.mkdir()
    modules = json.loads((folder / "modules.json").read_text())
    for path in folder.iterdir():
        if path.is_file() and path.name not in ("modules.json", "config_sentence_transformers.json", "README.md"):
            shutil.move(path, inner / path.name)
    modules[0]["path"] = "0_Transformer"
    (folder / "modules.json").write_text(json.dumps(modules))
    return folder
