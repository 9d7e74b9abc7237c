"""What every build of a dense index has in common, whichever engine encodes the corpus: the plan and the finish.

An engine asks `made_from` and `is_finished` whether there is work to do and `check_plan` whether it fits, fills the
spool, and hands over to `finish`, which samples, trains and adds in bounded memory.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from augkd.data.corpus import CorpusCounts, CorpusSource, stream_corpus
from augkd.data.dropped import DROPPED
from augkd.errors import IndexFolderError, RecipeError
from augkd.models.machine import release_memory
from augkd.retrieval.dense.choice import choose, create
from augkd.retrieval.dense.held_out import KEY, RECALL
from augkd.retrieval.dense.size import Option, plan_index
from augkd.retrieval.dense.vectors import VECTORS, make_vectors, vector_files
from augkd.retrieval.manifest import read_dense_manifest
from augkd.retrieval.memory import overhead_of
from augkd.retrieval.spool import CHUNK, Spool, open_spool, recorded_files
from augkd.retrieval.texts import text_path
from augkd.workspace.checksums import Table, table_of
from augkd.workspace.folders import end
from augkd.workspace.manifests import MANIFEST, finished

if TYPE_CHECKING:
    from augkd.retrieval.encoders.encoder import IndexEncoder


@dataclasses.dataclass(frozen=True)
class BuildOptions:
    """The options of a build, apart from corpus and encoder."""

    factory: str = "auto"
    recall: float = 0.95
    memory: int | None = None  # bytes; None: no limit
    seed: int = 0
    chunk: int = CHUNK

    def __post_init__(self) -> None:
        if not 0 < self.recall <= 1:
            raise RecipeError(f"faiss recall is {self.recall}; give a share above 0 and up to 1, like 0.95")
        if self.memory is not None and self.memory < 1:
            raise RecipeError(f"faiss memory is {self.memory} bytes; give more, or leave it out for no limit")


def made_from(source: CorpusSource, encoder: IndexEncoder, options: BuildOptions) -> dict[str, Any]:
    """The fingerprints and options that decide an index's bytes; no model is loaded for them."""
    faiss = dataclasses.asdict(options)
    if options.memory is None:
        del faiss["memory"]
    return {"corpus": source.fingerprint(), "encoder": encoder.fingerprint, "faiss": faiss}


def is_finished(folder: Path, sources: dict[str, Any]) -> bool:
    """Whether `folder` holds this index; raises IndexFolderError rather than let a rebuild lose changes by hand."""
    if finished(folder, "index", sources):
        shutil.rmtree(folder / "build", ignore_errors=True)  # left by a kill right after the manifest
        return True
    if (folder / MANIFEST).exists() and (changes := read_dense_manifest(folder).changes):
        raise IndexFolderError(
            f"{folder} was made from something else and holds {len(changes)} changes (add, remove) that a new build "
            "would lose; choose another folder, or remove this one"
        )
    return False


def check_plan(source: CorpusSource, dim: int, options: BuildOptions, recipe: Mapping[str, Any] | None) -> None:
    """Raises RecipeError, before any text is encoded, for a factory or a memory budget that cannot work."""
    if options.factory != "auto":
        create(dim, options.factory)  # a typo shows before hours of encoding, not after
    if options.memory is None:
        return
    count = source.known_size()
    if count is None:  # reading takes little time beside encoding
        count = sum(1 for _ in stream_corpus(source, CorpusCounts()))
    if count:
        overhead = overhead_of(recipe)
        choose(count, dim, options.factory, recall=options.recall, memory=options.memory, overhead=overhead)


def describe_sources(
    recipe: dict[str, Any] | None, seed: int, encoder: IndexEncoder, counts: CorpusCounts
) -> dict[str, Any]:
    """What the manifest records about recipe, encoder and corpus."""
    name = getattr(encoder, "name", type(encoder).__name__)
    kind = (recipe or {}).get("encoder", {}).get("kind", "sentence")
    prompts = getattr(encoder, "prompts", {})  # of a model that has some, whoever gave them
    corpus = dataclasses.asdict(counts)
    return {"recipe": recipe, "seed": seed, "encoder": {"kind": kind, "model": name, **prompts}, "corpus": corpus}


def finish(folder: Path, sources: dict[str, Any], facts: dict[str, Any], count: int, dim: int) -> None:
    """Builds the FAISS index from the spool in `folder`, then writes the manifest; the spool is deleted last."""
    options = sources["faiss"]
    memory, recall = options.get("memory"), options["recall"]
    overhead = overhead_of(facts["recipe"])
    factory = choose(count, dim, options["factory"], recall=recall, memory=memory, overhead=overhead)
    spool = open_spool(folder, count, dim, options["chunk"])
    release_memory()  # that of the encoder's last chunk: FAISS asks for its own now
    if options["factory"] == "auto":
        plan = plan_index(count, dim, memory, recall, overhead=overhead)
        trials = plan.trials(fine=facts["encoder"]["kind"] == "static")
        vectors = _make_until_reached(folder, spool, trials, recall, options["seed"])
    else:
        vectors = make_vectors(folder, spool, factory, recall, options["seed"])
    texts = recorded_files(folder, [text_path(folder, part) for part in range(len(spool.paths))])
    files = texts | table_of(folder, [*vector_files(vectors), DROPPED])
    end(folder, "index", sources, **facts, **vectors, texts=checksums_of(texts), changes=[], files=files)
    shutil.rmtree(folder / "build")


def checksums_of(entries: Table) -> dict[str, str]:
    """The checksums of parts by file name, in their order."""
    return {Path(name).name: entry["xxh3"] for name, entry in entries.items()}


def _make_until_reached(
    folder: Path, spool: Spool, options: Sequence[Option], recall: float, seed: int
) -> dict[str, Any]:
    """Builds the factories in turn until one reaches `recall` when it is measured; else keeps the best.

    How fine a code must be depends on the vectors: 4 bits for 4 dimensions are enough for a sentence model and too few
    for a static encoder. The best so far is set aside while the next is built. Returns the facts about the vectors
    file, with its planned sizes.
    """
    best, aside = options[0], folder / "build" / "best"
    facts = make_vectors(folder, spool, best.factory, recall, seed)
    for option in options[1:]:
        if facts[RECALL] >= recall:
            break
        _move_vectors(folder, aside)
        trial = make_vectors(folder, spool, option.factory, recall, seed)
        if trial[RECALL] > facts[RECALL]:
            best, facts = option, trial
        else:
            _move_vectors(aside, folder)
    sizes = {"index": best.index_bytes, "build": best.build_bytes, "process": best.process_bytes}
    return facts | {"memory_plan": sizes | {"disk": best.disk_bytes}}


def _move_vectors(source: Path, target: Path) -> None:
    target.mkdir(exist_ok=True)
    for name in (VECTORS, f"{KEY}.safetensors"):
        if (source / name).exists():  # an exact index has no held-out queries
            (source / name).replace(target / name)
