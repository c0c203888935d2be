"""A loaded student as lm-evaluation-harness wants a model: in process, in the runtime and the quantisation that ship.

Imported only where the harness is installed. Prompts of a task are one user message in the student's own chat template,
which is applied to token ids once, as everywhere in this package: the harness passes texts around, so a framed text is
marked by its first character. Decoding is greedy. Not covered: several turns, system prompts, a prefix of the answer,
sampling, batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from bridge_edge.errors import UserError
from bridge_edge.runtimes.base import Runtime

FRAMED = "\u0002"  # the control character "start of text", which no tokenizer's text contains
UNBOUNDED = 1 << 20  # a context for runtimes that name none


class Student(TemplateLM):
    """See lm-evaluation-harness's `LM`; `new` bounds answers for which a task names no length."""

    def __init__(self, runtime: Runtime, new: int) -> None:
        super().__init__()
        self.runtime, self.new = runtime, new
        self.context: int = getattr(runtime, "context_length", None) or UNBOUNDED
        self.last: tuple[tuple[int, ...], np.ndarray] = ((), np.zeros((0, 0)))

    @property
    def eot_token_id(self) -> int:
        return min(self.runtime.eos_ids)

    @property
    def tokenizer_name(self) -> str:
        return str(self.runtime.path)

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        if [m["role"] for m in chat_history] != ["user"] or not add_generation_prompt:
            raise UserError("the task asks for a system prompt or a prefix of the answer", "leave these out")
        return FRAMED + chat_history[0]["content"]

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        if string.startswith(FRAMED):
            return self.runtime.chat(string.removeprefix(FRAMED))
        return self.runtime.encode(string)

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        if context.startswith(FRAMED):  # the template ends where the answer begins: nothing can merge across
            return self.tok_encode(context), self.runtime.encode(continuation)
        pair: tuple[list[int], list[int]] = super()._encode_pair(context, continuation)
        return pair

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **kwargs: Any
    ) -> list[tuple[float, bool]]:
        return [self.likelihood(context, continuation) for _, context, continuation in requests]

    def likelihood(self, context: Sequence[int], continuation: Sequence[int]) -> tuple[float, bool]:
        """Log probability of a continuation, and whether it is what greedy decoding would say."""
        if len(continuation) > self.context - 1:
            raise UserError(f"a text of {len(continuation)} tokens does not fit", f"the context is {self.context}")
        ids = tuple([*context, *continuation][-self.context :][:-1])
        if self.last[0] != ids:  # choices of one token share all that stands before them
            self.last = (ids, self.runtime.logits(ids))
        rows = self.last[1][-len(continuation) :].astype(np.float64)  # (N, V)
        rows -= rows.max(axis=1, keepdims=True)
        logs = rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))
        chosen = np.array(continuation)
        return float(logs[np.arange(len(chosen)), chosen].sum()), bool((rows.argmax(axis=1) == chosen).all())

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Of whole texts, each window of the context's length predicted from one token before it."""
        found = []
        for (text,) in (request.args for request in requests):
            windows = get_rolling_token_windows(self.tok_encode(text), self.prefix_token_id, self.context - 1, 1)
            found.append(sum(self.likelihood(*make_disjoint_window(window))[0] for window in windows))
        return found

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        return [self.answer(*request.args) for request in requests]

    def answer(self, text: str, wishes: dict[str, Any]) -> str:
        """The greedy completion of a text, up to the first of the task's stop strings."""
        if wishes.get("do_sample") and wishes.get("temperature", 1):
            raise UserError("the task samples its answers", "set do_sample: false in its generation_kwargs")
        until = wishes.get("until") or []
        stops = [stop for stop in ([until] if isinstance(until, str) else until) if stop]
        bound = int(wishes.get("max_gen_toks") or self.new)
        ids = self.tok_encode(text)[-(self.context - 1) :]
        made: list[int] = []
        for token in self.runtime.stream(ids, bound):
            made.append(token)
            said = self.runtime.decode(made)
            if ends := [said.index(stop) for stop in stops if stop in said]:
                return said[: min(ends)]
        return self.runtime.decode(made)
