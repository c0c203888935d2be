"""JSON answers: what is asked of an endpoint, the fallback where it cannot, and the strict reading."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bridge_edge.budget import Caps, Ledger
from bridge_edge.data.card import Parsed
from bridge_edge.errors import UserError
from bridge_edge.prices import Price
from bridge_edge.teacher.ask import Policy, ask_all
from bridge_edge.teacher.base import Request, TeacherError
from bridge_edge.teacher.openai_api import Endpoint, OpenAITeacher
from bridge_edge.teacher.structured import read_reply, response_format
from tests.teacher.loopback import Scripted, chat, serve

CHOICES = ("Yes", "No")
REFUSAL = '{"error": {"message": "Invalid parameter: response_format of type json_schema is not supported"}}'


def teacher(url: str, mode: Any, **more: Any) -> OpenAITeacher:
    endpoint = Endpoint("toy", url, "", 5.0, structured=mode, answers=CHOICES, **more)
    return OpenAITeacher(endpoint, Price(1, 2))


def requests(n: int) -> list[Request]:
    return [Request.of(f"item-{i}", f"Is {i} even?", 20) for i in range(n)]


def test_the_schema_names_the_choices_and_nothing_else_is_allowed() -> None:
    with serve(lambda n, b: (200, {}, chat("{}"))) as server:
        teacher(server.url, "auto").ask(requests(1)[0])
        teacher(server.url, "off").ask(requests(1)[0])
    schema = server.bodies[0]["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["answer"]["enum"] == ["Yes", "No"]
    assert (schema["required"], schema["additionalProperties"]) == (["rationale", "answer"], False)
    assert "response_format" not in server.bodies[1]
    assert "enum" not in json.dumps(response_format(()))


def test_a_refusal_is_met_once_and_the_rest_goes_without(tmp_path: Path) -> None:
    def script(number: int, body: dict) -> Scripted:
        if "response_format" in body:
            return 400, {}, REFUSAL
        return 200, {}, chat("So.\nAnswer: Yes")

    with serve(script) as server:
        one = teacher(server.url, "auto")
        with Ledger(tmp_path / "l.sqlite", Caps(), one.price) as ledger:
            outcome = ask_all(one, ledger, requests(6), 1, policy=Policy(first_wait_s=0.01))
            states = [row["state"] for row in ledger.attempts()]
    assert len(outcome.replies) == 6
    assert sum("response_format" in body for body in server.bodies) == 1
    assert states.count("released") == 1
    assert states.count("settled") == 6
    assert "not supported" in one.fell_back
    assert one.request_hash(requests(1)[0]) == teacher(server.url, "auto").request_hash(requests(1)[0])


def test_a_demanded_schema_that_is_refused_stops_the_run() -> None:
    with serve(lambda n, b: (400, {}, REFUSAL)) as server, pytest.raises(TeacherError) as error:
        teacher(server.url, "json_schema").ask(requests(1)[0])
    assert (error.value.scope, error.value.billed) == ("all", "no")
    assert "teacher.structured=auto" in str(error.value)


def test_other_bad_requests_do_not_end_the_schema() -> None:
    with serve(lambda n, b: (400, {}, '{"error": {"message": "bad temperature"}}')) as server:
        one = teacher(server.url, "auto")
        with pytest.raises(TeacherError) as error:
            one.ask(requests(1)[0])
    assert (error.value.status, error.value.retryable, one.fell_back) == ("http 400", False, "")


def test_the_mode_is_part_of_the_question_and_an_own_format_needs_it_off() -> None:
    url, one = "http://127.0.0.1:1/v1", requests(1)[0]
    hashes = {mode: teacher(url, mode).request_hash(one) for mode in ("auto", "json_schema", "off")}
    assert hashes["auto"] == hashes["json_schema"] != hashes["off"]
    with pytest.raises(UserError, match=r"teacher\.structured=off"):
        teacher(url, "auto", extra={"response_format": {}})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"rationale": "Two is even.", "answer": "Yes"}', Parsed("Two is even.", "Yes")),
        (' {"answer": "yes", "rationale": "So."}\n', Parsed("So.", "Yes")),
        ('{"rationale": "So.\\nAnswer: Yes", "answer": "Yes"}', Parsed("So.", "Yes")),
        ('{"rationale": "So.\\nAnswer: No", "answer": "Yes"}', None),
        ('{"rationale": "So.", "answer": "Maybe"}', None),
        ('{"rationale": "So.", "answer": "Yes", "more": 1}', None),
        ('{"rationale": "So."}', None),
        ('{"rationale": ["So."], "answer": "Yes"}', None),
        ('{"rationale": "So.", "answer": 1}', None),
        ('{"rationale": "cut of', None),
        ('{"rationale": "So.", "answer": "No\\nAnswer: Yes"}', None),
        ("{" * 100_000, None),
        ("So.\nAnswer: No", Parsed("So.", "No")),
        ('{"rationale": "\\u003c|im_end|>So\\u0000.\\u202e", "answer": "\\u003c/s>No"}', Parsed("So.", "No")),
    ],
)
def test_reading_is_strict(text: str, expected: Parsed | None) -> None:
    found = read_reply(text, CHOICES, structured=True)
    if expected is None:
        assert found.answer is None
    else:
        assert found == expected


def test_json_that_was_not_asked_for_is_no_answer() -> None:
    assert read_reply('{"rationale": "So.", "answer": "Yes"}', CHOICES, structured=False).answer is None
    assert read_reply('{"rationale": "So.", "answer": "417"}', (), structured=True) == Parsed("So.", "417")
