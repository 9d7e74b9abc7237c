"""Builds a dense index on this machine: the whole corpus is encoded here.

Killed at any point, a build continues and ends with the bytes of an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from augkd.data.corpus import CorpusCounts, CorpusSource, check_not_empty, stream_corpus
from augkd.data.dropped import DROPPED, Dropped
from augkd.retrieval.dense.builder import BuildOptions, check_plan, describe_sources, finish, is_finished, made_from
from augkd.retrieval.dense.search import Index
from augkd.retrieval.spool import CHUNK, encode_parts
from augkd.workspace.folders import begin
from augkd.workspace.progress import Steps

if TYPE_CHECKING:
    from augkd.retrieval.encoders.encoder import IndexEncoder

EncodeParts = Callable[..., int]  # with the parameters of `encode_parts`, but for the shard


def build_dense(
    folder: Path,
    source: CorpusSource,
    encoder: IndexEncoder,
    *,
    factory: str = "auto",
    recall: float = 0.95,
    memory: int | None = None,
    seed: int = 0,
    recipe: dict[str, Any] | None = None,
    progress: Steps | None = None,
    chunk: int = CHUNK,
    encode: EncodeParts = encode_parts,
) -> Index:
    """Builds the index of `source` in `folder`, resumes an unfinished build, or opens the finished one.

    `factory` is auto or any FAISS factory string; `recall` in (0, 1] is the recall@10 to tune to; `memory` in bytes
    (None: no limit) is the memory budget of the whole process, Python and the encoder of the `recipe` included: what
    would not fit is an error, with the plan, before any text is encoded. An index that was changed by `add_texts` or
    `remove_texts` counts as finished for its sources, and is never replaced. The caller holds
    `workspace.locks.locked(folder)` where two builds could meet. A finished index is opened without encoding anything.
    `encode` puts the vectors of the texts into the spool: here, or another engine elsewhere.
    """
    options = BuildOptions(factory, recall, memory, seed, chunk)
    sources = made_from(source, encoder, options)
    if is_finished(folder, sources):
        return Index.open(folder)
    check_plan(source, encoder.dim, options, recipe)
    begin(folder, "index", sources)

    counts = fill_spool(folder, source, partial(encode, encoder=encoder), chunk, progress=progress)
    facts = describe_sources(recipe, seed, encoder, counts)
    finish(folder, sources, facts, counts.kept, encoder.dim)
    return Index.open(folder)


def fill_spool(
    folder: Path,
    source: CorpusSource,
    encode: Callable[..., int],  # `encode_parts` or another engine's, with its encoder
    chunk: int,
    *,
    progress: Steps | None = None,
) -> CorpusCounts:
    """Has the corpus encoded into the spool of `folder`, and lists what was dropped from it."""
    for leftover in folder.rglob(".*.tmp"):  # of a killed write
        leftover.unlink()
    counts = CorpusCounts()
    total = source.known_size()
    report = None if progress is None else lambda done: progress(done, total)
    dropped = Dropped()
    texts = stream_corpus(source, counts, dropped, scratch=folder)
    encode(folder, texts, chunk=chunk, progress=report)
    check_not_empty(source, counts)
    dropped.write(folder / DROPPED)
    return counts
