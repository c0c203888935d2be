"""The server through the official client: the same replies as the library call, and a proper status for the rest."""

import asyncio
import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from aiohttp import web

from bridge_edge import Student
from bridge_edge.serve.app import Door, Server
from bridge_edge.serve.wire import until
from tests import tiny
from tests.rule_runtime import RuleRuntime
from tests.test_cli import call

QUESTION = [{"role": "user", "content": "Is it 7?"}]


@contextmanager
def running(student: Student, **door: Any) -> Iterator[str]:
    """A server on a free port, in a thread; yields host:port."""
    loop, over, ready = asyncio.new_event_loop(), asyncio.Event(), threading.Event()
    listening = socket.create_server(("127.0.0.1", 0))

    async def work() -> None:
        app = Server(student, "toy", Door(**door)).app()
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=2)
        await runner.setup()
        await web.SockSite(runner, listening).start()
        ready.set()
        await over.wait()
        await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=(work(),))
    thread.start()
    assert ready.wait(20)
    try:
        yield f"127.0.0.1:{listening.getsockname()[1]}"
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(20)
        loop.close()
        assert not thread.is_alive()


def client(at: str, token: str = "none") -> Any:
    return openai.OpenAI(base_url=f"http://{at}/v1", api_key=token, max_retries=0, timeout=30)


