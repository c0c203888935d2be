"""One request to an OpenAI-compatible endpoint: what is sent, how replies and errors are read, what is billed."""

from __future__ import annotations

import email.utils
import json
import time

import pytest

from bridge_edge.teacher.base import Reply, Request, TeacherError
from bridge_edge.teacher.verdict import retry_after
from tests.teacher.endpoint import REQUEST, ask, fails, teacher
from tests.teacher.loopback import chat, serve
from tests.teacher.toys import KEY


def test_a_reply_and_what_was_sent() -> None:
    with serve(lambda n, b: (200, {}, chat("Yes.\nAnswer: yes", 40, 8))) as server:
        reply = teacher(server.url, extra={"reasoning_effort": "low"}).ask(REQUEST)
    assert reply == Reply("Yes.\nAnswer: yes", 40, 8, "stop", "toy-1")
    assert server.bodies == [
        {
            "model": "toy",
            "messages": [{"role": "user", "content": "Is 2 even?"}],
            "max_tokens": 33,
            "temperature": 0.5,
            "reasoning_effort": "low",
        }
    ]
    headers = {name.lower(): value for name, value in server.headers[0].items()}
    assert headers["authorization"] == f"Bearer {KEY}"
    assert "openai-organization" not in headers  # it is not that company's server
    assert not {"x-stainless-os", "x-stainless-arch", "x-stainless-runtime-version"} & set(headers)


def test_the_bound_holds_and_the_hash_covers_what_shapes_the_answer() -> None:
    one = teacher("http://127.0.0.1:1/v1")
    assert one.count_tokens("\u00e9t\u00e9") == 5
    assert one.prompt_tokens(REQUEST) > len("Is 2 even?")
    others = [
        teacher("http://127.0.0.1:2/v1").request_hash(REQUEST),
        teacher("http://127.0.0.1:1/v1", extra={"top_p": 0.5}).request_hash(REQUEST),
        one.request_hash(Request.of("item-7", "Is 3 even?", 33, 0.5)),
        one.request_hash(Request.of("item-7", "Is 2 even?", 34, 0.5)),
        one.request_hash(Request.of("item-7", "Is 2 even?", 33, 0.6)),
        one.request_hash(Request.of("item-7", "Is 2 even?", 33, 0.5, sample=1)),
    ]
    assert len({one.request_hash(REQUEST), *others}) == 7
    assert one.request_hash(Request.of("other", "Is 2 even?", 33, 0.5)) == one.request_hash(REQUEST)


@pytest.mark.parametrize(
    ("status", "body", "word", "retryable", "billed", "scope"),
    [
        (400, '{"error": {"message": "bad field"}}', "http 400", False, "no", "teacher"),
        (400, '{"error": {"code": "content_filter", "message": "no"}}', "filtered", False, "unknown", "item"),
        (400, '{"error": {"code": "context_length_exceeded"}}', "context overflow", False, "no", "item"),
        (400, '{"error": {"message": "Prompt is too long: 9 > 8"}}', "context overflow", False, "no", "item"),
        (500, '{"error": {"message": "context window service down"}}', "http 500", True, "unknown", "teacher"),
        (401, '{"error": {"message": "who?"}}', "not authorised", False, "no", "all"),
        (402, "pay", "out of credit", False, "no", "all"),
        (403, "{}", "http 403", False, "no", "teacher"),
        (404, "<html>", "http 404", False, "no", "teacher"),
        (302, "", "http 302", False, "no", "teacher"),
        (408, "{}", "http 408", True, "unknown", "teacher"),
        (409, "{}", "http 409", True, "no", "teacher"),
        (429, "{}", "http 429", True, "no", "teacher"),
        (429, '{"error": {"code": "insufficient_quota"}}', "out of credit", False, "no", "all"),
        (500, "oops", "http 500", True, "unknown", "teacher"),
        (503, "[]", "http 503", True, "unknown", "teacher"),
    ],
)
def test_http_errors(status: int, body: str, word: str, retryable: bool, billed: str, scope: str) -> None:
    error = fails(status, body)
    assert (error.status, error.retryable, error.billed, error.scope) == (word, retryable, billed, scope)
    assert "item 'item-7'" in str(error)
    assert str(status) in str(error)


def test_the_server_may_overrule_retrying() -> None:
    assert not fails(500, headers={"x-should-retry": "false"}).retryable
    assert fails(400, headers={"x-should-retry": "true"}).retryable
    assert fails(429, headers={"Retry-After": "7"}).retry_after == 7


def test_retry_after_in_all_its_forms() -> None:
    assert retry_after({"retry-after-ms": "1500", "retry-after": "9"}) == 1.5
    assert retry_after({"retry-after": "2.5"}) == 2.5
    in_a_minute = email.utils.formatdate(time.time() + 60, usegmt=True)
    wait = retry_after({"retry-after": in_a_minute})
    assert wait is not None
    assert 57 < wait <= 60
    assert retry_after({"retry-after": email.utils.formatdate(time.time() - 60, usegmt=True)}) == 0
    assert retry_after({"retry-after": "inf"}) == float("inf")
    for bad in ("soon", "-3", "nan", ""):
        assert retry_after({"retry-after": bad}) is None
    assert retry_after({}) is None


