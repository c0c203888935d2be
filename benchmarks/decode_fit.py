"""The formula of decode speed, fitted on published figures.

For the figures of one runtime:

    seconds a token = bytes / (eta x bandwidth) + a x layers / GHz + h x parameters in 16 bits / (cores x GHz x width)

Bytes are those streamed for a token: an input embedding that is only looked up is left out, the KV cache up to the
depth is added. What a layer costs beyond reading is work of one core, so it goes by the clock. The last term is there
for models of two bytes a weight and more, whose kernels are bound by arithmetic rather than by memory.

Coefficients cannot be negative. What is made least are the logarithms of the errors, of which large ones count less
(Huber), so that one odd figure does not bend the fit. Every device counts the same, however many figures it has: what
is predicted is a device, and thirty figures of one phone are one phone. A device with figures of its own gets a factor
from them. How wrong all this is on devices that a fit has not seen: decode_check.py. Not covered: prefill.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bridge_edge.benchmarks.devices import Device, Figure, machines

KNEE = 0.3  # an error of the logarithm beyond which a figure counts less
ROUNDS = 12
WIDE = 1.5  # bytes a parameter beyond which weights are 16 bits or more


@dataclass(frozen=True)
class Load:
    """What a token costs anywhere: bytes to read, layers, parameters."""

    streamed: int
    layers: int
    parameters: int

    @property
    def wide_parameters(self) -> int:
        """Parameters, where they are kept in 16 bits or more."""
        return self.parameters if self.streamed > WIDE * self.parameters else 0


Terms = Callable[[Load, Device], list[float]]


def clock_terms(load: Load, device: Device) -> list[float]:
    """The model's terms, each in seconds when multiplied by its coefficient."""
    read = load.streamed / (device.bandwidth_gb_s * 1e9)
    return [read, load.layers * 1e-3 / device.ghz, load.wide_parameters / (device.arithmetic * 1e9)]


def layer_terms(load: Load, device: Device) -> list[float]:
    """The same with layers that cost alike at every clock."""
    read = load.streamed / (device.bandwidth_gb_s * 1e9)
    return [read, load.layers * 1e-3, load.wide_parameters / (device.arithmetic * 1e9)]


def arithmetic_terms(load: Load, device: Device) -> list[float]:
    """Arithmetic for every parameter, whatever its format."""
    read = load.streamed / (device.bandwidth_gb_s * 1e9)
    return [read, load.layers * 1e-3 / device.ghz, load.parameters / (device.arithmetic * 1e9)]


def plain_terms(load: Load, device: Device) -> list[float]:
    """bytes / (eta x bandwidth) + a x layers + b: kept for comparison."""
    return [load.streamed / (device.bandwidth_gb_s * 1e9), load.layers * 1e-3, 1e-2]


FORMS: tuple[Terms, ...] = (clock_terms, layer_terms, arithmetic_terms, plain_terms)


def load_of(figure: Figure) -> Load:
    return Load(figure.streamed, figure.layers, figure.parameters)


def fit(figures: Sequence[Figure], terms: Terms = clock_terms) -> np.ndarray:
    """Coefficients that make the errors of the logarithms least, each device counting the same."""
    rows = np.array([terms(load_of(f), machines()[f.device]) for f in figures])
    seconds = np.array([1 / f.tokens_per_s for f in figures])
    count = Counter(f.device for f in figures)
    share = np.array([1 / count[f.device] for f in figures])
    found, at, off, trust = np.zeros(rows.shape[1]), seconds, np.zeros(len(seconds)), np.ones(len(seconds))
    for _ in range(ROUNDS):  # Gauss-Newton on the logarithms, figures far off weighing less
        weight = np.sqrt(share * trust)
        before, found = found, not_negative(rows / at[:, None] * weight[:, None], (1 - off) * weight)
        at = np.maximum(rows @ found, 1e-9)
        off = np.clip(np.log(at / seconds), -1, 1)
        trust = np.minimum(1, KNEE / np.maximum(abs(off), 1e-9))
        if (abs(found - before) <= 1e-5 * before).all():
            break
    return found


def not_negative(rows: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Least squares without negative coefficients: of so few terms, the best subset whose solution has none."""
    count, products, towards = rows.shape[1], rows.T @ rows, rows.T @ wanted
    free = np.linalg.lstsq(products, towards, rcond=None)[0]
    if (free >= 0).all():
        return free
    best, least = np.zeros(count), 0.0  # what the rest is, less what it is without any term
    for subset in range(1, 1 << count):
        chosen = [i for i in range(count) if subset >> i & 1]
        square = products[np.ix_(chosen, chosen)]
        found = np.linalg.lstsq(square, towards[chosen], rcond=None)[0]
        rest = float(found @ square @ found - 2 * towards[chosen] @ found)
        if (found >= 0).all() and rest < least:
            best, least = np.zeros(count), rest
            best[chosen] = found
    return best


def speed(coefficients: np.ndarray, load: Load, where: Device, terms: Terms = clock_terms) -> float:
    """Tokens a second."""
    return 1 / max(float(np.dot(coefficients, terms(load, where))), 1e-9)


def roofline(load: Load, where: Device) -> float:
    """What bandwidth alone would allow."""
    return where.bandwidth_gb_s * 1e9 / load.streamed


def own_factor(figures: Sequence[Figure], name: str, coefficients: np.ndarray) -> float:
    """What a device's own figures say beyond the fit, drawn towards 1 where there are few."""
    mine = [f for f in figures if f.device == name]
    own = [math.log(f.tokens_per_s / speed(coefficients, load_of(f), machines()[name])) for f in mine]
    return math.exp(sum(own) / (len(own) + 1)) if own else 1.0
