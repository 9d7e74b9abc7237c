"""Text files as streams of characters, plain or compressed (.gz, .zst).

Bytes that are not in the file's encoding are read as lone surrogates: labelled data refuses them, a corpus replaces and
counts them. In UTF-16 and UTF-32, where a lost byte garbles all that follows, they end the file.
"""

from __future__ import annotations

import codecs
import gzip
import io
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import zstandard

from augkd.data.reading import encoding_of

PACKED = (".gz", ".zst")
_PEEKED = 4096  # bytes that show an encoding


def open_text(path: Path, *, encoding: str | None = None, keep_line_ends: bool = False) -> TextIO:
    """The text of a file in `encoding`, None: in the one that its first bytes show; without a byte order mark.

    `keep_line_ends` leaves \\r\\n as it is, for CSV.
    """
    raw = open_bytes(path)
    try:
        name = encoding_of(raw.peek(_PEEKED), encoding)
    except BaseException:
        raw.close()
        raise
    errors = "strict" if codecs.lookup(name).name.startswith(("utf-16", "utf-32")) else "surrogateescape"
    return io.TextIOWrapper(raw, encoding=name, errors=errors, newline="" if keep_line_ends else None)


def open_bytes(path: Path) -> Any:
    """The bytes of a file, decompressed, as a buffered stream."""
    name = path.name.lower()
    if name.endswith(".gz"):
        return gzip.open(path, "rb")
    if name.endswith(".zst"):
        return io.BufferedReader(_ZstdStream(path.open("rb")))
    return path.open("rb")


class _ZstdStream(io.RawIOBase):
    """Decompressed bytes; zstandard's own reader accepts a truncated file as complete, this one raises EOFError."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._ready = b""
        self._rest = b""  # compressed bytes after the end of a frame: the next frame
        self._frame: Any = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready and self._fill():
            pass
        size = min(len(buffer), len(self._ready))
        buffer[:size], self._ready = self._ready[:size], self._ready[size:]
        return size

    def _fill(self) -> bool:
        data = self._rest or self._source.read(1 << 14)
        if not data:
            if self._frame is not None:
                raise EOFError("compressed file ended before the end of its frame")
            return False
        self._frame = self._frame or zstandard.ZstdDecompressor().decompressobj()
        self._ready = self._frame.decompress(data)
        self._rest = self._frame.unused_data
        if self._frame.eof:
            self._frame = None
        return True

    def close(self) -> None:
        self._source.close()
        super().close()
