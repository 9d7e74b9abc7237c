"""A server with the OpenAI-compatible chat API in a thread of the test, with every fault that a real one has."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Alternatives = dict[str, float]  # token → log-probability


@dataclass
class Say:
    """A completion: its text, and the alternatives at the first token where log-probabilities are wanted."""

    text: str
    first: Alternatives | None = None
    refusal: str | None = None
    finish: str = "stop"


@dataclass
class Fault:
    """Instead of a completion: a status with a body, a cut connection, or a delay before the completion."""

    status: int | None = None
    body: str = '{"error": {"message": "no"}}'
    cut: bool = False
    delay: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)


Behaviour = Callable[[dict[str, Any], int], "Say | Fault"]  # request, how many came before it


@dataclass
class ChatServer:
    """What it received so far."""

    url: str
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    most_at_once: int = 0

    @property
    def prompts(self) -> list[str]:
        return [request["messages"][0]["content"] for request in self.requests]


@contextmanager
def chat_server(behave: Behaviour, logprobs: bool = True) -> Iterator[ChatServer]:
    """Serves `behave` on a free port; without `logprobs` it ignores that they are asked for."""
    state, lock, now = ChatServer(""), threading.Lock(), [0]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                number = len(state.requests)
                state.requests.append(request)
                state.keys.append(self.headers.get("Authorization", ""))
                now[0] += 1
                state.most_at_once = max(state.most_at_once, now[0])
            try:
                self._act(request, behave(request, number))
            except (BrokenPipeError, ConnectionResetError):
                pass  # the client no longer waits
            finally:
                with lock:
                    now[0] -= 1

        def _act(self, request: dict[str, Any], what: Say | Fault) -> None:
            if isinstance(what, Fault):
                time.sleep(what.delay)
                if what.cut:
                    self.close_connection = True
                    self.connection.close()
                elif what.status is not None:
                    self._send(what.status, what.body, what.headers)
                else:
                    self._send(200, json.dumps(_completion(Say("A"), request, logprobs)), {})
                return
            self._send(200, json.dumps(_completion(what, request, logprobs)), {})

        def _send(self, status: int, body: str, headers: dict[str, str]) -> None:
            data = body.encode()
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: Any) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _completion(say: Say, request: dict[str, Any], logprobs: bool) -> dict[str, Any]:
    content = None
    if logprobs and request.get("logprobs") and say.first is not None:
        top = [{"token": token, "logprob": value, "bytes": None} for token, value in say.first.items()]
        content = [{"token": say.text, "logprob": max(say.first.values()), "bytes": None, "top_logprobs": top}]
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": request["model"],
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": say.text, "refusal": say.refusal},
                "finish_reason": say.finish,
                "logprobs": None if content is None else {"content": content, "refusal": None},
            }
        ],
        "usage": {"prompt_tokens": 100, "completion_tokens": 1, "total_tokens": 101},
    }
