"""The index of a run: named by its folder, or built from an index recipe."""

from __future__ import annotations

import time
from functools import cached_property

from augkd.recipe import dump
from augkd.retrieval.build import build_index
from augkd.retrieval.engines.ray_search import on_cluster
from augkd.retrieval.open import open_index
from augkd.retrieval.retriever import Retriever
from augkd.runs.context import RunContext
from augkd.workspace.fingerprints import fingerprint
from augkd.workspace.locks import claimed


class IndexStage:
    """Built or opened when it is first asked for, and kept."""

    def __init__(self, context: RunContext):
        """`context.recipe.data.neighbours` may be missing; then nothing may be asked for."""
        self._context = context
        self.seconds = 0.0  # what building it took; next to nothing when it was finished

    @cached_property
    def retriever(self) -> Retriever:
        """The index; its encoder is loaded by the first search."""
        neighbours = self._context.recipe.data.neighbours
        assert neighbours is not None
        cluster = self._context.cluster
        if isinstance(neighbours.index, str):
            index = open_index(neighbours.index, self._context.progress)
            return index if cluster is None else on_cluster(index, cluster)
        folder = self._context.folders.of("index", fingerprint(dump(neighbours.index)))
        started = time.perf_counter()
        with claimed(folder):
            builders = cluster if neighbours.index.encoder.kind != "lexical" else None
            index = build_index(neighbours.index, folder, self._context.progress, cluster=builders)
        self.seconds = time.perf_counter() - started
        return index if cluster is None else on_cluster(index, cluster)
