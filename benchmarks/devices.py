"""Devices that are not here, and the decode speeds published for them: `devices.json`, typed.

The rules by which published figures are left out stand in that file, with what they left out; one of them, that a
source contradicts itself, is `contradictions` here. Not covered: whether a source is right. Every figure names its own,
and how far figures disagree shows in the errors of the predictions (`python -m bridge_edge.benchmarks.predict`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import permutations
from pathlib import Path
from typing import Any

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

    @property
    def cores(self) -> str:
        """The kind of its cores: by the widest integer products that they have."""
        widest = max((f for f in self.features if f in WIDTH), key=lambda f: WIDTH[f], default="plain")
        return widest.rstrip("0123456789")


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
    """Devices to predict for, figures and the addresses of the sources, as `devices.json` has them."""
    found = json.loads(TABLE.read_text(encoding="utf-8"))
    figures = tuple(Figure(**dict(zip(found["columns"], row, strict=True))) for row in found["figures"])
    return _typed(found["devices"]), figures, found["sources"]


@cache
def machines() -> dict[str, Device]:
    """Those devices and the ones that are there only for their figures."""
    return {**table()[0], **_typed(json.loads(TABLE.read_text(encoding="utf-8"))["measured"])}


def _typed(rows: dict[str, dict[str, Any]]) -> dict[str, Device]:
    return {name: Device(name=name, **{**row, "features": tuple(row["features"])}) for name, row in rows.items()}


def device(name: str) -> Device:
    """A device by name; an unknown one is answered with the nearest."""
    if name not in machines():
        raise unknown("device", name, list(machines()))
    return machines()[name]


def contradictions(figures: Sequence[Figure]) -> list[tuple[Figure, Figure]]:
    """Pairs of one source, device and format that cannot both be right: the first reads at least four times the bytes
    in at most a quarter more layers, and yet is said to be twice as fast as the second."""
    return [
        (a, b)
        for a, b in permutations(figures, 2)
        if (a.source, a.device, a.format) == (b.source, b.device, b.format)
        and a.streamed >= 4 * b.streamed
        and a.layers <= 1.25 * b.layers
        and a.tokens_per_s >= 2 * b.tokens_per_s
    ]
