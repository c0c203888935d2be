"""One artifact under test, with a thread count: how it is opened, measured once, and what is kept of it."""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from bridge_edge.benchmarks import field as field_tests
from bridge_edge.benchmarks import latency, memory
from bridge_edge.benchmarks.options import BenchOptions
from bridge_edge.data.card import Card
from bridge_edge.data.samples import Sample
from bridge_edge.evaluate import Scores, evaluate, paired, to_json
from bridge_edge.runtimes.base import Runtime
from bridge_edge.runtimes.session import use_threads

MEMORY_PROMPTS = 4


@dataclass
class Measured:
    """One repetition: seconds by prefill length, answers, pp and tg tests."""

    prefill: dict[int, float]
    answers: list[latency.Answer]
    field: list[field_tests.Timed]


@dataclass
class Subject:
    """An open artifact; the lists grow with the repetitions that are kept."""

    runtime: Runtime
    card: Card
    threads: int
    max_new_tokens: int
    load: dict[str, float]
    lengths: list[int]
    skipped: list[int]
    tests: list[field_tests.Test]
    tests_skipped: list[field_tests.Test]
    memory: dict[str, Any] | None = None
    prefill: dict[int, list[float]] = field(default_factory=dict)
    repetitions: list[list[latency.Answer]] = field(default_factory=list)
    timed: dict[str, field_tests.Timed] = field(default_factory=dict)
    sustained: dict[str, Any] | None = None
    scores: Scores | None = None
    quality: dict[str, Any] | None = None

    @property
    def name(self) -> str:
        return f"{self.runtime.name} {self.runtime.path.name}, {self.threads} threads"

    def keep(self, measured: Measured) -> None:
        for length, seconds in measured.prefill.items():
            self.prefill.setdefault(length, []).append(seconds)
        self.repetitions.append(measured.answers)
        field_tests.add(self.timed, measured.field)


def context_of(runtime: Runtime) -> int | None:
    return getattr(runtime, "context_length", None)


def opened(
    path: Path, threads: int, prompts: Sequence[str], options: BenchOptions, load: memory.Load, first_of_path: bool
) -> Subject:
    """Load twice: the first time imports the runtime's package and reads the disk, the second shows the load alone."""
    start = time.perf_counter()
    runtime = load(path, threads)
    first = time.perf_counter() - start
    card = runtime.card or options.card or Card(recipe="")
    new = options.max_new_tokens or card.max_new_tokens
    context = context_of(runtime)
    lengths = [n for n in options.prefill if context is None or n < context]
    skipped = [n for n in options.prefill if n not in lengths]
    asked = field_tests.tests(options.prompt_tokens, options.generate_tokens, options.depths)
    tests, tests_skipped = field_tests.fitting(asked, context)
    runtime.close()
    used = None
    if options.memory and first_of_path:
        used = memory.measure(path, prompts[:MEMORY_PROMPTS], new, threads)
    start = time.perf_counter()
    runtime = load(path, threads)
    times = {"first_s": first, "again_s": time.perf_counter() - start}
    return Subject(runtime, card, threads, new, times, lengths, skipped, tests, tests_skipped, used)


def measured(subject: Subject, prompts: Sequence[str], options: BenchOptions) -> Measured:
    """One repetition of everything that is timed."""
    runtime = subject.runtime
    use_threads(runtime, subject.threads)
    ids = stock(runtime, prompts)
    gc.collect()  # here rather than somewhere within a timing
    prefill = {length: latency.prefill_seconds(runtime, list(islice(cycle(ids), length))) for length in subject.lengths}
    answers = latency.answers(runtime, prompts, subject.max_new_tokens, options.decode_tokens)
    return Measured(prefill, answers, field_tests.repetition(runtime, subject.tests, ids))


def stock(runtime: Runtime, prompts: Sequence[str]) -> list[int]:
    """The prompts' tokens, from which tests of any length are filled."""
    return [token for prompt in prompts for token in runtime.chat(prompt)]


def sustain(subject: Subject, prompts: Sequence[str], options: BenchOptions) -> dict[str, Any] | None:
    """Runs without a rest, of the first lengths that were asked for."""
    use_threads(subject.runtime, subject.threads)
    prompt = (options.prompt_tokens or (field_tests.BURST_PP,))[0]
    generate = (options.generate_tokens or (field_tests.BURST_TG,))[0]
    ids = stock(subject.runtime, prompts)
    return field_tests.sustained(subject.runtime, options.sustained, prompt, generate, ids)


def assess(subject: Subject, samples: Sequence[Sample], first: Subject) -> None:
    """Accuracy through this runtime, and paired with the first subject on the same items."""
    use_threads(subject.runtime, subject.threads)
    start = time.perf_counter()
    subject.scores = evaluate(subject.runtime, samples, subject.card, subject.max_new_tokens)
    seconds = time.perf_counter() - start
    subject.quality = {**to_json(subject.scores), "seconds": seconds, "samples_per_s": len(samples) / seconds}
    if subject is not first and first.scores:
        mine, theirs = ([r.correct for r in s.records] for s in (subject.scores, first.scores))
        subject.quality["paired"] = paired(mine, theirs)
