"""The key of an endpoint: where it comes from, and that it is shown and stored nowhere."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import traceback

import pytest

from bridge_edge.errors import UserError
from bridge_edge.prices import Price
from bridge_edge.teacher.openai_api import Endpoint, OpenAITeacher
from bridge_edge.teacher.prompt import sanitize
from tests.teacher.endpoint import REQUEST, ask, fails, teacher
from tests.teacher.loopback import chat, serve
from tests.teacher.toys import KEY


def test_the_key_is_not_part_of_the_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    first = teacher("http://127.0.0.1:1/v1").request_hash(REQUEST)
    monkeypatch.setenv("TOY_KEY", "another-key")
    assert teacher("http://127.0.0.1:1/v1").request_hash(REQUEST) == first


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


@pytest.mark.parametrize("value", [None, "", "  "])
def test_a_missing_key_names_the_variable(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.delenv("TOY_KEY") if value is None else monkeypatch.setenv("TOY_KEY", value)
    with pytest.raises(UserError, match=r"'TOY_KEY' is not set.*export TOY_KEY.*to nothing"):
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
