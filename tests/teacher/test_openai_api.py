"""One attempt against a real server on loopback: replies, errors, headers, and a key that appears nowhere."""

from __future__ import annotations

import email.utils
import json
import re
import subprocess
import sys
import time
import traceback
from typing import Any

import pytest

from bridge_edge.errors import UserError
from bridge_edge.prices import Price
from bridge_edge.teacher.base import Reply, Request, TeacherError
from bridge_edge.teacher.openai_api import Endpoint, OpenAITeacher
from bridge_edge.teacher.prompt import sanitize
from bridge_edge.teacher.verdict import retry_after
from tests.teacher.loopback import chat, serve

KEY = "sk-canary-0123456789abcdef"
REQUEST = Request.of("item-7", "Is 2 even?", max_tokens=33, temperature=0.5)


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge_edge.teacher.keys._taken", {})
    monkeypatch.setenv("TOY_KEY", KEY)
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-somebody")


def teacher(url: str, timeout_s: float = 5.0, **more: Any) -> OpenAITeacher:
    return OpenAITeacher(Endpoint("toy", url, "TOY_KEY", timeout_s, **more), Price(1, 2))


def ask(status: int, headers: dict, body: str | bytes, timeout_s: float = 5.0, delay: float = 0.0) -> Reply:
    with serve(lambda n, b: (status, headers, body), delay) as server:
        return teacher(server.url, timeout_s).ask(REQUEST)


def fails(status: int, body: str | bytes = "{}", headers: dict | None = None) -> TeacherError:
    with pytest.raises(TeacherError) as error:
        ask(status, headers or {}, body)
    return error.value


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


def test_the_key_is_not_part_of_the_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    first = teacher("http://127.0.0.1:1/v1").request_hash(REQUEST)
    monkeypatch.setenv("TOY_KEY", "another-key")
    assert teacher("http://127.0.0.1:1/v1").request_hash(REQUEST) == first


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


def test_the_key_appears_in_no_error_and_no_reply() -> None:
    texts = []
    for status in (200, 400, 401, 500):
        for body in (f"<html>{KEY}</html>", json.dumps({"error": {"message": f"bad key {KEY}", "code": "x"}})):
            error = fails(status, body, {"x-request-id": KEY})
            texts += [str(error), repr(error), "".join(traceback.format_exception(error))]
            texts.append(error.reply.text if error.reply else "")
    texts.append(ask(200, {}, chat(f"You said {KEY}.\nAnswer: yes")).text)
    assert "You said [key]." in texts[-1]
    one = teacher("http://127.0.0.1:1/v1")
    texts += [repr(one), one.name, repr(one.endpoint)]
    assert KEY not in "".join(texts)
    assert "TOY_KEY" in str(fails(401))


def test_a_key_in_pieces_is_not_put_together_by_the_cleaning(monkeypatch: pytest.MonkeyPatch) -> None:
    body = json.loads(chat(f"{KEY[:9]}\u200b{KEY[9:]} and {KEY[:9]}<|x|>{KEY[9:]}.\nAnswer: yes"))
    body["model"] = f"toy {KEY}"
    reply = ask(200, {}, json.dumps(body))
    assert sanitize(reply.text) == "[key] and [key].\nAnswer: yes"
    assert reply.model == "toy [key]"
    said = fails(400, json.dumps({"error": {"message": f"{KEY[:9]}\u200b{KEY[9:]}", "type": KEY}}))
    assert KEY not in str(said) + said.status
    monkeypatch.setenv("TOY_KEY", "none")  # where no key is needed, and a word of many answers
    assert ask(200, {}, chat("none of them\nAnswer: no")).text == "none of them\nAnswer: no"


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


@pytest.mark.parametrize("value", [None, "", "  "])
def test_a_missing_key_names_the_variable(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.delenv("TOY_KEY") if value is None else monkeypatch.setenv("TOY_KEY", value)
    with pytest.raises(UserError, match=r"'TOY_KEY' is not set.*export TOY_KEY"):
        teacher("http://127.0.0.1:1/v1")


def test_the_key_is_taken_out_of_what_children_inherit(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(lambda n, b: (200, {}, chat("Answer: yes"))) as server:
        first, again = teacher(server.url), teacher(server.url)  # the second finds it in memory
        child = subprocess.run([sys.executable, "-c", "import os; print(dict(os.environ))"], capture_output=True)
        monkeypatch.setenv("TOY_KEY", "sk-another")
        for one in (first, again, teacher(server.url)):
            one.ask(REQUEST)
    assert b"PATH" in child.stdout
    assert KEY.encode() not in child.stdout
    sent = [value for headers in server.headers for name, value in headers.items() if name.lower() == "authorization"]
    assert sent == [f"Bearer {KEY}"] * 2 + ["Bearer sk-another"]


def test_an_unusable_key_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY_KEY", "secret\nkey")
    with pytest.raises(UserError, match="no usable key") as error:
        teacher("http://127.0.0.1:1/v1")
    assert "secret" not in str(error.value)


def test_a_local_server_needs_no_key() -> None:
    with serve(lambda n, b: (200, {}, chat("Answer: yes"))) as server:
        local = OpenAITeacher(Endpoint("toy", server.url, key_env=""), Price())
        assert local.ask(REQUEST).text == "Answer: yes"


def test_bad_endpoints_are_refused_without_showing_secrets() -> None:
    for url in ("https://user:hunter2@host/v1", "https://host/v1?key=hunter2", "user:hunter2@host/v1"):
        with pytest.raises(UserError, match=r"teacher\.api_key_env") as error:
            Endpoint("toy", url)
        assert "hunter2" not in str(error.value)
    for url in ("host/v1", "http:///v1", "http://host:port/v1", "http://host:99999/v1", "file:///v1", "http://[::1/v1"):
        with pytest.raises(UserError, match=re.escape(f"base_url is '{url}'")):
            Endpoint("toy", url)
    with pytest.raises(UserError, match="extra sets 'n'"):
        Endpoint("toy", extra={"n": 5})
    assert Endpoint("toy").limit_field == "max_completion_tokens"
