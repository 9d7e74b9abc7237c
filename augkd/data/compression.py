"""Text files as streams of characters, plain or compressed (.gz, .zst).

Bytes that are not in the file's encoding are read as lone surrogates: labelled data refuses them, a corpus replaces and
counts them. In UTF-16 and UTF-32, where a lost byte garbles all that follows, they end the file. A few kilobytes may
expand to a line of gigabytes, so no more than LONGEST characters are held at once.
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
LONGEST = 1 << 24  # characters of a line, or of a value of JSON
_WHOLE = 1 << 26  # characters of a compressed file that is read whole
_SLICE = 512  # compressed bytes at once: a block of zstd, 128 KiB, may take 4 of them
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
    newline = "" if keep_line_ends else None
    whole = _WHOLE if path.name.lower().endswith(PACKED) else None
    return _BoundedText(raw, whole, encoding=name, errors=errors, newline=newline)


def open_bytes(path: Path) -> Any:
    """The bytes of a file, decompressed, as a buffered stream."""
    name = path.name.lower()
    if name.endswith(".gz"):
        return gzip.open(path, "rb")
    if name.endswith(".zst"):
        return io.BufferedReader(_ZstdStream(path.open("rb")))
    return path.open("rb")


class _BoundedText(io.TextIOWrapper):
    """A text stream that ends in an error, and not in gigabytes, where a line or a piece is too long."""

    def __init__(self, raw: Any, whole: int | None, **options: Any) -> None:
        super().__init__(raw, **options)
        self._most = whole  # characters that `read` gives at once; None: all

    def __next__(self) -> str:  # type: ignore[override]
        line = self.readline()
        if not line:
            raise StopIteration
        return line

    def readline(self, size: int = -1) -> str:  # type: ignore[override]
        line = super().readline(LONGEST + 1 if size < 0 else size)
        if len(line) > LONGEST:
            raise OSError(f"a line of more than {LONGEST:,} characters")
        return line

    def read(self, size: int | None = -1) -> str:
        if size is not None and size > LONGEST:
            raise OSError(f"a value of more than {LONGEST:,} characters")
        if self._most is None or (size is not None and size >= 0):
            return super().read(size)
        text = super().read(self._most + 1)
        if len(text) > self._most:
            raise OSError(f"an object of more than {self._most:,} characters")
        return text


class _ZstdStream(io.RawIOBase):
    """Decompressed bytes; zstandard's own reader accepts a truncated file as complete, this one raises EOFError."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._ready = b""
        self._rest = b""  # compressed bytes that are still to be read
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
        self._rest = self._rest or self._source.read(1 << 14)
        data, self._rest = self._rest[:_SLICE], self._rest[_SLICE:]
        if not data:
            if self._frame is not None:
                raise EOFError("compressed file ended before the end of its frame")
            return False
        self._frame = self._frame or zstandard.ZstdDecompressor().decompressobj()
        self._ready = self._frame.decompress(data)
        self._rest = self._frame.unused_data + self._rest
        if self._frame.eof:
            self._frame = None
        return True

    def close(self) -> None:
        self._source.close()
        super().close()
