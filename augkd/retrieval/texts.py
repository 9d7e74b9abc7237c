"""The texts of an index: numbered from 0, in Arrow parts that are memory-mapped and read in place.

A part is written under a temporary name and renamed. The number of a text is its row over all parts, which is also its
FAISS id. The manifest decides which parts count and in which order: while an index is changed, files of its next state
lie beside the present ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from augkd.errors import IndexFolderError, short_repr
from augkd.workspace.files import replacing

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SCHEMA = pa.schema([("text", pa.string())])


def text_path(folder: Path, part: int) -> Path:
    """The file of part number `part` of the index in `folder`."""
    return folder / "texts" / f"part-{part:05d}.arrow"


def write_texts(path: Path, texts: Sequence[str]) -> None:
    """Writes one part, atomically."""
    table = pa.table([pa.array(texts, pa.string())], schema=_SCHEMA)
    with (
        replacing(path) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_file(sink, _SCHEMA) as writer,
    ):
        writer.write_table(table)  # one record batch, uncompressed: it is read in place


def read_texts(path: Path) -> Any:
    """One part, memory-mapped: a pyarrow string array. Raises IndexFolderError if the file does not hold one.

    Arrow follows the offsets in a file without a look at them: they are validated first, and that all is UTF-8.
    """
    texts = _mapped(path)
    _validate(texts, path)
    return texts


def _mapped(path: Path) -> Any:
    """One part that is not validated yet: only its length may be asked for."""
    try:
        column = pa.ipc.open_file(pa.memory_map(str(path))).read_all().column("text")
    except (pa.ArrowException, OSError, KeyError) as exc:
        raise IndexFolderError(f"{path} cannot be read ({short_repr(str(exc))}); build the index again") from exc
    if column.num_chunks != 1 or column.type != pa.string():
        raise IndexFolderError(f"{path} does not hold one column of texts in one batch; build the index again")
    return column.chunk(0)


def _validate(texts: Any, path: Path) -> None:
    try:
        texts.validate(full=True)
    except pa.ArrowException as exc:
        raise IndexFolderError(f"{path} is damaged ({short_repr(str(exc))}); build the index again") from exc
    if texts.null_count:
        raise IndexFolderError(f"{path} has rows without a text; build the index again")


def text_paths(folder: Path) -> list[Path]:
    """All parts in `folder`, in order of their number (by name, part 100000 would come before 99999)."""
    return sorted((folder / "texts").glob("part-*.arrow"), key=lambda path: (part_number(path), path.name))


def part_number(path: Path) -> int:
    """The number in a part's file name."""
    return int(path.stem.split("-")[1])


def drop_texts_from(folder: Path, part: int) -> None:
    """Removes this part and all after it, left by an unfinished build of a corpus that has become smaller."""
    for path in text_paths(folder):
        if part_number(path) >= part:
            path.unlink()


@dataclass(frozen=True, eq=False)
class TextStore:
    """All texts of an index folder, read-only; make one with `TextStore.open`."""

    folder: Path
    _paths: tuple[Path, ...]
    _parts: tuple[Any, ...]  # pyarrow string arrays
    _starts: NDArray[np.int64]  # (parts + 1,) first id of each part, then the number of texts
    _validated: set[int] = field(default_factory=set)

    @classmethod
    def open(cls, folder: Path, names: Iterable[str] | None = None) -> TextStore:
        """Maps the parts `names` of the index in `folder`, in this order (None: all); no text is read yet.

        The caller has compared their checksums; a part is validated before its first text is read.
        """
        paths = text_paths(folder) if names is None else [folder / "texts" / name for name in names]
        parts = tuple(_mapped(path) for path in paths)
        return cls(folder, tuple(paths), parts, np.cumsum([0, *map(len, parts)], dtype=np.int64))

    def __len__(self) -> int:
        return int(self._starts[-1])

    def parts(self) -> Iterator[list[str]]:
        """The texts, one part at a time, in order."""
        for number in range(len(self._parts)):
            yield self._part(number).to_pylist()

    def texts(self, ids: Sequence[int] | NDArray[np.int64]) -> list[str]:
        """The texts with these ids, in their order; raises IndexError for an id that does not exist."""
        wanted = np.asarray(ids, dtype=np.int64)
        if len(wanted) and (wanted.min() < 0 or wanted.max() >= len(self)):
            raise IndexError(
                f"text ids {wanted.min()}..{wanted.max()} are outside index {self.folder} (0..{len(self) - 1})"
            )
        part_of = np.searchsorted(self._starts, wanted, side="right") - 1
        texts = np.empty(len(wanted), dtype=object)
        for part in np.unique(part_of):
            rows = np.flatnonzero(part_of == part)
            texts[rows] = self._part(int(part)).take(pa.array(wanted[rows] - self._starts[part])).to_pylist()
        return texts.tolist()

    def _part(self, number: int) -> Any:
        """A part, validated once."""
        if number not in self._validated:
            _validate(self._parts[number], self._paths[number])
            self._validated.add(number)
        return self._parts[number]
