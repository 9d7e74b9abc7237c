"""An LLM as teacher, against a server with faults: what is asked, stored, counted, left out, and never shown."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.chat_server import ChatServer, Fault, Say, chat_server

from augkd.data.target import Target
from augkd.distill.teacher.answer_store import FILE, AnswerStore
from augkd.distill.teacher.asked import AskedTeacher
from augkd.distill.teacher.chat import ChatEndpoint
from augkd.distill.teacher.endpoint import EndpointSource
from augkd.distill.teacher.prompt import question_for
from augkd.errors import ModelError, WorkspaceError
from augkd.recipe import TeacherOptions

pytest.importorskip("openai")

LABELS = ("animal", "food", "tool")
KEY = "sk-Very-Secret-Value-1234567890"


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)
    monkeypatch.setattr("openai._base_client.MAX_RETRY_DELAY", 0.02)


def teacher(
    url: str, folder: Path, labelled: Any = (), missing: str = "error", permutations: int = 1, **endpoint: Any
) -> AskedTeacher:
    options = TeacherOptions.model_validate(
        {
            "model": "some-llm",
            "missing": missing,
            "endpoint": {"url": url, "timeout": 5.0, "permutations": permutations, **endpoint},
        }
    )
    assert options.endpoint is not None
    own, asked = options.endpoint, question_for(options, Target(LABELS), pairs=False)
    source = EndpointSource(options, asked, AnswerStore(folder), lambda: ChatEndpoint(own, "some-llm"))
    return AskedTeacher(source, len(LABELS), labelled, own.evaluate)


def texts(*given: str) -> list[tuple[str, str | None]]:
    return [(text, None) for text in given]


def probabilities(logits: Any) -> np.ndarray:
    return np.exp(logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True)))


def logs(**values: float) -> dict[str, float]:
    return {name: math.log(value) for name, value in values.items()}


# ---- what is asked, and what the answer means ----


def test_probabilities_are_those_of_the_option_letters(tmp_path: Path) -> None:
    with chat_server(lambda request, number: Say("B", logs(A=0.2, B=0.7, C=0.05, The=0.05))) as server:
        logits = teacher(server.url, tmp_path).logits(texts("soup is hot"))
    assert probabilities(logits)[0] == pytest.approx([0.2 / 0.95, 0.7 / 0.95, 0.05 / 0.95], abs=1e-6)
    (request,) = server.requests
    assert (request["model"], request["temperature"], request["logprobs"], request["top_logprobs"]) == (
        *("some-llm", 0, True, 20),
    )
    assert "Text: soup is hot\n" in server.prompts[0]
    assert "A) animal\nB) food\nC) tool" in server.prompts[0]


def test_tokens_that_differ_in_spaces_or_punctuation_are_one_letter(tmp_path: Path) -> None:
    first = {"B": math.log(0.4), " B": math.log(0.2), "(A": math.log(0.2), "a": math.log(0.1), "C": math.log(0.1)}
    with chat_server(lambda request, number: Say("B", first)) as server:
        logits = teacher(server.url, tmp_path).logits(texts("x"))
    assert probabilities(logits)[0] == pytest.approx([0.3, 0.6, 0.1], abs=1e-6)


def test_an_option_that_was_not_listed_gets_what_the_others_leave_but_no_more_than_the_least_of_them(
    tmp_path: Path,
) -> None:
    answers = [Say("A", logs(A=0.9, B=0.09)), Say("A", logs(A=0.6, B=0.1))]
    with chat_server(lambda request, number: answers[number], logprobs=True) as server:
        logits = teacher(server.url, tmp_path, concurrency=1).logits(texts("x", "y"))
    assert probabilities(logits) == pytest.approx(
        np.array([[0.9, 0.09, 0.01], [0.6 / 0.8, 0.1 / 0.8, 0.1 / 0.8]]), abs=1e-6
    )


def test_permutations_ask_every_option_in_every_position_and_average_the_probabilities(tmp_path: Path) -> None:
    """A model that gives A 0.6, whatever A is, says nothing when all three orders are averaged."""
    with chat_server(lambda request, number: Say("A", logs(A=0.6, B=0.3, C=0.1))) as server:
        three = teacher(server.url, tmp_path, permutations=3).logits(texts("x"))
        assert len(server.requests) == 3
        firsts = {prompt.split("A) ")[1].split("\n")[0] for prompt in server.prompts}
        assert firsts == set(LABELS)
        one = teacher(server.url, tmp_path).logits(texts("x"))
        assert len(server.requests) == 3, "the first order is stored already"
    assert probabilities(three)[0] == pytest.approx([1 / 3] * 3, abs=1e-6)
    assert probabilities(one)[0] == pytest.approx([0.6, 0.3, 0.1], abs=1e-6)


@pytest.mark.parametrize("said", ["B", "b", " B) food", "food", "Food.", "(B)", "The answer is B.", "B: it is eaten"])
def test_without_log_probabilities_the_answer_is_read_and_smoothed(tmp_path: Path, said: str) -> None:
    with chat_server(lambda request, number: Say(said), logprobs=False) as server:
        asked = teacher(server.url, tmp_path)
        logits = asked.logits(texts("x"))
    assert probabilities(logits)[0] == pytest.approx([0.1 / 3, 0.9 + 0.1 / 3, 0.1 / 3], abs=1e-6)
    assert asked.report(texts("x"))["smoothed"] == 1


@pytest.mark.parametrize(
    ("say", "reason"),
    [
        (Say("I'm sorry, I can't help with that.", logs(I=0.9, A=0.1)), "refused"),
        (Say("", refusal="This is unsafe."), "refused"),
        (Say("", finish="content_filter"), "refused"),
        (Say("A good answer would be B or C", logs(A=0.9, B=0.1)), "unparsable"),
        (Say("This is not food"), "unparsable"),
        (Say("B) tool"), "unparsable"),
        (Say("D"), "unparsable"),
        (Say("", finish="length"), "unparsable"),
    ],
)
def test_refusals_and_answers_without_a_class_are_left_out_and_listed_and_not_asked_again(
    tmp_path: Path, say: Say, reason: str
) -> None:
    def behave(request: dict[str, Any], number: int) -> Say:
        return say if "odd" in request["messages"][0]["content"] else Say("C", logs(A=0.1, B=0.1, C=0.8))

    with chat_server(behave) as server:
        asked = teacher(server.url, tmp_path)
        logits = asked.logits(texts("odd", "even"))
        assert np.isnan(logits[0]).all()
        assert probabilities(logits)[1] == pytest.approx([0.1, 0.1, 0.8], abs=1e-6)
        (listed,) = asked.left_out(texts("odd", "even"))
        assert (listed.text, listed.reason) == ("odd", reason)
        assert asked.report(texts("odd", "even"))["left_out"] == {reason: 1}
        teacher(server.url, tmp_path).logits(texts("odd", "even"))
        assert len(server.requests) == 2


def test_a_text_with_braces_is_not_part_of_the_template(tmp_path: Path) -> None:
    with chat_server(lambda request, number: Say("A")) as server:
        teacher(server.url, tmp_path).logits(texts("print({options}) {text} {x}"))
    assert "Text: print({options}) {text} {x}\n" in server.prompts[0]


# ---- faults ----


def test_429_500_cut_connections_and_malformed_json_are_tried_again(tmp_path: Path) -> None:
    faults = [
        Fault(429, headers={"Retry-After": "0"}),
        Fault(500),
        Fault(cut=True),
        Fault(200, body="{not json"),
        Fault(200, body="<html>busy</html>", headers={"Content-Type": "text/html"}),
        Fault(200, body='{"choices": []}'),
    ]
    with chat_server(lambda r, number: faults[number] if number < 6 else Say("B", logs(A=0.25, B=0.75))) as server:
        logits = teacher(server.url, tmp_path, concurrency=1).logits(texts("x"))
    assert len(server.requests) == 7
    assert logits[0].argmax() == 1


def test_a_slow_answer_is_given_up_after_the_timeout_and_tried_again(tmp_path: Path) -> None:
    started = time.perf_counter()
    with chat_server(lambda request, number: Fault(delay=3.0) if number == 0 else Say("B")) as server:
        logits = teacher(server.url, tmp_path, timeout=0.3).logits(texts("x"))
        assert time.perf_counter() - started < 2.5
    assert logits[0].argmax() == 1
    assert len(server.requests) == 2


def test_a_text_without_an_answer_stops_the_run_after_the_others_are_stored_and_is_asked_again(tmp_path: Path) -> None:
    broken = [True]

    def behave(request: dict[str, Any], number: int) -> Say | Fault:
        return Fault(500) if broken[0] and "bad" in request["messages"][0]["content"] else Say("A")

    with chat_server(behave) as server:
        with pytest.raises(ModelError, match=r"no answer for 1 texts, e\.g\. 'bad'.*run the same command again"):
            teacher(server.url, tmp_path, retries=1).logits(texts("bad", *map(str, range(20))))
        assert len(server.requests) == 22
        broken[0] = False
        logits = teacher(server.url, tmp_path, retries=1).logits(texts("bad", *map(str, range(20))))
        assert len(server.requests) == 23
    assert not np.isnan(logits).any()


def test_with_missing_drop_a_text_without_an_answer_is_left_out(tmp_path: Path) -> None:
    def behave(request: dict[str, Any], number: int) -> Say | Fault:
        too_long = Fault(400, body='{"error": {"message": "context length exceeded"}}')
        return too_long if "bad" in request["messages"][0]["content"] else Say("A", logs(A=0.5, B=0.5))

    with chat_server(behave) as server:
        asked = teacher(server.url, tmp_path, missing="drop", retries=0)
        logits = asked.logits(texts("bad", "good"))
        (listed,) = asked.left_out(texts("bad", "good"))
        assert np.isnan(logits[0]).all()
        assert probabilities(logits)[1][0] == pytest.approx(0.5, abs=1e-4), "the others keep theirs"
    assert listed.reason == "no answer"
    assert "context length exceeded" in listed.answer


def test_a_server_that_answers_nothing_is_given_up_early(tmp_path: Path) -> None:
    with chat_server(lambda request, number: Fault(503)) as server:
        with pytest.raises(ModelError, match="does not answer"):
            teacher(server.url, tmp_path, retries=0, missing="drop").logits(texts(*map(str, range(500))))
        assert len(server.requests) < 40


def test_a_server_that_rejects_logprobs_is_asked_without_them(tmp_path: Path) -> None:
    def behave(request: dict[str, Any], number: int) -> Say | Fault:
        return Fault(400, body='{"error": {"message": "unknown logprobs"}}') if "logprobs" in request else Say("C")

    with chat_server(behave) as server:
        asked = teacher(server.url, tmp_path, concurrency=1)
        assert asked.logits(texts("x", "y")).argmax(axis=1).tolist() == [2, 2]
    assert ["logprobs" in request for request in server.requests] == [True, False, False]


def test_log_probabilities_that_are_insisted_on_and_missing_are_an_error_before_more_is_paid(tmp_path: Path) -> None:
    with chat_server(lambda request, number: Say("A"), logprobs=False) as server:
        with pytest.raises(ModelError, match=r"gives no log-probabilities; set teacher\.endpoint\.probabilities: auto"):
            teacher(server.url, tmp_path, probabilities="logprobs", concurrency=2).logits(texts(*map(str, range(50))))
        assert len(server.requests) <= 4


@pytest.mark.parametrize("status", [401, 403])
def test_a_rejected_key_stops_at_once_and_is_never_shown(tmp_path: Path, status: int) -> None:
    body = json.dumps({"error": {"message": f"Incorrect API key provided: {KEY}"}})
    with chat_server(lambda request, number: Fault(status, body=body)) as server:
        with pytest.raises(ModelError, match="rejects the key in OPENAI_API_KEY") as raised:
            teacher(server.url, tmp_path, concurrency=1).logits(texts("x", "y"))
        assert len(server.requests) == 1
        assert server.keys == [f"Bearer {KEY}"], "the server did get it"
    error: BaseException | None = raised.value
    while error is not None:
        assert KEY not in str(error)
        error = error.__cause__


def test_the_key_is_in_nothing_that_is_written(tmp_path: Path) -> None:
    body = json.dumps({"error": {"message": f"overloaded, {KEY}"}})
    with chat_server(lambda r, number: Fault(500, body=body) if "bad" in str(r["messages"]) else Say("A")) as server:
        asked = teacher(server.url, tmp_path, missing="drop", retries=0)
        asked.logits(texts("bad", "good"))
        listed = asked.left_out(texts("bad"))
    assert "(key)" in listed[0].answer
    assert all(KEY not in path.read_text() for path in tmp_path.rglob("*") if path.is_file())


def test_an_unknown_model_stops_at_once(tmp_path: Path) -> None:
    with (
        chat_server(lambda request, number: Fault(404, body='{"error": {"message": "no such model"}}')) as server,
        pytest.raises(ModelError, match=r"no 'some-llm': .*no such model"),
    ):
        teacher(server.url, tmp_path).logits(texts("x"))


def test_nothing_listening_is_one_clear_line(tmp_path: Path) -> None:
    with chat_server(lambda request, number: Say("A")) as server:
        url = server.url
    with pytest.raises(ModelError, match=r"gave no answer for 1 texts.*Connection error"):
        teacher(url, tmp_path, retries=0).logits(texts("x"))


# ---- what is paid ----


def test_no_text_is_asked_about_twice_and_equal_texts_once(tmp_path: Path) -> None:
    with chat_server(lambda request, number: Say("A", logs(A=0.9, B=0.1))) as server:
        first = teacher(server.url, tmp_path).logits(texts("x", "y", "x"))
        assert len(server.requests) == 2
        again = teacher(server.url, tmp_path)
        assert np.array_equal(again.logits(texts("y", "x", "z"))[:2], first[[1, 0]])
        assert len(server.requests) == 3
        assert again.rows == 1
        assert again.report(texts("x", "y", "z"))["prompt_tokens"] == 300


def test_another_prompt_or_model_is_another_answer(tmp_path: Path) -> None:
    with chat_server(lambda request, number: Say("A")) as server:
        teacher(server.url, tmp_path).logits(texts("x"))
        teacher(server.url, tmp_path, parameters={"seed": 1}).logits(texts("x"))
    assert len(server.requests) == 2
    assert server.requests[1]["seed"] == 1


def test_a_parameter_of_null_leaves_one_out(tmp_path: Path) -> None:
    with chat_server(lambda request, number: Say("A")) as server:
        changed = {"temperature": None, "max_tokens": None, "max_completion_tokens": 400}
        teacher(server.url, tmp_path, parameters=changed).logits(texts("x"))
    assert "temperature" not in server.requests[0]
    assert "max_tokens" not in server.requests[0]
    assert server.requests[0]["max_completion_tokens"] == 400


def test_an_answer_that_a_kill_has_cut_is_asked_again_and_the_others_are_not(tmp_path: Path) -> None:
    with chat_server(lambda request, number: Say("A")) as server:
        teacher(server.url, tmp_path, concurrency=1).logits(texts("x", "y"))
        file = tmp_path / FILE
        file.write_bytes(file.read_bytes()[:-20])
        teacher(server.url, tmp_path, concurrency=1).logits(texts("x", "y"))
        assert len(server.requests) == 3
        assert "Text: y" in server.prompts[2]
        teacher(server.url, tmp_path, concurrency=1).logits(texts("x", "y"))
    assert len(server.requests) == 3
    assert len(AnswerStore(tmp_path)) == 0, "nothing is read before it is asked for"


def test_a_flipped_bit_in_a_paid_answer_is_refused_with_its_line_and_only_that_text_is_asked_again(
    tmp_path: Path,
) -> None:
    with chat_server(lambda request, number: Say("A")) as server:
        teacher(server.url, tmp_path, concurrency=1).logits(texts("x", "y"))
        file = tmp_path / FILE
        whole = file.read_bytes()
        file.write_bytes(whole.replace(b'"answer": "A"', b'"answer": "C"', 1))
        with pytest.raises(WorkspaceError, match=rf"{FILE}:1 is damaged: .*remove that line and run the same command"):
            teacher(server.url, tmp_path).logits(texts("x", "y"))
        assert len(server.requests) == 2
        file.write_bytes(b"".join(whole.splitlines(keepends=True)[1:]))
        teacher(server.url, tmp_path).logits(texts("x", "y"))
        assert len(server.requests) == 3
        assert "Text: x" in server.prompts[2]


def test_an_interrupt_stores_what_is_on_its_way_and_sends_nothing_more(tmp_path: Path) -> None:
    class Interrupt(BaseException):
        """As Ctrl-C arrives."""

    def progress(done: int, total: int | None) -> None:
        raise Interrupt

    def behave(request: dict[str, Any], number: int) -> Say | Fault:
        return Fault(delay=0.0 if number == 0 else 0.3)

    with chat_server(behave) as server:
        with pytest.raises(Interrupt):
            teacher(server.url, tmp_path, concurrency=4).logits(texts(*map(str, range(40))), progress)
        sent = len(server.requests)
        assert sent <= 8
        store = AnswerStore(tmp_path)
        store.refresh()
        assert len(store) == sent
        teacher(server.url, tmp_path, concurrency=4).logits(texts(*map(str, range(40))))
        assert len(server.requests) == 40


def test_as_many_requests_are_on_their_way_as_the_recipe_allows(tmp_path: Path) -> None:
    def most(server: ChatServer, name: str, **options: Any) -> int:
        teacher(server.url, tmp_path / name, **options).logits(texts(*map(str, range(12))))
        return server.most_at_once

    with chat_server(lambda request, number: Fault(delay=0.05)) as server:
        assert most(server, "one", concurrency=1) == 1
    with chat_server(lambda request, number: Fault(delay=0.05)) as server:
        assert 2 <= most(server, "three", concurrency=3) <= 3


def test_the_rate_spaces_requests(tmp_path: Path) -> None:
    started = time.perf_counter()
    with chat_server(lambda request, number: Say("A")) as server:
        teacher(server.url, tmp_path, rate=600.0).logits(texts(*map(str, range(6))))
    assert time.perf_counter() - started >= 0.5
    assert len(server.requests) == 6


def test_evaluation_texts_are_asked_about_only_where_the_recipe_says_so(tmp_path: Path) -> None:
    with chat_server(lambda request, number: Say("A")) as server:
        assert not teacher(server.url, tmp_path).has(texts("test text"))
        assert server.requests == []
        assert teacher(server.url, tmp_path, evaluate=True).has(texts("test text"))
        assert len(server.requests) == 1
        assert teacher(server.url, tmp_path).has(texts("test text")), "it is stored now"


# ---- calibration ----


def test_an_over_confident_teacher_is_softened_to_its_accuracy_on_the_labelled_texts(tmp_path: Path) -> None:
    """It says 0.98 and is right in 80 of 100 texts: among two classes, 0.8 is the most likely probability."""
    labelled = [((f"text {n}", None), 0 if n < 80 else 1) for n in range(100)]
    with chat_server(lambda request, number: Say("A", logs(A=0.98, B=0.01, C=0.01))) as server:
        asked = teacher(server.url, tmp_path, labelled)
        logits = asked.logits(texts("new"))
        assert len(server.requests) == 101
    assert probabilities(logits)[0][0] == pytest.approx(0.8, abs=0.01)
    calibration = asked.report(texts("new"))["calibration"]
    assert calibration["texts"] == 100
    assert calibration["accuracy"] == pytest.approx(0.8)
    assert calibration["ece"][0] == pytest.approx(0.18, abs=1e-6)
    assert calibration["ece"][1] < 0.01
    assert calibration["nll"][1] < calibration["nll"][0]


def test_with_few_labelled_texts_nothing_is_calibrated(tmp_path: Path) -> None:
    labelled = [((f"text {n}", None), n % 2) for n in range(19)]
    with chat_server(lambda request, number: Say("A", logs(A=0.98, B=0.01, C=0.01))) as server:
        asked = teacher(server.url, tmp_path, labelled)
        assert probabilities(asked.logits(texts("new")))[0][0] == pytest.approx(0.98, abs=1e-5)
    assert asked.calibration.texts == 0