@pytest.fixture(scope="module")
def rule(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(Student(RuleRuntime(tmp_path_factory.mktemp("rule")))) as at:
        yield at


def test_the_official_client_gets_what_the_library_says(formats: Path) -> None:
    with Student.load(formats / "m.gguf", 1) as student, running(Student.load(formats / "m.gguf", 1)) as at:
        ai = client(at)
        assert [m.id for m in ai.models.list()] == ["toy"]
        for question in tiny.PROMPTS:
            wanted = student.answer(question, think=5)
            messages = [{"role": "user", "content": question}]
            words = {"model": "toy", "messages": messages, "extra_body": {"reasoning_budget": 5}}
            whole = ai.chat.completions.create(**words)
            assert whole.choices[0].message.content == wanted.text
            assert whole.usage.completion_tokens == wanted.tokens
            assert whole.usage.completion_tokens_details.reasoning_tokens == wanted.thought
            assert whole.bridge_edge["closed"] == wanted.closed
            chunks = list(ai.chat.completions.create(**words, stream=True, stream_options={"include_usage": True}))
            assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == wanted.text
            assert chunks[-1].usage.total_tokens == wanted.prompt_tokens + wanted.tokens
            assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
        plain = ai.completions.create(model="toy", prompt="Is the deposit", max_tokens=3)
        ids = list(student.runtime.stream(student.runtime.encode("Is the deposit"), 3))
        assert (plain.choices[0].text, plain.choices[0].finish_reason) == (student.runtime.decode(ids), "length")
        for stream in (False, True):
            with pytest.raises(openai.BadRequestError, match="context is 256"):
                ai.completions.create(model="toy", prompt="a" * 2000, stream=stream)
        with pytest.raises(openai.NotFoundError, match="it is called 'toy'"):
            ai.chat.completions.create(model="gpt", messages=QUESTION)


def test_a_stop_text_ends_a_reply(rule: str) -> None:
    made = client(rule).chat.completions.create(model="toy", messages=QUESTION, stop=["never", " y"])
    assert (made.choices[0].message.content, made.choices[0].finish_reason) == ("Answer:", "stop")


@pytest.mark.parametrize(
    ("pieces", "stops", "left"),
    [
        (["a", "b", "c"], [], "abc"),
        (["a", "b", "c"], ["bc"], "a"),
        (["ab", "ab", "abc"], ["abc"], "abab"),
        (["xab"], ["b", "a"], "x"),
        (["a", "b"], ["bc"], "ab"),
    ],
)
def test_what_may_be_a_stop_text_is_held_back(pieces: list[str], stops: list[str], left: str) -> None:
    assert "".join(until(pieces, stops)) == left


def post(at: str, body: bytes, path: str = "/v1/chat/completions", **headers: str) -> tuple[int, dict[str, str], Any]:
    connection = http.client.HTTPConnection(at, timeout=30)
    connection.request("POST", path, body, {"Content-Type": "application/json", **headers})
    response = connection.getresponse()
    told = response.status, dict(response.getheaders()), json.loads(response.read())
    connection.close()
    return told


def chat(**more: Any) -> bytes:
    return json.dumps({"messages": QUESTION, **more}).encode()


BAD = {
    "no JSON": (b"{", 400, "JSON"),
    "no UTF-8": (b'{"messages": "\xff"}', 400, "body"),
    "half a surrogate": (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', 400, "JSON"),
    "deep": (b'{"messages": ' + b"[" * 100_000, 400, "JSON"),
    "a list": (b"[]", 400, "body"),
    "no messages": (b"{}", 400, "messages"),
    "a conversation": (chat(messages=QUESTION * 2), 400, "one user message"),
    "a system message": (chat(messages=[{"role": "system", "content": "x"}]), 400, "one user message"),
    "a picture": (chat(messages=[{"role": "user", "content": [{"type": "image_url"}]}]), 400, "messages"),
    "two replies": (chat(n=2), 400, "n: "),
    "tools": (chat(tools=[{}]), 400, "tools"),
    "no budget": (chat(reasoning_budget=0), 400, "reasoning_budget"),
    "text as number": (chat(max_tokens="many"), 400, "max_tokens"),
    "too large": (b" " * (600 * 1024) + chat(), 413, "size"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_bodies_have_a_status_and_a_reason(name: str, rule: str) -> None:
    body, status, says = BAD[name]
    got, _, told = post(rule, body)
    assert (got, says in told["error"]["message"]) == (status, True), told


def test_who_may_not_come_in(rule: str, tmp_path: Path) -> None:
    assert post(rule, chat(), **{"Content-Type": "text/plain"})[0] == 415
    assert post(rule, chat(), Host="evil.example:80")[0] == 403
    assert post(rule, chat(), path="/v1/embeddings")[0] == 404
    with running(Student(RuleRuntime(tmp_path)), token="s3cret") as at:
        with pytest.raises(openai.AuthenticationError, match="token"):
            client(at, "wrong").models.list()
        assert post(at, chat())[0] == 401
        assert client(at, "s3cret").chat.completions.create(model="toy", messages=QUESTION).choices


def until_true(check: Any) -> None:
    for _ in range(500):
        if check():
            return
        time.sleep(0.02)
    raise AssertionError("it did not come true in ten seconds")


def test_a_full_queue_says_when_to_come_again_and_who_leaves_frees_the_place(tmp_path: Path) -> None:
    runtime = RuleRuntime(tmp_path, pause=0.1)
    done: list[str] = []
    with running(Student(runtime), waiting=1) as at:
        first = client(at).chat.completions.create(model="toy", messages=QUESTION, stream=True)
        waiting = threading.Thread(
            target=lambda: done.append(
                client(at).chat.completions.create(model="toy", messages=QUESTION).choices[0].message.content
            )
        )
        waiting.start()
        until_true(lambda: held(at) == 2)
        status, headers, told = post(at, chat())
        assert (status, told["error"]["code"]) == (429, "rate_limit_exceeded")
        assert int(headers["Retry-After"]) >= 1
        first.close()
        waiting.join(20)
        assert done == ["Answer: yes"]
        until_true(lambda: held(at) == 0)
    assert runtime.closed


def held(at: str) -> int:
    connection = http.client.HTTPConnection(at, timeout=30)
    connection.request("GET", "/health")
    value = json.loads(connection.getresponse().read())["held"]
    connection.close()
    return int(value)


def test_the_command_ends_cleanly_on_a_signal(formats: Path) -> None:
    words = [sys.executable, "-m", "bridge_edge.cli", "serve", str(formats / "m.gguf"), "--port", "0", "--threads", "1"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        at = line.partition("http://")[2].partition("/v1")[0]
        assert client(at).chat.completions.create(model="toy", messages=QUESTION).choices, line
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert process.stderr.read() == ""


def test_what_cannot_be_served_is_said(
    formats: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for words, says in (("--host 0.0.0.0", "--token"), ("--token é", "ASCII"), ("--queue -1", "--queue")):
        code, _, err = call(capsys, monkeypatch, "serve", str(formats / "m.gguf"), *words.split())
        assert (code, says in err, err.count("bridge-edge: ")) == (2, True, 1)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, _, err = call(capsys, monkeypatch, "serve", str(formats / "m.gguf"), "--port", port)
    assert (code, "choose another --port" in err) == (2, True)
