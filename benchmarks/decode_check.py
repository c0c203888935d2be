"""How wrong the formula of decode_fit.py is on devices that it has not seen, and how wide its intervals must be.

Devices are left out whole: all figures of a device are predicted by a fit that has seen none of them, and so are the
intervals that are checked against them. Errors are told twice: the median over devices (of each device's median), which
is what to expect of a new device, and over figures, where a phone with thirty of them counts thirty times.

An interval is a factor either way, so wide that 90 % of the errors of left-out devices lie within it in both counts,
of devices that weigh the same and of figures; the new one is counted among them as one beyond all (`spread`). If
devices come from one urn, that is 90 % by construction; the fewer devices there are, the wider it gets. It is squared
for a device whose kind of cores no other device has (`widened`), since nothing is known of how such cores deviate.

The form of the formula was chosen by these errors. How much that flatters them is told by choosing it anew, among
FORMS, without each left-out device (`held_out_anew`). What no formula of this kind can beat is in `floors`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import combinations

import numpy as np

from bridge_edge.benchmarks.decode_fit import FORMS, Terms, clock_terms, fit, load_of, own_factor, speed
from bridge_edge.benchmarks.devices import Device, Figure, machines

LEVEL = 0.9
ALIKE = 0.05  # memories within this are called equal
SAME_BYTES = 0.03  # and files within this

Pair = tuple[Figure, float]  # a published speed and its prediction


def names(figures: Iterable[Figure]) -> list[str]:
    return list(dict.fromkeys(f.device for f in figures))


def held_out(figures: Sequence[Figure], terms: Terms = clock_terms) -> list[Pair]:
    """Each figure with the speed predicted by a fit that has seen nothing of its device."""
    return [pair for name in names(figures) for pair in left_out(figures, name, terms)]


def left_out(figures: Sequence[Figure], name: str, terms: Terms) -> list[Pair]:
    """The figures of one device, predicted by a fit on the others."""
    coefficients = fit([f for f in figures if f.device != name], terms)
    return [(f, speed(coefficients, load_of(f), machines()[name], terms)) for f in figures if f.device == name]


def held_out_anew(figures: Sequence[Figure]) -> list[Pair]:
    """The same, with the form too chosen by those devices alone that are not left out."""
    found = []
    for name in names(figures):
        rest = [f for f in figures if f.device != name]
        found += left_out(figures, name, min(FORMS, key=lambda terms: deviation(held_out(rest, terms))))
    return found


def deviation(pairs: Sequence[Pair]) -> float:
    """Root of the mean square of the logarithms, each device weighing the same."""
    return math.sqrt(sum(share * off**2 for _, off, share in weighed(pairs)))


def weighed(pairs: Sequence[Pair]) -> list[tuple[Figure, float, float]]:
    """Figure, logarithm of predicted by published, and the figure's share if every device has the same."""
    devices = [f.device for f, _ in pairs]
    count = len(set(devices))
    return [(f, math.log(p / f.tokens_per_s), 1 / (count * devices.count(f.device))) for f, p in pairs]


def spread(pairs: Sequence[Pair], both: bool = True) -> float:
    """The factor within which a share of LEVEL lies, counting devices and counting figures: the wider of both (else of
    devices alone). The new device or figure is counted as one more that is beyond all."""
    count, number = len(set(names(f for f, _ in pairs))), len(pairs)
    off = weighed(pairs)
    devices = within([(abs(log), share * count / (count + 1)) for _, log, share in off])
    return math.exp(max(devices, within([(abs(log), 1 / (number + 1)) for _, log, _ in off]) if both else 0.0))


def within(shares: Iterable[tuple[float, float]]) -> float:
    """The least value below which shares of LEVEL lie; the greatest where there are not as many."""
    ordered = sorted(shares)
    below = np.cumsum([share for _, share in ordered])
    return ordered[min(int(np.searchsorted(below, LEVEL - 1e-9)), len(ordered) - 1)][0]


def widened(factor: float, figures: Iterable[Figure], where: Device) -> float:
    """The factor for a device that the figures do not know: squared where they know no such cores."""
    return factor if where.cores in {machines()[f.device].cores for f in figures} else factor**2


def coverage(figures: Sequence[Figure], both: bool = True) -> dict[str, float]:
    """Share of figures, and of devices by the share of theirs, within intervals made without their device."""
    inside: dict[str, list[bool]] = {}
    for name in names(figures):
        rest = [f for f in figures if f.device != name]
        factor = widened(spread(held_out(rest), both), rest, machines()[name])
        inside[name] = [1 / factor <= p / f.tokens_per_s <= factor for f, p in left_out(figures, name, clock_terms)]
    return {
        "figures": float(np.mean([b for row in inside.values() for b in row])),
        "devices": float(np.mean([np.mean(row) for row in inside.values()])),
    }


def held_out_models(figures: Sequence[Figure]) -> list[Pair]:
    """Figures of devices with several models, each predicted without those of its model there, by fit and factor."""
    found = []
    for name in names(figures):
        models = list(dict.fromkeys(f.model for f in figures if f.device == name))
        for model in models if len(models) > 1 else ():
            rest = [f for f in figures if (f.device, f.model) != (name, model)]
            coefficients = fit(rest)
            factor = own_factor(rest, name, coefficients)
            mine = [f for f in figures if (f.device, f.model) == (name, model)]
            found += [(f, speed(coefficients, load_of(f), machines()[name]) * factor) for f in mine]
    return found


def errors(pairs: Sequence[Pair]) -> dict[str, float]:
    """Of held-out predictions: relative errors of the speed, over figures and over devices."""
    devices = names(f for f, _ in pairs)
    off = {name: [abs(p / f.tokens_per_s - 1) for f, p in pairs if f.device == name] for name in devices}
    every = [e for values in off.values() for e in values]
    return {
        "median": float(np.median(every)),
        "mean": float(np.mean(every)),
        "median_of_devices": float(np.median([np.median(values) for values in off.values()])),
    }


def floors(figures: Sequence[Figure]) -> dict[str, float]:
    """What is left to any formula of bandwidth and file. Of two figures with equal inputs the one prediction nearest to
    both is off by their difference through their sum: `twins` are one file on two devices with memory of equal speed,
    `repeats` one architecture and size on one device, in figures of the same or of different days and apps."""
    twins, repeats = [0.0], [0.0]
    pairs = list(combinations(figures, 2))
    for a, b in pairs:
        gap = abs(a.tokens_per_s - b.tokens_per_s) / (a.tokens_per_s + b.tokens_per_s)
        memory = machines()[a.device].bandwidth_gb_s / machines()[b.device].bandwidth_gb_s
        if a.device != b.device and abs(math.log(memory)) <= ALIKE:
            twins += [gap] if (a.model, a.format, a.bytes) == (b.model, b.format, b.bytes) else []
        elif a.device == b.device and (a.layers, a.parameters) == (b.layers, b.parameters):
            repeats += [gap] if abs(math.log(a.streamed / b.streamed)) <= SAME_BYTES else []
    return {
        "twins": float(np.median(twins[1:] or twins)),
        "twin_pairs": len(twins) - 1,
        "repeats": float(np.median(repeats[1:] or repeats)),
        "repeat_pairs": len(repeats) - 1,
        "worst_repeat": max(repeats),
    }
