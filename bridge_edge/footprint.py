"""How much disk and memory a run needs, from the sizes of its models, before any of them is loaded.

Sizes come from the safetensors on disk, else from the number in a hub name ("0.5B", "360M"), else they are not known.
Stages keep their models in float32; training holds weights, gradients and the optimiser's moments. The memory of
activations is bounded roughly by the recipe's micro-batch, of which small models have one on every core at once, and
what the allocator holds between stages was measured at the embedded scale, so the figure says "about"; a run's measured
peak, where there is one of the same recipe and scale, is better and is taken instead. With `kd.mix` the TA lies beside
the student that is tutored, unless its signals are kept on disk. Not covered: GPUs; what the TA's pass without
gradients takes beyond its weights.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch

from bridge_edge.parallel import SMALL
from bridge_edge.recipe import ModelSpec, Recipe
from bridge_edge.train.models import locate, parameters

TA_STAGES, STUDENT_STAGES = ("warmup", "apprentice", "refine"), ("align", "reader", "sft", "tutor", "baseline")
ITEM_BYTES, DRAFT_BYTES = 3000, 1000  # a pool item in all files together, with one draft; each further draft
WIDTH = 1024  # values of an embedding where none is known
BASE = 700_000_000  # an interpreter with torch and transformers
HELD = 3  # freed blocks of many shapes that the allocator and the kernels' caches keep, as a multiple of what is in use
ROW = 160  # tokens of a row, for the attention's square
NAMED = re.compile(r"(\d+(?:\.\d+)?)\s*([BbMm])(?![A-Za-z])")


def size_of(model: str) -> int | None:
    """Parameters of a model by its files or its name."""
    where = Path(locate(model))
    if where.is_dir() and (found := parameters(where)):
        return found
    named = NAMED.findall(model.rpartition("/")[2])
    if not named:
        return None
    number, unit = named[-1]
    return int(float(number) * (1e9 if unit in "Bb" else 1e6))


def _config(model: str) -> dict[str, Any]:
    path = Path(locate(model)) / "config.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def disk_needed(recipe: Recipe, pool: int, stages: Collection[str]) -> int | None:
    """Bytes that the given stages will write at the most, a checkpoint of the largest training included."""
    total = 0
    checkpoint = 0
    for spec, names in ((recipe.ta, TA_STAGES), (recipe.student, STUDENT_STAGES)):
        todo = [name for name in names if name in stages]
        if not todo:
            continue
        size = size_of(spec.model)
        if size is None:
            return None
        total += 4 * size * len(todo)
        checkpoint = max(checkpoint, (1 if spec.lora else 12) * size)
    if {"data", "draft", "annotate"} & set(stages):
        total += pool * ITEM_BYTES
    if "draft" in stages:
        total += pool * (recipe.annotate.drafts - 1) * DRAFT_BYTES
    if "score" in stages:
        total += pool * 2 * int(_config(recipe.ta.model).get("hidden_size", WIDTH))
    return total + checkpoint


def _training(spec: ModelSpec) -> int | None:
    size = size_of(spec.model)
    if size is None:
        return None
    config = _config(spec.model)
    hidden, layers = int(config.get("hidden_size", 1024)), int(config.get("num_hidden_layers", 24))
    heads = int(config.get("num_attention_heads", 16))
    token = 8 * int(config.get("vocab_size", 150_000)) + 80 * hidden * layers + 10 * heads * ROW * layers
    activations = spec.micro_tokens * token
    if size < SMALL:
        activations *= HELD * min(torch.get_num_threads(), max(1, spec.batch_tokens // spec.micro_tokens))
    return (5 if spec.lora else 16) * size + activations


def memory_needed(recipe: Recipe, measured: Sequence[float] = ()) -> dict[str, Any]:
    """Bytes of memory at the peak, and where the figure comes from."""
    if measured:
        return {"needed": int(max(measured)), "source": "measured in an earlier run"}
    ta, student, held = _training(recipe.ta), _training(recipe.student), size_of(recipe.ta.model)
    if ta is None or student is None or held is None:
        return {"needed": None, "source": "the size of a model is not known"}
    beside = 4 * held if recipe.kd.on and not recipe.kd.kept else 0
    return {"needed": BASE + max(ta, student + beside), "source": "estimated from the models' sizes"}
