"""The formula of decode speed, fitted on published figures, and how wrong it is on what a fit has not seen.

For the figures of one runtime:

    seconds a token = bytes / (eta x bandwidth) + a x layers + c x parameters / (cores x GHz x width)

Bytes are those streamed for a token: an input embedding that is only looked up is left out, the KV cache up to the
depth is added. The last term is there because cores without dot products are bound by arithmetic, not by memory. A
constant a token was tried and left out: with it the fit explains slow devices by milliseconds that small students do
not take. Terms cannot be negative, and relative errors are what is minimised.

Errors are measured by leaving devices out: all figures of a device are predicted by a fit that has seen none of them.
A prediction's interval is the 90 % quantile of such errors; whether 90 % of a left-out device's figures fall into it is
checked with intervals made from the other devices alone. A device with figures of its own gets a factor from them.
The terms were chosen by the same errors, so those are slightly too good.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bridge_edge.benchmarks.devices import Device, Figure, table

LEVEL = 0.9


@dataclass(frozen=True)
class Load:
    """What a token costs anywhere: bytes to read, layers, parameters."""

    streamed: int
    layers: int
    parameters: int


Terms = Callable[[Load, Device], list[float]]


def compute_terms(load: Load, device: Device) -> list[float]:
    """The model's terms, each in seconds when multiplied by its coefficient."""
    read = load.streamed / (device.bandwidth_gb_s * 1e9)
    return [read, load.layers * 1e-3, load.parameters / (device.arithmetic * 1e9)]


def plain_terms(load: Load, device: Device) -> list[float]:
    """bytes / (eta x bandwidth) + a x layers + b: kept for comparison."""
    return [load.streamed / (device.bandwidth_gb_s * 1e9), load.layers * 1e-3, 1e-2]


def load_of(figure: Figure) -> Load:
    return Load(figure.streamed, figure.layers, figure.parameters)


def fit(figures: Sequence[Figure], terms: Terms = compute_terms) -> np.ndarray:
    """Coefficients that make the relative errors of the seconds a token least."""
    devices = table()[0]
    rows = np.array([terms(load_of(f), devices[f.device]) for f in figures])
    seconds = np.array([1 / f.tokens_per_s for f in figures])
    return not_negative(rows / seconds[:, None], np.ones(len(seconds)))


def not_negative(rows: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Least squares without negative coefficients: of so few terms, the best subset whose solution has none."""
    count = rows.shape[1]
    best, least = np.zeros(count), float(wanted @ wanted)
    for subset in range(1, 1 << count):
        chosen = [i for i in range(count) if subset >> i & 1]
        found = np.linalg.lstsq(rows[:, chosen], wanted, rcond=None)[0]
        rest = wanted - rows[:, chosen] @ found
        if (found >= 0).all() and float(rest @ rest) < least:
            best, least = np.zeros(count), float(rest @ rest)
            best[chosen] = found
    return best


def speed(coefficients: np.ndarray, load: Load, where: Device, terms: Terms = compute_terms) -> float:
    """Tokens a second."""
    return 1 / max(float(np.dot(coefficients, terms(load, where))), 1e-9)


def roofline(load: Load, where: Device) -> float:
    """What bandwidth alone would allow."""
    return where.bandwidth_gb_s * 1e9 / load.streamed


def held_out(figures: Sequence[Figure], terms: Terms = compute_terms) -> list[tuple[Figure, float]]:
    """Each figure with the speed predicted by a fit that has seen nothing of its device."""
    devices, found = table()[0], []
    for name in dict.fromkeys(f.device for f in figures):
        coefficients = fit([f for f in figures if f.device != name], terms)
        found += [(f, speed(coefficients, load_of(f), devices[name], terms)) for f in figures if f.device == name]
    return found


def quantile(ratios: Sequence[float]) -> float:
    """The factor within which a share of LEVEL of the ratios lies, with the correction for a small sample."""
    off = sorted(abs(math.log(r)) for r in ratios)
    return math.exp(off[min(len(off) - 1, math.ceil((len(off) + 1) * LEVEL) - 1)])


def coverage(figures: Sequence[Figure]) -> float:
    """Share of figures within intervals that were made without their device."""
    inside = 0
    for name in dict.fromkeys(f.device for f in figures):
        others = [f for f in figures if f.device != name]
        factor = quantile([p / f.tokens_per_s for f, p in held_out(others)])
        coefficients, where = fit(others), table()[0][name]
        for f in figures:
            if f.device == name:
                ratio = speed(coefficients, load_of(f), where) / f.tokens_per_s
                inside += 1 / factor <= ratio <= factor
    return inside / len(figures)


def own_factor(figures: Sequence[Figure], name: str, coefficients: np.ndarray) -> float:
    """What a device's own figures say beyond the fit, drawn towards 1 where there are few."""
    where = table()[0][name]
    own = [math.log(f.tokens_per_s / speed(coefficients, load_of(f), where)) for f in figures if f.device == name]
    return math.exp(sum(own) / (len(own) + 1)) if own else 1.0


def held_out_models(figures: Sequence[Figure], name: str) -> list[tuple[Figure, float]]:
    """A device's figures, each predicted without those of its model there, by fit and factor."""
    found = []
    for f in figures:
        if f.device == name:
            rest = [g for g in figures if (g.device, g.model) != (f.device, f.model)]
            coefficients = fit(rest)
            found.append((f, speed(coefficients, load_of(f), table()[0][name]) * own_factor(rest, name, coefficients)))
    return found


def errors(pairs: Sequence[tuple[Figure, float]]) -> dict[str, float]:
    """Of held-out predictions: relative errors of the speed, over figures and over devices."""
    off = {
        f.device: [abs(p / f.tokens_per_s - 1) for f, p in pairs if f.device == g] for f, _ in pairs for g in [f.device]
    }
    every = [e for values in off.values() for e in values]
    return {
        "median": float(np.median(every)),
        "mean": float(np.mean(every)),
        "median_of_devices": float(np.median([np.median(values) for values in off.values()])),
    }
