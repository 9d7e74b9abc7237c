"""The texts of an index: numbered from 0, in Arrow parts that are mapped into memory and read in place.

A part is written whole and renamed. The number of a text is its row over all parts, which is also its FAISS id. Which
parts count, and their order, is the manifest's word: an index that is being changed has files of its next state beside.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import xxhash

from augkd.errors import IndexFolderError, shown
from augkd.workspace.files import replacing

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SCHEMA = pa.schema([("text", pa.string())])


def text_path(folder: Path, part: int) -> Path:
    """Where part number `part` of the index in `folder` lies."""
    return folder / "texts" / f"part-{part:05d}.arrow"


def write_texts(path: Path, texts: Sequence[str]) -> None:
    """Writes one part, whole or not at all."""
    table = pa.table([pa.array(texts, pa.string())], schema=_SCHEMA)
    with (
        replacing(path) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_file(sink, _SCHEMA) as writer,
    ):
        writer.write_table(table)  # one record batch, uncompressed: it is read in place


def read_texts(path: Path) -> Any:
    """One part, memory-mapped: a pyarrow string array. Raises IndexFolderError for a file that is not one."""
    try:
        column = pa.ipc.open_file(pa.memory_map(str(path))).read_all().column("text")
    except (pa.ArrowException, OSError, KeyError) as exc:
        raise IndexFolderError(f"{path} cannot be read ({shown(str(exc))}); build the index again") from exc
    return column.chunk(0)


def text_paths(folder: Path) -> list[Path]:
    """The parts there are, in order of their number (by name, part 100000 would come before 99999)."""
    return sorted((folder / "texts").glob("part-*.arrow"), key=lambda path: (int(path.stem.split("-")[1]), path.name))


def drop_texts_from(folder: Path, part: int) -> None:
    """Removes this part and all after it: left by an unfinished build of a corpus that has since shrunk."""
    for path in text_paths(folder):
        if int(path.stem.split("-")[1]) >= part:
            path.unlink()


def checksum(path: Path) -> str:
    """xxh3 (64 bits, hex) of a file's bytes: finds damage, at 10 times the speed of sha256; no guard against malice."""
    digest = xxhash.xxh3_64()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class TextStore:
    """All texts of an index folder, read-only; make one with `TextStore.open`."""

    folder: Path
    _parts: tuple[Any, ...]  # pyarrow string arrays
    _starts: NDArray[np.int64]  # (parts + 1,) first id of each part, then the count

    @classmethod
    def open(cls, folder: Path, names: Iterable[str] | None = None) -> TextStore:
        """Maps the parts `names` of the index in `folder`, in their order (None: all); no text is read yet."""
        paths = text_paths(folder) if names is None else [folder / "texts" / name for name in names]
        parts = tuple(read_texts(path) for path in paths)
        return cls(folder, parts, np.cumsum([0, *map(len, parts)], dtype=np.int64))

    def __len__(self) -> int:
        return int(self._starts[-1])

    def parts(self) -> Iterator[list[str]]:
        """The texts, one part at a time, in order."""
        for part in self._parts:
            yield part.to_pylist()

    def texts(self, ids: Sequence[int] | NDArray[np.int64]) -> list[str]:
        """The texts with these ids, in their order; raises IndexError for an id that is not there."""
        wanted = np.asarray(ids, dtype=np.int64)
        if len(wanted) and (wanted.min() < 0 or wanted.max() >= len(self)):
            raise IndexError(
                f"text ids {wanted.min()}..{wanted.max()} are outside index {self.folder} (0..{len(self) - 1})"
            )
        part_of = np.searchsorted(self._starts, wanted, side="right") - 1
        found = np.empty(len(wanted), dtype=object)
        for part in np.unique(part_of):
            rows = np.flatnonzero(part_of == part)
            found[rows] = self._parts[part].take(pa.array(wanted[rows] - self._starts[part])).to_pylist()
        return found.tolist()
