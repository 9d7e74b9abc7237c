"""The spool: the encoded corpus before it goes into FAISS, in chunks of a fixed size.

Each chunk is a part of the index's texts, which stays, and a part of vectors, which is deleted after the build. Chunk
borders never move, so a resumed or sharded build skips finished chunks and ends with the same bytes. Vectors are stored
as float16 (2 bytes per dimension) and read one part at a time.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import faiss
import numpy as np
import pyarrow as pa

from augkd.errors import IndexFolderError, ModelError, WorkspaceError, short_repr
from augkd.retrieval.texts import drop_texts_from, read_texts, text_path, write_texts
from augkd.workspace.checksums import check
from augkd.workspace.chunk_log import Entries, record_chunk, recorded_chunks
from augkd.workspace.files import replacing

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from augkd.retrieval.encoders.encoder import IndexEncoder

CHUNK = 16_384  # texts that are encoded, written and counted as done together


@dataclass(frozen=True)
class Spool:
    """Vector parts of `chunk` rows each; the last may be shorter."""

    folder: Path
    paths: tuple[Path, ...]
    chunk: int
    count: int
    dim: int
    recorded: Entries  # of both files of every chunk

    def load(self, part: int) -> NDArray[np.float32]:  # (rows, dim), unit rows
        """One part; raises IndexFolderError when the file is damaged."""
        path = self.paths[part]
        _check(self.folder, path, self.recorded)
        rows = min(self.chunk, self.count - part * self.chunk)
        try:
            stored = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as exc:
            raise IndexFolderError(f"{path} cannot be read ({exc}); remove it and run again") from exc
        if stored.shape != (rows, self.dim):
            raise IndexFolderError(f"{path} holds {stored.shape}, not {(rows, self.dim)}; remove it and run again")
        vectors: NDArray[np.float32] = stored.astype(np.float32)
        faiss.normalize_L2(vectors)  # float16 changes their length by up to 5e-4
        return vectors

    def parts(self) -> Iterator[NDArray[np.float32]]:  # each (rows, dim), unit rows
        """All parts, in order."""
        return map(self.load, range(len(self.paths)))

    def take(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:  # (len(ids), dim); ids ascending
        """The vectors with these ids."""
        borders = np.searchsorted(ids, np.arange(len(self.paths) + 1) * self.chunk)
        taken = np.empty((len(ids), self.dim), dtype=np.float32)
        for part, (start, stop) in enumerate(itertools.pairwise(borders)):
            if start < stop:
                taken[start:stop] = self.load(part)[ids[start:stop] - part * self.chunk]
        return taken


def vectors_path(folder: Path, part: int) -> Path:
    """The file with the vectors of part number `part`."""
    return folder / "build" / f"vectors-{part:05d}.npy"


def open_spool(folder: Path, count: int, dim: int, chunk: int) -> Spool:
    """The complete spool in `folder`."""
    paths = tuple(vectors_path(folder, part) for part in range(-(-count // chunk)))
    return Spool(folder, paths, chunk, count, dim, recorded_chunks(folder))


def recorded_files(folder: Path, paths: Iterable[Path]) -> Entries:
    """The checksums of these files of the spool in `folder`, as they were written.

    Raises IndexFolderError for a file that is damaged by now.
    """
    recorded, entries = recorded_chunks(folder), {}
    for path in paths:
        _check(folder, path, recorded)
        name = path.relative_to(folder).as_posix()
        entries[name] = recorded[name]
    return entries


def _check(folder: Path, path: Path, recorded: Entries) -> None:
    name = path.relative_to(folder).as_posix()
    try:
        check(folder, {name: recorded[name]}, [name], f"remove {path} and run the same command")
    except KeyError:
        raise IndexFolderError(f"{path} is not recorded as complete; run the same command") from None
    except WorkspaceError as exc:
        raise IndexFolderError(str(exc)) from exc


@dataclass(frozen=True)
class Chunk:
    """Texts that become one part of the spool."""

    number: int
    texts: list[str]
    done: bool  # on disk already


def chunks(folder: Path, texts: Iterable[str], size: int) -> Iterator[Chunk]:
    """The chunks of a corpus, with what an unfinished build left of them; parts beyond the last one are removed.

    The stream is always read from its start, since the counts depend on all of it.
    """
    recorded, number = recorded_chunks(folder), 0
    for part in _cut(texts, size):
        yield Chunk(number, part, _is_done(folder, number, part, recorded))
        number += 1
    drop_texts_from(folder, number)


def encode_parts(
    folder: Path,
    texts: Iterable[str],
    encoder: IndexEncoder,
    *,
    chunk: int = CHUNK,
    shard: tuple[int, int] = (1, 1),
    progress: Callable[[int], None] | None = None,
) -> int:
    """Encodes the chunks of shard i/n (those with number % n == i - 1) that are not on disk yet; the number of texts.

    `progress` gets the texts so far.
    """
    count = 0
    for part in chunks(folder, texts, chunk):
        if part.number % shard[1] == shard[0] - 1 and not part.done:
            write_part(folder, part, stored(encoder.encode(part.texts), part.texts))
        count += len(part.texts)
        if progress is not None:
            progress(count)
    return count


def stored(vectors: NDArray[np.float32], texts: Sequence[str]) -> NDArray[np.float16]:  # (texts, dim)
    """An encoder's vectors as the spool keeps them.

    Raises ModelError where one is not finite: FAISS would take it, and find it for any query.
    """
    bad = ~np.isfinite(vectors).all(axis=1)
    if bad.any():
        raise ModelError(
            f"the encoder's vectors are not finite for {bad.sum()} of {len(texts)} texts, first "
            f"{short_repr(texts[int(bad.argmax())])}; its weights are damaged or its training diverged"
        )
    return vectors.astype(np.float16)


def write_part(folder: Path, part: Chunk, vectors: NDArray[np.float16]) -> None:  # (texts, dim)
    """Writes texts and vectors of a chunk, then records it as complete; parts may come in any order."""
    write_texts(text_path(folder, part.number), part.texts)
    with replacing(vectors_path(folder, part.number)) as path, path.open("wb") as stream:
        np.save(stream, vectors, allow_pickle=False)
    record_chunk(folder, [text_path(folder, part.number), vectors_path(folder, part.number)])


def _cut(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    stream = iter(texts)
    while part := list(itertools.islice(stream, size)):
        yield part


def _is_done(folder: Path, part: int, texts: list[str], recorded: Entries) -> bool:
    """Whether the chunk is complete on disk; raises IndexFolderError when a file of it is damaged."""
    paths = (text_path(folder, part), vectors_path(folder, part))
    for path in paths:
        if not path.exists() or path.relative_to(folder).as_posix() not in recorded:
            return False
    for path in paths:
        _check(folder, path, recorded)
    return bool(read_texts(paths[0]).equals(pa.array(texts, pa.string())))
