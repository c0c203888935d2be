"""Benchmark students as they ship: size, load, prefill, decode, TTFT, memory and accuracy in one report an artifact.

Several artifacts, each with one or more thread counts, are measured in turns, repetition by repetition and in
alternating order, so that a drift of the machine (heat, a neighbour) falls on all of them alike. All are held in memory
together. A report has one schema, `schema.Report`, whose version is `SCHEMA`:

    artifact      path, runtime, bytes (all files), weight_bytes, context_length
    protocol      repetitions, warmup, prompts, prompt_tokens (mean), max_new_tokens, threads, compared_with
    load          first_s (the first time in this process, so it may import the runtime's package), again_s (files in
                  the page cache); memory.load_s is that of a fresh process, import included
    prefill       {length: {tps, seconds}}, each a summary: n, mean, sd, p50, p95, p99; prefill_skipped: lengths
                  beyond the context
    decode        tps (summary over repetitions) or null, tokens (produced in all), at_once (answers without a token)
    ttft_s, inter_token_s, answer_s, answer_tokens    summaries over all timed answers, or null
    field         pp and tg at stated lengths and depths, see `field`; field_skipped: those beyond the context
    sustained     runs back to back, see `field.sustained`; null if not asked for
    memory        see `memory.use`; null if not asked for
    quality       see `evaluate.to_json`, with seconds and samples_per_s; null without gold answers. Its "paired"
                  compares with the first artifact on the same items (a is this one, b the first)
    thinking      see `thinking.sweep`; only where budgets of reasoning were asked for
    environment   processor, cores, versions, thread settings, pinning, time
    contention    see `guard.Guard.report`
    publishable   false where `reasons` says that the machine was busy, slowed down, or the run was too short

Not covered: energy, GPU and phone runs, concurrent requests, sampled decoding.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bridge_edge.benchmarks import contention, latency, memory
from bridge_edge.benchmarks.guard import Guard
from bridge_edge.benchmarks.options import BenchOptions
from bridge_edge.benchmarks.subject import Subject, assess, context_of, measured, opened, sustain
from bridge_edge.data.samples import Sample
from bridge_edge.errors import Failures, UserError

__all__ = ["SCHEMA", "BenchOptions", "bench", "bench_many", "sizes"]
SCHEMA = 2
WEIGHTS = (".safetensors", ".gguf", ".onnx", ".onnx.data", ".onnx_data")


def bench(
    path: Path, samples: Sequence[Sample], options: BenchOptions | None = None, load: memory.Load | None = None
) -> dict[str, Any]:
    """The report (schema 2) of the artifact at `path`; `load` opens it in place of `load_runtime`."""
    return bench_many([path], samples, options, load)[0]


def bench_many(
    paths: Sequence[Path],
    samples: Sequence[Sample],
    options: BenchOptions | None = None,
    load: memory.Load | None = None,
    failures: Failures | None = None,
) -> list[dict[str, Any]]:
    """One report an artifact, measured in turns on the same prompts under the same settings. An artifact that fails
    ends the bench, or where `failures` take its error, its own part in it."""
    options, failures = options or BenchOptions(), failures or Failures(keep=False)
    if not samples or not paths:
        raise UserError(f"nothing to benchmark: no {'artifact' if samples else 'samples'}", "give at least one of each")
    if load is None:
        from bridge_edge.runtimes.load import load_runtime

        load = load_runtime
    prompts = [sample.prompt for sample in samples[: options.prompts]]
    guard = Guard(options.retries, options.wait_s)
    held: list[Subject] = []
    try:
        for path in paths:
            for threads in options.thread_counts:
                first = threads == options.thread_counts[0]
                with failures.of(path):
                    held.append(opened(path, threads, prompts, options, load, first))
        subjects = _measure(held, prompts, options, guard, failures)
        if options.accuracy and all(sample.answer is not None for sample in samples):
            for subject in subjects:
                if subject.threads == options.thread_counts[0]:
                    with failures.of(subject.runtime.path):
                        assess(subject, samples, subjects[0])
    finally:
        for subject in held:
            subject.runtime.close()
    seen = guard.report()
    return [_report(subject, subjects, options, len(prompts), seen) for subject in subjects]


def _measure(
    held: Sequence[Subject], prompts: Sequence[str], options: BenchOptions, guard: Guard, failures: Failures
) -> list[Subject]:
    """All repetitions in turns; then the sustained runs, which would be no such thing if they took turns. Returns the
    subjects that came through their repetitions."""
    subjects = list(held)
    for repetition in range(options.warmup + options.repetitions):
        record = repetition >= options.warmup
        for subject in subjects[:: 1 if repetition % 2 == 0 else -1]:

            def once(subject: Subject = subject) -> Any:
                time.sleep(options.rest_s)
                return measured(subject, prompts, options)

            with failures.of(subject.runtime.path):
                found = guard.run(subject.name, once, record)
                if record:
                    subject.keep(found)
                continue
            subjects = [s for s in subjects if s is not subject]  # reached by those that failed
    for subject in subjects if options.sustained else ():

        def runs(subject: Subject = subject) -> Any:
            time.sleep(max(1.0, options.rest_s))  # the first run is the burst
            return sustain(subject, prompts, options)

        with failures.of(subject.runtime.path):
            subject.sustained = guard.run(f"sustained, {subject.name}", runs)
    return subjects


def _report(
    subject: Subject, subjects: Sequence[Subject], options: BenchOptions, prompts: int, seen: dict[str, Any]
) -> dict[str, Any]:
    runtime, answers = subject.runtime, [a for repetition in subject.repetitions for a in repetition]
    speeds = [s for repetition in subject.repetitions if (s := latency.decode_speed(repetition)) is not None]
    reasons = [*seen["reasons"], *contention.unsteady(speeds)]
    return {
        "schema": SCHEMA,
        "artifact": {**sizes(runtime.path), "runtime": runtime.name, "context_length": context_of(runtime)},
        "protocol": {
            "repetitions": options.repetitions,
            "warmup": options.warmup,
            "prompts": prompts,
            "prompt_tokens": sum(a.prompt_tokens for a in answers) / len(answers),
            "max_new_tokens": subject.max_new_tokens,
            "threads": subject.threads,
            "compared_with": _others(subject, subjects),
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
        "field": [subject.timed[t.name].report() for t in subject.tests],
        "field_skipped": [t.name for t in subject.tests_skipped],
        "sustained": subject.sustained,
        "memory": subject.memory,
        "quality": subject.quality,
        "environment": contention.environment(subject.threads),
        "contention": seen,
        "publishable": not reasons,
        "reasons": reasons,
    }


def _others(subject: Subject, subjects: Sequence[Subject]) -> list[str]:
    """The paths that were measured in turns with this subject, its own among them if it ran with other threads too."""
    return list(dict.fromkeys(str(s.runtime.path) for s in subjects if s is not subject))


def sizes(path: Path) -> dict[str, Any]:
    """Path and bytes of an artifact: all its files, and the weights among them."""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    weights = [p for p in files if p.name.endswith(WEIGHTS) or ".onnx_data_" in p.name]
    return {
        "path": str(path),
        "bytes": sum(p.stat().st_size for p in files),
        "weight_bytes": sum(p.stat().st_size for p in weights),
    }
