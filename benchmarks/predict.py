"""How fast a student will decode on a device that is not here, predicted from published figures, with its error.

    python -m bridge_edge.benchmarks.predict        the fit, and its error on devices that it has not seen

The figures are in devices.py, the formula in decode_fit.py, its errors and intervals in decode_check.py. Not covered:
prefill, GPUs and NPUs, heat, energy. A student far smaller or larger than every model in the table is extrapolated, and
the prediction says so.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from bridge_edge.benchmarks.capacity import Shape
from bridge_edge.benchmarks.decode_check import (
    LEVEL,
    coverage,
    errors,
    floors,
    held_out,
    held_out_anew,
    held_out_models,
    names,
    spread,
    widened,
)
from bridge_edge.benchmarks.decode_fit import FORMS, Load, fit, load_of, own_factor, roofline, speed
from bridge_edge.benchmarks.devices import Device, Figure, machines, table
from bridge_edge.plain import grid

RUNTIME = {"gguf": "llama.cpp", "onnx": "llama.cpp", "torch": "llama.cpp"}  # whose figures stand for which runtime
MARGIN = 1.5  # beyond the sizes in the table by more than this is an extrapolation
AIM = 0.25  # median error on devices left out
KINDS = ("median_of_devices", "median", "mean")


def figures_of(runtime: str) -> list[Figure]:
    return [f for f in table()[1] if f.runtime == runtime]


@cache
def interval_factor(runtime: str, device_known: bool) -> float:
    """How far off predictions are for a device with figures of several models, or without; kept, since it takes a fit
    for every device or model that is left out."""
    figures = figures_of(runtime)
    return spread(held_out_models(figures) if device_known else held_out(figures))


def estimate(runtime: str, load: Load, where: Device) -> dict[str, Any]:
    """Decode speed by the fit of one runtime's figures, with its 90 % interval."""
    figures = figures_of(runtime)
    coefficients = fit(figures)
    mean = speed(coefficients, load, where) * own_factor(figures, where.name, coefficients)
    known = len({f.model for f in figures if f.device == where.name})
    factor = widened(interval_factor(runtime, known > 1), figures, where)
    return {
        "fitted_on": runtime,
        "decode_tps": mean,
        "interval90": [mean / factor, mean * factor],
        "models_known_there": known,
        "kind_unseen": where.kind not in {machines()[f.device].kind for f in figures},
    }


def predict(shape: Shape, parameters: int, where: Device, depth: int = 0) -> dict[str, Any]:
    """Decode speed on a device with its 90 % interval, and whether the memory suffices. Figures of another runtime that
    know such devices give a second estimate."""
    runtime = RUNTIME[shape.kind]
    load = Load(shape.streamed_bytes + shape.kv_per_token * depth, shape.layers, parameters)
    first = estimate(runtime, load, where)
    others = dict.fromkeys(f.runtime for f in table()[1] if f.runtime != runtime)
    more = [estimate(other, load, where) for other in others]
    sizes = [f.bytes for f in figures_of(runtime)]
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
        "extrapolated": not min(sizes) / MARGIN <= shape.streamed_bytes <= max(sizes) * MARGIN,
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


@cache
def validation() -> dict[str, Any]:
    """Errors on held-out devices, by runtime, of the model, other formulas, and bandwidth alone."""
    found: dict[str, Any] = {}
    for runtime in dict.fromkeys(f.runtime for f in table()[1]):
        mine = figures_of(runtime)
        pairs, coefficients = held_out(mine), fit(mine)
        found[runtime] = {
            "figures": len(mine),
            "devices": len(names(mine)),
            "eta": 1 / coefficients[0] if coefficients[0] else None,
            "coefficients": coefficients.tolist(),
            "held_out": errors(pairs),
            "held_out_anew": errors(held_out_anew(mine)),
            "known_device_new_model": errors(held_out_models(mine)),
            "forms": {terms.__name__: errors(held_out(mine, terms)) for terms in FORMS},
            "roofline": errors([(f, roofline(load_of(f), machines()[f.device])) for f in mine]),
            "interval_factor": spread(pairs),
            "coverage90": coverage(mine),
            "by_devices_alone": {"interval_factor": spread(pairs, both=False), **coverage(mine, both=False)},
            "floors": floors(mine),
            "by_device": {
                name: float(np.median([p / f.tokens_per_s - 1 for f, p in pairs if f.device == name]))
                for name in names(mine)
            },
        }
    return found


def verdict(label: str, value: float, good: bool) -> str:
    return f"{value:.0%} over {label} ({'met' if good else 'MISSED'})"


def lines(runtime: str, v: dict[str, Any]) -> list[str]:
    """What the errors of one runtime say of the aims, and what no formula of this kind can beat."""
    e, inside, floor, alone = v["held_out"], v["coverage90"], v["floors"], v["by_devices_alone"]
    forms = [[f"{form[k]:.0%}" for form in v["forms"].values()] for k in KINDS[:2]]
    medians = {"devices": e["median_of_devices"], "figures": e["median"]}
    return [
        f"{runtime}: {v['figures']} figures of {v['devices']} devices",
        f"  median error, aim {AIM:.0%}: " + ", ".join(verdict(k, m, m <= AIM) for k, m in medians.items()),
        f"  within the {LEVEL:.0%} interval, a factor of {v['interval_factor']:.2f} either way: "
        + ", ".join(verdict(k, inside[k], inside[k] >= LEVEL) for k in ("devices", "figures")),
        f"  counting devices alone the factor would be {alone['interval_factor']:.2f}, with {alone['devices']:.0%} of "
        f"devices and {alone['figures']:.0%} of figures within",
        f"  {', '.join(v['forms'])}: {', '.join(forms[0])} over devices, {', '.join(forms[1])} over figures",
        f"  one prediction for two devices with equally fast memory is off by at least {floor['twins']:.0%} (median of "
        f"{floor['twin_pairs']} pairs of figures of one file), for two figures of one device and size by "
        f"{floor['repeats']:.0%} ({floor['repeat_pairs']} pairs, the worst {floor['worst_repeat']:.0%})",
        "  left out: " + ", ".join(f"{n} {off:+.0%}" for n, off in v["by_device"].items()),
    ]


def main() -> int:
    """Print the errors for people and as one JSON line."""
    found = validation()
    rows = []
    for runtime, v in found.items():
        for label, key in (
            ("model, device left out", "held_out"),
            ("form chosen without the device too", "held_out_anew"),
            ("model, device known, model left out", "known_device_new_model"),
            ("bandwidth alone", "roofline"),
        ):
            e = v[key]
            rows.append([runtime, label, *(f"{e[k]:.0%}" for k in KINDS)])
    print(grid(["runtime", "absolute error of", "median over devices", "over figures", "mean"], rows, right=(2, 3, 4)))
    for runtime, v in found.items():
        print("\n".join(lines(runtime, v)))
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
