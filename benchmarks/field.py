"""The field's own tests: prefill (pp) and decode (tg) at stated lengths and KV depths, and speed under sustained load.

pp512@d256 feeds 512 tokens at once behind 256 that are in the cache already; tg128@d256 feeds 128 one by one. As in
llama-bench there is no tokenisation and no sampling in the time, and end tokens do not end anything; unlike there, the
tokens are the prompts' own, repeated to the length, the same for every runtime. A sustained run is one pp and one tg
without a rest, many times over: a phone that begins at 40 tokens a second may end at 22. Not covered: batches.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice, pairwise
from statistics import fmean
from typing import Any

from bridge_edge.benchmarks.latency import summary
from bridge_edge.runtimes.base import Runtime
from bridge_edge.runtimes.session import Session, open_session

BURST_PP, BURST_TG = 64, 64  # of a sustained run where no lengths are asked for


@dataclass(frozen=True)
class Test:
    """`tokens` fed at once ("pp") or one by one ("tg") behind `depth` tokens."""

    __test__ = False  # not one of pytest's

    kind: str
    tokens: int
    depth: int

    @property
    def name(self) -> str:
        return f"{self.kind}{self.tokens}@d{self.depth}"

    @property
    def room(self) -> int:
        return self.depth + self.tokens


@dataclass
class Timed:
    """The seconds of one test, repetition by repetition, and the seconds of each single token of a tg."""

    test: Test
    seconds: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)

    def report(self) -> dict[str, Any]:
        test = self.test
        return {
            "test": test.name,
            "kind": test.kind,
            "tokens": test.tokens,
            "depth": test.depth,
            "tps": summary([test.tokens / s for s in self.seconds]),
            "seconds": summary(self.seconds),
            "inter_token_s": summary(self.gaps),
        }


def tests(prompt: Sequence[int], generate: Sequence[int], depths: Sequence[int]) -> list[Test]:
    """Every pp and tg at every depth, in order of depth, so that a cache only has to grow."""
    kinds = [("pp", n) for n in dict.fromkeys(prompt)] + [("tg", n) for n in dict.fromkeys(generate)]
    return [Test(kind, n, depth) for depth in sorted(set(depths)) for kind, n in kinds]


def fitting(asked: Sequence[Test], context: int | None) -> tuple[list[Test], list[Test]]:
    """The tests that a context can hold, and the others."""
    fit = [t for t in asked if context is None or t.room <= context]
    return fit, [t for t in asked if t not in fit]


def repetition(runtime: Runtime, asked: Sequence[Test], ids: Sequence[int]) -> list[Timed]:
    """Each test once, on one session. `asked` is in order of depth; filling up to a depth is not timed."""
    if not asked:
        return []
    session = open_session(runtime, max(t.room for t in asked))
    stock = list(islice(cycle(ids), max(t.room for t in asked)))
    done = []
    for test in asked:
        session.rewind(min(test.depth, session.length))
        if test.depth > session.length:
            session.feed(stock[session.length : test.depth])
        done.append(_timed(session, test, stock[test.depth : test.room]))
    return done


def _timed(session: Session, test: Test, ids: Sequence[int]) -> Timed:
    if test.kind == "pp":
        start = time.perf_counter()
        session.feed(ids)
        return Timed(test, [time.perf_counter() - start])
    times = [time.perf_counter()]
    for token in ids:
        session.feed([token])
        times.append(time.perf_counter())
    return Timed(test, [times[-1] - times[0]], [b - a for a, b in pairwise(times)])


def add(found: dict[str, Timed], done: Sequence[Timed]) -> None:
    """Put one repetition's times to those of the same tests."""
    for timed in done:
        kept = found.setdefault(timed.test.name, Timed(timed.test))
        kept.seconds += timed.seconds
        kept.gaps += timed.gaps


def sustained(runtime: Runtime, runs: int, prompt: int, generate: int, ids: Sequence[int]) -> dict[str, Any] | None:
    """`runs` runs back to back, each a prefill and a decode behind it: the first is the burst, the last quarter what
    stays. None where the context holds no such run."""
    context = getattr(runtime, "context_length", None)
    if context is not None and prompt + generate > context:
        return None
    pair = (Test("pp", prompt, 0), Test("tg", generate, prompt))
    speeds: dict[str, list[float]] = {"pp": [], "tg": []}
    start = time.perf_counter()
    for _ in range(runs):
        for timed in repetition(runtime, pair, ids):
            speeds[timed.test.kind].append(timed.test.tokens / timed.seconds[0])
    last = max(1, runs // 4)
    return {
        "runs": runs,
        "prompt_tokens": prompt,
        "generate_tokens": generate,
        "seconds": time.perf_counter() - start,
        "pp_tps": summary(speeds["pp"]),
        "tg_tps": summary(speeds["tg"]),
        "tg_by_run": speeds["tg"],
        "burst_tg_tps": speeds["tg"][0],
        "sustained_tg_tps": fmean(speeds["tg"][-last:]),
        "kept_share": fmean(speeds["tg"][-last:]) / speeds["tg"][0],
    }
