"""Headless Chromium for tests, controlled over a pipe: console messages, network requests, screenshots.

The DevTools protocol over two file descriptors (`--remote-debugging-pipe`) is JSON between zero bytes, so no client
library is needed. Nothing here depends on augkd.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

BINARY = next(
    (path for name in ("chromium", "google-chrome", "chromium-browser") if (path := shutil.which(name))), None
)


class Page:
    """One page in a browser of its own; `events` are those of its console, log and network."""

    def __init__(self, width: int = 1200, height: int = 900, dark: bool = False):
        assert BINARY is not None
        self.events: list[dict[str, Any]] = []
        self._number, self._buffer = 0, b""
        self._profile = tempfile.mkdtemp()
        to_read, self._to = os.pipe()
        self._from, to_write = os.pipe()
        flags = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--remote-debugging-pipe",
            "--disable-dev-shm-usage",
        ]
        flags += ["--no-first-run", "--disable-extensions", f"--user-data-dir={self._profile}"]
        copies = [fcntl.fcntl(pipe, fcntl.F_DUPFD, 10) for pipe in (to_read, to_write)]  # numbers other than 3 and 4

        def place() -> None:  # the protocol's descriptors: commands from 3, answers to 4
            os.dup2(copies[0], 3)
            os.dup2(copies[1], 4)

        self._process = subprocess.Popen(
            [BINARY, *flags, "about:blank"],
            preexec_fn=place,
            pass_fds=(3, 4),
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        for descriptor in (to_read, to_write, *copies):
            os.close(descriptor)
        targets = self.send("Target.getTargets", session=None)["targetInfos"]
        page = next(target["targetId"] for target in targets if target["type"] == "page")
        self._session = self.send("Target.attachToTarget", session=None, targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])

    def __enter__(self) -> Page:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(timeout=20)
        os.close(self._to)
        os.close(self._from)
        shutil.rmtree(self._profile, ignore_errors=True)

    def send(self, method: str, session: str | None = "", **params: Any) -> dict[str, Any]:
        """Sends a command and returns its result; events that arrive before it are kept."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def open(self, path: Path, fragment: str = "", ready: str = "document.readyState === 'complete'") -> float:
        """Opens a file and returns the seconds until `ready` was true."""
        started = time.perf_counter()
        self.send("Page.navigate", url=path.resolve().as_uri() + fragment)
        while not (self.value("location.protocol") == "file:" and self.value(ready)):
            assert time.perf_counter() - started < 60, f"{path} was not ready: {self.errors}"
            time.sleep(0.01)
        return time.perf_counter() - started

    def value(self, expression: str) -> Any:
        """The value of a JavaScript expression (awaited when it is a promise)."""
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def screenshot(self, path: Path, whole: bool = False) -> None:
        """A PNG of the visible part, or of the whole page."""
        shot = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))

    def pdf(self, path: Path) -> None:
        """The page as it is printed."""
        path.write_bytes(base64.b64decode(self.send("Page.printToPDF", printBackground=False)["data"]))

    @property
    def errors(self) -> list[str]:
        """Uncaught exceptions, console errors and warnings, and entries in the browser's own log."""
        kinds = {"Runtime.exceptionThrown", "Log.entryAdded"}
        logged = [event["params"] for event in self.events if event.get("method") in kinds]
        calls = [event["params"] for event in self.events if event.get("method") == "Runtime.consoleAPICalled"]
        bad_calls = [call for call in calls if call["type"] in ("error", "warning", "assert")]
        return [json.dumps(entry) for entry in [*logged, *bad_calls]]

    @property
    def requests(self) -> list[str]:
        """Addresses that were requested."""
        sent = [event for event in self.events if event.get("method") == "Network.requestWillBeSent"]
        return [event["params"]["request"]["url"] for event in sent]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            chunk = os.read(self._from, 1 << 16)
            assert chunk, "the browser ended"
            self._buffer += chunk
        message, _, self._buffer = self._buffer.partition(b"\0")
        answer: dict[str, Any] = json.loads(message)
        return answer
