"""What a benchmark measures and how often: plain values, checked once."""

from __future__ import annotations

import os
from dataclasses import dataclass

import psutil

from bridge_edge import host
from bridge_edge.data.card import Card
from bridge_edge.errors import UserError

LEAST = {"repetitions": 1, "warmup": 0, "decode_tokens": 1, "prompts": 1, "rest_s": 0, "sustained": 0, "retries": 0}


@dataclass(frozen=True)
class BenchOptions:
    """`threads` defaults to OMP_NUM_THREADS or the usable physical cores, `max_new_tokens` to the card's bound.
    `prefill` holds prompt lengths; `decode_tokens` is how many inter-token gaps a repetition times at least; `rest_s`
    is a pause between artifacts; `card` stands in for an artifact that carries none.

    `sweep` names thread counts to compare, in place of `threads`. `prompt_tokens`, `generate_tokens` and `depths` are
    the field's pp and tg tests (see `field`), none by default; `sustained` is how many runs without a rest follow.
    `retries` bounds how often disturbed repetitions are made again; `wait_s` how long to wait for a quiet machine."""

    threads: int | None = None
    repetitions: int = 5
    warmup: int = 1
    prefill: tuple[int, ...] = (64, 128, 256)
    decode_tokens: int = 128
    prompts: int = 8
    max_new_tokens: int | None = None
    memory: bool = True
    accuracy: bool = True
    rest_s: float = 0.2
    card: Card | None = None
    sweep: tuple[int, ...] = ()
    prompt_tokens: tuple[int, ...] = ()
    generate_tokens: tuple[int, ...] = ()
    depths: tuple[int, ...] = (0,)
    sustained: int = 0
    retries: int = 2
    wait_s: float = 0.0

    def __post_init__(self) -> None:
        given = {k: getattr(self, k) for k in LEAST} | {"wait_s": self.wait_s}
        given |= {f"prefill length {n}": n for n in self.prefill} | {f"threads {n}": n for n in self.sweep}
        given |= {f"prompt_tokens {n}": n for n in self.prompt_tokens}
        given |= {f"generate_tokens {n}": n for n in self.generate_tokens}
        given |= {k: v for k in ("threads", "max_new_tokens") if (v := getattr(self, k)) is not None}
        least = {**LEAST, "wait_s": 0, **{f"depth {n}": 0 for n in self.depths}}
        for name, value in {**given, **{f"depth {n}": n for n in self.depths}}.items():
            if value < least.get(name, 1):
                raise UserError(f"bench option {name} is {value}", f"give at least {least.get(name, 1)}")

    @property
    def thread_counts(self) -> tuple[int, ...]:
        """Explicit numbers, the same for every runtime: their own defaults differ, and so would the figures."""
        return tuple(dict.fromkeys(self.sweep)) or (self.thread_count,)

    @property
    def thread_count(self) -> int:
        """The one count of a run without a sweep."""
        asked = os.environ.get("OMP_NUM_THREADS", "")
        wanted = int(asked) if asked.isdigit() and int(asked) else psutil.cpu_count(logical=False) or 1
        return self.threads or min(wanted, host.usable_cores())
