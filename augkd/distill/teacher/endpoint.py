"""An LLM behind an API as the source of answers: each text is asked about once, ever, and paid for once.

Answers are stored by model, prompt (with the text and the order of the options) and parameters as they arrive, so a
killed run continues, and runs that share a folder of answers share the bill. A text that gets no answer after all tries
is asked again by the next run; a refusal or an answer without a class is an answer, and is not asked again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Protocol

from augkd.distill.teacher.answer_store import AnswerStore, answer_key
from augkd.distill.teacher.asked import NO_ANSWER, Pair
from augkd.distill.teacher.chat import NoAnswer
from augkd.distill.teacher.prompt import Answer, Question, Reply, averaged
from augkd.errors import ModelError, short_repr
from augkd.recipe import TeacherOptions
from augkd.workspace.locks import claimed
from augkd.workspace.progress import Steps

_GIVE_UP = 8  # requests in a row without an answer: the server is the reason, and not these texts


class Chat(Protocol):
    """What a prompt is sent to."""

    def ask(self, prompt: str) -> Reply:
        """The reply to a prompt."""
        ...


@dataclass(frozen=True)
class _Request:
    key: str
    prompt: str
    text: Pair


class EndpointSource:
    """The answers of an LLM, from the store or from its server."""

    def __init__(self, options: TeacherOptions, question: Question, store: AnswerStore, chat: Callable[[], Chat]):
        """`chat` makes the connection, when the first text is new."""
        self._options, self._question, self._store, self._connect = options, question, store, chat
        assert options.endpoint is not None
        self._endpoint = options.endpoint
        self._chat: Chat | None = None
        self._failed: dict[Pair, str] = {}
        self.asked = 0

    def fetch(self, texts: Sequence[Pair], progress: Steps | None = None) -> None:
        """Asks about the texts that have no answer; raises ModelError where the server gives none."""
        texts = [text for text in dict.fromkeys(texts) if text not in self._failed]
        if not self._unanswered(texts):
            return
        with claimed(self._store.folder):  # another run may be asking the same: it is awaited, not repeated
            self._store.refresh()
            requests = self._unanswered(texts)
            if requests:
                self._ask_all(requests, progress)
                self.asked += len({request.text for request in requests})
        if self._failed and self._options.missing == "error":
            text, reason = next(iter(self._failed.items()))
            raise ModelError(
                f"teacher.endpoint gave no answer for {len(self._failed)} texts, e.g. {short_repr(text[0])} "
                f"({reason}); all others are stored: run the same command again, or set teacher.missing: drop"
            )

    def answers(self, texts: Sequence[Pair]) -> list[Answer | None]:
        """The stored answers, averaged over the orders of the options; None where one order was not asked."""
        self._store.refresh()
        return [self._answer(text) for text in texts]

    def usage(self, texts: Sequence[Pair]) -> tuple[int, int]:
        """Tokens read and written for these texts."""
        records = [self._store.get(request.key) for text in dict.fromkeys(texts) for request in self._requests(text)]
        pairs = [record["usage"] for record in records if record is not None]
        return sum(read for read, _ in pairs), sum(written for _, written in pairs)

    def _answer(self, text: Pair) -> Answer | None:
        if text in self._failed:
            return Answer(None, NO_ANSWER, self._failed[text])
        logprobs = self._endpoint.probabilities != "text"
        read = []
        for order, request in zip(self._question.orders, self._requests(text), strict=True):
            record = self._usable(request.key)
            if record is None:
                return None
            read.append(self._question.read(_reply_of(record), order, logprobs))
        return averaged(read)

    def _usable(self, key: str) -> Any:
        """The stored reply; None where it lacks the log-probabilities that the recipe insists on."""
        record = self._store.get(key)
        insists = self._endpoint.probabilities == "logprobs"
        return None if record is None or (insists and not record["tokens"] and not record["refused"]) else record

    def _requests(self, text: Pair) -> list[_Request]:
        """One for each order of the options."""
        prompts = [self._question.text(text, order) for order in self._question.orders]
        parameters = self._endpoint.parameters
        return [_Request(answer_key(self._options.model, prompt, parameters), prompt, text) for prompt in prompts]

    def _unanswered(self, texts: Sequence[Pair]) -> list[_Request]:
        self._store.refresh()
        return [request for text in texts for request in self._requests(text) if self._usable(request.key) is None]

    # ---- asking ----

    def _ask_all(self, requests: Sequence[_Request], progress: Steps | None) -> None:
        """Asks with several requests at once; an answer is stored by this thread the moment it is there.

        When something raises, an interrupt too, what is on its way is awaited and stored, and nothing more is sent.
        """
        self._chat = self._chat or self._connect()
        pool = ThreadPoolExecutor(self._endpoint.concurrency)
        waiting = iter(requests)
        running: dict[Future[Reply], _Request] = {}
        done = in_a_row = 0
        try:
            while True:
                for request in waiting:
                    running[pool.submit(self._chat.ask, request.prompt)] = request
                    if len(running) >= self._endpoint.concurrency:
                        break
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    request = running.pop(future)
                    in_a_row = 0 if self._keep(request, future) else in_a_row + 1
                    done += 1
                if in_a_row >= _GIVE_UP:
                    raise ModelError(self._no_answers(request.text))
                if progress:
                    progress(done, len(requests))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            for future, request in running.items():
                if not future.cancelled() and future.exception() is None:
                    self._keep(request, future)

    def _keep(self, request: _Request, future: Future[Reply]) -> bool:
        """Stores an answer; notes a text without one. Raises what makes every further request useless."""
        try:
            reply = future.result()
        except NoAnswer as exc:
            self._failed[request.text] = str(exc)
            return False
        if self._endpoint.probabilities == "logprobs" and not reply.tokens and not reply.refused:
            raise ModelError(
                f"teacher.endpoint {self._endpoint.url} gives no log-probabilities; set "
                "teacher.endpoint.probabilities: auto, which then reads the answer's text"
            )
        self._store.add(
            {
                "key": request.key,
                "model": self._options.model,
                "text": request.text[0],
                "text_pair": request.text[1],
                "answer": reply.text,
                "refused": reply.refused,
                "tokens": reply.tokens,
                "usage": reply.usage,
            }
        )
        return True

    def _no_answers(self, text: Pair) -> str:
        return (
            f"teacher.endpoint {self._endpoint.url} does not answer ({self._failed[text]}); {len(self._store)} answers "
            "are stored: run the same command again to continue"
        )


def _reply_of(record: Any) -> Reply:
    tokens = [(token, [(other, float(logprob)) for other, logprob in listed]) for token, listed in record["tokens"]]
    return Reply(record["answer"], record["refused"], tokens, tuple(record["usage"]))