@pytest.mark.parametrize(
    "body",
    [
        "<html><body>Welcome</body></html>",
        "",
        '{"choices": []}',
        '{"choices": [{"message": null}]}',
        '{"error": {"message": "upstream"}}',
        "[" * 100_000,
        '"text"',
        b"\xff\xfe\x00",
    ],
)
def test_garbage_with_status_200_is_a_paid_failure(body: str | bytes) -> None:
    error = fails(200, body)
    assert (error.status, error.billed, error.retryable) == ("malformed", "yes", False)
    assert error.reply is not None
    assert error.reply.usage is None


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        (None, (None, None)),
        ("many", (None, None)),
        ({"prompt_tokens": "40", "completion_tokens": True}, (None, None)),
        ({"prompt_tokens": 1.5, "completion_tokens": -3}, (None, -3)),
    ],
)
def test_odd_usage_does_not_lose_the_answer(usage: object, counts: tuple) -> None:
    reply = ask(200, {}, chat("Answer: yes", usage=usage))
    assert reply.text == "Answer: yes"
    assert (reply.prompt_tokens, reply.completion_tokens) == counts


def test_useless_replies_are_paid_for() -> None:
    filtered = fails(200, chat("Half an", finish_reason="content_filter"))
    assert (filtered.status, filtered.billed, filtered.scope) == ("filtered", "yes", "item")
    assert filtered.reply is not None
    assert filtered.reply.prompt_tokens == 40
    refused = json.loads(chat(""))
    refused["choices"][0]["message"].update(content=None, refusal="I will not.")
    assert fails(200, json.dumps(refused)).status == "refused"
    empty = fails(200, chat("  \n"))
    assert (empty.status, empty.scope) == ("empty", "teacher")  # several in a row stop the run
    assert "raise teacher.max_tokens" in str(fails(200, chat("", finish_reason="length")))
    called = json.loads(chat("", finish_reason="tool_calls"))
    called["choices"][0]["message"].update(content=None, tool_calls=[{"id": "1"}], reasoning_content="Let me see.")
    assert "called a tool" in str(fails(200, json.dumps(called)))


def test_parts_are_joined() -> None:
    body = json.loads(chat(""))
    body["choices"][0]["message"]["content"] = [{"type": "text", "text": "Answer: "}, {"type": "text", "text": "yes"}]
    assert ask(200, {}, json.dumps(body)).text == "Answer: yes"


def test_a_timeout_and_a_reset_may_have_been_billed_but_a_closed_port_was_not() -> None:
    with pytest.raises(TeacherError) as slow:
        ask(200, {}, chat("late"), timeout_s=0.2, delay=0.6)
    assert (slow.value.status, slow.value.billed, slow.value.retryable) == ("timeout", "unknown", True)
    reset = fails(0)
    assert (reset.status, reset.billed, reset.retryable) == ("connection", "unknown", True)
    with serve(lambda n, b: (200, {}, "")) as server:
        url = server.url
    with pytest.raises(TeacherError) as closed:
        teacher(url).ask(REQUEST)
    assert (closed.value.billed, closed.value.retryable) == ("no", True)


def test_what_stands_beside_the_messages_is_part_of_the_bound() -> None:
    plain = teacher("http://127.0.0.1:1/v1").prompt_tokens(REQUEST)
    answers = tuple(f"a rather long answer {i}" for i in range(40))
    schema = teacher("http://127.0.0.1:1/v1", structured="auto", answers=answers)
    assert schema.prompt_tokens(REQUEST) >= plain + len("".join(answers))
    tools = teacher("http://127.0.0.1:1/v1", extra={"tools": ["x" * 500]})
    assert tools.prompt_tokens(REQUEST) >= plain + 500


def test_hidden_tokens_that_only_the_total_shows_are_counted() -> None:
    usage = {"prompt_tokens": 40, "completion_tokens": 8, "total_tokens": 148}
    reply = ask(200, {}, chat("Answer: yes", usage=usage))
    assert (reply.prompt_tokens, reply.completion_tokens) == (40, 108)
    cached = {**usage, "total_tokens": 48, "prompt_tokens_details": {"cached_tokens": 32}}
    assert ask(200, {}, chat("Answer: yes", usage=cached)).prompt_tokens == 40  # at the full price: never too low


@pytest.mark.parametrize(
    ("status", "said", "hint"),
    [
        (404, "no such route", "should teacher.base_url end in /v1?"),
        (400, "temperature 0.5 is not supported", "teacher.temperature=null"),
        (401, "who?", "TOY_KEY"),
    ],
)
def test_an_error_says_what_mends_it(status: int, said: str, hint: str) -> None:
    body = json.dumps({"error": {"message": said}})
    with serve(lambda n, b: (status, {}, body)) as server, pytest.raises(TeacherError) as error:
        teacher(server.url.removesuffix("/v1")).ask(REQUEST)
    assert hint in str(error.value)


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_slash_behind_the_address_changes_nothing(slash: str) -> None:
    with serve(lambda n, b: (200, {}, chat("Answer: yes"))) as server:
        one = teacher(server.url + slash)
        assert one.ask(REQUEST).text == "Answer: yes"
        assert one.request_hash(REQUEST) == teacher(server.url).request_hash(REQUEST)


def test_an_endpoint_that_wants_the_newer_name_of_the_limit_gets_it() -> None:
    def script(number: int, body: dict) -> tuple[int, dict[str, str], str]:
        if "max_tokens" in body:
            return 400, {}, '{"error": {"message": "Use \'max_completion_tokens\' instead.", "param": "max_tokens"}}'
        return 200, {}, chat("Answer: yes")

    with serve(script) as server:
        one = teacher(server.url)
        with pytest.raises(TeacherError) as error:
            one.ask(REQUEST)
        assert (error.value.billed, error.value.retryable, error.value.scope) == ("no", True, "item")
        assert one.ask(REQUEST).text == "Answer: yes"
    assert server.bodies[1]["max_completion_tokens"] == 33
    assert "max_tokens" not in server.bodies[1]
