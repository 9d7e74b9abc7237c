"""The texts of an index: numbered from 0, in Arrow parts that are mapped into memory and read in place.

A part is written whole and renamed. The number of a text is its row over all parts, which is also its FAISS id.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from augkd.errors import IndexFolderError, shown
from augkd.workspace import replacing

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SCHEMA = pa.schema([("text", pa.string())])


def text_path(folder: Path, part: int) -> Path:
    """Where part number `part` of the index in `folder` lies."""
    return folder / "texts" / f"part-{part:05d}.arrow"


def write_texts(folder: Path, part: int, texts: Sequence[str]) -> None:
    """Writes one part, whole or not at all."""
    table = pa.table([pa.array(texts, pa.string())], schema=_SCHEMA)
    with (
        replacing(text_path(folder, part)) as path,
        pa.OSFile(str(path), "wb") as sink,
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


def drop_texts_from(folder: Path, part: int) -> None:
    """Removes this part and all after it: left by an unfinished build of a corpus that has since shrunk."""
    while text_path(folder, part).exists():
        text_path(folder, part).unlink()
        part += 1


@dataclass(frozen=True, eq=False)
class TextStore:
    """All texts of an index folder, read-only; make one with `TextStore.open`."""

    folder: Path
    _parts: tuple[Any, ...]  # pyarrow string arrays
    _starts: NDArray[np.int64]  # (parts + 1,) first id of each part, then the count

    @classmethod
    def open(cls, folder: Path) -> TextStore:
        """Maps every part of the index in `folder`; no text is read yet."""
        parts = tuple(read_texts(path) for path in sorted((folder / "texts").glob("part-*.arrow")))
        return cls(folder, parts, np.cumsum([0, *map(len, parts)], dtype=np.int64))

    def __len__(self) -> int:
        return int(self._starts[-1])

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
