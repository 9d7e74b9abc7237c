"""Text files as UTF-8 streams, plain or compressed (.gz, .zst).

Bytes that are not UTF-8 are read as lone surrogates: labelled data refuses them, a corpus replaces and counts them.
"""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import zstandard

PACKED = (".gz", ".zst")


def open_text(path: Path, *, keep_line_ends: bool = False) -> TextIO:
    """UTF-8 text with or without a byte order mark; `keep_line_ends` leaves \\r\\n as it is, for CSV."""
    name = path.name.lower()
    raw: Any
    if name.endswith(".gz"):
        raw = gzip.open(path, "rb")  # noqa: SIM115 - closed with the text stream
    elif name.endswith(".zst"):
        raw = io.BufferedReader(_ZstdStream(path.open("rb")))
    else:
        raw = path.open("rb")
    newline = "" if keep_line_ends else None
    return io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape", newline=newline)


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
