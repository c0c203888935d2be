"""The assistant behind an OpenAI-compatible server (vLLM, llama.cpp's server, text-generation-inference and others).

What: `vllm serve RUN/apprentice` on a machine with a GPU, and the annotation of the pool from here. Calls go through
the same asking loop as the teacher's: side by side, retried, each answer on disk before it is used. They are recorded
in a ledger of their own, at no cost and under no cap, since the budget is the teacher's.
The user message is the item's prompt and nothing else, framed by the server with the model's own chat template. Mean
log-probabilities are asked for and kept where the server reports them.
Not covered: proof that the server runs this run's assistant; the model's name is all that is known of it here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from bridge_edge.budget import Ledger
from bridge_edge.data.samples import Sample
from bridge_edge.errors import UserError
from bridge_edge.generate.drafts import Draft, Wish
from bridge_edge.prices import Price
from bridge_edge.progress import Advance
from bridge_edge.recipe_models import AnnotateSpec
from bridge_edge.teacher.ask import Policy, ask_all
from bridge_edge.teacher.base import Reply, Request, digest
from bridge_edge.teacher.openai_api import Endpoint, OpenAITeacher
from bridge_edge.teacher.outcome import Progress

MARK = "\n#logprob "  # behind a stored text: its mean log-probability
MOST_CHARS = 100_000


class Assistant(OpenAITeacher):
    """The client of the teacher, with a seed an item and the log-probabilities of the reply."""

    def __init__(self, endpoint: Endpoint, seed: int) -> None:
        super().__init__(endpoint, Price())
        self.seed = seed

    def request_hash(self, request: Request) -> str:
        return digest(f"assistant, seed {self.seed}", self.endpoint.base_url.rstrip("/"), self.endpoint.model, request)

    def body(self, request: Request) -> dict[str, Any]:
        seed = (self.seed * 1_000_003 + int(request.item_id, 16) + request.sample) % (1 << 31)
        return {**super().body(request), "logprobs": True, "seed": seed}

    def read(self, body: str, request: Request) -> Reply:
        reply = super().read(body, request)
        found = mean_logprob(json.loads(body))
        return reply if found is None else replace(reply, text=f"{reply.text}{MARK}{found:.5f}")


def mean_logprob(data: Any) -> float | None:
    """The mean log-probability of a chat completion's tokens, None where the server does not report any."""
    try:
        logs = [float(token["logprob"]) for token in data["choices"][0]["logprobs"]["content"]]
    except (TypeError, LookupError, ValueError):
        return None
    return sum(logs) / len(logs) if logs else None


def client_of(spec: AnnotateSpec, seed: int) -> Assistant:
    """The client of the served assistant; raises UserError for an address or a key that cannot be used."""
    try:
        return Assistant(
            Endpoint(spec.model or "", spec.base_url or "", spec.api_key_env, token_field="max_tokens"), seed
        )
    except UserError as error:  # the client speaks of the teacher's fields, which have the same names
        message, hint = (text.replace("teacher.", "annotate.") for text in (error.message, error.hint))
        raise UserError(message, hint) from None


class ServedWriter:
    """See `bridge_edge.generate.drafts.Writer`."""

    def __init__(self, spec: AnnotateSpec, wish: Wish, ledger: Path, concurrency: int) -> None:
        self.wish, self.ledger, self.concurrency = wish, ledger, concurrency
        self.assistant = client_of(spec, wish.seed)

    def write(self, items: Sequence[Sample], advance: Advance) -> Iterator[tuple[int, Draft]]:
        wish, shown = self.wish, 0
        requests = [
            Request.of(s.id, s.prompt, wish.bound, wish.temperature, k) for s in items for k in range(wish.samples)
        ]

        def tell(state: Progress) -> None:
            nonlocal shown
            ended = state.done + state.failed
            advance(max(0, ended - shown) / wish.samples, f"{state.failed} failed" if state.failed else "")
            shown = max(shown, ended)

        with closing(Ledger(self.ledger, price=Price())) as ledger:
            outcome = ask_all(self.assistant, ledger, requests, self.concurrency, tell, Policy(max_chars=MOST_CHARS))
        if outcome.stopped_by:
            raise UserError(
                f"the served assistant stopped answering: {outcome.message}",
                "what it wrote is kept; check annotate.base_url and annotate.model, and run the same command again",
            )
        failed = {(f.item_id, f.sample) for f in outcome.failures}
        for place, item in enumerate(items):
            replies = iter(outcome.replies.get(item.id, []))
            for sample in range(wish.samples):
                if (item.id, sample) in failed:  # counted as a draft that could not be read
                    yield place, Draft("", 0, None, False, sample)
                else:
                    yield place, _draft(next(replies), sample)

    def close(self) -> None:
        self.assistant.close()


def _draft(reply: Reply, sample: int) -> Draft:
    text, mark, number = reply.text.rpartition(MARK)
    try:
        logprob = float(number) if mark else None
    except ValueError:
        mark, logprob = "", None
    said = text if mark else reply.text
    return Draft(said.strip(), reply.completion_tokens or 0, logprob, reply.finish_reason != "length", sample)
