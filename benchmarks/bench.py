"""Benchmark students as they ship: size, load, prefill, decode, TTFT, memory and accuracy in one report an artifact.

Several artifacts are measured in turns, repetition by repetition and in alternating order, so that a drift of the
machine (heat, a neighbour) falls on all of them alike. All are held in memory together. Schema 1 of a report:

    artifact      path, runtime, bytes (all files), weight_bytes, context_length
    protocol      repetitions, warmup, prompts, prompt_tokens (mean), max_new_tokens, threads, compared_with
    load          first_s (the first time in this process, so it may import the runtime's package), again_s (files in
                  the page cache); memory.load_s is that of a fresh process, import included
    prefill       {length: {tps, seconds}}, each a summary: n, mean, sd, p50, p95, p99; prefill_skipped: lengths
                  beyond the context
    decode        tps (summary over repetitions) or null, tokens (produced in all), at_once (answers without a token)
    ttft_s, inter_token_s, answer_s, answer_tokens    summaries over all timed answers, or null
    memory        see `memory.use`; null if not asked for
    quality       see `evaluate.to_json`, with seconds and samples_per_s; null without gold answers. Its "paired"
                  compares with the first artifact on the same items (a is this one, b the first)
    environment   processor, cores, versions, thread settings, time
    contention    see `contention.contention`
    publishable   false where `reasons` says that the machine was busy, slowed down, or the run was too short

Not covered: energy, GPU and phone runs, concurrent requests, sampled decoding.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import psutil

from bridge_edge import host
from bridge_edge.benchmarks import contention, latency, memory
from bridge_edge.data.card import Card
from bridge_edge.data.samples import Sample
from bridge_edge.errors import UserError
from bridge_edge.evaluate import Scores, evaluate, paired, to_json
from bridge_edge.runtimes.base import Runtime

SCHEMA = 1
WEIGHTS = (".safetensors", ".gguf", ".onnx", ".onnx.data", ".onnx_data")
MEMORY_PROMPTS = 4


@dataclass(frozen=True)
class BenchOptions:
    """`threads` defaults to OMP_NUM_THREADS or the usable physical cores, `max_new_tokens` to the card's bound.
    `prefill` holds prompt lengths; `decode_tokens` is how many inter-token gaps a repetition times at least; `rest_s`
    is a pause between artifacts; `card` stands in for an artifact that carries none."""

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

    def __post_init__(self) -> None:
        least = {"repetitions": 1, "warmup": 0, "decode_tokens": 1, "prompts": 1, "rest_s": 0}
        given = {**{k: getattr(self, k) for k in least}, **{f"prefill length {n}": n for n in self.prefill}}
        given |= {k: v for k in ("threads", "max_new_tokens") if (v := getattr(self, k)) is not None}
        for name, value in given.items():
            if value < least.get(name, 1):
                raise UserError(f"bench option {name} is {value}", f"give at least {least.get(name, 1)}")

    @property
    def thread_count(self) -> int:
        """The same explicit number for every runtime: their own defaults differ, and so would the figures."""
        asked = os.environ.get("OMP_NUM_THREADS", "")
        wanted = int(asked) if asked.isdigit() and int(asked) else psutil.cpu_count(logical=False) or 1
        return self.threads or min(wanted, host.usable_cores())


@dataclass
class _Subject:
    """One artifact under test, with what has been measured of it so far."""

    runtime: Runtime
    card: Card
    max_new_tokens: int
    load: dict[str, float]
    lengths: list[int]
    skipped: list[int]
    memory: dict[str, Any] | None = None
    prefill: dict[int, list[float]] = field(default_factory=dict)
    repetitions: list[list[latency.Answer]] = field(default_factory=list)
    scores: Scores | None = None
    quality: dict[str, Any] | None = None


def bench(
    path: Path, samples: Sequence[Sample], options: BenchOptions | None = None, load: memory.Load | None = None
) -> dict[str, Any]:
    """The report (schema 1) of the artifact at `path`; `load` opens it in place of `load_runtime`."""
    return bench_many([path], samples, options, load)[0]


def bench_many(
    paths: Sequence[Path],
    samples: Sequence[Sample],
    options: BenchOptions | None = None,
    load: memory.Load | None = None,
) -> list[dict[str, Any]]:
    """One report an artifact, measured in turns on the same prompts under the same settings."""
    options = options or BenchOptions()
    if not samples or not paths:
        raise UserError(f"nothing to benchmark: no {'artifact' if samples else 'samples'}", "give at least one of each")
    if load is None:
        from bridge_edge.runtimes.load import load_runtime

        load = load_runtime
    prompts = [sample.prompt for sample in samples[: options.prompts]]
    idle = contention.watch()
    subjects: list[_Subject] = []
    try:
        for path in paths:
            subjects.append(_open(path, prompts, options, load))
        for repetition in range(options.warmup + options.repetitions):
            for subject in subjects[:: 1 if repetition % 2 == 0 else -1]:
                time.sleep(options.rest_s)
                _repeat(subject, prompts, options, record=repetition >= options.warmup)
        if options.accuracy and all(sample.answer is not None for sample in samples):
            for subject in subjects:
                _assess(subject, samples, subjects[0])
    finally:
        for subject in subjects:
            subject.runtime.close()
    shared = {
        "environment": contention.environment(options.thread_count),
        "contention": contention.contention(idle, contention.snapshot()),
    }
    return [_report(subject, subjects, options, len(prompts), shared) for subject in subjects]


def _open(path: Path, prompts: Sequence[str], options: BenchOptions, load: memory.Load) -> _Subject:
    """Load twice: the first time imports the runtime's package and reads the disk, the second shows the load alone."""
    start = time.perf_counter()
    runtime = load(path, options.thread_count)
    first = time.perf_counter() - start
    card = runtime.card or options.card or Card(recipe="")
    new = options.max_new_tokens or card.max_new_tokens
    context = _context(runtime)
    lengths = [n for n in options.prefill if context is None or n < context]
    skipped = [n for n in options.prefill if n not in lengths]
    runtime.close()
    used = memory.measure(path, prompts[:MEMORY_PROMPTS], new, options.thread_count) if options.memory else None
    start = time.perf_counter()
    runtime = load(path, options.thread_count)
    times = {"first_s": first, "again_s": time.perf_counter() - start}
    return _Subject(runtime, card, new, times, lengths, skipped, used)


