"""How fast a student will decode on a device that is not here, predicted from published figures, with its error.

    python -m bridge_edge.benchmarks.predict        the fit, and its error on devices that it has not seen

For each runtime that published figures exist for:

    seconds a token = bytes / (eta x bandwidth) + a x layers + c x parameters / (cores x GHz x width)

Bytes are those streamed for a token: an input embedding that is only looked up is left out, the KV cache up to the
depth is added. The last term is there because cores without dot products are bound by arithmetic, not by memory. A
constant a token was tried and left out: with it the fit explains slow devices by milliseconds that small students do
not take. Terms cannot be negative, and relative errors are what is minimised.

Errors are measured by leaving devices out: all figures of a device are predicted by a fit that has seen none of them.
A prediction's interval is the 90 % quantile of such errors; whether 90 % of a left-out device's figures fall into it is
checked with intervals made from the other devices alone. A device with figures of its own gets a factor from them.
The terms were chosen by the same errors, so those are slightly too good. Not covered: prefill, GPUs and NPUs, heat,
energy. A student far smaller or larger than every model in the table is extrapolated, and the prediction says so.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from bridge_edge.benchmarks.capacity import Shape
from bridge_edge.errors import unknown
from bridge_edge.plain import grid

TABLE = Path(__file__).with_name("devices.json")
WIDTH = {"avx512": 4.0, "avx2": 2.0, "dotprod": 2.0}  # integer products a cycle, relative to cores without either
RUNTIME = {"gguf": "llama.cpp", "onnx": "llama.cpp", "torch": "llama.cpp"}  # whose figures stand for which runtime
LEVEL = 0.9
MARGIN = 1.5  # beyond the sizes in the table by more than this is an extrapolation


@dataclass(frozen=True)
class Device:
    """A device's memory and cores; `name` is what `--device` takes."""

    name: str
    title: str
    bandwidth_gb_s: float
    fast_cores: int
    ghz: float
    features: tuple[str, ...]
    memory_gb: float
    app_memory_gb: float
    threads: int
    kind: str
    note: str

    @property
    def arithmetic(self) -> float:
        width = max([WIDTH[f] for f in self.features if f in WIDTH], default=1.0)
        return self.fast_cores * self.ghz * width


@dataclass(frozen=True)
class Figure:
    """A published decode speed."""

    device: str
    runtime: str
    model: str
    format: str
    layers: int
    parameters: int
    bytes: int
    looked_up_bytes: int
    tokens_per_s: float
    source: str

    @property
    def streamed(self) -> int:
        return self.bytes - self.looked_up_bytes


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


@cache
def table() -> tuple[dict[str, Device], tuple[Figure, ...], dict[str, str]]:
    """Devices, figures and the addresses of the sources, as `devices.json` has them."""
    found = json.loads(TABLE.read_text(encoding="utf-8"))
    devices = {n: Device(name=n, **{**d, "features": tuple(d["features"])}) for n, d in found["devices"].items()}
    figures = tuple(Figure(**dict(zip(found["columns"], row, strict=True))) for row in found["figures"])
    return devices, figures, found["sources"]


def device(name: str) -> Device:
    """A device by name; an unknown one is answered with the nearest."""
    devices = table()[0]
    if name not in devices:
        raise unknown("device", name, list(devices))
    return devices[name]


def _load(figure: Figure) -> Load:
    return Load(figure.streamed, figure.layers, figure.parameters)


def fit(figures: Sequence[Figure], terms: Terms = compute_terms) -> np.ndarray:
    """Coefficients that make the relative errors of the seconds a token least."""
    devices = table()[0]
    rows = np.array([terms(_load(f), devices[f.device]) for f in figures])
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
        found += [(f, speed(coefficients, _load(f), devices[name], terms)) for f in figures if f.device == name]
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
                ratio = speed(coefficients, _load(f), where) / f.tokens_per_s
                inside += 1 / factor <= ratio <= factor
    return inside / len(figures)


def own_factor(figures: Sequence[Figure], name: str, coefficients: np.ndarray) -> float:
    """What a device's own figures say beyond the fit, drawn towards 1 where there are few."""
    where = table()[0][name]
    own = [math.log(f.tokens_per_s / speed(coefficients, _load(f), where)) for f in figures if f.device == name]
    return math.exp(sum(own) / (len(own) + 1)) if own else 1.0


def held_out_models(figures: Sequence[Figure], name: str) -> list[tuple[Figure, float]]:
    """A device's figures, each predicted without those of its model there, by fit and factor."""
    found = []
    for f in figures:
        if f.device == name:
            rest = [g for g in figures if (g.device, g.model) != (f.device, f.model)]
            coefficients = fit(rest)
            found.append((f, speed(coefficients, _load(f), table()[0][name]) * own_factor(rest, name, coefficients)))
    return found


def estimate(runtime: str, load: Load, where: Device) -> dict[str, Any]:
    """Decode speed by the fit of one runtime's figures, with its 90 % interval."""
    figures = [f for f in table()[1] if f.runtime == runtime]
    coefficients = fit(figures)
    mean = speed(coefficients, load, where) * own_factor(figures, where.name, coefficients)
    known = len({f.model for f in figures if f.device == where.name})
    if known > 1:
        tested = [pair for n in dict.fromkeys(f.device for f in figures) for pair in held_out_models(figures, n)]
    else:
        tested = held_out(figures)
    factor = quantile([p / f.tokens_per_s for f, p in tested])
    return {
        "fitted_on": runtime,
        "decode_tps": mean,
        "interval90": [mean / factor, mean * factor],
        "models_known_there": known,
        "kind_unseen": where.kind not in {table()[0][f.device].kind for f in figures},
    }


