"""How close an export must be to the original, by type: the one table that decides whether it ships.

The bounds on divergence are four to five times what is published for 8B models, since small models lose more. Those on
accuracy are in percentage points on the task's own dev items, and a type fails only when the whole 95 % interval of
its loss lies beyond the bound: two hundred items cannot tell half a point from nothing, and a check that fails by
chance is switched off. Not covered: bounds for types that no exporter here makes.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Bound:
    """The most mean KL divergence, the least agreement on clear top tokens, the least share of greedy completions
    that are equal or part only where the original was nearly undecided, and the most points of accuracy lost."""

    mean_kl: float
    top1_clear: float
    greedy: float = 0.0
    drop: float = 5.0


# Types by name in GGUF (upper case) and ONNX (lower case).
BOUNDS = {
    "F32": Bound(1e-3, 0.98, 1.0, 0.0),  # llama.cpp keeps keys and values in 16 bits whatever the weights' type
    "fp32": Bound(1e-4, 0.99, 1.0, 0.0),
    "F16": Bound(1e-3, 0.98, 0.98, 0.0),
    "fp16": Bound(1e-3, 0.98, 0.98, 0.0),
    "BF16": Bound(5e-3, 0.97, 0.9, 0.5),
    "Q8_0": Bound(0.01, 0.95, 0.0, 0.5),
    "int8": Bound(0.02, 0.95, 0.0, 1.0),
    "Q6_K": Bound(0.03, 0.92, 0.0, 1.0),
    "Q5_K_M": Bound(0.06, 0.90, 0.0, 2.0),
    "Q5_K_S": Bound(0.07, 0.90, 0.0, 2.0),
    "Q5_0": Bound(0.07, 0.88, 0.0, 2.0),
    "Q4_K_M": Bound(0.15, 0.85, 0.0, 3.0),
    "Q4_K_S": Bound(0.18, 0.85, 0.0, 3.0),
    "IQ4_XS": Bound(0.18, 0.85, 0.0, 3.0),
    "IQ4_NL": Bound(0.18, 0.85, 0.0, 3.0),
    "Q4_0": Bound(0.25, 0.80, 0.0, 3.0),
    "int4": Bound(0.25, 0.80, 0.0, 3.0),
    "Q3_K_M": Bound(0.45, 0.70, 0.0, 5.0),
    "IQ3_S": Bound(0.6, 0.65, 0.0, 8.0),
    "IQ3_XXS": Bound(0.8, 0.60, 0.0, 8.0),
    "Q2_K": Bound(1.5, 0.50, 0.0, 10.0),
    # A searched mixture was judged by accuracy already; this only catches a file that came out broken.
    "auto": Bound(1.5, 0.50, 0.0, 10.0),
}
