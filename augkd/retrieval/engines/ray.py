"""Encodes the corpus of a dense index on a Ray cluster; everything else happens here, as in a build on one machine.

The corpus is read here, once and in order: what is a duplicate depends on all that came before. Its chunks are those of
a build on one machine and reach a worker whole, since a model's vectors depend, by rounding, on what else is in a
batch; so the index comes out with the same bytes. Chunks go to actors of ours and not through Ray Data's `map_batches`,
whose blocks are split and joined on the way and which has no notion of parts that lie on disk from before a kill.
Vectors come back as float16, what the spool keeps, and are written here under the number of their chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from augkd.models.cluster import Cluster
from augkd.models.locate import locate
from augkd.models.shipped_files import ShippedFolder
from augkd.retrieval.encoders.sentence_model import device_for, resolve_precision
from augkd.retrieval.spool import CHUNK, Chunk, chunks, stored, write_part
from augkd.workspace.folders import CACHE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from augkd.retrieval.encoders.encoder import IndexEncoder


@dataclass(frozen=True)
class ShippedEncoder:
    """An encoder that workers make from the same files as it was made from here."""

    model: ShippedFolder
    precision: str  # resolved here: a worker with other hardware must not choose another
    threads: int

    @classmethod
    def of(cls, cluster: Cluster, options: Mapping[str, Any]) -> ShippedEncoder:
        """The encoder of the `encoder` table of a recipe."""
        given = options.get("precision") or "auto"
        model = cluster.ship_model(locate(options["model"]))
        return cls(model, resolve_precision(given, device_for(given)), cluster.threads)

    def load(self, options: Mapping[str, Any], cache: Path) -> IndexEncoder:
        """The encoder on a worker; `cache` is that of the index, with what was made for its encoder."""
        import torch

        from augkd.retrieval.encoders.make import make_encoder, options_of

        torch.set_num_threads(self.threads)
        own = {name: options[name] for name in options_of(options["kind"]) if name in options}
        here = {"model": str(self.model.open()), "precision": self.precision, "workers": self.threads}
        return make_encoder({"kind": options["kind"], **own, **{k: v for k, v in here.items() if k in own}}, cache)


def encode_on(
    cluster: Cluster,
    options: Mapping[str, Any],  # the encoder table of the index's recipe
) -> Callable[..., int]:
    """`spool.encode_parts` on a cluster: the same parameters, the same bytes."""

    def encode_parts(
        folder: Path,
        texts: Iterable[str],
        encoder: IndexEncoder,
        *,
        chunk: int = CHUNK,
        progress: Callable[[int], None] | None = None,
    ) -> int:
        shipped = ShippedEncoder.of(cluster, options)
        cache = cluster.ship(folder / CACHE)
        pool = cluster.pool(make_encode, shipped, dict(options), cache, encoder.fingerprint)
        count = 0

        def done(texts: int) -> None:
            nonlocal count
            count += texts
            if progress is not None:
                progress(count)

        def unfinished() -> Iterator[tuple[Chunk, list[str]]]:
            for part in chunks(folder, texts, chunk):
                if part.done:
                    done(len(part.texts))
                else:
                    yield part, part.texts

        for part, vectors in pool.map(unfinished()):
            write_part(folder, part, vectors)
            done(len(part.texts))
        cluster.rest()  # FAISS may want that memory
        return count

    return encode_parts


def make_encode(
    shipped: ShippedEncoder, options: Mapping[str, Any], cache: ShippedFolder, fingerprint: str
) -> Callable[[list[str]], NDArray[np.float16]]:
    """On a worker: a function from the texts of a chunk to their vectors."""
    from augkd.errors import ModelError

    encoder = shipped.load(options, cache.open())
    if encoder.fingerprint != fingerprint:
        raise ModelError(
            f"encoder '{options['model']}' is another one on a worker than here: its hardware computes with other "
            "numbers; set encoder.precision"
        )
    _ = encoder.dim  # loads the model: a damaged one shows before any text is sent

    def encode(texts: list[str]) -> NDArray[np.float16]:
        return stored(encoder.encode(texts), texts)

    return encode
