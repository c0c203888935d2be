"""One request to a server on loopback that answers as it is told."""

from __future__ import annotations

from typing import Any

import pytest

from bridge_edge.prices import Price
from bridge_edge.teacher.base import Reply, Request, TeacherError
from bridge_edge.teacher.openai_api import Endpoint, OpenAITeacher
from tests.teacher.loopback import serve

REQUEST = Request.of("item-7", "Is 2 even?", max_tokens=33, temperature=0.5)


def teacher(url: str, timeout_s: float = 5.0, **more: Any) -> OpenAITeacher:
    return OpenAITeacher(Endpoint("toy", url, "TOY_KEY", timeout_s, **more), Price(1, 2))


def ask(status: int, headers: dict, body: str | bytes, timeout_s: float = 5.0, delay: float = 0.0) -> Reply:
    with serve(lambda n, b: (status, headers, body), delay) as server:
        return teacher(server.url, timeout_s).ask(REQUEST)


def fails(status: int, body: str | bytes = "{}", headers: dict | None = None) -> TeacherError:
    with pytest.raises(TeacherError) as error:
        ask(status, headers or {}, body)
    return error.value
