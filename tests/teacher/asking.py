"""What tests of the asking loop ask, and whom: a real client of a server on loopback, or a teacher by a function."""

from __future__ import annotations

import threading
from collections.abc import Callable

from bridge_edge.prices import Price
from bridge_edge.teacher.ask import Policy
from bridge_edge.teacher.base import Reply, Request, digest, quarter
from bridge_edge.teacher.openai_api import Endpoint, OpenAITeacher
from tests.teacher.loopback import Server

PRICE = Price(1, 2)
QUICK = Policy(first_wait_s=0.01, most_wait_s=0.05)


def api(server: Server, timeout_s: float = 5.0) -> OpenAITeacher:
    return OpenAITeacher(Endpoint("toy", server.url, "TOY_KEY", timeout_s), PRICE)


def requests(n: int, max_tokens: int = 20) -> list[Request]:
    return [Request.of(f"item-{i}", f"Is {i} even?", max_tokens) for i in range(n)]


def bill(server: Server) -> int:
    return sum(PRICE.nano(prompt, completion) for prompt, completion in server.billed)


class Toy:
    """A teacher that does what `behave(request, call)` says."""

    name, price = "toy", PRICE

    def __init__(self, behave: Callable[[Request, int], Reply]) -> None:
        self.behave, self.calls = behave, 0
        self.lock = threading.Lock()
        self.order: list[str] = []

    def count_tokens(self, text: str) -> int:
        return quarter(text)

    def prompt_tokens(self, request: Request) -> int:
        return 10

    def request_hash(self, request: Request) -> str:
        return digest("toy", "", "toy", request)

    def ask(self, request: Request) -> Reply:
        with self.lock:
            call, self.calls = self.calls, self.calls + 1
            self.order.append(request.item_id)
        return self.behave(request, call)


def good(request: Request, call: int) -> Reply:
    return Reply(f"So.\nAnswer: {request.item_id}", 10, 5)
