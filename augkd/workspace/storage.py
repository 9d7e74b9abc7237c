"""Files in object storage: which URLs are read, and what lies there. Nothing is written to storage, and nothing kept.

The client libraries are fsspec's. Their errors become one line here, and no credential reaches a message: a URL that
holds one is rejected, and the addresses in other libraries' messages lose their queries.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from augkd.errors import AugkdError, StorageError, first_line, short_repr

_SCHEMES = ("s3", "gs", "hf", "memory")  # the last one is of this process alone, for tests
_EXTRAS = {"s3": ("s3fs", "s3"), "gs": ("gcsfs", "gcs")}  # the package that reads it, and augkd's extra that brings it
BUCKETS = ("s3://", "gs://", "memory://")
SCHEMES = "s3://, gs:// or hf://"
_CREDENTIALS = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; FSSPEC_S3_ANON=true for a public bucket",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS; FSSPEC_GS_TOKEN=anon for a public bucket",
    "hf": "log in with `hf auth login`, or set HF_TOKEN",
}
_SHORTENED = re.compile(r"([a-z][a-z0-9]*):")  # the first part of a path that was a URL before it was normalised
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)(?:[^\s/@'\"]*@)?([^\s?'\"]*)(\?[^\s'\"]*)?")
# What tells two states of an object apart: its checksum where the storage has one, else when it was written.
_STATES = (
    *("ETag", "etag", "md5Hash", "crc32c", "blob_id", "generation"),
    *("LastModified", "updated", "mtime", "last_modified", "modified", "created"),
)
_BLOCK = 16 * 2**20  # bytes of one request


def url_of(place: str | Path) -> str | None:
    """The URL that `place` is, without a slash at its end; None for a path or a name on the Hub.

    A URL that went through `Path`, which makes `s3:/` of `s3://`, is recognised. Raises StorageError for a scheme that
    augkd does not read, and for a URL with credentials, a query or a part that is no name.
    """
    text = str(place)
    if isinstance(place, Path):
        shortened = _SHORTENED.fullmatch(place.parts[0]) if place.parts else None
        if shortened is None or shortened[1] not in _SCHEMES or len(place.parts) < 2:
            return None
        text = f"{shortened[1]}://{'/'.join(place.parts[1:])}"
    scheme, separator, _ = text.partition("://")
    return _checked(text, scheme.lower()) if separator else None


def _checked(url: str, scheme: str) -> str:
    """`url` in one form; raises StorageError, which shows no credential, for one that is not read."""
    shown = without_credentials(url)
    if "::" in url or scheme not in _SCHEMES:
        raise StorageError(
            f"{short_repr(shown, 200)} is not in a storage that augkd reads; give {SCHEMES}, or copy it here"
        )
    host = url.split("://", 1)[1].split("/")[0]
    if "@" in unquote(host) or "?" in url or "#" in url:
        advice = _CREDENTIALS.get(scheme, "leave them out")
        raise StorageError(
            f"{shown} holds credentials or a query, which would be recorded; give the plain URL and {advice}"
        )
    parts = url.split("://", 1)[1].rstrip("/").split("/")
    if any(part in ("", ".", "..") or not part.isprintable() for part in parts):
        raise StorageError(f"{short_repr(shown, 200)} has an empty part, or one of dots; write its address in full")
    return f"{scheme}://{'/'.join(parts)}"


def without_credentials(text: str) -> str:
    """`text` whose URLs have neither user and password nor a query, which may hold a signature."""
    return _ADDRESS.sub(lambda found: found[1] + found[2], text)


def refuse_url(place: Path) -> Path:
    """`place`, a folder to write; raises StorageError for a URL."""
    if (url := url_of(place)) is not None:
        raise StorageError(
            f"{url} cannot be written: augkd writes on a disk; give a folder here, and copy it when finished"
        )
    return place


@dataclass(frozen=True)
class StoredFile:
    """An object below a URL."""

    name: str  # its path below the URL, with /; of a URL that is a file itself, the last part of that
    bytes: int
    state: str  # changes whenever the object is written again


@dataclass(frozen=True)
class Storage:
    """What lies at a URL; make one with `Storage.at`."""

    url: str
    _client: Any  # an fsspec file system
    _root: str  # the URL as the client writes it

    @classmethod
    def at(cls, url: str) -> Storage:
        """Connects to where `url`, from `url_of`, lies; raises StorageError without the package that it takes."""
        with _reading(url):
            client, root = _client_of(url)
            client.invalidate_cache()  # a long-lived process sees what was written since
        return cls(url, client, str(root).rstrip("/"))

    @property
    def name(self) -> str:
        """The last part of the URL."""
        return self.url.rsplit("/", 1)[-1]

    def files(self, below: str = "") -> list[StoredFile]:
        """The objects at the URL, or below the folder `below` of it, in name order; none where nothing is there."""
        root = f"{self._root}/{below}" if below else self._root
        with _reading(self.url):
            try:
                found = self._client.find(root, detail=True)
            except FileNotFoundError:
                return []
        files = [self._file(path, info) for path, info in found.items() if not path.endswith("/")]
        return sorted((file for file in files if file is not None), key=lambda file: file.name)

    def is_file(self, files: list[StoredFile]) -> bool:
        """Whether the URL, which has these `files`, is an object and no folder."""
        return len(files) == 1 and files[0].name == self.name and not self._client.isdir(self._root)

    def read(self, name: str, most: int) -> bytes | None:
        """The bytes of a small object below the URL, None where there is none; StorageError beyond `most` bytes."""
        with _reading(f"{self.url}/{name}"):
            try:
                with self._client.open(f"{self._root}/{name}", "rb") as stream:
                    content: bytes = stream.read(most + 1)
            except FileNotFoundError:
                return None
        if len(content) > most:
            raise StorageError(f"{self.url}/{name} has more than {most:,} bytes; it is no file of augkd")
        return content

    @contextlib.contextmanager
    def opened(self, name: str | None) -> Iterator[Any]:
        """An object as a stream of bytes that can seek; None: the URL itself."""
        path, url = (self._root, self.url) if name is None else (f"{self._root}/{name}", f"{self.url}/{name}")
        with _reading(url), self._client.open(path, "rb", block_size=_BLOCK) as stream:
            yield stream

    def blocks(self, name: str | None) -> Iterator[bytes]:
        """The bytes of an object, a request at a time; None: the URL itself."""
        with self.opened(name) as stream:
            while block := stream.read(_BLOCK):
                yield block

    def _file(self, path: str, info: dict[str, Any]) -> StoredFile | None:
        if path != self._root and not path.startswith(f"{self._root}/"):
            return None  # storage has no folders: `find` may match the beginning of another name
        name = path[len(self._root) + 1 :] or self.name
        state = next((f"{key} {info[key]}" for key in _STATES if info.get(key) is not None), None)
        if state is None:
            raise StorageError(f"{self.url}: the storage states neither a checksum nor a time for {name}; copy it here")
        return StoredFile(name, int(info["size"]), state)


def _client_of(url: str) -> tuple[Any, str]:
    import fsspec  # 0.1 s to import, and the clients take up to a second

    scheme = urlsplit(url).scheme
    try:
        client, root = fsspec.core.url_to_fs(url)
    except ImportError:
        if scheme not in _EXTRAS:
            raise
        package, extra = _EXTRAS[scheme]
        raise StorageError(f"{url} needs the package {package}: pip install 'augkd[{extra}]'") from None
    return client, root


@contextlib.contextmanager
def _reading(url: str) -> Iterator[None]:
    """Raises StorageError, in one line and without credentials, for whatever a client raises."""
    try:
        yield
    except AugkdError:
        raise
    except FileNotFoundError:
        raise StorageError(f"{url} does not exist; correct the address") from None
    except Exception as exc:  # botocore, aiohttp, google and the Hub have their own, and some raise OSError
        reason = without_credentials(first_line(exc))
        advice = "check the address and the connection, and run again"
        if isinstance(exc, PermissionError) or "credential" in reason.lower():
            advice = _CREDENTIALS.get(urlsplit(url).scheme, advice)
        raise StorageError(f"{url} cannot be read ({reason}); {advice}") from exc
