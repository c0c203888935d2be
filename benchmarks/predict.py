"""How fast a student will decode on a device that is not here, predicted from published figures, with its error.

    python -m bridge_edge.benchmarks.predict        the fit, and its error on devices that it has not seen

The figures are in devices.py, the formula and its errors in decode_fit.py. Not covered: prefill, GPUs and NPUs, heat,
energy. A student far smaller or larger than every model in the table is extrapolated, and the prediction says so.
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
from bridge_edge.benchmarks.decode_fit import (
    LEVEL,
    Load,
    coverage,
    errors,
    fit,
    held_out,
    held_out_models,
    load_of,
    own_factor,
    plain_terms,
    quantile,
    roofline,
    speed,
)
from bridge_edge.benchmarks.devices import Device, table
from bridge_edge.plain import grid

RUNTIME = {"gguf": "llama.cpp", "onnx": "llama.cpp", "torch": "llama.cpp"}  # whose figures stand for which runtime
MARGIN = 1.5  # beyond the sizes in the table by more than this is an extrapolation


@cache
def interval_factor(runtime: str, device_known: bool) -> float:
    """How far off predictions are for a device with figures of several models, or without; kept, since it takes a fit
    for every device or figure that is left out."""
    figures = [f for f in table()[1] if f.runtime == runtime]
    if device_known:
        tested = [pair for n in dict.fromkeys(f.device for f in figures) for pair in held_out_models(figures, n)]
    else:
        tested = held_out(figures)
    return quantile([p / f.tokens_per_s for f, p in tested])


def estimate(runtime: str, load: Load, where: Device) -> dict[str, Any]:
    """Decode speed by the fit of one runtime's figures, with its 90 % interval."""
    figures = [f for f in table()[1] if f.runtime == runtime]
    coefficients = fit(figures)
    mean = speed(coefficients, load, where) * own_factor(figures, where.name, coefficients)
    known = len({f.model for f in figures if f.device == where.name})
    factor = interval_factor(runtime, known > 1)
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
            "roofline": errors([(f, roofline(load_of(f), devices[f.device])) for f in mine]),
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
