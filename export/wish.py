"""What may be asked of an export beyond its format and type, and what its card may say of the student.

Plain values without heavy imports, so that the command line can name the defaults. Not covered: the type itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bridge_edge.data.samples import Sample


@dataclass(frozen=True)
class Goal:
    """For a searched mixture: at most so many points of accuracy lost on the dev items, found in so many minutes."""

    minutes: float = 15.0
    max_drop: float = 0.5


@dataclass(frozen=True)
class Blocks:
    """For ONNX in integers: weights that share a scale, the accuracy level of activations (1 fp32, 2 fp16, 3 bf16,
    4 int8) and the builder's algorithm; None leaves each to the type."""

    size: int | None = None
    accuracy: int | None = None
    algorithm: str | None = None


@dataclass(frozen=True)
class Backend:
    """For ONNX: who makes the graph (auto: the builder, or transformers.exporters for families that it lacks), and for
    `optimum` the Python of its environment, or that environment's folder (None: the usual one)."""

    name: str = "auto"
    python: Path | None = None


@dataclass(frozen=True)
class Wish:
    """`calibration`: texts of the task for the importance matrix (none: no matrix); `types`: tensor types by name or
    pattern; `goal`: for quant auto; `facts`: lines for the model card, by heading; `blocks` and `backend`: for
    ONNX."""

    calibration: tuple[Sample, ...] = ()
    types: Mapping[str, str] = field(default_factory=dict)
    goal: Goal = Goal()
    facts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    blocks: Blocks = Blocks()
    backend: Backend = field(default=Backend(), repr=False)  # where a Python lies changes nothing


NOTHING = Wish()
