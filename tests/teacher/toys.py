"""A teacher that counts a token a text and ten a prompt, for tests of the books; and the key of the others."""

from __future__ import annotations

from bridge_edge.prices import Price
from bridge_edge.teacher.base import Reply, Request, digest

KEY = "sk-canary-0123456789abcdef"


class Toy:
    """A teacher at a price; who has it asked says in a subclass what it answers."""

    name = "toy"

    def __init__(self, price: Price) -> None:
        self.price = price

    def count_tokens(self, text: str) -> int:
        return 1

    def prompt_tokens(self, request: Request) -> int:
        return 10

    def request_hash(self, request: Request) -> str:
        return digest("toy", "", "toy", request)

    def ask(self, request: Request) -> Reply:
        raise AssertionError("not asked")
