"""What was read from storage, kept on this machine: finished artefacts and data files, each state of them once.

A URL is asked at every use; where its manifest, or the list of its files, is another one, its files are downloaded to
another folder. A folder is complete when its last file is there: `manifest.json`, or for data `copy.json`. Downloads
are written under temporary names, compared with the checksums that the manifest states, and renamed; what is there
already is not downloaded again.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import xxhash

from augkd.errors import AugkdError, StorageError, WorkspaceError
from augkd.workspace.checksums import check, damage, read_signed, table_of, write_signed
from augkd.workspace.disk import check_room
from augkd.workspace.files import replacing, sweep
from augkd.workspace.fingerprints import fingerprint
from augkd.workspace.folders import CACHE
from augkd.workspace.locks import claimed
from augkd.workspace.manifest_kinds import Listing
from augkd.workspace.manifests import MANIFEST, describe_kind, kind_of, parse_manifest, read_any
from augkd.workspace.names import path_name, user_path
from augkd.workspace.progress import Progress, Steps, silent
from augkd.workspace.storage import Storage, url_of

COPY = "copy.json"  # beside copied data files: their sizes and checksums, written last
_AT_ONCE = 8  # downloads in parallel: an index of many texts is many small files
_LONGEST_MANIFEST = 2**30  # bytes; of 5·10⁹ texts, 305,000 parts of 90 bytes each
_NESTED = re.compile(rf"{re.escape(CACHE)}/([^/]+)/{MANIFEST}")  # an encoder that is kept beside an index
_MEGABYTE = 1_000_000


def cache_folder() -> Path:
    """Where copies are kept: AUGKD_CACHE, else `augkd` in XDG_CACHE_HOME, else ~/.cache/augkd."""
    if own := os.environ.get("AUGKD_CACHE"):
        return user_path(own)
    return user_path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "augkd"


# ---- finished artefacts ----


def artefact_here(place: str | Path, kind: str | None = None, progress: Progress = silent) -> Path:
    """The folder of an artefact on this machine: `place`, or of a URL its copy, which is made if there is none.

    Raises StorageError where the URL has no finished artefact, one of another kind than `kind`, or a file that is not
    what the manifest says; WorkspaceError where the disk has too little room.
    """
    url = url_of(place)
    if url is None:
        return user_path(str(place))
    storage = Storage.at(url)
    manifests = _manifests(storage)
    state = [xxhash.xxh3_128_hexdigest(content) for content in manifests.values()]
    copy = _folder_of(url, state) / _safe(storage.name, url)
    with claimed(copy, of_machine=True):
        if not (copy / MANIFEST).exists():
            sweep(copy)
            _fetch(storage, _listed(url, manifests, kind), copy, progress)
            for name, content in reversed(manifests.items()):  # the artefact's own is the last
                with replacing(copy / name, len(content)) as temporary:
                    temporary.write_bytes(content)
        elif kind is not None and kind_of(copy) != kind:
            raise _other_kind(url, kind_of(copy), kind)
    return copy


def has_manifest(url: str) -> bool:
    """Whether there is a finished artefact at `url`."""
    return Storage.at(url).read(MANIFEST, _LONGEST_MANIFEST) is not None


@contextmanager
def manifest_here(place: str | Path) -> Iterator[Path]:
    """A folder with the manifest of an artefact; of a URL, nothing else is downloaded. Errors within name the URL."""
    url = url_of(place)
    if url is None:
        yield user_path(str(place))
        return
    content = _manifest(Storage.at(url))
    with TemporaryDirectory() as scratch, _named(url, Path(scratch)):
        (Path(scratch) / MANIFEST).write_bytes(content)
        yield Path(scratch)


def _manifests(storage: Storage) -> dict[str, bytes]:
    """The manifest of the artefact and those of the encoders beside it, by their names."""
    manifests = {MANIFEST: _manifest(storage)}
    for file in storage.files(CACHE):
        if found := _NESTED.fullmatch(file.name):
            name = f"{CACHE}/{path_name(found[1], f'a folder in {storage.url}/{CACHE}')}/{MANIFEST}"
            manifests[name] = storage.read(name, _LONGEST_MANIFEST) or b""
    return manifests


def _manifest(storage: Storage) -> bytes:
    content = storage.read(MANIFEST, _LONGEST_MANIFEST)
    if content is None:
        raise StorageError(f"{storage.url} has no {MANIFEST}: it is no finished artefact of augkd; correct the address")
    return content


def _listed(url: str, manifests: dict[str, bytes], kind: str | None) -> list[_Wanted]:
    """The files that the manifests list; raises StorageError for a manifest that is damaged or of another kind."""
    wanted = []
    for name, content in manifests.items():
        with TemporaryDirectory() as scratch, _named(f"{url}/{name}".removesuffix(f"/{MANIFEST}"), Path(scratch)):
            (Path(scratch) / MANIFEST).write_bytes(content)
            value = read_any(Path(scratch))
            if not isinstance(value, dict) or "checksum" not in value:
                raise StorageError(f"{url}/{name} is not a manifest of augkd; correct the address")
            if name == MANIFEST and kind not in (None, value.get("kind")):
                raise _other_kind(url, value.get("kind"), str(kind))
            files = parse_manifest(Path(scratch), value, Listing).files
        below = name.removesuffix(MANIFEST)
        wanted += [_Wanted(_safe(inner, url), entry.bytes, entry.xxh3, below) for inner, entry in files.items()]
    return wanted


def _other_kind(url: str, actual: object, kind: str) -> StorageError:
    return StorageError(f"{url} holds {describe_kind(actual)}, not augkd's {kind}; give the address of the {kind}")


# ---- data files ----


def data_here(url: str, wanted: Callable[[str], bool], progress: Progress = silent) -> Path | None:
    """The copy of the files below `url`, a folder or a file, whose names are `wanted`; None where there are none.

    Raises StorageError where they change while they are read; WorkspaceError for a copy that was damaged since.
    """
    storage = Storage.at(url)
    there = storage.files()
    files = [file for file in there if wanted(file.name)]
    if not files:
        return None
    single = storage.is_file(there)
    above = _folder_of(url, [[file.name, file.bytes, file.state] for file in files])
    copy = above / _safe(storage.name, url)
    root = above if single else copy
    with claimed(copy, of_machine=True):
        if not (above / COPY).exists():
            sweep(above)
            _fetch(
                storage, [_Wanted(_safe(file.name, url), file.bytes, whole=single) for file in files], root, progress
            )
            if [file for file in Storage.at(url).files() if wanted(file.name)] != files:
                raise StorageError(f"{url} changed while it was copied; run the same command")
            write_signed(above / COPY, {"url": url, "files": table_of(root, [file.name for file in files])})
        remedy = f"remove {above} and run the same command"
        listed = parse_manifest(above, read_signed(above / COPY, remedy), Listing).files
        check(root, {name: entry.on_disk() for name, entry in listed.items()}, remedy=remedy)
    return copy


# ---- downloads ----


@dataclass(frozen=True)
class _Wanted:
    """A file to download."""

    name: str
    bytes: int
    xxh3: str | None = None  # None: nobody states it
    below: str = ""  # the folder that the name is in, with a slash at its end
    whole: bool = False  # the URL is the file itself

    @property
    def path(self) -> str:
        """Its path below the URL, and below the copy."""
        return self.below + self.name


@dataclass
class _Meter:
    """Adds up what is downloaded in several threads, and tells them to stop."""

    report: Steps
    total: int
    done: int = 0
    stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, size: int) -> None:
        """Counts bytes; raises StorageError where another thread has failed."""
        if self.stop.is_set():
            raise StorageError("stopped")
        with self._lock:
            self.done += size
            self.report(-(-self.done // _MEGABYTE), -(-self.total // _MEGABYTE))


def _fetch(storage: Storage, files: list[_Wanted], target: Path, progress: Progress) -> None:
    """Downloads the files that are not in `target` yet, each whole or not at all."""
    missing = [file for file in files if not _is_here(target, file)]
    total = sum(file.bytes for file in missing)
    check_room(target, total, f"a copy of {storage.url} (set AUGKD_CACHE to keep copies elsewhere)")
    meter = _Meter(lambda done, all_: progress(f"download {storage.name} (MB)", done, all_), total)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        downloads = [pool.submit(_download, storage, file, target / file.path, meter) for file in missing]
        try:
            for download in as_completed(downloads):
                download.result()
        except BaseException:
            meter.stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _is_here(target: Path, file: _Wanted) -> bool:
    path = target / file.path
    if file.xxh3 is None:  # it was renamed when it was whole
        return path.is_file() and path.stat().st_size == file.bytes
    return damage(target / file.below, file.name, {"bytes": file.bytes, "xxh3": file.xxh3}) is None


def _download(storage: Storage, file: _Wanted, path: Path, meter: _Meter) -> None:
    where = storage.url if file.whole else f"{storage.url}/{file.path}"
    size, digest = 0, xxhash.xxh3_64()
    with replacing(path, file.bytes) as temporary, temporary.open("wb") as sink:
        for block in storage.blocks(None if file.whole else file.path):
            size += len(block)
            digest.update(block)
            sink.write(block)
            meter.add(len(block))
        if size != file.bytes:
            raise StorageError(
                f"{where} is damaged: it has {size:,} bytes, {file.bytes:,} were written; upload it again"
            )
        if file.xxh3 not in (None, digest.hexdigest()):
            raise StorageError(f"{where} is damaged: its checksum is not the one in the manifest; upload it again")


def _folder_of(url: str, state: object) -> Path:
    """Where the copy of one state of a URL goes."""
    return cache_folder() / "storage" / fingerprint(url)[:12] / fingerprint(state)[:16]


def _safe(name: str, url: str) -> str:
    """`name`, of a file below `url`; raises WorkspaceError for one that would leave the copy."""
    for part in name.split("/"):
        path_name(part, f"a file of {url}")
    return name


@contextmanager
def _named(url: str, folder: Path) -> Iterator[None]:
    """Errors about `folder`, a temporary one, are about `url`."""
    try:
        yield
    except WorkspaceError as exc:
        raise StorageError(f"{_about(url, folder, exc)}") from exc
    except AugkdError as exc:
        raise type(exc)(_about(url, folder, exc)) from exc


def _about(url: str, folder: Path, exc: AugkdError) -> str:
    reason = str(exc).replace(str(folder), url).split("; ")[0]
    return f"{reason}; upload it again, or correct the address"
