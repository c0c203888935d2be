"""Time prefill, first token, decode and whole answers of a loaded runtime, through its `stream`.

Definitions. Prefill: ids of a given length in, first token out. TTFT: the user's text in (tokenisation and chat
template included), first token out. Decode: from the first token to the last, over the tokens after the first; an
answer that ends early counts only what it produced. Answer: text in, text out. A runtime may keep the last prompt's
KV cache and skip a shared beginning, so every timed prompt follows an untimed one-token prompt that begins otherwise.
Not covered: sampling, batches, concurrent requests.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, stdev
from typing import Any

import numpy as np

from bridge_edge.runtimes.base import Runtime


@dataclass(frozen=True)
class Answer:
    """One timed answer. `gaps` are the seconds between its tokens, so it produced len(gaps) + 1 of them, or none."""

    prompt_tokens: int
    produced: int
    ttft_s: float
    total_s: float
    gaps: tuple[float, ...]


def summary(values: Sequence[float]) -> dict[str, Any] | None:
    """n, mean, sd and percentiles (linear between neighbours); None without values."""
    if not values:
        return None
    p50, p95, p99 = (float(x) for x in np.percentile(values, [50, 95, 99]))
    return {
        "n": len(values),
        "mean": fmean(values),
        "sd": stdev(values) if len(values) > 1 else 0.0,
        "p50": p50,
        "p95": p95,
        "p99": p99,
    }


def prefill_seconds(runtime: Runtime, ids: Sequence[int]) -> float:
    """Seconds from `ids` to the first token (or to the end token, which costs the same), cold."""
    forget(runtime, ids[0])
    start = time.perf_counter()
    for _ in runtime.stream(ids, 1):
        break
    return time.perf_counter() - start


def forget(runtime: Runtime, next_id: int) -> None:
    """Run a one-token prompt that shares nothing with one that begins with `next_id`."""
    other = next(i for i in range(runtime.vocab_size) if i != next_id and i not in runtime.eos_ids)
    for _ in runtime.stream([other], 1):
        break


def answer(runtime: Runtime, prompt: str, max_new_tokens: int) -> Answer:
    """Time one answer to a user message, cold (without a KV cache of this prompt)."""
    forget(runtime, runtime.chat(prompt)[0])
    start = time.perf_counter()
    ids = runtime.chat(prompt)
    times, produced = [], []
    for token in runtime.stream(ids, max_new_tokens):
        times.append(time.perf_counter())
        produced.append(token)
    first = times[0] if times else time.perf_counter()
    runtime.decode(produced)
    end = time.perf_counter()
    gaps = tuple(b - a for a, b in pairwise(times))
    return Answer(len(ids), len(produced), first - start, end - start, gaps)


def answers(runtime: Runtime, prompts: Sequence[str], max_new_tokens: int, decode_tokens: int) -> list[Answer]:
    """One repetition: every prompt once, then again from the first until `decode_tokens` gaps have been timed.

    At most four rounds: a student that always stops at once would otherwise never finish.
    """
    done: list[Answer] = []
    for round_ in range(4):
        for prompt in prompts:
            if round_ and sum(len(a.gaps) for a in done) >= decode_tokens:
                return done
            done.append(answer(runtime, prompt, max_new_tokens))
    return done


def decode_speed(done: Sequence[Answer]) -> float | None:
    """Tokens a second over all the answers of a repetition; None where no answer had two tokens."""
    seconds = sum(sum(a.gaps) for a in done)
    return sum(len(a.gaps) for a in done) / seconds if seconds else None
