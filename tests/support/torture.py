"""What torture does to a command: it is killed, the disk is full, an input vanishes, a bit flips, two run at once.

A `Case` is a command with its inputs, fresh for each fault. It survives a fault when the same command afterwards ends
in the bytes of an untouched one; in between, a finished artefact is the earlier one or the new one.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from support.nursery import Ended, Nursery

from augkd.workspace.verify import verify

SIGNALS = ("SIGKILL", "SIGTERM", "SIGINT")
# whose bytes are compared; other files hold times, paths and versions, and only have to be there
_COMPARED = {".faiss", ".arrow", ".parquet", ".safetensors", ".npy", ".txt", ".jsonl", ".html", ".onnx"}
_PASSING = {".lock", ".verified.json"}
_STORES = {"teacher_logits", ".cache"}  # parts of a store are cut where a kill fell


@dataclass
class Case:
    """One writing command: `prepare(place)` makes its inputs below a folder and returns the arguments."""

    name: str
    prepare: Callable[[Path], list[str]]
    out: str = "out"  # below the place: what is compared
    inputs: tuple[str, ...] = ()  # below the place: files that may vanish
    changes: bool = False  # it changes a finished artefact, which must be whole at any time
    whole: dict[str, bytes] = field(default_factory=dict)
    events: int = 0


def contents(folder: Path) -> dict[str, bytes]:
    """The names that must not depend on any fault, and the bytes of those files whose bytes must not."""
    if folder.is_file():
        return {folder.name: folder.read_bytes()}
    found = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in _PASSING)
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.suffix in _COMPARED else b""
        for path in found
        if not set(path.relative_to(folder).parts) & _STORES
    }


@dataclass
class Torture:
    """Counts faults and what survived them; each method inflicts one fault and raises where something was lost."""

    nursery: Nursery
    sandbox: Path
    faults: dict[str, int] = field(default_factory=dict)
    _place: int = 0

    def measure(self, case: Case) -> None:
        """The untouched run of a case: its bytes and the number of its events."""
        place = self._fresh(case)
        ended = self._run(case, place)
        assert ended.code == 0, f"{case.name}: {ended.error[-3000:]}"
        case.whole, case.events = contents(place / case.out), ended.events
        assert case.whole, case.name
        shutil.rmtree(place)

    def kill(self, case: Case, at: int, signal: str) -> None:
        """Stops the command at its event `at`."""
        place = self._fresh(case)
        ended = self._run(case, place, at=at, signal=signal)
        expected = {"SIGKILL": {-9}, "SIGTERM": {-15}, "SIGINT": {130, 0}}[signal]
        assert ended.code in expected, f"{case.name} at {at} {signal}: {ended.code} {ended.error[-3000:]}"
        assert "Traceback" not in ended.error, f"{case.name} at {at} {signal}: {ended.error[-3000:]}"
        if case.changes:
            damaged = verify(place / case.out).damaged
            assert not damaged, f"{case.name} at {at} {signal}: {damaged}"
        self._finish(case, place, f"at {at} of {case.events} {signal}")
        self._count(f"{signal} {case.name}")

    def fill_disk(self, case: Case, share: float) -> bool:
        """Runs the command on a disk with room for a share of what it leaves; False when that was enough."""
        room = int(sum(map(len, case.whole.values())) * share)
        with small_disk(self.sandbox / "disk") as limit:
            place = self._fresh(case, self.sandbox / "disk" / "place") if limit else self._fresh(case)
            if limit:
                limit(room)
            ended = self._run(case, place, **({} if limit else {"file_limit": max(4096, room // 4)}))
            if ended.code == 0:
                shutil.rmtree(place)
                return False
            line = ended.check_one_line()
            assert "free" in line, f"{case.name}: {line}"
            assert str(place) in line, f"{case.name}: {line}"
            if limit:
                limit(1 << 30)
            self._finish(case, place, f"full disk, {share:.0%}")
        self._count(f"full disk {case.name}")
        return True

    def read_only(self, case: Case) -> bool:
        """Runs the command where nothing can be written, and again where it can; False where nobody may mount one."""
        with small_disk(self.sandbox / "disk") as limit:
            if limit is None:
                return False
            place = self._fresh(case, self.sandbox / "disk" / "place")
            subprocess.run(["mount", "-o", "remount,ro", self.sandbox / "disk"], check=True)
            line = self._run(case, place).check_one_line()
            subprocess.run(["mount", "-o", "remount,rw", self.sandbox / "disk"], check=True)
            assert "read-only" in line, f"{case.name}: {line}"
            assert str(place) in line, f"{case.name}: {line}"
            self._finish(case, place, "read-only")
        self._count(f"read-only {case.name}")
        return True

    def blocked(self, case: Case) -> None:
        """Runs the command with a file where its folder should be; the file stays."""
        place = self._fresh(case)
        (place / case.out).write_text("mine")
        line = self._run(case, place).check_one_line()
        assert f"{place / case.out} is a file" in line, f"{case.name}: {line}"
        assert (place / case.out).read_text() == "mine"
        (place / case.out).unlink()
        self._finish(case, place, "a file in its place")
        self._count(f"file in the way {case.name}")

    def vanish(self, case: Case, name: str, at: int) -> None:
        """Takes an input away at an event; the command says so in one line, or needed it no more."""
        place = self._fresh(case)
        gone = place / name
        ended = self._run(case, place, at=at, vanish=str(gone))
        if ended.code != 0:
            ended.check_one_line()
        Path(f"{gone}.gone").rename(gone)
        self._finish(case, place, f"without {name} from event {at}")
        self._count(f"vanished input {case.name}")

    def twice(self, case: Case) -> None:
        """Runs the command in two processes at once: one of them does the work, the other says who works, or waits."""
        place = self._fresh(case)
        command = case.prepare(place)
        first, second = self.nursery.together([command, command], cwd=str(place))
        codes = sorted((first.code, second.code))
        assert codes in ([0, 0], [0, 1]), f"{case.name}: {first} {second}"
        for ended in (first, second):
            if ended.code == 1:
                assert "another augkd is working in" in ended.check_one_line()
        self._finish(case, place, "two processes")
        self._count(f"two processes {case.name}")

    def flip(self, case: Case, rng: random.Random, folder: str) -> None:
        """Flips a bit of a file of an artefact: the command names the file, or did not read it and ends as ever."""
        place = self._fresh(case)
        files = [path for path in sorted((place / folder).rglob("*")) if path.is_file() and path.stat().st_size]
        path = rng.choice([path for path in files if path.name not in (".lock", "README.md", "report.html")])
        whole = path.read_bytes()
        damaged = bytearray(whole)
        damaged[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        ended = self._run(case, place)
        if ended.code != 0:
            line = ended.check_one_line()
            assert path.name in line, f"{case.name}, {path}: {line}"
            assert path.read_bytes() == damaged, "what was refused is not touched"
        else:
            found, own = contents(place / case.out), path.relative_to(place / folder).as_posix()
            changed = [name for name in found if name != own and found[name] != case.whole[name]]
            assert changed == [], f"{case.name} used {path}, damaged"
        assert any(path.name in line for line in verify(place / folder).damaged)
        path.write_bytes(whole)
        self._finish(case, place, f"with {path.name} put right")
        self._count(f"flipped bit {case.name}")

    def _fresh(self, case: Case, place: Path | None = None) -> Path:
        self._place += 1
        place = place or self.sandbox / f"place-{self._place:04d}"
        place.mkdir(parents=True)
        case.prepare(place)
        return place

    def _run(self, case: Case, place: Path, **order: object) -> Ended:
        return self.nursery.attempt(case.prepare(place), cwd=str(place), **order)

    def _finish(self, case: Case, place: Path, fault: str) -> None:
        """The same command again ends in the bytes of an untouched one, and leaves nothing behind."""
        ended = self._run(case, place)
        assert ended.code == 0, f"{case.name}, {fault}: {ended.error[-3000:]}"
        found = contents(place / case.out)
        assert found.keys() == case.whole.keys(), f"{case.name}, {fault}: {found.keys() ^ case.whole.keys()}"
        assert [name for name in found if found[name] != case.whole[name]] == [], f"{case.name}, {fault}"
        left = [path for path in place.rglob("*") if path.name.endswith(".tmp") or path.name == "building.json"]
        assert left == [], f"{case.name}, {fault}"
        shutil.rmtree(place)

    def _count(self, what: str) -> None:
        self.faults[what] = self.faults.get(what, 0) + 1


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Callable[[int], None] | None]:
    """A disk at `folder`, and a function that leaves so many bytes of it free; None where nobody may mount one."""
    folder.mkdir(parents=True, exist_ok=True)
    options = "size=1g"
    mounted = (
        os.geteuid() == 0
        and subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=False).returncode == 0
    )
    if not mounted:
        yield None
        return

    def limit(free: int) -> None:
        size = shutil.disk_usage(folder).used + free
        subprocess.run(["mount", "-o", f"remount,size={size}", folder], check=True)

    try:
        yield limit
    finally:
        subprocess.run(["umount", "-l", folder], check=True)