def predict(shape: Shape, parameters: int, where: Device, depth: int = 0) -> dict[str, Any]:
    """Decode speed on a device with its 90 % interval, and whether the memory suffices. Where this runtime's figures
    know no such device, another runtime's that do give a second estimate."""
    runtime = RUNTIME[shape.kind]
    load = Load(shape.streamed_bytes + shape.kv_per_token * depth, shape.layers, parameters)
    first = estimate(runtime, load, where)
    others = dict.fromkeys(f.runtime for f in table()[1] if f.runtime != runtime)
    more = [estimate(other, load, where) for other in others] if first["kind_unseen"] else []
    sizes = [f.bytes for f in table()[1] if f.runtime == runtime]
    need = shape.weight_bytes + shape.kv_cache(max(1, depth)) + shape.activations(max(1, depth))
    return {
        "label": "predicted",
        "device": where.name,
        "title": where.title,
        **first,
        "second_estimates": [e for e in more if not e["kind_unseen"]],
        "roofline_tps": roofline(load, where),
        "streamed_bytes": load.streamed,
        "depth": depth,
        "extrapolated": not min(sizes) / MARGIN <= shape.weight_bytes <= max(sizes) * MARGIN,
        "need_bytes": need,
        "allowed_bytes": int(where.app_memory_gb * 1e9),
        "fits": need <= where.app_memory_gb * 1e9,
    }


def prediction_table(found: Sequence[dict[str, Any]]) -> str:
    """Predictions for people; every figure says that it is one."""
    rows, notes = [], []
    for p in found:
        name = "/".join(Path(p["artifact"]).parts[-2:])
        need = f"{p['need_bytes'] / 1e6:.0f} of {p['allowed_bytes'] / 1e6:.0f} MB" + (
            "" if p["fits"] else ": TOO LARGE"
        )
        rows.append([name, p["device"], str(p["depth"]), _span(p), f"{p['roofline_tps']:.1f}", need])
        what = f"{name} on {p['device']}"
        if p["extrapolated"]:
            notes.append(f"{what}: of another size than every model with a published figure, so a rough bound only")
        if p["kind_unseen"]:
            notes.append(f"{what}: {p['fitted_on']} has no published figure of such a device in the table")
        notes += [f"{what}, depth {p['depth']}: {_span(e)} as {e['fitted_on']}" for e in p["second_estimates"]]
    head = [
        "artifact",
        "device",
        "depth",
        "decode, tokens/s, predicted (90 %)",
        "bandwidth alone",
        "weights + KV cache",
    ]
    return "\n".join([grid(head, rows, right=(2,)), *dict.fromkeys(notes)])


def _span(e: dict[str, Any]) -> str:
    return f"{e['decode_tps']:.1f} ({e['interval90'][0]:.1f} to {e['interval90'][1]:.1f})"


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


def validation() -> dict[str, Any]:
    """Errors on held-out devices, by runtime, of the model, the formula without arithmetic, and bandwidth alone."""
    devices, figures, _ = table()
    found: dict[str, Any] = {}
    for runtime in dict.fromkeys(f.runtime for f in figures):
        mine = [f for f in figures if f.runtime == runtime]
        pairs = held_out(mine)
        known = [pair for name in dict.fromkeys(f.device for f in mine) for pair in held_out_models(mine, name)]
        coefficients = fit(mine)
        found[runtime] = {
            "figures": len(mine),
            "devices": len({f.device for f in mine}),
            "eta": 1 / coefficients[0] if coefficients[0] else None,
            "coefficients": coefficients.tolist(),
            "held_out": errors(pairs),
            "known_device_new_model": errors(known),
            "without_arithmetic": errors(held_out(mine, plain_terms)),
            "roofline": errors([(f, roofline(_load(f), devices[f.device])) for f in mine]),
            "interval_factor": quantile([p / f.tokens_per_s for f, p in pairs]),
            "coverage90": coverage(mine),
            "by_device": {
                name: float(np.median([p / f.tokens_per_s - 1 for f, p in pairs if f.device == name]))
                for name in dict.fromkeys(f.device for f in mine)
            },
        }
    return found


def main() -> int:
    """Print the errors for people and as one JSON line."""
    found = validation()
    rows = []
    for runtime, v in found.items():
        for label, key in (
            ("model, device left out", "held_out"),
            ("model, device known, model left out", "known_device_new_model"),
            ("eta, layers and constant, device left out", "without_arithmetic"),
            ("bandwidth alone", "roofline"),
        ):
            e = v[key]
            rows.append([runtime, label, f"{e['median']:.0%}", f"{e['mean']:.0%}", f"{e['median_of_devices']:.0%}"])
    print(grid(["runtime", "absolute error of", "median", "mean", "median over devices"], rows, right=(2, 3, 4)))
    for runtime, v in found.items():
        inside, bad = v["coverage90"], v["held_out"]["median"] > 0.25
        print(
            f"{runtime}: {v['figures']} figures of {v['devices']} devices; {inside:.0%} within the 90 % interval "
            f"(a factor of {v['interval_factor']:.2f})"
            + ("; the aim of a median error of at most 25 % is MISSED" if bad else "")
            + ("; the aim of 90 % coverage is MISSED" if inside < LEVEL else "")
        )
        print("  left out: " + ", ".join(f"{n} {e:+.0%}" for n, e in v["by_device"].items()))
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