def _repeat(subject: _Subject, prompts: Sequence[str], options: BenchOptions, record: bool) -> None:
    runtime = subject.runtime
    ids = [token for prompt in prompts for token in runtime.chat(prompt)]
    gc.collect()  # here rather than somewhere within a timing
    for length in subject.lengths:
        seconds = latency.prefill_seconds(runtime, list(islice(cycle(ids), length)))
        if record:
            subject.prefill.setdefault(length, []).append(seconds)
    done = latency.answers(runtime, prompts, subject.max_new_tokens, options.decode_tokens)
    if record:
        subject.repetitions.append(done)


def _assess(subject: _Subject, samples: Sequence[Sample], first: _Subject) -> None:
    start = time.perf_counter()
    subject.scores = evaluate(subject.runtime, samples, subject.card, subject.max_new_tokens)
    seconds = time.perf_counter() - start
    subject.quality = {**to_json(subject.scores), "seconds": seconds, "samples_per_s": len(samples) / seconds}
    if subject is not first and first.scores:
        mine, theirs = ([r.correct for r in s.records] for s in (subject.scores, first.scores))
        subject.quality["paired"] = paired(mine, theirs)


def _report(
    subject: _Subject, subjects: Sequence[_Subject], options: BenchOptions, prompts: int, shared: dict[str, Any]
) -> dict[str, Any]:
    runtime, answers = subject.runtime, [a for repetition in subject.repetitions for a in repetition]
    speeds = [s for repetition in subject.repetitions if (s := latency.decode_speed(repetition)) is not None]
    reasons = [*shared["contention"]["reasons"], *contention.unsteady(speeds)]
    return {
        "schema": SCHEMA,
        "artifact": {**sizes(runtime.path), "runtime": runtime.name, "context_length": _context(runtime)},
        "protocol": {
            "repetitions": options.repetitions,
            "warmup": options.warmup,
            "prompts": prompts,
            "prompt_tokens": sum(a.prompt_tokens for a in answers) / len(answers),
            "max_new_tokens": subject.max_new_tokens,
            "threads": options.thread_count,
            "compared_with": [str(s.runtime.path) for s in subjects if s is not subject],
        },
        "load": subject.load,
        "prefill": {
            str(n): {"tps": latency.summary([n / s for s in took]), "seconds": latency.summary(took)}
            for n, took in subject.prefill.items()
        },
        "prefill_skipped": subject.skipped,
        "decode": {
            "tps": latency.summary(speeds),
            "tokens": sum(a.produced for a in answers),
            "at_once": sum(a.produced == 0 for a in answers),
        },
        "ttft_s": latency.summary([a.ttft_s for a in answers]),
        "inter_token_s": latency.summary([gap for a in answers for gap in a.gaps]),
        "answer_s": latency.summary([a.total_s for a in answers]),
        "answer_tokens": latency.summary([float(a.produced) for a in answers]),
        "memory": subject.memory,
        "quality": subject.quality,
        **shared,
        "publishable": not reasons,
        "reasons": reasons,
    }


def _context(runtime: Runtime) -> int | None:
    return getattr(runtime, "context_length", None)


def sizes(path: Path) -> dict[str, Any]:
    """Path and bytes of an artifact: all its files, and the weights among them."""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    weights = [p for p in files if p.name.endswith(WEIGHTS)]
    return {
        "path": str(path),
        "bytes": sum(p.stat().st_size for p in files),
        "weight_bytes": sum(p.stat().st_size for p in weights),
    }
