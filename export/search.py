"""`--quant auto`: the smallest mixture of tensor types that still answers the task's own dev items as the student does.

Three steps. `sensitivity.py` says what divergence each type of each tensor costs. From the finest mixture downwards,
the step that saves most bytes for the least divergence is taken again and again; the mixtures passed on the way are the
expected front. Then real files are made from it and judged by their accuracy on the dev items, halving the range each
time, until the time is up, and plain types beside them; `front.py` says which of them wins. Measurements are kept in a
journal, so that an interrupted search goes on. The winner was chosen on the dev items and so flatters itself a little:
the test items, which the search never sees, tell what it is worth. Not covered: mixtures off the expected front.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bridge_edge.data.card import Card
from bridge_edge.data.samples import Sample
from bridge_edge.evaluate import paired, score
from bridge_edge.export.front import Found, Point, Types, following
from bridge_edge.export.journal import Journal
from bridge_edge.export.llama_quantiser import requantise
from bridge_edge.export.parity import frame, greedy
from bridge_edge.export.quantize import Mix
from bridge_edge.export.sensitivity import Cost, Proxy, Sensitivity
from bridge_edge.export.wish import Goal
from bridge_edge.progress import say
from bridge_edge.runtimes.gguf_runtime import GGUFRuntime
from bridge_edge.runtimes.torch_runtime import TorchRuntime

BASE = "Q4_K_M"  # the file type a mixture is labelled with; every matrix has a type of its own
PLAIN = ("Q4_K_M", "Q4_0", "IQ4_XS", "Q3_K_M", "Q8_0")  # judged beside the mixtures, in this order, as time allows
SHARE = 0.4  # of the time for the sensitivities


def path_of(costs: Mapping[str, Mapping[str, Cost]]) -> list[Types]:
    """Mixtures from the finest to the coarsest, each one step from the last: always the step with the least expected
    divergence for a byte saved. Along each tensor only types on its lower convex hull are visited."""
    hulls = {name: _hull(by_type) for name, by_type in costs.items()}
    at = dict.fromkeys(hulls, 0)
    mixtures = [{name: hull[0] for name, hull in hulls.items()}]
    while True:
        steps = []
        for name, hull in hulls.items():
            if at[name] + 1 < len(hull):
                here, there = costs[name][hull[at[name]]], costs[name][hull[at[name] + 1]]
                steps.append(((there.kl - here.kl) / (here.bytes - there.bytes), name))
        if not steps:
            return mixtures
        name = min(steps)[1]
        at[name] += 1
        mixtures.append({**mixtures[-1], name: hulls[name][at[name]]})


def _hull(by_type: Mapping[str, Cost]) -> list[str]:
    """Types from the largest down, without those that some mixture of two others beats."""
    kept: list[str] = []
    best = math.inf
    for name in sorted(by_type, key=lambda t: (by_type[t].bytes, by_type[t].kl)):  # smallest first
        if by_type[name].kl >= best:
            continue
        best = by_type[name].kl
        while len(kept) > 1 and _slope(by_type, kept[-1], name) <= _slope(by_type, kept[-2], kept[-1]):
            kept.pop()
        kept.append(name)
    return kept[::-1]


def _slope(by_type: Mapping[str, Cost], a: str, b: str) -> float:
    return (by_type[b].kl - by_type[a].kl) / (by_type[b].bytes - by_type[a].bytes)


class Judge:
    """Makes files and measures them: real bytes, KL on the proxy texts, accuracy on the dev items."""

    def __init__(
        self,
        original: TorchRuntime,
        samples: Sequence[Sample],
        proxy: Proxy,
        maker: Callable[[Path, str, Types], Any],
        work: Path,
        journal: Journal,
        threads: int | None,
    ) -> None:
        self.original, self.samples, self.proxy, self.maker = original, list(samples), proxy, maker
        self.work, self.journal, self.threads = work, journal, threads
        self.card = original.card or Card("task")
        self.right = journal.get("original")
        if self.right is None:
            framed = [original.chat(s.prompt) for s in samples]
            self.right = self._right(original, greedy(original, framed, self.card.max_new_tokens))
            journal.put("original", self.right)

    def _right(self, runtime: TorchRuntime | GGUFRuntime, completions: Sequence[Sequence[int]]) -> list[bool]:
        texts = [runtime.decode(c) for c in completions]
        return [r.correct for r in score(self.samples, texts, self.card.answers).records]

    def __call__(self, name: str, quant: str, types: Types) -> Point:
        key = f"judge {quant} {json.dumps(types, sort_keys=True)}"
        kept = self.journal.get(key)
        if kept is None:
            kept = self._measure(quant, types)
            self.journal.put(key, kept)
        size, bits, kl, right = kept
        result = paired(self.right, right)
        low, high = (100 * x for x in result["ci95"])
        return Point(name, size, bits, kl, result["accuracy_b"], 100 * result["difference"], (low, high), types)

    def _measure(self, quant: str, types: Types) -> list[Any]:
        path = self.work / "candidate.gguf"
        header = self.maker(path, quant, types)
        runtime = GGUFRuntime(path, self.threads)
        try:
            framed = frame(self.original, runtime, [s.prompt for s in self.samples])
            right = self._right(runtime, greedy(runtime, framed, self.card.max_new_tokens))
            return [path.stat().st_size, header.bits_per_weight, self.proxy.kl(runtime), right]
        finally:
            runtime.close()
            path.unlink()


def journal_key(source: Path, samples: Sequence[Sample], calibration: Sequence[Sample]) -> str:
    """A digest of all that the measured figures depend on: weights, dev items, calibration."""
    digest = hashlib.sha256(b"search 1")
    for file in sorted(p for p in source.iterdir() if p.is_file()):
        digest.update(file.name.encode() + hashlib.sha256(file.read_bytes()).digest())
    for sample in (*samples, *calibration):
        digest.update(repr((sample.prompt, sample.answer, sample.rationale)).encode())
    return digest.hexdigest()


def search(
    sensitivity: Sensitivity,
    proxy: Proxy,
    samples: Sequence[Sample],
    goal: Goal,
    journal: Journal,
    threads: int | None,
) -> Found:
    """The smallest file within `goal` on `samples`, which all have gold answers, among those there was time to make."""
    started = time.monotonic()
    deadline = started + 60 * goal.minutes

    def maker(path: Path, quant: str, types: Types) -> Any:
        return requantise(sensitivity.whole, path, quant, threads, Mix(sensitivity.importance, types))

    judge = Judge(sensitivity.original, samples, proxy, maker, sensitivity.work, journal, threads)
    costs = sensitivity.costs(proxy, journal, started + SHARE * 60 * goal.minutes, threads)
    mixtures = path_of(costs)
    say(f"searching {len(mixtures)} mixtures of {len(costs)} tensors for the smallest within {goal.max_drop:g} points")
    points: list[Point] = []
    measured: dict[int, Point] = {}
    plain, spent = list(PLAIN), 0.0
    while not points or time.monotonic() + spent < deadline:
        began = time.monotonic()
        index = following(measured, points, goal, len(mixtures))
        if index is not None:
            point = measured[index] = judge(f"mix {index}", BASE, mixtures[index])
        elif plain:
            quant = plain.pop(0)
            point = judge(quant, quant, {})
        else:
            break
        points.append(point)
        say(f"  {point.name}: {point.bytes / 2**20:.3f} MiB, KL {point.kl:.4f}, {point.drop:.1f} points lost")
        spent = max(spent, time.monotonic() - began)
    complete = following(measured, points, goal, len(mixtures)) is None
    return Found(tuple(points), goal, complete, time.monotonic() - started)
