"""A server with the OpenAI-compatible chat API: one prompt in, one reply out, through the `openai` client.

The client repeats requests after 429, 5xx, cut connections and timeouts, with back-off and the server's Retry-After;
malformed JSON is repeated here. Its key is read from the environment when the first request is made, and removed from
every message, since servers repeat a wrong key in their errors.
"""

from __future__ import annotations

import json
import os
import random
import threading
import time
from importlib.util import find_spec
from typing import Any

from augkd.distill.teacher.prompt import Reply
from augkd.errors import ModelError, first_line
from augkd.recipe import EndpointOptions

_ALTERNATIVES = 20  # tokens listed at a position: what hosted servers allow at most
_WRITTEN = 16  # tokens of an answer: a letter, or a class's name
_STORED = 8  # positions whose log-probabilities are kept
_UNSUPPORTED = (400, 422)  # statuses of a server that does not know a parameter, or cannot take this text


class NoAnswer(Exception):
    """A text that got no answer: every try failed (`lasting` is False), or the server rejects the request."""

    def __init__(self, reason: str, lasting: bool, status: int | None = None):
        super().__init__(reason)
        self.lasting, self.status = lasting, status


def check_client() -> None:
    """Raises ModelError when the `openai` package is not installed."""
    if find_spec("openai") is None:
        raise ModelError("teacher.endpoint needs the openai package; pip install 'augkd[llm]'")


class ChatEndpoint:
    """Asks one server; several threads may ask at once."""

    def __init__(self, options: EndpointOptions, model: str):
        """Nothing is contacted yet. Raises ModelError when the `openai` package is not installed."""
        check_client()
        import openai  # 1 s

        self._errors: Any = openai
        self._options, self._model = options, model
        self._key = os.environ.get(options.key, "")
        self._client = openai.OpenAI(
            base_url=options.url,
            api_key=self._key or "none",  # a server without keys ignores it
            timeout=options.timeout,
            max_retries=options.retries,
        )
        self._pace = _Pace(options.rate)
        self._logprobs = options.probabilities != "text"  # off once the server rejects the parameter

    def ask(self, prompt: str) -> Reply:
        """The reply to a prompt; raises NoAnswer, and ModelError where no request at all can succeed."""
        try:
            return self._ask(prompt, self._logprobs)
        except NoAnswer as exc:
            if exc.status not in _UNSUPPORTED or not self._logprobs or self._options.probabilities != "auto":
                raise
        reply = self._ask(prompt, False)
        self._logprobs = False  # the parameter was the reason, and not this text
        return reply

    def _ask(self, prompt: str, logprobs: bool) -> Reply:
        for number in range(self._options.retries + 1):
            self._pace.wait()
            try:
                return _reply(self._client.chat.completions.create(**self._request(prompt, logprobs)))
            except (self._errors.AuthenticationError, self._errors.PermissionDeniedError) as exc:
                key = f"the key in {self._options.key}" if self._key else f"a request without {self._options.key}"
                raise ModelError(f"{self._where} rejects {key}: {self._shown(exc)}") from None
            except self._errors.NotFoundError as exc:
                raise ModelError(f"{self._where} has no chat API or no '{self._model}': {self._shown(exc)}") from None
            except self._errors.APIStatusError as exc:
                lasting = exc.status_code < 500 and exc.status_code not in (408, 409, 429)
                raise NoAnswer(self._shown(exc), lasting, exc.status_code) from None
            except self._errors.APIConnectionError as exc:  # also a timeout
                raise NoAnswer(self._shown(exc), lasting=False) from None
            except (_Malformed, json.JSONDecodeError, self._errors.APIError) as exc:
                if number == self._options.retries:
                    raise NoAnswer(f"malformed answer: {self._shown(exc)}", lasting=False) from None
                time.sleep(min(8.0, 0.5 * 2**number) * random.uniform(0.75, 1))  # jitter changes no result
        raise AssertionError("the last try returns or raises")

    def _request(self, prompt: str, logprobs: bool) -> dict[str, Any]:
        request: dict[str, Any] = {"temperature": 0, "max_tokens": _WRITTEN}
        if logprobs:
            request |= {"logprobs": True, "top_logprobs": _ALTERNATIVES}
        extra = dict(self._options.parameters)
        for name in [name for name in extra if name in request]:
            request[name] = extra.pop(name)
        for name in [name for name, value in extra.items() if value is None]:
            del extra[name]
        request = {name: value for name, value in request.items() if value is not None}
        messages = [{"role": "user", "content": prompt}]
        return {"model": self._model, "messages": messages, "extra_body": extra or None, **request}

    @property
    def _where(self) -> str:
        return f"teacher.endpoint {self._options.url}"

    def _shown(self, exc: BaseException) -> str:
        text = first_line(exc)
        cause = exc.__cause__
        text = f"{text} ({first_line(cause)})" if cause is not None else text
        return text.replace(self._key, "(key)") if self._key else text


class _Malformed(Exception):
    """A reply of status 200 without what a chat completion has."""


def _reply(completion: Any) -> Reply:
    """Raises _Malformed for a reply that is no chat completion."""
    try:
        choice = completion.choices[0]
        message, logprobs = choice.message, choice.logprobs
        text = message.content or ""
        if not isinstance(text, str):
            raise _Malformed("the message has no text")
        content = (logprobs.content if logprobs is not None else None) or []
        tokens = [
            (entry.token, [(other.token, float(other.logprob)) for other in entry.top_logprobs or []])
            for entry in content[:_STORED]
        ]
        usage = completion.usage
        counts = (int(usage.prompt_tokens or 0), int(usage.completion_tokens or 0)) if usage is not None else (0, 0)
    except (AttributeError, IndexError, TypeError, ValueError) as exc:
        raise _Malformed(first_line(exc)) from None
    refusal = getattr(message, "refusal", None)
    text = text or refusal or f"(empty; finish_reason: {choice.finish_reason})"
    return Reply(text, bool(refusal) or choice.finish_reason == "content_filter", tokens, counts)


class _Pace:
    """Spaces requests evenly."""

    def __init__(self, rate: float | None):
        """`rate` is in requests per minute; None: no limit."""
        self._gap = 60 / rate if rate else 0.0
        self._next = 0.0
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Returns when the next request may be sent."""
        if not self._gap:
            return
        with self._lock:
            now = time.monotonic()
            at = max(now, self._next)
            self._next = at + self._gap
        time.sleep(at - now)
