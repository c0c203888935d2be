"""Devices that are not here, and the decode speeds published for them: `devices.json`, typed.

Not covered: whether a source is right. Every figure names its own, and how far figures disagree shows in the errors of
the predictions made from them (`python -m bridge_edge.benchmarks.predict`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bridge_edge.errors import unknown

TABLE = Path(__file__).with_name("devices.json")
WIDTH = {"avx512": 4.0, "avx2": 2.0, "dotprod": 2.0}  # integer products a cycle, relative to cores without either


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
